"""The order of the keys that an event has written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.key_orders import FEW, KeyOrders

words = st.text("abc", max_size=4)


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(words, max_size=2 * FEW))))
def test_it_is_that_of_sorting_however_keys_came(gains: list[tuple[int, list[str]]]) -> None:
    orders = KeyOrders()
    layers: list[dict[str, bytes | None]] = [{}, {}, {}]
    for number, keys in gains:
        layers[number].update((key, None) for key in keys)
        assert [sorted(layer) for layer in layers] == [list(order) for order in orders.of(layers)]


def test_a_layer_is_sorted_once() -> None:
    orders = KeyOrders()
    layer: dict[str, bytes | None] = {"b": None}
    [first] = orders.of([layer])
    layer["a"] = None
    [second] = orders.of([layer])
    assert first is second
    assert ["a", "b"] == second


def test_layers_that_were_not_asked_for_are_forgotten() -> None:
    orders = KeyOrders()
    one: dict[str, bytes | None] = {"a": None}
    [first] = orders.of([one])
    orders.of([{}])
    [again] = orders.of([one])
    assert first is not again


def test_a_layer_that_was_replaced_by_one_of_the_same_length_is_sorted_anew() -> None:
    orders = KeyOrders()
    for key in ("a", "b", "c"):
        assert [[key]] == orders.of([{key: None}])
