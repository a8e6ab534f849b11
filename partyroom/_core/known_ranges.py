"""Which ranges of keys are known whole, as one row of bounds: begin, end, begin, end, ...

Owns the arithmetic of such rows. The last range may have no end, so that ``("",)`` is every key and ``()`` is none.

Promises that ranges in a row are in order and never touch: a bound is odd or even by its place alone, and one binary
search tells on which side of it a key lies.

Must never change a row in place: rows are shared.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from partyroom.types import KeyRange

__all__ = ["EVERYTHING", "NOTHING", "Bounds", "covers", "first_gap", "first_part", "joined"]

Bounds = tuple[str, ...]

NOTHING: Final[Bounds] = ()
EVERYTHING: Final[Bounds] = ("",)


def covers(known: Bounds, key: str) -> bool:
    """Say whether a key is in a known range."""
    return bisect_right(known, key) % 2 == 1


def first_gap(known: Bounds, keys: KeyRange) -> KeyRange | None:
    """Give the unknown range with which a range begins, in its own order; ``None`` if it begins with a known one."""
    place = _place(known, keys)
    return None if place % 2 else _stretch(known, keys, place)


def first_part(known: Bounds, keys: KeyRange) -> KeyRange:
    """Give the known range with which a range begins, in its own order, if ``first_gap`` says that it does."""
    return _stretch(known, keys, _place(known, keys))


def joined(known: Bounds, told: KeyRange) -> Bounds:
    """Give a row with one more range."""
    low = bisect_left(known, told.start)
    high = len(known) if told.end is None else bisect_right(known, told.end)
    start = () if low % 2 else (told.start,)
    end = () if told.end is None or high % 2 else (told.end,)
    return (*known[:low], *start, *end, *known[high:])


def _place(known: Bounds, keys: KeyRange) -> int:
    """Say how many bounds lie before the place where a range begins, in its own order."""
    if not keys.reverse:
        return bisect_right(known, keys.start)
    # A range is left by its end, which it does not hold: a bound right there lies behind.
    return len(known) if keys.end is None else bisect_left(known, keys.end)


def _stretch(known: Bounds, keys: KeyRange, place: int) -> KeyRange:
    """Give the beginning of a range up to the first bound on its way, if there is one."""
    if keys.reverse:
        return KeyRange(max(keys.start, known[place - 1]) if place else keys.start, keys.end, reverse=True)
    if place == len(known):
        return KeyRange(keys.start, keys.end)
    return KeyRange(keys.start, known[place] if keys.end is None else min(known[place], keys.end))
