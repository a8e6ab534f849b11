"""The gate at which outputs wait for what was written before them (G4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.output_gate import OutputGate
from partyroom._core.units import Event
from tests.core.places import event


def sealed(number: int) -> Event:
    made = event()
    made.sealed_as = number
    return made


def test_a_gate_at_which_nobody_waits_is_open() -> None:
    gate = OutputGate()
    assert gate.is_open
    assert 0 == len(gate)
    assert [] == gate.confirm(7)
    assert [] == gate.shut()


def test_an_event_leaves_when_its_own_commit_is_confirmed_and_not_before() -> None:
    gate = OutputGate()
    waiting = sealed(2)
    gate.add(waiting)
    assert not gate.is_open
    assert [] == gate.confirm(1)
    assert [waiting] == gate.confirm(2)
    assert gate.is_open


def test_an_event_with_nothing_to_store_leaves_behind_those_before_it() -> None:
    gate = OutputGate()
    writer, reader, later = sealed(1), sealed(0), sealed(2)
    for each in (writer, reader, later):
        gate.add(each)
    assert 3 == len(gate)
    assert [writer, reader] == gate.confirm(1)
    assert [later] == gate.confirm(2)


def test_one_confirmation_lets_out_all_that_it_covers() -> None:
    gate = OutputGate()
    events = [sealed(1), sealed(2), sealed(0), sealed(3)]
    for each in events:
        gate.add(each)
    assert events == gate.confirm(3)


def test_a_gate_that_is_shut_gives_back_all_who_wait_and_is_open_again() -> None:
    gate = OutputGate()
    events = [sealed(1), sealed(0)]
    for each in events:
        gate.add(each)
    assert events == gate.shut()
    assert gate.is_open
    assert [] == gate.confirm(1)


@given(st.lists(st.one_of(st.just("write"), st.just("read"), st.integers(1, 3)), max_size=40))
def test_nobody_leaves_out_of_order_or_before_the_last_write_before_him(steps: list[str | int]) -> None:
    gate = OutputGate()
    waiting: list[Event] = []
    last = confirmed = 0
    for step in steps:
        if isinstance(step, int):
            confirmed = min(last, confirmed + step)
            leaving = gate.confirm(confirmed)
            assert waiting[: len(leaving)] == leaving
            del waiting[: len(leaving)]
            assert not waiting or waiting[0].sealed_as > confirmed
        else:
            last += step == "write"
            waiting.append(sealed(last if step == "write" else 0))
            gate.add(waiting[-1])
    assert waiting == gate.shut()
