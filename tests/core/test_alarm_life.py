"""The steps of an alarm's life, each with the row it leaves and what the handler is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.alarm_life import (
    after_failure,
    after_success,
    catch_up,
    describe,
    is_given_up,
    look_at,
    new_row,
    only_once,
    pause,
    resume,
    ring_again,
)
from partyroom._core.alarm_record import AlarmRecord
from partyroom._core.instants import HIGHEST, from_micros, to_micros
from partyroom.errors import AlarmTimeError, DecodeError
from partyroom.protocols import Codec
from partyroom.recurrence import Cron, Every, Missed, Recurrence
from partyroom.types import Alarm, AlarmInfo, AlarmRow, RetryPolicy, RoomKey

ROOM = RoomKey("party", "room")
SECOND = 1_000_000
HOUR = 3600 * SECOND
NOON = to_micros(datetime(2030, 1, 1, 12, tzinfo=UTC))
HOURLY = Every(timedelta(hours=1))
ONE = "0000000000000001"
TWO = "0000000000000002"


class TextCodec(Codec):
    def encode(self, value: object, /) -> bytes:
        return str(value).encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()


CODEC = TextCodec()


def once(when: object = timedelta(), **options: object) -> AlarmRow:
    return new_row(ROOM, "", when, NOON, **{"number": 1} | options)  # type: ignore[arg-type]


def hourly(**options: object) -> AlarmRow:
    """Give an alarm of every hour, first at one o'clock."""
    return once(Every(timedelta(hours=1), **options))  # type: ignore[arg-type]


def record(row: AlarmRow | None) -> AlarmRecord:
    assert row is not None
    return AlarmRecord.decode(row.data)


def due(row: AlarmRow | None) -> int:
    assert row is not None
    assert row.due is not None
    return row.due


# --- set ---------------------------------------------------------------------


def test_an_alarm_that_rings_once_is_due_at_its_time() -> None:
    assert AlarmRow(ROOM, "", NOON + HOUR, AlarmRecord(ONE).encode()) == once(timedelta(hours=1))
    assert AlarmRow(ROOM, "", NOON - 1, AlarmRecord(ONE).encode()) == once(from_micros(NOON - 1))


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(AlarmTimeError):
        once(5)


def test_a_spread_delays_the_ring_and_keeps_the_time_it_was_set_for() -> None:
    row = once(timedelta(hours=1), spread=timedelta(minutes=10), chance=0.5)
    assert NOON + HOUR + 300 * SECOND == due(row)
    assert from_micros(NOON + HOUR) == describe(row, CODEC, due(row)).scheduled_time


def test_a_recurrence_begins_with_its_first_occurrence() -> None:
    assert NOON + HOUR == due(hourly())
    assert HOURLY == record(hourly()).recurrence


def test_a_recurrence_that_never_occurs_is_refused() -> None:
    with pytest.raises(AlarmTimeError, match="does not occur between now and the year 9999"):
        once(Every(timedelta.max))


@pytest.mark.parametrize("recurrence", [HOURLY, Cron("0 * * * *")])
def test_setting_the_same_recurrence_again_keeps_its_next_time_and_takes_the_rest(recurrence: Recurrence) -> None:
    row = once(recurrence, payload=b"old")
    failed = after_failure(row, ValueError("no"), RetryPolicy(), due(row), 2, 0.0)
    for current in (row, failed):
        again = new_row(
            ROOM,
            "",
            recurrence,
            NOON + 10 * HOUR,
            number=3,
            payload=b"new",
            retry=RetryPolicy(max_retries=1),
            spread=timedelta(seconds=1),
            current=current,
        )
        assert current.due == again.due
        kept = record(current)._replace(payload=b"new", retry=RetryPolicy(max_retries=1), spread=SECOND)
        assert kept == record(again)


def test_setting_a_paused_recurrence_again_leaves_it_paused() -> None:
    paused = pause(hourly())
    assert paused == new_row(ROOM, "", HOURLY, NOON, number=2, current=paused)


@pytest.mark.parametrize("current", [once(timedelta(hours=7)), once(Every(timedelta(hours=2)))])
def test_setting_another_recurrence_begins_anew(current: AlarmRow) -> None:
    row = new_row(ROOM, "", HOURLY, NOON, number=2, current=current)
    assert AlarmRow(ROOM, "", NOON + HOUR, AlarmRecord(TWO, recurrence=HOURLY).encode()) == row


def test_setting_a_recurrence_that_had_failed_for_good_begins_anew() -> None:
    kept = AlarmRow(ROOM, "", None, AlarmRecord(ONE, scheduled=5, failed=True, recurrence=HOURLY).encode())
    assert NOON + HOUR == due(new_row(ROOM, "", HOURLY, NOON, number=2, current=kept))


