"""The keys of layers of writes, in order.

Owns the order of the keys that an event has written, layer by layer, from one
listing of the event to the next.

Promises that a layer is sorted once, however often the event lists: what it has
gained since is put in its place.

Must never remember more than the layers that it was asked for last.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeAlias, final

__all__ = ["KeyOrders"]

FEW: Final = 8
"""Up to so many new keys are put in their places one by one; to sort again what is nearly in order costs more."""

Values: TypeAlias = dict[str, bytes | None]


@final
class KeyOrders:
    """Remembers the order of the keys of each dict. Dicts may gain keys from one time to the next, and never lose one."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # With the dict itself, so that no other one takes its id.
        self._known: dict[int, tuple[Values, list[str]]] = {}

    def of(self, layers: Sequence[Values]) -> list[Sequence[str]]:
        """Give the keys of each dict in order, and forget all other dicts."""
        known = self._known
        self._known = {id(values): known.get(id(values)) or (values, sorted(values)) for values in layers}
        return [_with_gains(order, values) for values, order in self._known.values()]


def _with_gains(order: list[str], values: Values) -> list[str]:
    """Put in their places the keys that a dict has gained."""
    gained = list(islice(reversed(values), len(values) - len(order)))
    if len(gained) > FEW:
        order += gained
        order.sort()
    else:
        for key in gained:
            insort(order, key)
    return order
