"""Methods that look like a room's callbacks and are none, so that nothing would ever call them.

Owns the guess at what was meant: a callback in PartyKit's own spelling, or one
with a letter too many or too few.

Promises that a method beside the callback that it resembles is taken for what it
is: the author knows both.

Must never refuse anything: what a method is called is its author's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getattr_static
from typing import Final

from partyroom.protocols import Room

__all__ = ["slips_of"]

CALLBACKS: Final = tuple(name for name in vars(Room) if name.startswith("on_"))
LIKENESS: Final = 0.9
"""From which likeness on, by ``difflib``, a name is a slip: ``on_mesage`` and ``on_closed`` are, ``on_restart`` is none."""
HUMP: Final = re.compile("(?<=[a-z])(?=[A-Z])")


def slips_of(room_type: type[object]) -> Iterator[tuple[str, str]]:
    """Give the methods of a class that nothing will call, each with the callback that was probably meant."""
    for name in dir(room_type):
        # As it stands in the class: a descriptor of an author's may do anything when it is asked.
        if name.startswith("on") and name not in CALLBACKS and callable(getattr_static(room_type, name, None)):
            meant = _meant(name)
            if meant is not None and _is_left_out(room_type, meant):
                yield name, meant


def _is_left_out(room_type: type[object], callback: str) -> bool:
    found = getattr_static(room_type, callback, None)
    return found is None or found is vars(Room)[callback]


def _meant(name: str) -> str | None:
    snake = HUMP.sub("_", name).lower()
    if snake in CALLBACKS:
        return snake
    found = import_module("difflib").get_close_matches(snake, CALLBACKS, 1, LIKENESS)
    return found[0] if found else None