def test_setting_the_recurrence_that_rings_goes_on_with_its_grid() -> None:
    late = NOON + HOUR + 7 * SECOND
    row = new_row(ROOM, "", HOURLY, late, number=2, ringing=hourly())
    assert NOON + 2 * HOUR == due(row)
    assert AlarmRecord(TWO, recurrence=HOURLY, last=late) == record(row)
    other = new_row(ROOM, "", Every(timedelta(hours=2)), late, number=2, ringing=hourly())
    assert late + 2 * HOUR == due(other)
    assert record(other).outcome is None, "another schedule has not rung yet"


# --- what the handler is told ------------------------------------------------


def test_the_handler_is_told_what_rings() -> None:
    row = new_row(ROOM, "tea", timedelta(), NOON, number=1, payload=CODEC.encode("green"))
    assert Alarm("tea", ONE, from_micros(NOON), 0, "green") == describe(row, CODEC, NOON)
    assert Alarm(None, ONE, from_micros(NOON)) == describe(once(), CODEC, NOON)


def test_a_retry_has_the_same_id_and_the_time_it_was_set_for() -> None:
    row = after_failure(once(), ValueError("no"), RetryPolicy(), NOON, 2, 0.0)
    told = describe(row, CODEC, due(row))
    assert (ONE, from_micros(NOON), 1) == (told.id, told.scheduled_time, told.retry_count)
    assert told.is_retry


def test_lateness_is_counted_from_the_time_it_was_set_for() -> None:
    assert timedelta(minutes=1) == describe(once(), CODEC, NOON + 60 * SECOND).lateness
    assert timedelta() == describe(ring_again(hourly(), NOON, 2), CODEC, NOON).lateness, "rung by hand, an hour early"


def test_a_row_that_cannot_be_read_says_so() -> None:
    with pytest.raises(DecodeError):
        describe(AlarmRow(ROOM, "", NOON, b"nonsense"), CODEC, NOON)


# --- repeated ----------------------------------------------------------------


def test_an_alarm_that_rings_once_goes_away() -> None:
    assert after_success(once(), NOON, 2, 0.0) is None


def test_a_recurrence_goes_on_to_its_next_occurrence_under_a_new_id() -> None:
    row = after_success(hourly(), NOON + HOUR + 5, 2, 0.0)
    assert NOON + 2 * HOUR == due(row)
    assert TWO == record(row).id


@pytest.mark.parametrize("missed", ["once", "each"])
def test_a_clock_that_is_set_back_while_it_rings_has_no_occurrence_ring_twice(missed: Missed) -> None:
    every = Every(timedelta(hours=1), missed=missed)
    row = once(every)
    assert NOON + 2 * HOUR == due(after_success(row, NOON + HOUR - 1, 2, 0.0))
    assert NOON + 2 * HOUR == due(new_row(ROOM, "", every, NOON + HOUR - 1, number=2, ringing=row))


def test_missed_occurrences_ring_once_and_are_counted() -> None:
    late = NOON + 5 * HOUR + 1
    told = describe(hourly(), CODEC, late)
    assert from_micros(NOON + HOUR) == told.scheduled_time
    assert (4, timedelta(hours=4, microseconds=1)) == (told.missed, told.lateness)
    assert NOON + 6 * HOUR == due(after_success(hourly(), late, 2, 0.0))


def test_missed_occurrences_ring_each_if_that_is_asked_for() -> None:
    late = NOON + 3 * HOUR + 1
    row: AlarmRow | None = hourly(missed="each")
    times: list[int] = []
    while due(row) <= late:
        assert row is not None
        told = describe(row, CODEC, late)
        assert 0 == told.missed
        times.append(to_micros(told.scheduled_time))
        row = after_success(row, late, 2, 0.0)
    assert [NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR] == times
    assert NOON + 4 * HOUR == due(row)


def test_occurrences_older_than_the_grace_are_skipped_and_counted() -> None:
    row = hourly(grace=timedelta(minutes=10))
    late = NOON + 5 * HOUR + 60 * SECOND
    caught_up = catch_up(row, late, 7, 0.0)
    assert NOON + 5 * HOUR == due(caught_up)
    assert caught_up is not None
    assert (4, timedelta(minutes=1)) == (
        describe(caught_up, CODEC, late).missed,
        describe(caught_up, CODEC, late).lateness,
    )
    assert 0 == record(after_success(caught_up, late, 2, 0.0)).missed


