"""The command line as a whole: from arguments to an exit code.

Owns the list of verbs, their help, and what becomes of an error.

Promises that whatever a person, a file or a disk does wrong is told in one line, with exit code 2, and that Ctrl-C ends
a command without a word.

Must never hide an error of its own: what is nobody else's fault keeps its traceback.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from shutil import get_terminal_size
from textwrap import fill
from typing import Final

from partyroom._cli import (
    alarms,
    backup,
    check,
    delete,
    demo,
    export,
    import_,
    ring_again,
    ring_due,
    rooms,
    show,
    stats,
    timeline,
)
from partyroom._cli.screen import FAILED, INTERRUPTED, CommandError, Screen
from partyroom._cli.text import one_line
from partyroom.errors import PartyroomError

__all__ = ["PROGRAM", "VERBS", "main", "parser"]

PROGRAM: Final = "python -m partyroom"
WIDTH: Final = 80
"""Of help texts, where there is room for it."""

VERBS: Final = tuple(
    module.VERB
    for module in (
        *(demo, rooms, alarms, show, check, stats, timeline, backup, export),
        *(import_, ring_due, ring_again, delete),
    )
)
"""In the order in which help lists them: first those that only look."""


def parser() -> ArgumentParser:
    """Make the parser of all verbs."""
    whole = ArgumentParser(
        prog=PROGRAM,
        description="Look into a file of rooms, and take care of it.",
        epilog="exit codes: 0 all is well; 1 something wrong was found, or a ring failed; 2 it could not be done",
    )
    # As argparse itself leaves a margin; it would fill the examples too, if it were to fill this.
    width = max(1, min(WIDTH, get_terminal_size().columns - 2))
    verbs = whole.add_subparsers(metavar="COMMAND", dest="verb", required=True)
    for verb in VERBS:
        each = verbs.add_parser(
            verb.name,
            help=verb.summary,
            description=fill(verb.details, width),
            epilog="\n".join(["example:", *(f"  {PROGRAM} {example}" for example in verb.examples)]),
            formatter_class=RawDescriptionHelpFormatter,
        )
        verb.options(each)
        each.set_defaults(run=verb.run)
    return whole


def main(arguments: Sequence[str], screen: Screen) -> int:
    """Do what the arguments say; give the exit code. Raises ``SystemExit`` for arguments that make no sense, and for help."""
    chosen = parser().parse_args(arguments)
    try:
        code: int = chosen.run(chosen, screen)
        screen.out.flush()
    except BrokenPipeError:
        # No fault of a file: the one who reads has read enough.
        raise
    except (CommandError, PartyroomError, OSError) as error:
        screen.remark(f"partyroom {chosen.verb}: {one_line(_told(error))}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
