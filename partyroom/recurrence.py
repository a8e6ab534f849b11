"""What an alarm that rings again and again is set with.

Owns the two ways of saying when: :class:`Every` length of time, and
:class:`Cron`, the five fields that calendars are written in. Both also say
what is to happen with occurrences that nobody was there to ring.

Promises that a value which exists is one that can be computed with, and that
two of the same definition are equal: setting an alarm again with an equal one
keeps its next time, so that ``on_start`` may declare schedules at every start.

Must never compute an occurrence: that is the core's business.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

import attrs

from partyroom.errors import InvalidRecurrenceError, MissingExtraError

__all__ = ["Cron", "Every", "Missed", "Recurrence"]

Missed: TypeAlias = Literal["once", "each"]
"""What becomes of occurrences that nobody was there to ring: one ring for all of them, or one for each."""

FIELDS: Final = 5
"""Minute, hour, day of the month, month, day of the week. With seconds it would be another rule for summer time."""


def _check_interval(_: object, attribute: attrs.Attribute[timedelta], value: object) -> None:
    if not isinstance(value, timedelta) or value <= timedelta():
        message = f"Every.{attribute.name} must be a positive timedelta, not {value!r}"
        raise InvalidRecurrenceError(message)


def _check_anchor(_: object, attribute: attrs.Attribute[datetime | None], value: object) -> None:
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        message = f"Every.{attribute.name} must be an aware datetime, not {value!r}"
        raise InvalidRecurrenceError(message)


def _in_utc(value: datetime | None) -> datetime | None:
    """Give an instant as all of its kind are compared and stored; what is none is left for the validator."""
    try:
        return value.astimezone(UTC) if isinstance(value, datetime) and value.utcoffset() is not None else value
    except OverflowError:
        # In UTC it lies outside the calendar, and is found to where it is used.
        return value


def _check_missed(instance: object, attribute: attrs.Attribute[Missed], value: object) -> None:
    if value not in {"once", "each"}:
        message = f"{type(instance).__name__}.{attribute.name} must be 'once' or 'each', not {value!r}"
        raise InvalidRecurrenceError(message)


def _check_grace(instance: object, attribute: attrs.Attribute[timedelta | None], value: object) -> None:
    if value is not None and (not isinstance(value, timedelta) or value < timedelta()):
        message = f"{type(instance).__name__}.{attribute.name} must be a timedelta, and not negative, not {value!r}"
        raise InvalidRecurrenceError(message)


def _check_zone(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    try:
        # A str is asked for, because the definition is stored: zones have no other name in common.
        known = isinstance(value, str) and bool(load_zone(value))
    except (KeyError, ValueError, OSError):
        known = False
    if not known:
        message = (
            f"Cron.{attribute.name} must be the name of a zone that this system knows, such as 'Europe/Oslo', "
            f"not {value!r}; the package tzdata brings all of them"
        )
        raise InvalidRecurrenceError(message)


def _check_expression(_: object, __: attrs.Attribute[str], value: object) -> None:
    cronsim = load_cronsim()
    if not isinstance(value, str) or len(value.split()) != FIELDS:
        message = f"a cron expression has five fields (minute, hour, day, month, day of the week), unlike {value!r}"
        raise InvalidRecurrenceError(message)
    try:
        first = next(cronsim.CronSim(value, datetime(2000, 1, 1, tzinfo=UTC)), None)
    except cronsim.CronSimError as error:
        message = f"{value!r} is no cron expression: {error}"
        raise InvalidRecurrenceError(message) from error
    if first is None:
        message = f"the cron expression {value!r} names no day in fifty years"
        raise InvalidRecurrenceError(message)


def _collapse(value: str) -> str:
    """Make expressions that differ in white space only equal; what is no text is left for the validator."""
    return " ".join(value.split()) if type(value) is str else value


def load_zone(name: str) -> tzinfo:
    """Give a zone by its name; looked up late, for a calendar is all that needs zones, and they are slow to import."""
    zone: tzinfo = import_module("zoneinfo").ZoneInfo(name)
    return zone


def load_cronsim() -> Any:  # noqa: ANN401 - a module of an extra, which need not be there
    """Give the module that knows cron expressions; raise :class:`MissingExtraError` if it is not installed."""
    try:
        return import_module("cronsim")
    except ModuleNotFoundError as error:
        message = "Cron needs the package cronsim: install partyroom[cron]"
        raise MissingExtraError(message) from error


@attrs.frozen
class Every:
    """Again and again, at the same distance: occurrences keep to their grid however late one of them rings.

    Without ``anchor`` the first occurrence is one ``interval`` after the alarm is set, and the grid begins there.
    Raises :class:`InvalidRecurrenceError` for a value that makes no sense.
    """

    interval: timedelta = attrs.field(validator=_check_interval)
    """The distance between two occurrences, in elapsed time: a day is 24 hours, also when the clocks change."""
    anchor: datetime | None = attrs.field(default=None, kw_only=True, converter=_in_utc, validator=_check_anchor)
    """The first occurrence, in UTC whatever zone it was given in; if it has passed, the next one on its grid is the first to ring."""
    missed: Missed = attrs.field(default="once", kw_only=True, validator=_check_missed)
    """Whether occurrences that passed unrung ring once, the ``Alarm`` saying how many there were, or each by itself."""
    grace: timedelta | None = attrs.field(default=None, kw_only=True, validator=_check_grace)
    """How late an occurrence may ring at all; older ones are skipped and only counted. ``None`` for any lateness."""


@attrs.frozen
class Cron:
    """By the calendar: minute, hour, day of the month, month and day of the week, as in Debian's cron.

    ``Cron("0 9 * * mon", tz="Europe/Oslo")`` is every Monday at nine, by the clocks of Oslo. When these change,

    - an occurrence at a time of day (hour and minute are both given) that the clocks skip rings where they go on:
      half past two, on a night that goes from two to three, at three; one that they repeat rings the first time only;
    - an occurrence of every hour or every few minutes (hour or minute begins with ``*``) follows elapsed time: it
      rings in both of the repeated hours, and not in the skipped one.

    Needs the extra ``partyroom[cron]``, else :class:`MissingExtraError`. Raises :class:`InvalidRecurrenceError` for an
    expression or a zone that nobody knows.
    """

    expression: str = attrs.field(converter=_collapse, validator=_check_expression)
    """Five fields with ``*``, lists, ranges, steps, names of months and days, ``L`` for the last day, ``mon#2`` for the second Monday."""
    tz: str = attrs.field(default="UTC", kw_only=True, validator=_check_zone)
    """The name of the zone whose clocks count."""
    missed: Missed = attrs.field(default="once", kw_only=True, validator=_check_missed)
    """Whether occurrences that passed unrung ring once, the ``Alarm`` saying how many there were, or each by itself."""
    grace: timedelta | None = attrs.field(default=None, kw_only=True, validator=_check_grace)
    """How late an occurrence may ring at all; older ones are skipped and only counted. ``None`` for any lateness."""


Recurrence: TypeAlias = Every | Cron
"""What ``set_alarm`` takes for an alarm that rings again and again."""
