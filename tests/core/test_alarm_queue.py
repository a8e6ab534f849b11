"""The look-ahead: in order, bounded, and with nothing overlooked, however reads and changes interleave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from partyroom._core.alarm_queue import SPARE, AlarmQueue, Place
from partyroom.protocols import Upcoming
from partyroom.types import RoomKey
from tests.sizes import examples, sizes

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def room(number: int) -> RoomKey:
    return RoomKey("party", f"{number:04}")


def row(second: int, number: int, name: str = "") -> Upcoming:
    return Upcoming(at(second), room(number), name)


def place(second: int, number: int) -> Place:
    return at(second), room(number)


def filled(*rows: Upcoming, lookahead: int = 100) -> AlarmQueue:
    """Give a queue that has read these, and knows whether there is more."""
    queue = AlarmQueue(lookahead)
    queue.begin_reading()
    queue.end_reading(rows)
    return queue


def drain(queue: AlarmQueue) -> list[RoomKey]:
    found: list[RoomKey] = []
    while queue.first() is not None:
        found.append(queue.take())
    return found


def test_before_anything_was_read_nothing_comes_out() -> None:
    queue = AlarmQueue(10)
    queue.change(room(1), at(5))
    assert queue.is_dry
    assert queue.first() is None
    assert queue.begin_reading() is None


def test_rooms_come_out_by_due_time_and_then_by_key() -> None:
    queue = filled(row(1, 5), row(2, 3), row(2, 4))
    for number, second in ((9, 2), (1, 3), (2, 0)):
        queue.change(room(number), at(second))
    assert [room(2), room(5), room(3), room(4), room(9), room(1)] == drain(queue)


def test_of_a_room_with_many_alarms_the_first_counts() -> None:
    queue = filled(row(1, 1, "a"), row(1, 1, "b"), row(5, 1), row(6, 2))
    assert [room(1), room(2)] == drain(queue)


def test_a_moved_room_comes_out_at_its_new_place_only() -> None:
    queue = filled(row(1, 1), row(2, 2), row(3, 3))
    queue.change(room(1), at(9))
    queue.change(room(3), at(0))
    assert [room(3), room(2), room(1)] == drain(queue)


def test_a_deleted_room_does_not_come_out() -> None:
    queue = filled(row(1, 1), row(2, 2))
    queue.change(room(1), None)
    queue.change(room(7), None)
    assert [room(2)] == drain(queue)


def test_the_first_place_is_the_same_object_until_something_comes_before_it() -> None:
    queue = filled(row(5, 5))
    first = queue.first()
    queue.change(room(6), at(6))
    queue.change(room(5), at(5))
    assert first is queue.first()
    queue.change(room(4), at(5))
    assert place(5, 4) == queue.first()


def test_a_place_lives_until_its_room_leaves_it() -> None:
    queue = filled(row(5, 5))
    first = queue.first()
    assert first is not None
    assert queue.is_live(first)
    queue.change(room(5), at(6))
    assert not queue.is_live(first)
    assert place(6, 5) == queue.first()
    queue.change(room(5), None)
    assert not queue.is_live(first)


def test_a_taken_room_is_waking_until_it_is_heard_of() -> None:
    queue = filled(row(1, 1))
    assert place(1, 1) == queue.first()
    assert room(1) == queue.take()
    assert 1 == queue.waking
    queue.change(room(1), at(1))
    assert 0 == queue.waking
    assert place(1, 1) == queue.first()


# --- the bounds --------------------------------------------------------------


@sizes("times", 10_000, 100_000)
def test_putting_one_alarm_off_many_times_needs_no_memory(times: int) -> None:
    queue = filled(row(0, 1), row(1, 2))
    for second in range(times):
        queue.change(room(1), at(second))
    assert 2 == queue.size
    assert [room(2), room(1)] == drain(queue)


@sizes("times", 10_000, 100_000)
def test_moving_one_alarm_up_and_down_many_times_needs_bounded_memory(times: int) -> None:
    queue = filled(row(0, 1), row(1, 2))
    for second in range(times):
        queue.change(room(1), at(-second))
        queue.change(room(1), at(second))
        assert queue.size <= 2 * len(queue) + SPARE
    assert [room(2), room(1)] == drain(queue)


def test_beyond_twice_the_lookahead_the_farthest_are_dropped_and_read_again() -> None:
    queue = filled(lookahead=10)
    for number in range(21):
        queue.change(room(number), at(100 - number))
    assert 10 == len(queue)
    assert [room(20 - number) for number in range(10)] == drain(queue)
    assert queue.is_dry
    assert queue.begin_reading() is None


def test_a_trim_does_not_see_farther_than_before() -> None:
    queue = filled(*(row(second, second) for second in range(4)), lookahead=4)
    drain(queue)
    for number in range(4):
        queue.change(room(number), at(10 + number))
    for number in range(4, 9):
        assert queue.is_stored(room(number), at(10))
        queue.change(room(number), at(10 + number))
    assert 4 == len(queue)
    assert queue.first() is None, "something unread may come before what answers said"
    assert queue.is_dry


def test_a_read_under_way_is_worth_nothing_after_a_trim() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    drain(queue)
    assert row(2, 2) == queue.begin_reading()
    for number in range(3, 8):
        queue.change(room(number), at(number))
    queue.end_reading([row(8, 8)])
    assert queue.is_dry
    assert queue.begin_reading() is None


def test_reading_much_beside_what_answers_said_is_trimmed_as_well() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    drain(queue)
    queue.begin_reading()
    for number in range(3, 7):
        queue.change(room(number), at(number + 50))
    queue.end_reading([row(8, 8), row(9, 9)])
    assert 2 == len(queue)
    assert [room(8), room(9)] == drain(queue)


# --- reading on --------------------------------------------------------------


def test_a_full_page_is_followed_by_the_next_when_it_is_used_up() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    assert [room(1), room(2)] == drain(queue)
    assert queue.is_dry
    assert row(2, 2) == queue.begin_reading()
    assert not queue.is_dry
    queue.end_reading([row(3, 3)])
    assert [room(3)] == drain(queue)
    assert not queue.is_dry


def test_what_changes_during_a_read_wins_over_what_is_read() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    drain(queue)
    queue.begin_reading()
    assert not queue.is_stored(room(3), at(9)), "the read may miss it"
    queue.change(room(3), at(9))
    queue.change(room(4), None)
    queue.end_reading([row(3, 3), row(4, 4)])
    assert queue.is_dry
    queue.begin_reading()
    queue.end_reading([row(9, 3)])
    assert [room(3)] == drain(queue)


def test_a_room_that_is_waking_is_not_read() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    drain(queue)
    queue.begin_reading()
    queue.end_reading([row(3, 2, "other")])
    assert queue.first() is None


def test_a_failed_read_begins_again_at_the_same_place() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    drain(queue)
    assert row(2, 2) == queue.begin_reading()
    queue.abandon_reading()
    assert queue.is_dry
    assert row(2, 2) == queue.begin_reading()


def test_what_is_due_behind_the_horizon_is_stored_and_may_be_forgotten() -> None:
    queue = filled(row(1, 1), row(2, 2), lookahead=2)
    assert queue.is_stored(room(9), at(3))
    assert queue.is_stored(room(3), at(2)), "behind the last that was read, in the same second"
    assert not queue.is_stored(room(2), at(2))
    queue.first()
    queue.take()
    assert not queue.is_stored(room(1), at(3)), "an answer may say something else than what is stored"
    assert not filled().is_stored(room(9), at(3)), "with everything read there is no horizon"


# --- against a model ---------------------------------------------------------

NOW = 5
ROOMS = st.integers(0, 7)
NAMES = st.sampled_from("ab")
SECONDS = st.integers(0, 20)
ANSWERS = st.sampled_from(["rang", "rang", "rang", "later", "stuck", "again"])


class QueueAgainstWorld(RuleBasedStateMachine):
    """A world of stored alarms, whose changes are heard of in order, but late; and a queue that must overlook none."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = AlarmQueue(1)
        self.stored: dict[tuple[int, str], int] = {}
        self.unheard: list[tuple[int, Callable[[], None]]] = []
        self.reading: list[Upcoming] | None = None
        self.waking: set[int] = set()
        self.odd: set[int] = set()
        """Rooms of which something else than what is stored was said: they may come out early, but never get lost."""
        self.stuck: set[int] = set()
        """Rooms that do not ring though they are due: they need not come out again."""

    @initialize(stored=st.dictionaries(st.tuples(ROOMS, NAMES), SECONDS), lookahead=st.integers(1, 4))
    def begin(self, stored: dict[tuple[int, str], int], lookahead: int) -> None:
        self.stored = dict(stored)
        self.queue = AlarmQueue(lookahead)

    def next_of(self, number: int) -> int | None:
        return min((due for (each, _), due in self.stored.items() if each == number), default=None)

    def tell(self, number: int, due: int | None) -> None:
        """Do as the loop does."""
        self.waking.discard(number)
        if due is not None and due > NOW and self.queue.is_stored(room(number), at(due)):
            due = None
        self.queue.change(room(number), None if due is None else at(due))

    def tell_truth(self, number: int, due: int | None) -> None:
        self.odd.discard(number)
        self.stuck.discard(number)
        self.tell(number, due)

    def tell_something_else(self, number: int, due: int) -> None:
        self.odd.add(number)
        self.tell(number, due)

    def stores(self, number: int, *, late: bool) -> None:
        """Have it heard of, at once or later, that a room's alarms were changed."""
        due = self.next_of(number)
        self.unheard.append((number, lambda: self.tell_truth(number, due)))
        if not late:
            self.hear()

    def hear(self) -> None:
        while self.unheard:
            _, tell = self.unheard.pop(0)
            tell()

    @property
    def unheard_rooms(self) -> set[int]:
        return {number for number, _ in self.unheard}

    @rule(number=ROOMS, name=NAMES, due=SECONDS, late=st.booleans())
    def set_alarm(self, number: int, name: str, due: int, late: bool) -> None:
        self.stored[number, name] = due
        self.stores(number, late=late)

    @rule(number=ROOMS, late=st.booleans())
    def delete_alarms(self, number: int, late: bool) -> None:
        self.stored.pop((number, "a"), None)
        self.stored.pop((number, "b"), None)
        self.stores(number, late=late)

    @rule(number=ROOMS)
    def poke(self, number: int) -> None:
        """Say that a room is due though nobody knows whether it is, as after a refused commit."""
        self.hear()
        self.tell_something_else(number, NOW)

    @precondition(lambda self: self.unheard)
    @rule()
    def hear_late(self) -> None:
        self.hear()

    @precondition(lambda self: self.queue.is_dry)
    @rule()
    def begin_reading(self) -> None:
        after = self.queue.begin_reading()
        rows = sorted(row(due, number, name) for (number, name), due in self.stored.items())
        self.reading = [each for each in rows if after is None or each > after][: self.queue.lookahead]

    @precondition(lambda self: self.reading is not None)
    @rule(fails=st.booleans())
    def end_reading(self, fails: bool) -> None:
        assert self.reading is not None
        if fails:
            self.queue.abandon_reading()
        else:
            self.queue.end_reading(self.reading)
        self.reading = None

    @precondition(lambda self: self.queue.is_dry)
    @rule()
    def read(self) -> None:
        self.begin_reading()
        self.end_reading(fails=False)

    @precondition(lambda self: self.reading is None and self.queue.first() is not None)
    @rule()
    def take(self) -> None:
        first = self.queue.first()
        assert first is not None
        number = int(self.queue.take().id)
        assert first[1] == room(number)
        assert number not in self.waking
        vague = self.unheard_rooms | self.odd | self.stuck
        for other in {other for other, _ in self.stored} - vague - self.waking:
            due = self.next_of(other)
            assert due is not None
            assert first <= place(due, other)
        if number not in vague:
            due = self.next_of(number)
            assert due is not None
            assert place(due, number) == first
        self.waking.add(number)

    @precondition(lambda self: self.waking - self.unheard_rooms)
    @rule(data=st.data(), answer=ANSWERS, due=SECONDS)
    def answer(self, data: st.DataObject, answer: str, due: int) -> None:
        self.answer_for(data.draw(st.sampled_from(sorted(self.waking - self.unheard_rooms))), answer, due)

    def answer_for(self, number: int, answer: str, due: int) -> None:
        if answer == "rang":
            self.ring(number)
        if answer == "later":
            self.tell_something_else(number, due)
        elif answer == "stuck":
            self.stuck.add(number)
            self.tell(number, None)
        else:
            self.tell_truth(number, self.next_of(number))

    @precondition(lambda self: self.reading is None and not self.unheard and self.queue.first() is not None)
    @rule(answer=ANSWERS, due=SECONDS)
    def take_and_answer(self, answer: str, due: int) -> None:
        first = self.queue.first()
        assert first is not None
        self.take()
        self.answer_for(int(first[1].id), answer, due)

    def ring(self, number: int) -> None:
        """Do as a room does whose next alarm rang."""
        first = min(((due, name) for (each, name), due in self.stored.items() if each == number), default=None)
        if first is not None:
            del self.stored[number, first[1]]

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.queue) <= 2 * self.queue.lookahead
        assert self.queue.size <= 2 * len(self.queue) + SPARE

    def teardown(self) -> None:
        """Let everything ring that is stored: nothing may be left."""
        self.hear()
        if self.reading is not None:
            self.end_reading(fails=False)
        for number in list(self.waking):
            self.tell_truth(number, self.next_of(number))
        for _ in range(200):
            if self.queue.is_dry:
                self.read()
            elif (first := self.queue.first()) is not None:
                self.take()
                self.answer_for(int(first[1].id), "rang", 0)
        assert not self.queue.is_dry
        assert {number for number, _ in self.stored} <= self.stuck