def test_with_all_occurrences_older_than_the_grace_the_next_one_waits() -> None:
    row = hourly(grace=timedelta(minutes=10))
    caught_up = catch_up(row, NOON + 5 * HOUR + 1800 * SECOND, 7, 0.0)
    assert NOON + 6 * HOUR == due(caught_up)
    assert 5 == record(caught_up).missed
    later = catch_up(caught_up, NOON + 8 * HOUR, 7, 0.0) if caught_up is not None else None
    assert (NOON + 8 * HOUR, 7) == (due(later), record(later).missed)


def test_what_is_skipped_leaves_its_id() -> None:
    """It may have rung without a commit: what was done under its id was done for that occurrence."""
    row = hourly(grace=timedelta(minutes=10))
    assert ONE == record(catch_up(row, NOON + HOUR, 7, 0.0)).id
    assert "0000000000000007" == record(catch_up(row, NOON + 2 * HOUR, 7, 0.0)).id


def test_a_grace_with_each_rings_each_that_is_young_enough() -> None:
    late = NOON + 5 * HOUR
    row = catch_up(hourly(missed="each", grace=timedelta(hours=2)), late, 7, 0.0)
    assert (NOON + 3 * HOUR, 2) == (due(row), record(row).missed)
    assert row is not None
    assert NOON + 4 * HOUR == due(after_success(row, late, 2, 0.0))


def test_within_the_grace_nothing_is_skipped() -> None:
    row = hourly(grace=timedelta(minutes=10))
    assert row is catch_up(row, due(row) + 600 * SECOND, 7, 0.0)
    assert row is not catch_up(row, due(row) + 600 * SECOND + 1, 7, 0.0)


