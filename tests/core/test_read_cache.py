"""What an awake room knows of its stored values."""

from __future__ import annotations

import tracemalloc

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from partyroom._core.keys import key_range
from partyroom._core.pages import Page, behind
from partyroom._core.read_cache import ENTRY_BYTES, MAX_BOUNDS, UNKNOWN, CacheBudget, RoomView
from partyroom.types import KeyRange
from tests.core.rows import Rows, Values, bytes_or_none, over, rows_of
from tests.sizes import examples

ALL = KeyRange()
BACKWARDS = KeyRange(reverse=True)
MEGABYTE = 2**20


def new_view(*, total: int = MEGABYTE, room: int = MEGABYTE) -> RoomView:
    return RoomView(CacheBudget(total, room))


# --- a view, step by step ----------------------------------------------------


def test_a_new_view_knows_nothing() -> None:
    view = new_view()
    assert UNKNOWN is view.lookup("a")
    assert ALL == view.first_gap(ALL)
    assert KeyRange("b", "c", reverse=True) == view.first_gap(KeyRange("b", "c", reverse=True))


def test_what_was_sealed_is_known_at_once() -> None:
    """G16."""
    view = new_view()
    view.apply(1, {"a": b"1", "b": None})
    assert b"1" == view.lookup("a") == view.values["a"]
    assert view.lookup("b") is None
    assert UNKNOWN is view.lookup("c")


def test_after_a_deletion_of_all_every_other_key_is_known_to_be_absent() -> None:
    view = new_view()
    view.apply(1, {"a": b"1"})
    view.apply(2, {"b": b"2"}, clear=True)
    assert view.lookup("a") is None
    assert b"2" == view.lookup("b")
    assert view.first_gap(ALL) is None
    assert Page([("b", b"2")], None) == view.page(ALL, 10)


def test_what_the_store_says_is_known_then() -> None:
    view = new_view()
    view.begin_read()
    assert {"a": b"1", "b": None} == view.learn_many(["a", "b"], {"a": b"1"})
    view.end_read()
    assert b"1" == view.lookup("a")
    assert view.lookup("b") is None


def test_what_was_sealed_during_a_read_wins_over_its_answer() -> None:
    view = new_view(total=0, room=0)
    view.begin_read()
    view.apply(1, {"a": b"new", "b": None})
    view.confirm(1)
    assert b"new" == view.learn("a", b"old")
    assert view.learn("b", b"old") is None
    view.learn_range(ALL, [("a", b"old"), ("b", b"old"), ("c", b"3")], complete=True)
    assert Page([("a", b"new"), ("c", b"3")], None) == view.page(ALL, 10)
    view.end_read()
    assert UNKNOWN is view.lookup("a")


def test_a_deletion_of_all_during_a_read_wins_over_its_answer() -> None:
    view = new_view(total=0, room=0)
    view.begin_read()
    view.apply(1, {}, clear=True)
    view.confirm(1)
    assert view.learn("a", b"old") is None
    view.learn_range(ALL, [("a", b"old")], complete=False)
    assert Page([], None) == view.page(ALL, 10)
    view.end_read()


def test_a_range_that_was_read_is_answered_from_memory() -> None:
    view = new_view()
    rows = [("b", b"2"), ("d", b"4")]
    view.learn_range(KeyRange("b", "f"), rows, complete=True)
    assert view.first_gap(KeyRange("c", "e")) is None
    assert Page([("d", b"4")], None) == view.page(KeyRange("c", "e"), 10)
    assert view.lookup("c") is None
    assert UNKNOWN is view.lookup("a")
    assert KeyRange("a", "b") == view.first_gap(KeyRange("a", "e"))
    assert Page(rows, KeyRange("f")) == view.page(KeyRange("b"), 10)
    assert Page(rows[:1], KeyRange("b\0")) == view.page(KeyRange("b"), 1)
    assert Page(rows[::-1], KeyRange("", "b", reverse=True)) == view.page(KeyRange("", "f", reverse=True), 10)
    assert KeyRange("f", None, reverse=True) == view.first_gap(BACKWARDS)


@pytest.mark.parametrize(("keys", "known", "unknown"), [(ALL, "b", "c"), (BACKWARDS, "b", "a")])
def test_a_read_that_was_cut_tells_nothing_of_what_lies_behind(keys: KeyRange, known: str, unknown: str) -> None:
    view = new_view()
    view.learn_range(keys, [("b", b"2")], complete=False)
    assert b"2" == view.lookup(known)
    assert UNKNOWN is view.lookup(unknown)
    assert [("b", b"2")] == view.page(keys, 10).rows
    assert behind(keys, "b") == view.page(keys, 10).rest == view.first_gap(behind(keys, "b"))


