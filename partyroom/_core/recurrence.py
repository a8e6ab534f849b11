"""When an alarm that rings again and again rings next.

Owns the computing behind :class:`~partyroom.Every` and :class:`~partyroom.Cron`,
and how the two are written into an alarm's record.

Promises that the next occurrence is later than both now and the last one, so
that none rings twice, whatever the wall clock or summer time does, and that a
grid of equal distances never drifts.

Must never read a clock. Instants are microseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final

from partyroom._core.instants import HIGHEST, LOWEST, from_micros, length, length_micros, to_micros
from partyroom.recurrence import Cron, Every, Recurrence, load_cronsim, load_zone

__all__ = ["COUNTED", "count_since", "decode_recurrence", "encode_recurrence", "first_after", "next_after"]

COUNTED: Final = 1000
"""How many occurrences of a ``Cron`` are counted before the count stops: each has to be computed."""
DAY: Final = 86_400_000_000


def first_after(recurrence: Recurrence, now: int) -> int | None:
    """Give the first occurrence after ``now`` of a recurrence that begins now; ``None`` if there is none up to year 9999."""
    if isinstance(recurrence, Cron):
        return _following(recurrence.expression, recurrence.tz, now)
    if recurrence.anchor is None:
        return _in_range(now + length_micros(recurrence.interval))
    anchor = to_micros(recurrence.anchor)
    # No occurrence is before the anchor, so a later one is the first; an earlier one only says where the grid lies.
    return _in_range(anchor) if anchor > now else next_after(recurrence, anchor, now)


def next_after(recurrence: Recurrence, scheduled: int, now: int) -> int | None:
    """Give the first occurrence after both ``scheduled``, which is one, and ``now``; ``None`` if there is none."""
    last = max(scheduled, now)
    if isinstance(recurrence, Cron):
        return _walk(recurrence, scheduled, last)[1]
    interval = length_micros(recurrence.interval)
    return _in_range(scheduled + ((last - scheduled) // interval + 1) * interval)


def count_since(recurrence: Recurrence, scheduled: int, now: int) -> int:
    """Count the occurrences after ``scheduled``, which is one, up to and with ``now``; those of a ``Cron`` up to ``COUNTED``."""
    if isinstance(recurrence, Cron):
        return _walk(recurrence, scheduled, now)[0]
    return max(0, now - scheduled) // length_micros(recurrence.interval)


def _in_range(micros: int) -> int | None:
    return micros if LOWEST <= micros <= HIGHEST else None


def _walk(cron: Cron, scheduled: int, last: int) -> tuple[int, int | None]:
    """Go from one occurrence to the first after ``last``; give how many lie between, and that one.

    Step by step, because rooms with the same schedule take the same steps, which are remembered: after an outage the
    first of them computes for all.
    """
    count = 0
    occurrence = _following(cron.expression, cron.tz, scheduled)
    while occurrence is not None and occurrence <= last:
        count += 1
        if count == COUNTED:
            return count, _following(cron.expression, cron.tz, last)
        occurrence = _following(cron.expression, cron.tz, occurrence)
    return count, occurrence


@lru_cache(maxsize=4 * COUNTED)
def _following(expression: str, tz: str, after: int) -> int | None:
    """Give the first occurrence after an instant; ``None`` if there is none before the calendar ends, or in fifty years."""
    zone = load_zone(tz)
    try:
        minute, hour, *_ = expression.split(" ")
        if minute.startswith("*") or hour.startswith("*"):
            return _following_elapsed(expression, zone, after)
        occurrences = load_cronsim().CronSim(expression, from_micros(after).astimezone(zone))
        # In an hour that the clocks repeat, local times begin again before the instant that was asked for.
        return next(micros for micros in map(to_micros, occurrences) if micros > after)
    except (OverflowError, ValueError, StopIteration):
        # The calendar ends with year 9999, and cronsim looks no further than fifty years.
        return None


def _following_elapsed(expression: str, zone: tzinfo, after: int) -> int:
    """Give the first occurrence after an instant of what follows elapsed time, from one change of the clocks to the next.

    Between two changes the clocks are those of UTC, set differently. Over one, cronsim goes by whole hours: it would
    lose what lies in half of one, or on the evening that clocks set back at midnight repeat. Raises as cronsim does if
    there is none.
    """
    cronsim = load_cronsim()
    begin = after
    while True:
        offset = _offset(zone, begin)
        found = to_micros(next(cronsim.CronSim(expression, from_micros(after + offset)))) - offset
        change = _first_change(zone, begin, found)
        if change is None:
            return found
        after, begin = change - 1, change


def _offset(zone: tzinfo, micros: int) -> int:
    return to_micros(from_micros(micros).astimezone(zone).replace(tzinfo=UTC)) - micros


def _first_change(zone: tzinfo, begin: int, end: int) -> int | None:
    """Give the first instant after ``begin``, up to and with ``end``, from which clocks differ otherwise from UTC's."""
    offset = _offset(zone, begin)
    while begin < end:
        # No two changes come within a day.
        next_day = min(begin + DAY, end)
        if _offset(zone, next_day) != offset:
            return begin + bisect_left(range(begin, next_day), 1, key=lambda at: int(_offset(zone, at) != offset))
        begin = next_day
    return None


def encode_recurrence(recurrence: Recurrence) -> dict[str, Any]:
    """Give a recurrence as plain JSON."""
    fields: dict[str, Any] = {}
    if isinstance(recurrence, Cron):
        fields["cron"] = recurrence.expression
        fields["tz"] = recurrence.tz
    else:
        fields["every"] = length_micros(recurrence.interval)
        if recurrence.anchor is not None:
            fields["anchor"] = to_micros(recurrence.anchor)
    if recurrence.missed != "once":
        fields["missed"] = recurrence.missed
    if recurrence.grace is not None:
        fields["grace"] = length_micros(recurrence.grace)
    return fields


def decode_recurrence(fields: Mapping[str, Any]) -> Recurrence:
    """Give the recurrence that ``encode_recurrence`` wrote; unknown fields mean nothing.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``OverflowError`` for anything else, and
    :class:`MissingExtraError` for a ``Cron`` where the extra is not installed.
    """
    grace = fields.get("grace")
    missed = fields.get("missed", "once")
    if "cron" in fields:
        return _cron(fields["cron"], fields["tz"], missed, grace)
    return _every(fields["every"], fields.get("anchor"), missed, grace)


@lru_cache(maxsize=256)
def _every(interval: int, anchor: int | None, missed: Any, grace: int | None) -> Every:  # noqa: ANN401 - as in _cron
    """Make an ``Every``; one that many rooms have is checked once."""
    return Every(
        length(interval),
        anchor=None if anchor is None else from_micros(anchor),
        missed=missed,
        grace=_length(grace),
    )


@lru_cache(maxsize=256)
def _cron(expression: str, tz: str, missed: Any, grace: int | None) -> Cron:  # noqa: ANN401 - checked by the class
    """Make a ``Cron``; one that many rooms have is checked once."""
    return Cron(expression, tz=tz, missed=missed, grace=_length(grace))


def _length(micros: int | None) -> timedelta | None:
    return None if micros is None else length(micros)
