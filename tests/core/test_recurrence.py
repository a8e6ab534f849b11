"""Recurrences: strictly later each time, without drift, and by the clocks of a place."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.instants import HIGHEST, from_micros, length_micros, to_micros
from partyroom._core.recurrence import COUNTED, count_since, first_after, next_after
from partyroom.errors import InvalidRecurrenceError, MissingExtraError
from partyroom.recurrence import Cron, Every, Recurrence

HOUR = timedelta(hours=1)
OSLO = ZoneInfo("Europe/Oslo")

moments = st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)).map(to_micros)  # noqa: DTZ001 - the zone is added
lengths = st.timedeltas(timedelta(microseconds=1), timedelta(days=1000))


def instant(text: str, zone: ZoneInfo = OSLO) -> int:
    """Give an instant by its local time, ``+`` at the end for the second pass of a repeated hour."""
    local = datetime.fromisoformat(text.rstrip("+")).replace(tzinfo=zone, fold=text.endswith("+"))
    return to_micros(local)


def local(micros: int | None) -> str:
    """Give the local time of an instant, in the same form."""
    assert micros is not None
    when = from_micros(micros).astimezone(OSLO)
    return f"{when:%Y-%m-%d %H:%M}{'+' * when.fold}"


def walk(recurrence: Recurrence, after: str, count: int) -> list[str]:
    found: list[str] = []
    micros = first_after(recurrence, instant(after))
    for _ in range(count):
        assert micros is not None
        found.append(local(micros))
        micros = next_after(recurrence, micros, micros)
    return found


# --- the same distance again and again ---------------------------------------


def test_without_an_anchor_the_first_occurrence_is_one_interval_away() -> None:
    assert instant("2030-01-01 13:07") == first_after(Every(HOUR), instant("2030-01-01 12:07"))


def test_an_anchor_to_come_is_the_first_occurrence() -> None:
    anchor = datetime(2030, 1, 5, 9, tzinfo=OSLO)
    assert to_micros(anchor) == first_after(Every(HOUR, anchor=anchor), instant("2030-01-01 12:07"))


def test_an_anchor_that_has_passed_says_where_the_grid_lies() -> None:
    every = Every(HOUR, anchor=datetime(2029, 1, 1, 9, 30, tzinfo=OSLO))
    assert "2030-01-01 12:30" == local(first_after(every, instant("2030-01-01 12:07")))
    assert "2030-01-01 13:30" == local(first_after(every, instant("2030-01-01 12:30")))


@given(lengths, moments, st.lists(st.timedeltas(timedelta(), timedelta(days=3000)), max_size=20))
def test_a_grid_never_drifts_however_late_it_rings(interval: timedelta, start: int, lates: list[timedelta]) -> None:
    every = Every(interval)
    scheduled = first_after(every, start)
    assert scheduled is not None
    for late in lates:
        now = scheduled + length_micros(late)
        following = next_after(every, scheduled, now)
        assert following is not None
        assert now < following <= now + length_micros(interval)
        assert (following - start) % length_micros(interval) == 0
        assert count_since(every, scheduled, now) == (following - scheduled) // length_micros(interval) - 1
        scheduled = following


def test_a_clock_that_went_back_repeats_no_occurrence() -> None:
    scheduled = instant("2030-01-01 12:00")
    earlier = instant("2029-12-24 12:00")
    assert "2030-01-01 13:00" == local(next_after(Every(HOUR), scheduled, earlier))
    assert 0 == count_since(Every(HOUR), scheduled, earlier)
    assert "2030-01-02 12:00" == local(next_after(Cron("0 12 * * *", tz="Europe/Oslo"), scheduled, earlier))
    assert 0 == count_since(Cron("0 12 * * *", tz="Europe/Oslo"), scheduled, earlier)


@pytest.mark.parametrize(
    "recurrence",
    [
        Every(timedelta.max),
        Every(timedelta(days=2)),
        Cron("0 0 29 2 *"),
        Cron("0 0 1 1 *", tz="Pacific/Kiritimati"),
        Cron("* * * * *", tz="America/New_York"),
    ],
)
def test_at_the_end_of_the_calendar_there_is_no_next_occurrence(recurrence: Recurrence) -> None:
    assert first_after(recurrence, HIGHEST - 1_000_000) is None
    assert next_after(recurrence, HIGHEST - 1_000_000, 0) is None


# --- by the calendar ---------------------------------------------------------


def test_a_time_of_day_is_that_of_its_place() -> None:
    mondays = Cron("0 9 * * mon", tz="Europe/Oslo")
    assert ["2030-03-25 09:00", "2030-04-01 09:00"] == walk(mondays, "2030-03-18 09:00", 2)
    assert [8, 7] == [from_micros(instant(day)).hour for day in ("2030-03-25 09:00", "2030-04-01 09:00")], (
        "winter and summer time"
    )


def test_an_occurrence_at_this_instant_is_not_the_next() -> None:
    nine = instant("2030-03-18 09:00")
    cron = Cron("0 9 * * *", tz="Europe/Oslo")
    assert "2030-03-19 09:00" == local(first_after(cron, nine))
    assert "2030-03-18 09:00" == local(first_after(cron, nine - 1))
    assert "2030-03-19 09:00" == local(first_after(cron, nine + 1))


# On 2030-03-31 the clocks of Oslo go from two to three, on 2030-10-27 from three back to two.


def test_a_time_of_day_that_the_clocks_skip_rings_where_they_go_on() -> None:
    cron = Cron("30 2 * * *", tz="Europe/Oslo")
    assert ["2030-03-30 02:30", "2030-03-31 03:00", "2030-04-01 02:30"] == walk(cron, "2030-03-29 12:00", 3)


def test_two_times_of_day_that_meet_at_the_end_of_the_gap_ring_once() -> None:
    cron = Cron("0,30 2,3 * * *", tz="Europe/Oslo")
    assert ["2030-03-31 03:00", "2030-03-31 03:30", "2030-04-01 02:00"] == walk(cron, "2030-03-30 12:00", 3)


def test_a_time_of_day_that_the_clocks_repeat_rings_the_first_time_only() -> None:
    cron = Cron("30 2 * * *", tz="Europe/Oslo")
    assert ["2030-10-26 02:30", "2030-10-27 02:30", "2030-10-28 02:30"] == walk(cron, "2030-10-25 12:00", 3)


@pytest.mark.parametrize("within", ["2030-10-27 02:10+", "2030-10-27 02:30+", "2030-10-27 02:50+"])
def test_within_the_second_pass_a_time_of_day_is_over(within: str) -> None:
    assert ["2030-10-28 02:30"] == walk(Cron("30 2 * * *", tz="Europe/Oslo"), within, 1)


def test_every_hour_follows_elapsed_time_through_both_changes() -> None:
    cron = Cron("15 * * * *", tz="Europe/Oslo")
    assert ["2030-03-31 01:15", "2030-03-31 03:15"] == walk(cron, "2030-03-31 01:00", 2)
    repeated = ["2030-10-27 01:15", "2030-10-27 02:15", "2030-10-27 02:15+", "2030-10-27 03:15"]
    assert repeated == walk(cron, "2030-10-27 01:00", 4)


def test_every_few_minutes_follows_elapsed_time_through_both_changes() -> None:
    cron = Cron("*/30 * * * *", tz="Europe/Oslo")
    assert ["2030-03-31 01:30", "2030-03-31 03:00"] == walk(cron, "2030-03-31 01:00", 2)
    repeated = ["2030-10-27 02:00", "2030-10-27 02:30", "2030-10-27 02:00+", "2030-10-27 02:30+", "2030-10-27 03:00"]
    assert repeated == walk(cron, "2030-10-27 01:30", 5)


CHANGES = [
    ("Europe/Oslo", "2030-03-31"),
    ("Europe/Oslo", "2030-10-27"),
    ("Australia/Lord_Howe", "2030-04-06"),  # by half an hour
    ("Australia/Lord_Howe", "2030-10-05"),
    ("America/St_Johns", "2005-10-30"),  # at a minute past midnight, back into the day before
    ("America/St_Johns", "2005-04-03"),
    ("Asia/Beirut", "2030-10-26"),  # at midnight, back into the day before
    ("Antarctica/Troll", "2030-10-27"),  # by two hours
    ("Pacific/Apia", "2011-12-30"),  # by a day, over the date line
]
MATCHES: dict[str, Callable[[datetime], bool]] = {
    "* 3 * * *": lambda local: local.hour == 3,
    "*/7 9 * * *": lambda local: local.minute % 7 == 0 and local.hour == 9,
    "59 * 26-29 * *": lambda local: local.minute == 59 and 26 <= local.day <= 29,
    "10,40 */2 * * *": lambda local: local.minute in {10, 40} and local.hour % 2 == 0,
    "*/20 0,2 * * sat": lambda local: local.minute % 20 == 0 and local.hour in {0, 2} and local.isoweekday() == 6,
}


@pytest.mark.parametrize("expression", MATCHES)
@pytest.mark.parametrize(("zone", "day"), CHANGES, ids=lambda word: word)
def test_what_follows_elapsed_time_rings_at_every_minute_whose_local_time_matches(
    zone: str, day: str, expression: str
) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
    minutes = [begin + timedelta(minutes=minute) for minute in range(1, 3 * 24 * 60)]
    expected = [minute for minute in minutes if MATCHES[expression](minute.astimezone(ZoneInfo(zone)))]
    found: list[datetime] = []
    micros = first_after(Cron(expression, tz=zone), to_micros(begin))
    while micros is not None and micros <= to_micros(minutes[-1]):
        found.append(from_micros(micros))
        micros = first_after(Cron(expression, tz=zone), micros)
    assert expected == found


ZONES = ("UTC", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu")
EXPRESSIONS = ("30 2 * * *", "0,30 0-3 * * *", "*/20 * * * *", "0 */3 * * sun", "0 0 * * *", "15 1 L * *")


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), moments)
def test_the_next_occurrence_is_always_later(expression: str, zone: str, now: int) -> None:
    cron = Cron(expression, tz=zone)
    first = first_after(cron, now)
    assert first is not None
    second = next_after(cron, first, now)
    assert second is not None
    assert now < first < second
    assert 1 == count_since(cron, first, second)
    assert 0 == count_since(cron, first, second - 1)


def test_many_missed_occurrences_are_counted_up_to_a_bound() -> None:
    cron = Cron("* * * * *")
    start = instant("2030-01-01 00:00")
    minute = 60_000_000
    assert COUNTED - 1 == count_since(cron, start, start + COUNTED * minute - 1)
    assert COUNTED == count_since(cron, start, start + COUNTED * minute)
    later = start + 100 * COUNTED * minute
    assert COUNTED == count_since(cron, start, later)
    assert later + minute == next_after(cron, start, later)


# --- the values --------------------------------------------------------------


def test_equal_definitions_are_equal() -> None:
    anchor = datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert Every(HOUR, anchor=anchor) == Every(timedelta(minutes=60), anchor=anchor.astimezone(OSLO))
    assert hash(Every(HOUR, anchor=anchor)) == hash(Every(timedelta(minutes=60), anchor=anchor.astimezone(OSLO)))
    assert Cron("0 9 * * mon") == Cron("  0 9\t* * mon ", tz="UTC")
    assert Every(HOUR) != Every(HOUR, missed="each")
    assert Cron("0 9 * * mon") != Cron("0 9 * * mon", tz="Europe/Oslo")


@pytest.mark.parametrize("value", [Every(HOUR, missed="each", grace=HOUR), Cron("0 9 * * mon", tz="Europe/Oslo")])
def test_a_recurrence_survives_pickle(value: Recurrence) -> None:
    assert value == pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("interval", [timedelta(), -HOUR, 3600, None, "1h"])
def test_an_interval_is_a_positive_length(interval: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match=r"Every\.interval must be a positive timedelta"):
        Every(interval)


def test_an_hour_that_the_clocks_repeat_is_another_anchor_the_second_time() -> None:
    first, second = (Every(HOUR, anchor=datetime(2030, 10, 27, 2, 30, tzinfo=OSLO, fold=fold)) for fold in (0, 1))
    assert first.anchor is not None
    assert second.anchor is not None
    assert timedelta(hours=1) == second.anchor - first.anchor
    assert first != second


def test_an_anchor_before_the_calendar_in_utc_is_one_all_the_same() -> None:
    anchor = datetime.min.replace(tzinfo=timezone(HOUR))
    assert anchor == Every(HOUR, anchor=anchor).anchor


@pytest.mark.parametrize("anchor", [datetime(2030, 1, 1), date(2030, 1, 1), 0, "2030-01-01"])  # noqa: DTZ001 - wrong on purpose
def test_an_anchor_is_an_aware_time(anchor: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match=r"Every\.anchor must be an aware datetime"):
        Every(HOUR, anchor=anchor)


@pytest.mark.parametrize("missed", ["all", "", None, True])
def test_missed_is_one_of_its_words(missed: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match=r"Every\.missed must be 'once' or 'each'"):
        Every(HOUR, missed=missed)
    with pytest.raises(InvalidRecurrenceError, match=r"Cron\.missed must be"):
        Cron("* * * * *", missed=missed)


@pytest.mark.parametrize("grace", [-HOUR, 60, "1h"])
def test_a_grace_is_a_length_that_is_not_negative(grace: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match=r"Every\.grace must be a timedelta"):
        Every(HOUR, grace=grace)
    with pytest.raises(InvalidRecurrenceError, match=r"Cron\.grace must be a timedelta"):
        Cron("* * * * *", grace=grace)


@pytest.mark.parametrize("expression", ["", "* * * *", "* * * * * *", "@daily", 5, None, b"* * * * *"])
def test_an_expression_has_five_fields(expression: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match="five fields"):
        Cron(expression)


@pytest.mark.parametrize(
    "expression", ["a b c d e", "60 * * * *", "*/0 * * * *", "0 0 30 2 *", "0 0 * * 8", "\u0661 * * * *"]
)
def test_an_expression_that_cron_does_not_know_is_refused(expression: str) -> None:
    with pytest.raises(InvalidRecurrenceError, match="is no cron expression: Bad"):
        Cron(expression)


def test_an_expression_that_names_no_day_is_refused() -> None:
    with pytest.raises(InvalidRecurrenceError, match="names no day in fifty years"):
        Cron("* * */20 * 1L")


@pytest.mark.parametrize("zone", ["", "Europe", "Europe/Nowhere", "../etc/passwd", "/etc", "é", "a\0b", None, OSLO])
def test_a_zone_is_the_name_of_one_that_is_known(zone: Any) -> None:
    with pytest.raises(InvalidRecurrenceError, match=r"Cron\.tz must be the name of a zone"):
        Cron("* * * * *", tz=zone)


def test_without_its_extra_a_cron_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(MissingExtraError, match=r"install partyroom\[cron\]"):
        Cron("* * * * *")