def test_to_confirm_what_was_not_sealed_or_twice_does_nothing() -> None:
    view = new_view()
    view.confirm(7)
    view.apply(1, {})
    view.apply(2, {"a": b"1"})
    view.confirm(1)
    view.confirm(2)
    view.confirm(2)
    assert b"1" == view.lookup("a")


@pytest.mark.parametrize("count", [1, 100])
def test_new_keys_find_their_place_in_the_order(count: int) -> None:
    view = new_view()
    view.apply(1, {"m": b""}, clear=True)
    assert ["m"] == [key for key, _ in view.page(ALL, 1000).rows]
    names = [f"{number:03}" for number in reversed(range(count))]
    view.apply(2, dict.fromkeys(names, b""))
    assert [*sorted(names), "m"] == [key for key, _ in view.page(ALL, 1000).rows]


def test_a_queue_leaves_no_trail_of_deleted_keys() -> None:
    view = new_view()
    view.apply(0, {}, clear=True)
    for number in range(1, 100):
        view.apply(number, {f"{number:03}": b"job", f"{number - 1:03}": None})
        assert [f"{number:03}"] == [key for key, _ in view.page(ALL, 10).rows]
        view.confirm(number - 1)
    assert len(view.values) <= 3


def test_a_deleted_key_is_remembered_while_a_later_commit_deletes_it_again() -> None:
    view = new_view(room=0)
    view.learn_range(ALL, [("a", b"0")], complete=True)
    view.apply(1, {"a": None})
    view.apply(2, {"a": b"2"})
    view.apply(3, {"a": None})
    view.confirm(1)
    view.confirm(2)
    view.forget()
    assert {"a": None} == view.values
    view.confirm(3)
    assert {} == view.values


def test_a_deleted_key_is_remembered_where_no_range_tells_of_it() -> None:
    view = new_view()
    view.learn_range(KeyRange("b", "c"), [], complete=True)
    view.apply(1, {"a": None, "b": None})
    view.confirm(1)
    assert {"a": None} == view.values
    assert view.lookup("b") is None


def test_a_deleted_key_is_remembered_while_a_read_may_bring_its_old_value() -> None:
    view = new_view()
    view.begin_read()
    view.learn_range(ALL, [("a", b"old")], complete=True)
    view.apply(1, {"a": None})
    view.confirm(1)
    assert {"a": None} == view.values
    assert view.learn("a", b"old") is None
    view.end_read()


# --- bounds ------------------------------------------------------------------


def used(view: RoomView) -> int:
    return sum(ENTRY_BYTES + len(key) + len(data or b"") for key, data in view.values.items())


def test_a_room_forgets_its_oldest_keys_when_it_knows_too_much() -> None:
    """G18."""
    view = new_view(room=10_000)
    for number in range(100):
        view.begin_read()
        view.learn(f"{number:03}", bytes(100))
        view.end_read()
        assert used(view) <= 10_000
    assert UNKNOWN is view.lookup("000")
    assert bytes(100) == view.lookup("099")
    assert len(view.values) >= 20


def test_what_is_not_durable_is_never_forgotten() -> None:
    view = new_view(total=0, room=0)
    view.apply(1, {"a": b"1"})
    view.apply(2, {"b": b"2", "c": None})
    view.confirm(1)
    assert UNKNOWN is view.lookup("a")
    assert {"b": b"2", "c": None} == view.values
    view.apply(3, {"b": b"3"})
    view.confirm(2)
    assert {"b": b"3"} == view.values
    view.confirm(3)
    assert {} == view.values


def test_that_all_was_deleted_is_not_forgotten_before_it_is_durable() -> None:
    view = new_view(total=0, room=0)
    view.apply(1, {"a": b"1"})
    view.apply(2, {"b": b"2"}, clear=True)
    view.apply(3, {"c": b"3"})
    view.confirm(1)
    view.forget()
    assert Page([("b", b"2"), ("c", b"3")], None) == view.page(ALL, 10)
    view.confirm(2)
    assert UNKNOWN is view.lookup("a")
    assert b"3" == view.lookup("c")


def test_a_range_is_forgotten_with_the_first_key_in_it() -> None:
    view = new_view()
    view.learn_range(ALL, [("a", b"1")], complete=True)
    view.forget()
    assert ALL == view.first_gap(ALL)
    assert UNKNOWN is view.lookup("b")


def test_a_large_backlog_is_looked_through_seldom() -> None:
    """Not at every commit: what it looks through and cannot forget has to grow by a quarter first."""
    view = new_view(room=1000)
    seen: list[int] = []
    for number in range(200):
        before = view.values
        view.apply(number, {f"{number}": bytes(100)})
        if view.values is not before:
            seen.append(number)
    assert 200 == len(view.values)
    assert len(seen) < 20


