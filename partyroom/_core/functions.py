"""What an author hands in to be called, looked at before and after.

Owns the words for what is no function, and for one that is not async.

Promises that either is refused with its name, where an author sees it: not as
an error of whoever would have awaited it.

Must never call anything.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from partyroom._core.units import Place

__all__ = ["awaited", "check_function", "not_awaitable"]


def awaited(running: Awaitable[Any], room: Place, name: str) -> Awaitable[Any]:
    """Give what an author's function has given, if it can be awaited: to be awaited at once."""
    if not hasattr(running, "__await__"):
        raise not_awaitable(f"{room.key} {name}", running)
    return running


def not_awaitable(what: object, given: object) -> TypeError:
    """Say that a function is not async."""
    return TypeError(f"{what} gave {type(given).__name__}, which cannot be awaited: write it with `async def`")


def check_function(fn: object, verb: str) -> None:
    """Refuse what is no function, such as a coroutine: by what it was handed to."""
    if callable(fn):
        return
    if hasattr(fn, "__await__"):
        close = getattr(fn, "close", None)
        if close is not None:
            # Nobody will await it, and Python need not say so as well.
            close()
        message = f"{verb} takes a function and its arguments, {verb}(fn, 1), not what calling it gives, {verb}(fn(1))"
        raise TypeError(message)
    message = f"{verb} takes an async function and its arguments, not {type(fn).__name__}"
    raise TypeError(message)