QueueAgainstWorld.TestCase.settings = examples(few=15, many=2000, stateful_step_count=50)
TestQueueAgainstWorld = QueueAgainstWorld.TestCase


@given(st.data())
@settings(max_examples=1)
def test_each_step_of_that_can_be_taken(data: st.DataObject) -> None:
    machine = QueueAgainstWorld()
    machine.begin({(number, "a"): number for number in range(6)}, 4)
    for fails in (True, False):
        machine.begin_reading()
        machine.end_reading(fails=fails)
    for answer in ("rang", "later", "stuck", "again"):
        machine.take()
        machine.answer(data=data, answer=answer, due=9)
    machine.set_alarm(6, "b", 1, late=True)
    machine.hear_late()
    machine.set_alarm(6, "b", 2, late=False)
    machine.delete_alarms(7, late=False)
    machine.poke(7)
    machine.take_and_answer("rang", 0)
    machine.memory_is_bounded()
    machine.teardown()


def test_its_end_may_come_in_the_middle_of_a_read() -> None:
    machine = QueueAgainstWorld()
    machine.begin({(number, "a"): 3 + number for number in range(4)}, 1)
    machine.read()
    machine.set_alarm(3, "b", 20, late=False)
    machine.take()
    machine.begin_reading()
    machine.teardown()
    assert {} == machine.stored
