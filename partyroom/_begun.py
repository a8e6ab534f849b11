"""A call that was begun outside of any ``await``, and is gone on with inside one.

Owns the hand-over between the two: most calls end in their first step, so that
whoever begins one by hand pays for waiting only where there is something to
wait for.

Promises that the task which goes on with the call is told exactly what the call
asks of the loop, and the call what the loop answers, cancellation included.

Must never begin anything by itself: the first step is the caller's.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, final

__all__ = ["Begun"]


@final
class Begun:
    """What is left of a call, to be awaited once, in the task that has made its first step and gave ``first``."""

    __slots__ = ("_first", "_steps")

    def __init__(self, steps: Generator[Any, Any, Any], first: object) -> None:
        self._steps = steps
        self._first = first

    def __await__(self) -> Generator[Any, Any, Any]:
        yielded = self._first
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:  # noqa: BLE001 - the loop's answer is passed on, whatever it is
                    yielded = self._steps.throw(error)
                else:
                    yielded = self._steps.send(sent)
        except StopIteration as done:
            return done.value
