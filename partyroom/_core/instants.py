"""Points in time as whole microseconds since 1970-01-01 UTC: how they are stored, compared and added.

Owns the way from ``datetime`` to ``int`` and back, and what ``set_alarm`` takes
as a time.

Promises exactness over the whole range of ``datetime``, years 1 to 9999: no
float is involved, so a stored time comes back as it was, and an alarm is never
a rounding early (G8).

Must never read a clock: "now" is an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from numbers import Number
from typing import Final

from partyroom.errors import AlarmTimeError

__all__ = ["EPOCH", "HIGHEST", "LOWEST", "alarm_time", "from_micros", "length", "length_micros", "to_micros"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def length(micros: int) -> timedelta:
    """Give so many microseconds as a length of time."""
    # Half the time of ``timedelta(microseconds=micros)``, and as exact.
    return MICROSECOND * micros


def length_micros(length: timedelta) -> int:
    """Give a length of time in microseconds."""
    # By its parts: half the time of ``length // timedelta(microseconds=1)``.
    return (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds


def to_micros(when: datetime) -> int:
    """Give an aware time, in any zone, as microseconds since 1970-01-01 UTC; raise ``TypeError`` for a naive one."""
    return length_micros(when - EPOCH)


def from_micros(micros: int) -> datetime:
    """Give the time in UTC; raise ``OverflowError`` outside years 1 to 9999."""
    return EPOCH + MICROSECOND * micros


LOWEST: Final = to_micros(datetime.min.replace(tzinfo=UTC))
"""The first microsecond of year 1."""
HIGHEST: Final = to_micros(datetime.max.replace(tzinfo=UTC))
"""The last microsecond of year 9999."""


def alarm_time(when: object, now: int) -> int:
    """Give the instant that ``when`` means, in microseconds since 1970-01-01 UTC, as ``now`` is.

    ``when`` is an aware ``datetime`` in any zone, or a ``timedelta`` from ``now``. The past is as good as the future.
    Raises :class:`AlarmTimeError` for anything else: a naive ``datetime``, an instant that is in UTC outside years 1
    to 9999, a number, a ``date``.
    """
    if isinstance(when, datetime):
        micros = _of_datetime(when)
    elif isinstance(when, timedelta):
        micros = now + length_micros(when)
    else:
        raise AlarmTimeError(_no_time(when))
    # What compares as neither inside nor outside (pandas' NaT is a ``datetime``) is refused here as well.
    if LOWEST <= micros <= HIGHEST:
        return micros
    message = f"{when!r} is outside years 1 to 9999 in UTC"
    raise AlarmTimeError(message)


def _of_datetime(when: datetime) -> int:
    if when.utcoffset() is None:
        message = f"{when!r} is naive, so it names no instant: give it a zone, such as tzinfo=UTC or .astimezone()"
        raise AlarmTimeError(message)
    return to_micros(when)


def _no_time(when: object) -> str:
    message = f"a time is an aware datetime, a timedelta from now, an Every or a Cron, not {type(when).__name__}"
    if isinstance(when, Number):
        return f"{message}: a number could be seconds or milliseconds, timedelta(seconds=...) says which"
    if isinstance(when, str):
        return f"{message}: Cron({when!r}) repeats by such a text, datetime.fromisoformat(...) reads an instant"
    return message