def test_the_bound_holds_again_when_a_backlog_is_durable() -> None:
    """G18."""
    view = new_view(room=1000)
    for number in range(10):
        view.apply(number, {f"{number}": b""})
    for number in range(10):
        view.confirm(number)
    assert used(view) <= 1000


def test_few_ranges_are_remembered_and_always_the_last() -> None:
    view = new_view()
    for number in range(MAX_BOUNDS):
        keys = key_range(prefix=f"{number:03}:")
        assert keys is not None
        view.learn_range(keys, [], complete=True)
        assert view.first_gap(keys) is None
    told = [number for number in range(MAX_BOUNDS) if view.lookup(f"{number:03}:") is None]
    assert MAX_BOUNDS - 1 in told
    assert 0 not in told


def test_rooms_share_a_budget_and_the_one_that_learnt_nothing_for_longest_gives_way() -> None:
    """G18."""
    budget = CacheBudget(1000, MEGABYTE)
    views = [RoomView(budget) for _ in range(3)]
    for view in (*views, views[0]):
        view.begin_read()
        view.learn(f"{len(view.values)}", bytes(100))
        view.end_read()
    assert [2, 0, 1] == [len(view.values) for view in views]
    assert budget.used_bytes == sum(map(used, views)) <= 1000
    views[1].apply(1, {"large": bytes(1000)})
    assert [0, 1, 0] == [len(view.values) for view in views]
    assert budget.used_bytes == sum(map(used, views))
    views[1].confirm(1)
    assert 0 == budget.used_bytes


def test_a_closed_view_gives_back_what_it_held() -> None:
    budget = CacheBudget(MEGABYTE, MEGABYTE)
    view, other = RoomView(budget), RoomView(budget)
    view.begin_read()
    view.apply(1, {"a": b"1"})
    other.apply(1, {"a": b"1"})
    view.close()
    assert used(other) == budget.used_bytes
    view.learn("b", b"2")
    view.end_read()
    view.close()
    assert used(other) == budget.used_bytes


def test_the_view_of_an_idle_room_with_one_key_is_small() -> None:
    budget = CacheBudget(MEGABYTE, MEGABYTE)
    views: list[RoomView] = []
    values: list[Values] = [{"text": b"Dear diary"} for _ in range(1000)]
    tracemalloc.start()
    for value in values:
        view = RoomView(budget)
        view.apply(1, value)
        view.confirm(1)
        views.append(view)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 1000 < 700


# --- a view against a plain dict ---------------------------------------------

names = st.sampled_from(["", "a", "a\0", "b", "b1", "b2", "c", "\U0010ffff"])
writes = st.dictionaries(names, bytes_or_none, max_size=3)


@st.composite
def spans(draw: st.DrawFn) -> KeyRange:
    prefix, after, end = draw(st.sampled_from(["", "", "b"])), draw(st.none() | names), draw(st.none() | names)
    keys = key_range(prefix=prefix, start_after=after, end=end, reverse=draw(st.booleans()))
    assume(keys is not None)
    assert keys is not None
    return keys


@attrs.define(eq=False)
class Read:
    """A read of the store that has begun, and has not answered yet."""

    keys: list[str]
    span: KeyRange | None
    limit: int
    answer: Rows | None = None
    """What it will answer: fixed at some moment between its beginning and its end."""