def test_what_was_asked_for_by_hand_skips_no_occurrence_that_is_still_to_come() -> None:
    again = ring_again(hourly(grace=timedelta(minutes=10)), NOON, 2)
    assert again is catch_up(again, NOON + HOUR // 2, 7, 0.0), "its own time is not even there"
    assert NOON + HOUR == due(after_success(again, NOON + HOUR // 2, 3, 0.0))
    assert NOON + 2 * HOUR == due(catch_up(again, NOON + 2 * HOUR, 7, 0.0))


def test_an_alarm_without_grace_is_never_skipped() -> None:
    for row in (once(), hourly(), pause(hourly(grace=timedelta()))):
        assert row is catch_up(row, HIGHEST, 7, 0.0)


def test_a_retry_is_never_skipped_for_being_late() -> None:
    row = after_failure(hourly(grace=timedelta()), ValueError(), RetryPolicy(), NOON + HOUR, 2, 0.0)
    assert row is catch_up(row, NOON + 9 * HOUR, 7, 0.0)


def test_a_recurrence_without_another_occurrence_goes_away() -> None:
    last = once(Every(timedelta(days=36_500), anchor=from_micros(HIGHEST - HOUR), grace=timedelta()))
    assert HIGHEST - HOUR == due(last)
    assert after_success(last, due(last), 2, 0.0) is None
    assert catch_up(last, HIGHEST, 7, 0.0) is None
    assert resume(pause(last), HIGHEST, 5, 0.0) is None


def test_each_occurrence_has_a_delay_of_its_own() -> None:
    row = once(HOURLY, spread=timedelta(minutes=10), chance=0.1)
    assert NOON + HOUR + 60 * SECOND == due(row)
    following = after_success(row, due(row), 2, 0.2)
    assert NOON + 2 * HOUR + 120 * SECOND == due(following)
    assert (
        from_micros(NOON + 2 * HOUR) == describe(following, CODEC, due(following)).scheduled_time if following else None
    )


@given(st.lists(st.tuples(st.integers(0, 30 * HOUR), st.floats(0, 1, exclude_max=True)), max_size=30))
def test_no_occurrence_rings_twice_and_none_is_uncounted(rings: list[tuple[int, float]]) -> None:
    """Ring a recurrence at random latenesses: rung and missed ones together are all there have been."""
    row: AlarmRow | None = hourly()
    rung = 0
    seen: set[datetime] = set()
    now = NOON
    for late, chance in rings:
        assert row is not None
        now = max(now, due(row)) + late
        told = describe(row, CODEC, now)
        assert told.scheduled_time not in seen
        seen.add(told.scheduled_time)
        rung += 1 + told.missed
        row = after_success(row, now, 2, chance)
        assert rung == (now - NOON) // HOUR


# --- retried, then kept ------------------------------------------------------


def test_a_failure_is_retried_and_then_kept_with_its_error() -> None:
    policy = RetryPolicy(max_retries=2)
    first = after_failure(once(payload=b"p"), ValueError("no"), policy, NOON, 2, 0.0)
    assert AlarmRecord(ONE, b"p", NOON, scheduled=NOON, retry_count=1, error="ValueError: no") == record(first)
    assert NOON + 2 * SECOND == due(first)
    second = after_failure(first, ValueError("never"), policy, due(first), 2, 0.5)
    assert NOON + 2 * SECOND + 4.5 * SECOND == due(second)
    kept = after_failure(second, KeyError("x"), policy, due(second), 2, 0.0)
    assert kept.due is None
    assert AlarmRecord(
        ONE, b"p", due(second), scheduled=NOON, retry_count=3, error="KeyError: 'x'", failed=True
    ) == record(kept)


def test_an_alarm_of_its_own_policy_does_not_ask_the_room() -> None:
    row = once(retry=RetryPolicy(max_retries=0))
    assert after_failure(row, ValueError(), RetryPolicy(), NOON, 2, 0.0).due is None


def test_a_recurrence_goes_on_after_its_last_retry_and_remembers_the_error() -> None:
    row = after_failure(hourly(), ValueError("no"), RetryPolicy(max_retries=0), NOON + HOUR, 2, 0.0)
    assert NOON + 2 * HOUR == due(row)
    assert AlarmRecord(TWO, error="ValueError: no", recurrence=HOURLY, last=NOON + HOUR) == record(row)
    well = record(after_success(row, due(row), 3, 0.0))
    assert (None, "success", due(row)) == (well.error, well.outcome, well.last)


@pytest.mark.parametrize("how", ["success", "error"])
def test_what_is_done_to_a_recurrence_from_outside_leaves_its_last_outcome(how: str) -> None:
    late = NOON + HOUR + 7 * SECOND
    row = after_success(hourly(), late, 2, 0.0)
    if how == "error":
        row = after_failure(hourly(), ValueError("no"), RetryPolicy(), late, 2, 0.0)
    assert row is not None
    told = how, from_micros(late), "ValueError: no" if how == "error" else None
    steps = [
        row,
        pause(row),
        resume(pause(row), NOON + 9 * HOUR, 5, 0.0),
        ring_again(row, late + SECOND, 3),
        new_row(ROOM, "", HOURLY, late + SECOND, number=3, payload=b"new", current=row),
        only_once(row),
    ]
    for step in steps:
        assert step is not None
        info = look_at(step, CODEC)
        assert told == (info.last_outcome, info.last_time, info.last_error)
    for when in (Every(timedelta(hours=3)), timedelta()):
        assert record(new_row(ROOM, "", when, late, number=3, current=row)).outcome is None


def test_occurrences_that_are_skipped_leave_the_last_outcome() -> None:
    row = after_success(hourly(grace=timedelta(minutes=5)), NOON + HOUR, 2, 0.0)
    assert row is not None
    skipped = catch_up(row, NOON + 5 * HOUR + 600 * SECOND, 7, 0.0)
    assert NOON + 6 * HOUR == due(skipped)
    assert NOON + HOUR == record(skipped).last


def test_the_last_occurrence_of_a_recurrence_is_kept_when_it_fails() -> None:
    last = once(Every(timedelta(days=36_500), anchor=from_micros(HIGHEST - HOUR)))
    kept = after_failure(last, ValueError("no"), RetryPolicy(max_retries=0), due(last), 2, 0.0)
    assert (None, True) == (kept.due, record(kept).failed)


class Speechless(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a" * 5000), "ValueError: " + "a" * 988),
        (ValueError(), "ValueError"),
        (Speechless(), "<exception str() failed>"),
        (ValueError("\ud800"), "ValueError: \ud800"),
    ],
)
def test_any_error_has_a_text_of_bounded_length(error: Exception, text: str) -> None:
    kept = record(after_failure(once(), error, RetryPolicy(), NOON, 2, 0.0)).error
    assert kept is not None
    assert kept.endswith(text)
    assert len(kept) <= 1000


@pytest.mark.parametrize("row", [once(), hourly()])
def test_a_failure_is_given_up_when_no_retry_is_left(row: AlarmRow) -> None:
    assert not is_given_up(after_failure(row, ValueError(), RetryPolicy(), due(row), 2, 0.0))
    assert is_given_up(after_failure(row, ValueError(), RetryPolicy(max_retries=0), due(row), 2, 0.0))


def test_a_recurrence_that_its_handler_deletes_is_retried_and_does_not_go_on() -> None:
    row = only_once(hourly())
    assert record(row).recurrence is None
    assert after_success(row, due(row), 2, 0.0) is None
    assert due(row) + 2 * SECOND == due(after_failure(row, ValueError(), RetryPolicy(), due(row), 2, 0.0))


# --- looked at ---------------------------------------------------------------


def test_what_is_known_of_an_alarm_can_be_looked_at() -> None:
    row = new_row(ROOM, "tea", HOURLY, NOON, number=1, payload=CODEC.encode("green"))
    one = from_micros(NOON + HOUR)
    assert AlarmInfo(ROOM, "tea", "pending", one, one, HOURLY, "green", 0, None, None, None) == look_at(row, CODEC)
    rung, two = after_success(row, NOON + HOUR, 2, 0.0), from_micros(NOON + 2 * HOUR)
    assert rung is not None
    assert AlarmInfo(ROOM, "tea", "pending", two, two, HOURLY, "green", 0, "success", one, None) == look_at(rung, CODEC)
    retried = after_failure(once(), ValueError("no"), RetryPolicy(), NOON, 2, 0.0)
    noon, retry = from_micros(NOON), from_micros(NOON + 2 * SECOND)
    error = "ValueError: no"
    assert AlarmInfo(ROOM, None, "retrying", retry, noon, None, None, 1, "error", noon, error) == look_at(
        retried, CODEC
    )


def test_an_alarm_that_does_not_ring_says_why() -> None:
    assert ("paused", None) == (look_at(pause(once()), CODEC).status, look_at(pause(once()), CODEC).next_time)
    kept = look_at(after_failure(once(), ValueError("no"), RetryPolicy(max_retries=0), NOON, 2, 0.0), CODEC)
    assert ("failed", None, from_micros(NOON), 1) == (
        kept.status,
        kept.next_time,
        kept.scheduled_time,
        kept.retry_count,
    )


# --- steered by a host -------------------------------------------------------


def test_a_paused_alarm_is_not_due_and_comes_back_as_it_was() -> None:
    row = once(timedelta(hours=1), payload=b"p")
    paused = pause(row)
    assert paused.due is None
    assert row == resume(paused, NOON, 5, 0.0)
    assert row == resume(paused, NOON + 9 * HOUR, 5, 0.0), "overdue, it rings at once"


def test_pausing_and_resuming_twice_changes_nothing_more() -> None:
    paused = pause(once())
    assert paused is pause(paused)
    row = once()
    assert row is resume(row, NOON, 5, 0.0)


def test_a_paused_retry_goes_on_where_it_was() -> None:
    retried = after_failure(once(), ValueError("no"), RetryPolicy(), NOON, 2, 0.0)
    assert retried == resume(pause(retried), NOON + 9 * HOUR, 5, 0.0)


def test_a_resumed_recurrence_goes_on_with_its_next_occurrence() -> None:
    paused = pause(hourly())
    assert hourly() == resume(paused, NOON, 5, 0.0)
    assert NOON + 6 * HOUR == due(resume(paused, NOON + 5 * HOUR, 5, 0.0))


def test_a_recurrence_rung_by_hand_and_then_paused_goes_on_with_the_occurrence_to_come() -> None:
    paused = pause(ring_again(hourly(), NOON, 2))
    assert NOON + HOUR == due(resume(paused, NOON + HOUR // 2, 5, 0.0))
    assert NOON + 2 * HOUR == due(resume(paused, NOON + HOUR, 5, 0.0))


def test_a_retry_that_is_left_out_for_a_pause_leaves_its_id() -> None:
    """What was done under that id was done for another occurrence."""
    retried = after_failure(hourly(), ValueError(), RetryPolicy(), NOON + HOUR, 2, 0.0)
    resumed = record(resume(pause(retried), NOON + HOUR + 9 * SECOND, 5, 0.0))
    assert ("0000000000000005", 0) == (resumed.id, resumed.retry_count)


def test_a_failed_alarm_rings_again_with_all_of_its_retries_before_it() -> None:
    kept = after_failure(once(payload=b"p"), ValueError("no"), RetryPolicy(max_retries=0), NOON, 2, 0.0)
    again = ring_again(kept, NOON + HOUR, 3)
    assert NOON + HOUR == due(again)
    assert AlarmRecord("0000000000000003", b"p", NOON, scheduled=NOON, error="ValueError: no") == record(again)
    assert 1 == record(after_failure(again, ValueError(), RetryPolicy(), NOON + HOUR, 4, 0.0)).retry_count


def test_a_recurrence_rung_by_hand_keeps_its_next_time() -> None:
    again = ring_again(hourly(), NOON + 60 * SECOND, 2)
    assert NOON + 60 * SECOND == due(again)
    following = after_success(again, NOON + 61 * SECOND, 3, 0.0)
    assert NOON + HOUR == due(following)
