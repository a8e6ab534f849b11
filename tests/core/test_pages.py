"""The answer to a listing, page by page."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from partyroom._core.keys import contains
from partyroom._core.pages import Page, behind, merge
from partyroom.types import KeyRange
from tests.core.rows import Values, bytes_or_none, positions, ranges, rows_of

ALL = KeyRange()


@given(
    st.dictionaries(positions, st.binary(max_size=2)),
    st.lists(st.dictionaries(positions, bytes_or_none), max_size=3),
    ranges(),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_writes_laid_over_pages_give_what_writes_laid_over_the_whole_would(
    state: dict[str, bytes], layers: list[Values], keys: KeyRange, below: int, limit: int
) -> None:
    """G16, G17; deleted keys are told as well."""
    found: list[tuple[str, bytes | None]] = []
    left: KeyRange | None = keys
    while left is not None:
        rows = rows_of(state, left)
        page = Page(rows[:below], behind(left, rows[below - 1][0]) if len(rows) > below else None)
        page = merge(left, page, [(layer, sorted(layer)) for layer in layers], limit)
        assert len(page.rows) <= limit
        found += page.rows
        assert left != page.rest
        left = page.rest
    told = dict[str, bytes | None](state)
    for layer in layers:
        told.update(layer)
    expected = sorted(((key, data) for key, data in told.items() if contains(keys, key)), reverse=keys.reverse)
    assert expected == found


def test_after_a_deletion_of_all_a_page_is_what_was_written_since() -> None:
    layer = {"a": b"1", "b": b"2", "c": None}
    assert Page([("a", b"1")], KeyRange("a\0")) == merge(ALL, Page((), None), [(layer, "abc")], 1)


def test_a_page_that_no_write_touches_stays_as_it_is() -> None:
    page = Page([("a", b"1")], KeyRange("b"))
    assert page == merge(ALL, page, [({"b": b"2"}, "b")], 1)


class Counting(list[str]):
    """Counts the keys that are looked at."""

    looks = 0

    @override
    def __getitem__(self, place: Any) -> Any:
        found: Any = super().__getitem__(place)
        Counting.looks += len(found) if isinstance(place, slice) else 1
        return found


def test_no_more_of_a_layer_is_looked_at_than_is_asked_for() -> None:
    keys = Counting(f"{number:06}" for number in range(100_000))
    layer = dict[str, bytes | None].fromkeys(keys, b"1")
    for each in (KeyRange("05"), KeyRange("05", "09"), KeyRange("05", "09", reverse=True)):
        merge(each, Page((), None), [(layer, keys)], 10)
    assert Counting.looks < 200
