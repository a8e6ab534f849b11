"""Words and figures for people: times, lengths, sizes, and whatever stands in a stored name.

Owns how anything looks in a line of text.

Promises that what is shown fits one line, or the lines that it has itself, and harms no terminal: characters that
cannot be seen, or that a terminal would obey, are written as Python escapes; and that nothing is cut without a sign
that it was.

Must never read a clock.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final
from unicodedata import east_asian_width

from partyroom._core.instants import from_micros, to_micros
from partyroom.recurrence import Every, Recurrence

__all__ = [
    "ELLIPSIS",
    "ago",
    "counted",
    "cut",
    "length",
    "lines",
    "moment",
    "one_line",
    "relative",
    "repeats",
    "size",
    "width",
]

ELLIPSIS: Final = "…"

SIZES: Final = ("B", "KB", "MB", "GB", "TB")
KILO_BITS: Final = 10
"""A KB is 1,024 bytes, and so on."""

UNITS: Final = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)


def one_line(text: str) -> str:
    """Give a text with everything escaped that is no printable character."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def lines(text: str) -> str:
    """Give a text with everything escaped that is no printable character, but for the ends of its lines."""
    return "\n".join(map(one_line, text.split("\n")))


def width(text: str) -> int:
    """Give how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def cut(text: str, columns: int) -> str:
    """Give a text that takes at most some columns; what was cut shows at its end."""
    if width(text) <= columns:
        return text
    taken = list(accumulate(map(width, text)))
    return text[: bisect_right(taken, columns - width(ELLIPSIS))] + ELLIPSIS


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Give a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: int) -> str:
    """Give a number of bytes, rounded down to a tenth of its unit."""
    power = min((number.bit_length() - 1) // KILO_BITS, len(SIZES) - 1) if number else 0
    if not power:
        return f"{number} B"
    # By integers: a tenth that is rounded up would promise space that is not there.
    tenths = number * 10 >> power * KILO_BITS
    return f"{tenths // 10:,}.{tenths % 10} {SIZES[power]}"


def length(span: timedelta) -> str:
    """Give a length of time by its two largest units, rounded down; milliseconds only if there are no seconds."""
    rest = abs(span)
    parts: list[str] = []
    for name, unit in UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count} {name}")
        # The second unit follows the first at once: 3 d and 2 min would promise a precision that is not there.
        if len(parts) == 2 or (parts and (not count or name == "s")):  # noqa: PLR2004 - the two largest
            break
    return " ".join(parts) or "0 ms"


def moment(micros: int) -> str:
    """Give an instant (microseconds since 1970-01-01 UTC), to the second, in UTC."""
    return from_micros(micros).replace(microsecond=0, tzinfo=None).isoformat(sep=" ") + "Z"


def relative(micros: int, now: datetime) -> str:
    """Give an instant as seen from now: ``in 2 h 5 min``, or ``3 s late``."""
    ahead = timedelta(microseconds=micros - to_micros(now))
    if ahead > timedelta():
        return f"in {length(ahead)}"
    return f"{length(ahead)} late"


def ago(micros: int, now: datetime) -> str:
    """Give an instant that has been, as seen from now: ``3 s ago``, or ``3 s ahead`` where the clock was set back since."""
    passed = timedelta(microseconds=to_micros(now) - micros)
    return f"{length(passed)} {'ago' if passed >= timedelta() else 'ahead'}"


def repeats(recurrence: Recurrence | None) -> str:
    """Give how an alarm repeats; nothing for one that rings once."""
    if recurrence is None:
        return ""
    if isinstance(recurrence, Every):
        return f"every {length(recurrence.interval)}"
    return f"cron {recurrence.expression} {recurrence.tz}"