class ViewMachine(RuleBasedStateMachine):
    """A room that seals commits, a store that makes them durable late, and reads that overlap both."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = CacheBudget(2500, 1100)
        self.other = RoomView(self.budget)
        self.view = RoomView(self.budget)
        self.number = 0
        self.stored: dict[str, bytes] = {}
        self.sealed: dict[str, bytes] = {}
        self.waiting: list[tuple[int, Values, bool]] = []
        self.durable: list[int] = []
        self.reads: list[Read] = []

    @rule(values=writes, clear=st.integers(0, 5).map(lambda number: number == 0))
    def seal(self, values: Values, *, clear: bool) -> None:
        self.number += 1
        self.sealed = over(self.sealed, values, clear=clear)
        self.waiting.append((self.number, values, clear))
        self.view.apply(self.number, values, clear=clear)

    @precondition(lambda self: self.waiting)
    @rule(count=st.integers(1, 3))
    def store(self, count: int) -> None:
        """Make commits durable; the room hears of it later."""
        for number, values, clear in self.waiting[:count]:
            self.stored = over(self.stored, values, clear=clear)
            self.durable.append(number)
        del self.waiting[:count]

    @precondition(lambda self: self.durable)
    @rule()
    def confirm(self) -> None:
        self.view.confirm(self.durable.pop(0))

    @rule(keys=st.lists(names, min_size=1, max_size=3))
    def begin_to_read(self, keys: list[str]) -> None:
        unknown = [key for key in keys if self.view.lookup(key) is UNKNOWN]
        if unknown:
            self.view.begin_read()
            self.reads.append(Read(unknown, None, 0))

    @rule(keys=spans(), limit=st.integers(1, 3))
    def begin_to_scan(self, keys: KeyRange, limit: int) -> None:
        gap = self.view.first_gap(keys)
        if gap is not None:
            self.view.begin_read()
            self.reads.append(Read([], gap, limit))

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Fix what a read will answer, before it answers."""
        read = data.draw(st.sampled_from(self.reads))
        if read.answer is None:
            read.answer = self.seen(read)

    def seen(self, read: Read) -> Rows:
        if read.span is None:
            return [(key, self.stored[key]) for key in read.keys if key in self.stored]
        return rows_of(self.stored, read.span)[: read.limit]

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        read = data.draw(st.sampled_from(self.reads))
        self.reads.remove(read)
        rows = self.seen(read) if read.answer is None else read.answer
        if read.span is None:
            learnt = self.view.learn_many(read.keys, dict(rows))
            assert {key: self.sealed.get(key) for key in read.keys} == learnt
        else:
            self.view.learn_range(read.span, rows, complete=len(rows) < read.limit)
            self.check_page(read.span, read.limit)
        self.view.end_read()

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """End a read that was cancelled, or failed."""
        self.reads.remove(data.draw(st.sampled_from(self.reads)))
        self.view.end_read()

    @rule(size=st.integers(0, 2500))
    def crowd(self, size: int) -> None:
        """Have another room want the memory."""
        self.other.begin_read()
        self.other.learn(f"{len(self.other.values)}", bytes(size))
        self.other.end_read()

    @rule()
    def forget(self) -> None:
        self.view.forget()

    @precondition(lambda self: not self.reads)
    @rule()
    def sleep(self) -> None:
        """Begin again, as a room that wakes: all that was sealed is durable."""
        self.store(len(self.waiting))
        self.durable.clear()
        self.view.close()
        self.view = RoomView(self.budget)

    @rule(keys=spans(), limit=st.integers(1, 4))
    def list(self, keys: KeyRange, limit: int) -> None:
        if self.view.first_gap(keys) is None:
            self.check_page(keys, limit)

    def check_page(self, keys: KeyRange, limit: int) -> None:
        page = self.view.page(keys, limit)
        rows = rows_of(self.sealed, keys)
        assert rows[: len(page.rows)] == page.rows
        assert len(page.rows) <= limit
        assert rows[len(page.rows) :] == ([] if page.rest is None else rows_of(self.sealed, page.rest))
        assert keys != page.rest

    @invariant()
    def what_is_known_is_what_was_sealed(self) -> None:
        """G16."""
        for key in ["", "a", "a\0", "b", "b1", "b2", "c", "d", "\U0010ffff"]:
            assert self.view.lookup(key) in (UNKNOWN, self.sealed.get(key))

    @invariant()
    def bytes_are_counted(self) -> None:
        """G18."""
        assert used(self.view) + used(self.other) == self.budget.used_bytes

    @invariant()
    def bounds_hold_when_all_is_quiet(self) -> None:
        """G18."""
        if not (self.reads or self.waiting or self.durable):
            assert used(self.view) <= self.budget.room_bytes
            assert self.budget.used_bytes <= self.budget.total_bytes


ViewMachine.TestCase.settings = examples(few=10, many=1000, stateful_step_count=40)
TestViewTellsWhatAPlainDictWould = ViewMachine.TestCase


@given(st.data())
@settings(max_examples=1)
def test_each_step_of_that_can_be_taken(data: st.DataObject) -> None:
    machine, all_keys = ViewMachine(), KeyRange()
    machine.seal({"a": b"1", "b": b"2"}, clear=False)
    machine.store(1)
    machine.confirm()
    machine.forget()
    machine.begin_to_read(["a"])
    machine.look(data=data)
    machine.look(data=data)
    machine.answer(data=data)
    machine.list(all_keys, 4)
    machine.begin_to_scan(all_keys, 3)
    machine.answer(data=data)
    machine.begin_to_scan(all_keys, 3)
    machine.begin_to_read(["b", "c"])
    assert [] == machine.reads
    machine.list(all_keys, 4)
    machine.crowd(10)
    machine.forget()
    machine.begin_to_read(["c"])
    machine.give_up(data=data)
    machine.sleep()
    machine.what_is_known_is_what_was_sealed()
    machine.bytes_are_counted()
    machine.bounds_hold_when_all_is_quiet()
