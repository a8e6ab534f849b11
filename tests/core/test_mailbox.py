"""The mailbox: order of arrival, a bound, and who is let in when."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partyroom._core.mailbox import Mailbox
from partyroom._core.units import Event
from tests.core.places import FakePlace, event

ROOM = FakePlace("a")


def own() -> Event:
    return Event(ROOM, "close", "on_close")


def test_an_empty_mailbox_has_nothing_to_give() -> None:
    mailbox = Mailbox(1)
    assert None is mailbox.pop()
    assert None is mailbox.admit()
    assert 0 == len(mailbox)
    assert [] == list(mailbox)


def test_events_leave_in_the_order_in_which_they_came() -> None:
    mailbox = Mailbox(3)
    events = [event(ROOM), event(ROOM), event(ROOM)]
    assert [True, True, True] == [mailbox.push(each) for each in events]
    assert events == list(mailbox)
    assert [*events, None] == [mailbox.pop() for _ in range(4)]


def test_what_finds_no_place_waits_outside_and_is_let_in_for_one_that_leaves() -> None:
    mailbox = Mailbox(1)
    first, second, third = event(ROOM), event(ROOM), event(ROOM)
    assert mailbox.push(first)
    assert not mailbox.push(second)
    assert not mailbox.push(third)
    assert 3 == len(mailbox)
    assert None is mailbox.admit()
    assert first is mailbox.pop()
    assert second is mailbox.admit()
    assert None is mailbox.admit()
    assert second is mailbox.pop()
    assert third is mailbox.admit()
    assert third is mailbox.pop()
    assert 0 == len(mailbox)


def test_nobody_overtakes_those_outside_when_a_place_is_free() -> None:
    mailbox = Mailbox(1)
    first, second, third = event(ROOM), event(ROOM), event(ROOM)
    mailbox.push(first)
    mailbox.push(second)
    mailbox.withdraw(first)
    assert not mailbox.push(third)
    assert second is mailbox.admit()
    assert [second, third] == [mailbox.pop(), mailbox.pop()]


def test_the_runtimes_own_events_have_their_place_in_the_order_and_take_no_place_from_others() -> None:
    mailbox = Mailbox(1)
    first, ring, second = event(ROOM), own(), event(ROOM)
    mailbox.push_always(ring)
    assert mailbox.push(first)
    late = own()
    mailbox.push_always(late)
    assert not mailbox.push(second)
    assert ring is mailbox.pop()
    assert None is mailbox.admit()
    assert [first, late, second] == list(mailbox)


def test_what_belongs_to_the_last_event_comes_first() -> None:
    mailbox = Mailbox(1)
    error, first = own(), event(ROOM)
    mailbox.push_first(error)
    mailbox.push(first)
    another = own()
    mailbox.push_first(another)
    assert [another, error, first] == [mailbox.pop() for _ in range(3)]


def test_what_is_withdrawn_leaves_its_place_to_the_next() -> None:
    mailbox = Mailbox(1)
    first, second, third = event(ROOM), event(ROOM), event(ROOM)
    for each in (first, second, third):
        mailbox.push(each)
    mailbox.withdraw(second)
    assert None is mailbox.admit()
    mailbox.withdraw(first)
    assert third is mailbox.admit()
    assert [third, None] == [mailbox.pop(), mailbox.pop()]


@pytest.mark.parametrize("filled", [False, True])
def test_withdrawing_what_has_left_is_harmless(filled: bool) -> None:
    mailbox = Mailbox(1)
    if filled:
        mailbox.push(event(ROOM))
    mailbox.withdraw(event(ROOM))
    assert filled == bool(len(mailbox))


@given(st.integers(1, 3), st.lists(st.sampled_from(["push", "own", "pop", "withdraw"]), max_size=40))
@example(1, ["pop", "withdraw", "push", "push", "own", "withdraw", "push", "pop", "pop"])
def test_it_is_a_queue_in_which_the_first_so_many_that_count_are_inside(bound: int, steps: list[str]) -> None:
    mailbox = Mailbox(bound)
    model: deque[Event] = deque()
    outside: list[Event] = []
    for step in steps:
        if step == "push":
            model.append(event(ROOM))
            if not mailbox.push(model[-1]):
                outside.append(model[-1])
        elif step == "own":
            model.append(own())
            mailbox.push_always(model[-1])
        elif step == "pop":
            assert (model.popleft() if model else None) is mailbox.pop()
        elif model:
            gone = model[len(model) // 2]
            model.remove(gone)
            outside = [each for each in outside if each is not gone]
            mailbox.withdraw(gone)
        while (admitted := mailbox.admit()) is not None:
            assert outside.pop(0) is admitted
        counted = [each for each in model if each.kind == "call"]
        assert list(model) == list(mailbox)
        assert counted[bound:] == outside
