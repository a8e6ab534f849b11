"""``python -m partyroom``: the way from a shell to the command line.

Owns what a process has and nobody else: its arguments, its streams, its clock, its chance, its exit code.

Promises that text which the terminal cannot show ends no command, nor does a stream that is closed; and that a reader
who leaves early (``| head``) ends it without a word.

Must never decide anything.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from random import Random  # noqa: TID251 - here chance comes in
from typing import Final, TextIO

from partyroom._cli.main import main
from partyroom._cli.screen import USUAL_WIDTH, Screen
from partyroom.clock import SystemClock

SIGPIPE: Final = 141
"""The exit code of a program whose reader has left, as shells give it."""


def run() -> int:
    """Run the command that this process was started with, and give its exit code."""
    _open_streams()
    for stream, encoding, errors in (
        (sys.stdout, None, "backslashreplace"),
        (sys.stderr, None, "backslashreplace"),
        (sys.stdin, "utf-8", "surrogateescape"),
    ):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors=errors)
    try:
        return main(sys.argv[1:], _screen())
    except BrokenPipeError:
        # What is left in the buffer would be tried again at the interpreter's end, and complained of.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE


def _open_streams() -> None:
    """Give a process that was started without one of its streams an empty one in its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _screen() -> Screen:
    return Screen(
        out=sys.stdout,
        err=sys.stderr,
        input=sys.stdin,
        clock=SystemClock(),
        chance=partial(Random().getrandbits, 64),  # noqa: S311 - names of rings, no secrets
        width=shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None,
        is_watched=sys.stderr.isatty(),
        watched_width=_columns(sys.stderr),
    )


def _columns(stream: TextIO) -> int:
    """Give how wide the terminal of a stream is, also where the output goes elsewhere; the usual width if nobody knows."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
    except OSError:
        return USUAL_WIDTH


if __name__ == "__main__":
    sys.exit(run())
