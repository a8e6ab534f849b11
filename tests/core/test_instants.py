"""Instants are exact, and ``set_alarm`` takes nothing that is no instant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.instants import EPOCH, HIGHEST, LOWEST, alarm_time, from_micros, length_micros, to_micros
from partyroom.errors import AlarmTimeError

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOW = to_micros(NOON)
MICROSECOND = timedelta(microseconds=1)


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_comes_back_as_it_was(when: datetime) -> None:
    assert when == from_micros(to_micros(when))
    assert UTC is from_micros(to_micros(when)).tzinfo


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_microseconds_have_the_order_of_instants(one: datetime, other: datetime) -> None:
    assert (one < other) == (to_micros(one) < to_micros(other))


@given(st.timedeltas())
def test_a_length_is_exact(length: timedelta) -> None:
    assert length_micros(length) == length // MICROSECOND


def test_the_whole_range_is_there() -> None:
    assert datetime.min.replace(tzinfo=UTC) == from_micros(LOWEST)
    assert datetime.max.replace(tzinfo=UTC) == from_micros(HIGHEST)
    assert to_micros(EPOCH) == 0
    assert to_micros(EPOCH - MICROSECOND) == -1


@pytest.mark.parametrize("outside", [LOWEST - 1, HIGHEST + 1])
def test_outside_the_range_there_is_no_instant(outside: int) -> None:
    with pytest.raises(OverflowError):
        from_micros(outside)


def test_any_zone_means_the_same_instant() -> None:
    noon = datetime(2030, 7, 1, 12, tzinfo=ZoneInfo("Europe/Oslo"))
    assert to_micros(datetime(2030, 7, 1, 10, tzinfo=UTC)) == alarm_time(noon, NOW)


def test_the_repeated_hour_is_told_apart_by_its_fold() -> None:
    first = datetime(2030, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Oslo"))
    assert to_micros(datetime(2030, 10, 27, 0, 30, tzinfo=UTC)) == alarm_time(first, NOW)
    assert to_micros(datetime(2030, 10, 27, 1, 30, tzinfo=UTC)) == alarm_time(first.replace(fold=1), NOW)


@given(st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)))
def test_a_length_counts_from_now(length: timedelta) -> None:
    assert to_micros(NOON + length) == alarm_time(length, NOW)


def test_the_past_is_an_instant_like_any_other() -> None:
    assert NOW - 1 == alarm_time(-MICROSECOND, NOW)
    assert LOWEST == alarm_time(datetime.min.replace(tzinfo=UTC), NOW)


@pytest.mark.parametrize(
    "when",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        timedelta.max,
        timedelta.min,
    ],
)
def test_an_instant_outside_the_range_in_utc_is_refused(when: object) -> None:
    with pytest.raises(AlarmTimeError, match="outside years 1 to 9999 in UTC"):
        alarm_time(when, NOW)


class Nowhere(tzinfo):
    def utcoffset(self, dt: datetime | None, /) -> None:
        return None

    dst = utcoffset
    tzname = utcoffset


@pytest.mark.parametrize("when", [datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=Nowhere())])  # noqa: DTZ001 - wrong on purpose
def test_a_naive_time_is_refused(when: datetime) -> None:
    with pytest.raises(AlarmTimeError, match="naive"):
        alarm_time(when, NOW)


@pytest.mark.parametrize("when", [5, 1.5, True, Decimal(3)])
def test_a_number_is_refused_saying_why(when: object) -> None:
    with pytest.raises(
        AlarmTimeError, match=r"not (int|float|bool|Decimal): a number could be seconds or milliseconds"
    ):
        alarm_time(when, NOW)


@pytest.mark.parametrize("when", [None, "2030-01-01T00:00:00Z", date(2030, 1, 1), object()])
def test_what_is_no_time_is_refused_by_its_type(when: object) -> None:
    with pytest.raises(AlarmTimeError, match=rf"not {type(when).__name__}\b"):
        alarm_time(when, NOW)


class NotATime(datetime):
    """As pandas' NaT: a datetime whose every number is none."""

    def __sub__(self, other: object) -> NotALength:  # type: ignore[override]
        return NotALength()


class NotALength:
    days = seconds = microseconds = float("nan")


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(AlarmTimeError, match="outside"):
        alarm_time(NotATime(2030, 1, 1, tzinfo=UTC), NOW)
