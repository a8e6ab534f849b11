"""The answer to a listing, page by page.

Owns what a part of an ordered range is: its beginning, what is left behind it, and writes laid over either.

Promises that pages come in the order of their range and that their ends meet, so that what is taken page by page is
what the range holds, each entry once (G17).

Must never know where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from partyroom._core.keys import contains
from partyroom.types import KeyRange

__all__ = ["Page", "behind", "merge", "rest_of", "until"]


class Page(NamedTuple):
    """The first entries of a range, in its order, and what of the range they do not answer (``None`` for nothing).

    There may be fewer entries than were asked for, even none, while a rest is left.
    """

    rows: Sequence[tuple[str, bytes]]
    rest: KeyRange | None


def merge(keys: KeyRange, page: Page, layer: Mapping[str, bytes | None], limit: int) -> Page:
    """Lay writes (``None`` for deletions) over a page of ``keys``; give at most ``limit`` entries, and what is left.

    Where all was deleted before those writes, the page below is ``Page((), None)``.
    """
    answered = keys if page.rest is None else _before(keys, page.rest)
    over = {key: data for key, data in layer.items() if contains(answered, key)}
    if not over and len(page.rows) <= limit:
        return page
    merged = {**dict(page.rows), **over}
    rows = [(key, data) for key in sorted(merged, reverse=keys.reverse) if (data := merged[key]) is not None]
    if len(rows) <= limit:
        return Page(rows, page.rest)
    return Page(rows[:limit], behind(keys, rows[limit - 1][0]))


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
