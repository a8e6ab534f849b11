"""Where in its author's code a task waits, or an error was raised, for messages that help.

Owns the way from a task of any loop, or a traceback, to the line of a file.

Promises never to raise and never to change anything: it only looks.

Must never be asked while things go well: it reads source files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from linecache import getline
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any, Final

import anyio

import partyroom

__all__ = ["raising_place", "waiting_place"]

LIBRARIES: Final = (
    *(str(Path(package.__file__ or "").parent) for package in (partyroom, anyio)),
    str(Path(anyio.__file__).parents[1] / "trio"),
    str(Path(sys.modules["contextlib"].__file__ or "").parent),
)
"""Where code lives that an author did not write: this library, the loops, the standard library."""
EXAMPLES: Final = str(Path(partyroom.__file__).parent / "examples")


FRAME_AND_NEXT: Final = (("cr_frame", "cr_await"), ("ag_frame", "ag_await"), ("gi_frame", "gi_yieldfrom"))
"""Where coroutines, asynchronous generators and generators keep their frame, and what they wait for."""


def waiting_place(task: object) -> str:
    """Say at which line of whose code a task waits: the innermost one that is not a library's."""
    return _innermost((frame, frame.f_lineno) for frame in _frames(task))


def raising_place(error: BaseException) -> str:
    """Say at which line of whose code an error was raised: the innermost one that is not a library's."""
    return _innermost((frame, line) for frame, line in walk_tb(error.__traceback__))


def _innermost(steps: Iterable[tuple[FrameType, int]]) -> str:
    found = ""
    for frame, number in steps:
        code = frame.f_code
        if _is_an_authors(code.co_filename):
            line = getline(code.co_filename, number).strip()
            found = f"{Path(code.co_filename).name}:{number} in {code.co_name}: {line}"
    return found


def _is_an_authors(filename: str) -> bool:
    return filename.startswith(EXAMPLES) or not filename.startswith((*LIBRARIES, "<"))


def _frames(task: object) -> Iterator[FrameType]:
    """Give the frames of a task's coroutine, the outermost first."""
    get: Any = getattr(task, "get_coro", None)
    step: Any = getattr(task, "coro", None) if get is None else get()
    while step is not None:
        names = next((pair for pair in FRAME_AND_NEXT if hasattr(step, pair[0])), None)
        if names is None:
            return
        frame, step = getattr(step, names[0]), getattr(step, names[1])
        if frame is not None:
            yield frame
