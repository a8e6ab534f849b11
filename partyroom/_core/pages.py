"""The answer to a listing, page by page.

Owns what a part of an ordered range is: its beginning, what is left behind it, and writes laid over either.

Promises that pages come in the order of their range and that their ends meet, so that what is taken page by page is
what the range holds, each entry once (G17).

Must never know where rows come from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from partyroom._core.keys import contains
from partyroom.types import KeyRange

__all__ = ["Layer", "Page", "behind", "merge", "rest_of", "until"]

Layer: TypeAlias = tuple[Mapping[str, bytes | None], Sequence[str]]
"""What was written over what lies below (``None`` for deletions), and its keys in order."""


class Page(NamedTuple):
    """The first entries of a range, in its order, and what of the range they do not answer (``None`` for nothing).

    There may be fewer entries than were asked for, even none, while a rest is left.
    """

    rows: Sequence[tuple[str, bytes | None]]
    """Keys with their bytes; with ``None``, a key that the event has deleted."""
    rest: KeyRange | None


def merge(keys: KeyRange, page: Page, layers: Sequence[Layer], limit: int) -> Page:
    """Lay writes, the lowest layer first, over a page of ``keys``; give at most ``limit`` entries, and what is left.

    Deleted keys are among them, so that they are known to whoever has to notice that one is written again. Where all was
    deleted before those writes, the page below is ``Page((), None)``. Of a layer no more is looked at than ``limit``
    keys, so that a listing of many pages looks at nothing twice.
    """
    rest = page.rest
    merged = dict(page.rows)
    for values, order in layers:
        found, behind_found = _first_keys(keys, order, limit)
        merged.update((key, values[key]) for key in found)
        rest = _nearer(rest, behind_found)
    answered = keys if rest is None else _before(keys, rest)
    rows = [(key, merged[key]) for key in sorted(merged, reverse=keys.reverse) if contains(answered, key)]
    if len(rows) > limit:
        return Page(rows[:limit], behind(keys, rows[limit - 1][0]))
    return Page(rows, rest)


def _first_keys(keys: KeyRange, order: Sequence[str], limit: int) -> tuple[Sequence[str], KeyRange | None]:
    """Give the first keys of a range, in its order, and what is left of the range behind them."""
    low = bisect_left(order, keys.start)
    high = len(order) if keys.end is None else bisect_left(order, keys.end)
    if high - low <= limit:
        return order[low:high], None
    found = order[high - limit : high][::-1] if keys.reverse else order[low : low + limit]
    return found, behind(keys, found[-1])


def _nearer(one: KeyRange | None, other: KeyRange | None) -> KeyRange | None:
    """Of two ends of one range, give the one that is reached first, in its order."""
    if one is None or other is None:
        return one or other
    if one.reverse:
        assert one.end is not None
        assert other.end is not None
        return one if one.end > other.end else other
    return one if one.start < other.start else other


def until(keys: KeyRange, key: str) -> KeyRange:
    """Give the beginning of a range, in its order, up to a key and with it."""
    return KeyRange(key, keys.end, reverse=True) if keys.reverse else KeyRange(keys.start, key + "\0")


def behind(keys: KeyRange, key: str) -> KeyRange:
    """Give what is left of a range, in its order, behind a key."""
    return KeyRange(keys.start, key, reverse=True) if keys.reverse else KeyRange(key + "\0", keys.end)


def rest_of(keys: KeyRange, part: KeyRange) -> KeyRange | None:
    """Give what is left of a range, in its order, behind a part with which it begins; ``None`` for nothing."""
    if part == keys:
        return None
    if keys.reverse:
        return KeyRange(keys.start, part.start, reverse=True)
    assert part.end is not None
    return KeyRange(part.end, keys.end)


def _before(keys: KeyRange, rest: KeyRange) -> KeyRange:
    """Give the part of a range, in its order, before what is left of it."""
    if not keys.reverse:
        return KeyRange(keys.start, rest.start)
    assert rest.end is not None
    return KeyRange(rest.end, keys.end, reverse=True)
