"""An awaitable whose first step is made by hand: most end in it, and need nothing of what waiting takes.

Owns the way on from there: what was begun outside of any ``await`` is gone on
with inside one, in the same task.

Promises that it makes no difference to what is awaited, however it is resumed
or cancelled.

Must never know what it is used for.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar, final

__all__ = ["Begun"]

T = TypeVar("T")


@final
class Begun(Generic[T]):
    """What is left of an awaitable: its iterator, and what its first step has given for the loop."""

    __slots__ = ("_first", "_iterator")

    def __init__(self, iterator: Generator[Any, Any, T], first: object) -> None:
        self._iterator = iterator
        self._first = first

    def __await__(self) -> Generator[Any, Any, T]:
        # As ``yield from`` would (PEP 380), for which it is too late: an awaitable may give any iterator.
        yielded = self._first
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:
                    if not hasattr(self._iterator, "throw"):
                        raise
                    yielded = self._iterator.throw(error)
                else:
                    yielded = next(self._iterator) if sent is None else self._iterator.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
