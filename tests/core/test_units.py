"""Units of work: layers that are merged or dropped, chains of calls, and cycles of waits."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from partyroom._core.units import (
    CURRENT,
    Event,
    Unit,
    Writes,
    current_unit,
    find_cycle,
    find_way_back,
    stems_from,
    unit_of,
)
from partyroom.errors import OutsideEventError, RoomAbortedError
from partyroom.types import AlarmRow, RoomKey
from tests.core.places import FakePlace, event

ALARM = AlarmRow(RoomKey("party", "a"), "", 1)


def transaction(parent: Unit) -> Unit:
    return Unit(parent.place, parent)


def running(name: str) -> Event:
    """Give an event that its room handles now."""
    place = FakePlace(name)
    place.running = made = event(place, f"{name}.f")
    made.begun = True
    return made


def call(caller: Unit, place: FakePlace, *, begun: bool = False, back: Unit | None = None) -> Event:
    """Give an event that ``caller`` waits for."""
    made = Event(place, "call", f"{place.key.id}.g", parent=back, caller=caller)
    made.begun = begun
    caller.event.calls = [*(caller.event.calls or ()), made]
    return made


# --- layers ------------------------------------------------------------------


def test_writes_are_true_when_there_is_something_to_store() -> None:
    assert not Writes()
    for change in ("values", "alarms", "clear"):
        writes = Writes()
        if change == "values":
            writes.values["k"] = b"v"
        elif change == "alarms":
            writes.alarms[""] = None
        else:
            writes.delete_all()
        assert writes


def test_deleting_all_forgets_what_was_written_and_covers_what_lies_below() -> None:
    below, above = Writes(), Writes()
    below.values["k"] = b"old"
    below.alarms[""] = ALARM
    above.values["k"] = b"dropped"
    above.delete_all()
    above.values["l"] = b"new"
    below.absorb(above)
    assert ({"l": b"new"}, {}, True) == (below.values, below.alarms, below.clear)


def test_a_layer_over_another_wins_key_by_key() -> None:
    below, above = Writes(), Writes()
    below.values |= {"a": b"1", "b": b"1"}
    above.values |= {"b": b"2", "c": None}
    above.alarms[""] = ALARM
    below.absorb(above)
    assert ({"a": b"1", "b": b"2", "c": None}, {"": ALARM}, False) == (below.values, below.alarms, below.clear)


def test_a_unit_that_ends_well_is_its_parents_writes_and_outputs_in_order() -> None:
    outer = event()
    inner = transaction(outer)
    heard: list[str] = []
    outer.send(lambda: heard.append("outer"))
    inner.send(lambda: heard.append("inner"))
    inner.layer().values["k"] = b"v"
    inner.open = False
    inner.merge_into(outer)
    assert {"k": b"v"} == outer.layer().values
    for output in outer.outputs or ():
        output()
    assert ["outer", "inner"] == heard


def test_a_unit_that_wrote_and_sent_nothing_leaves_no_trace_in_its_parent() -> None:
    outer = event()
    transaction(outer).merge_into(outer)
    assert (None, None) == (outer.writes, outer.outputs)


def test_a_unit_cannot_end_well_in_one_that_has_ended() -> None:
    outer = event()
    middle = transaction(outer)
    inner = transaction(middle)
    middle.open = False
    with pytest.raises(OutsideEventError, match="party/a: what this was part of has ended"):
        inner.merge_into(middle)


def test_layers_are_given_from_the_innermost_on_those_without_writes_left_out() -> None:
    outer = event()
    middle = transaction(outer)
    inner = transaction(middle)
    assert [inner.layer(), outer.layer()] == list(inner.layers())


# --- what the running code belongs to ----------------------------------------


def test_code_outside_of_all_events_belongs_to_none() -> None:
    assert None is copy_context().run(current_unit)


def test_code_that_outlives_its_transaction_belongs_to_the_unit_around_it_and_then_to_none() -> None:
    outer = event()
    inner = transaction(outer)
    context = copy_context()
    context.run(CURRENT.set, inner)
    assert inner is context.run(current_unit)
    inner.open = False
    assert outer is context.run(current_unit)
    outer.open = False
    assert None is context.run(current_unit)


def test_nothing_is_live_in_what_has_ended() -> None:
    outer = event()
    inner = transaction(outer)
    assert inner.is_live
    outer.open = False
    assert inner.open
    assert not inner.is_live


def test_an_event_is_needed_and_one_of_that_room() -> None:
    here, there = FakePlace("here"), FakePlace("there")
    context = copy_context()
    with pytest.raises(OutsideEventError, match="party/here: storage was used outside an event of this room"):
        context.run(unit_of, here, "storage was used")
    context.run(CURRENT.set, unit := event(here))
    assert unit is context.run(unit_of, here, "storage was used")
    with pytest.raises(OutsideEventError, match="party/there"):
        context.run(unit_of, there, "storage was used")


def test_code_of_an_event_that_was_cut_hears_why_each_time_by_an_error_of_its_own() -> None:
    here = FakePlace("here")
    cut = event(here)
    inner = transaction(cut)
    context = copy_context()
    context.run(CURRENT.set, inner)
    cut.cut = RoomAbortedError("that is why")
    errors: list[RoomAbortedError] = []
    for _ in range(2):
        with pytest.raises(RoomAbortedError, match="that is why") as caught:
            context.run(unit_of, here, "storage was used")
        errors.append(caught.value)
        assert cut.cut is caught.value.__cause__
    assert errors[0] is not errors[1]


def test_an_event_names_its_room_and_what_runs() -> None:
    assert "party/a on_message" == str(Event(FakePlace("a"), "message", "on_message"))


# --- chains of calls ---------------------------------------------------------


def test_a_room_that_calls_itself_is_its_own_way_back() -> None:
    here = event()
    assert here is find_way_back(here, here.place)


def test_the_way_back_leads_along_all_calls_to_the_unit_that_waits() -> None:
    first = running("a")
    unit = transaction(first)
    second = call(unit, FakePlace("b"), begun=True)
    third = call(second, FakePlace("c"), begun=True)
    assert unit is find_way_back(third, first.place)
    assert second is find_way_back(third, second.place)
    assert None is find_way_back(third, FakePlace("a"))


def test_there_is_no_way_back_to_a_caller_who_has_left() -> None:
    first = running("a")
    second = call(first, FakePlace("b"), begun=True)
    second.waiting = False
    assert None is find_way_back(second, first.place)


def test_the_way_back_to_a_task_that_outlived_its_transaction_ends_in_the_unit_around_it() -> None:
    first = running("a")
    unit = transaction(first)
    second = call(unit, FakePlace("b"), begun=True)
    unit.open = False
    assert first is find_way_back(second, first.place)
    first.open = False
    assert None is find_way_back(second, first.place)


def test_an_event_stems_from_all_calls_above_it_also_when_nobody_waits() -> None:
    first = running("a")
    second = call(first, FakePlace("b"), begun=True)
    third = call(second, FakePlace("c"), begun=True)
    second.waiting = third.waiting = False
    assert stems_from(third, third)
    assert stems_from(third, second)
    assert not stems_from(third, running("d"))
    assert [0, 1, 2] == [each.depth for each in (first, second, third)]


# --- cycles of waits ---------------------------------------------------------


def chain(cycle: list[Event] | None) -> list[str]:
    return [] if cycle is None else [each.name for each in cycle]


def test_a_call_to_a_room_that_does_nothing_closes_no_cycle() -> None:
    assert None is find_cycle(running("a"), None)


def test_a_call_to_a_room_that_waits_for_nobody_closes_no_cycle() -> None:
    assert None is find_cycle(running("a"), running("b"))


def test_two_rooms_that_call_each_other_from_unrelated_events_close_a_cycle() -> None:
    first, second = running("a"), running("b")
    call(second, FakePlace("a")).place.running = first
    assert ["a.f", "b.f", "a.f"] == chain(find_cycle(first, second))


def test_a_cycle_over_three_rooms_is_named_in_the_order_of_its_waits() -> None:
    first, second, third = running("a"), running("b"), running("c")
    call(second, FakePlace("c")).place.running = third
    call(third, FakePlace("a")).place.running = first
    assert ["a.f", "b.f", "c.f", "a.f"] == chain(find_cycle(first, second))


def test_a_cycle_through_a_caller_further_up_is_named_down_to_the_one_who_asks() -> None:
    first = running("a")
    second = call(first, FakePlace("b"), begun=True)
    third = running("c")
    call(third, FakePlace("a")).place.running = first
    assert ["b.g", "c.f", "a.f", "b.g"] == chain(find_cycle(second, third))


def test_a_call_that_has_begun_is_followed_into_its_own_calls() -> None:
    first, second = running("a"), running("b")
    begun = call(second, FakePlace("c"), begun=True)
    call(begun, FakePlace("a")).place.running = first
    assert ["a.f", "b.f", "c.g", "a.f"] == chain(find_cycle(first, second))


def test_a_call_whose_answer_is_there_is_waited_for_no_more() -> None:
    class Answered:
        done = True

    first, second = running("a"), running("b")
    waiting = call(second, FakePlace("a"))
    waiting.place.running = first
    waiting.reply = Answered()
    assert None is find_cycle(first, second)


def test_a_nested_event_waits_for_the_one_whose_turn_it_is() -> None:
    host = running("a")
    first = call(host, FakePlace("b"), begun=True)
    nested = call(first, FakePlace("a"), begun=True, back=host)
    host.nested = nested
    second = call(host, FakePlace("c"), begun=True)
    waiting = call(second, FakePlace("a"), back=host)
    assert not waiting.begun
    assert ["a.g", "c.g", "a.g"] == chain(find_cycle(nested, second))


def test_an_event_waits_for_what_runs_nested_in_it_also_if_no_call_leads_there_any_more() -> None:
    host, other = running("a"), running("d")
    first = call(host, FakePlace("b"), begun=True)
    nested = call(first, FakePlace("a"), begun=True, back=host)
    host.nested = nested
    host.calls = []
    call(nested, FakePlace("d")).place.running = other
    assert ["d.f", "a.f", "a.g", "d.f"] == chain(find_cycle(other, host))


def test_a_wait_that_can_be_reached_by_two_ways_is_looked_at_once() -> None:
    first, second, third = running("a"), running("b"), running("c")
    for _ in range(2):
        call(second, FakePlace("c")).place.running = third
    assert None is find_cycle(first, second)


def test_a_call_that_waits_for_a_room_which_handles_nothing_now_closes_no_cycle() -> None:
    first, second = running("a"), running("b")
    call(second, FakePlace("c"))
    assert None is find_cycle(first, second)
