"""The command line as a whole: from arguments to an exit code.

Owns the list of verbs, their help, and what becomes of an error.

Promises that whatever a person, a file or a disk does wrong is told in one line, with exit code 2, and that Ctrl-C ends
a command without a word.

Must never hide an error of its own: what is nobody else's fault keeps its traceback.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from textwrap import fill
from typing import Final

from partyroom._cli.demo import demo, demo_options
from partyroom._cli.screen import FAILED, INTERRUPTED, CommandError, Screen
from partyroom._cli.verb import Verb
from partyroom.errors import PartyroomError

__all__ = ["PROGRAM", "VERBS", "main", "parser"]

PROGRAM: Final = "python -m partyroom"
WIDTH: Final = 80
"""Of help texts."""

VERBS: Final = (
    Verb(
        "demo",
        "show on real parts that an alarm outlives its process",
        "A process lets a room store something and set an alarm two seconds ahead, and is killed. Another opens the "
        "same file, and the alarm rings there. Exit code 1 if any promise was not kept.",
        ("demo",),
        demo_options,
        demo,
    ),
)


def parser() -> ArgumentParser:
    """Make the parser of all verbs."""
    whole = ArgumentParser(
        prog=PROGRAM,
        description="Look into a file of rooms, and take care of it.",
        epilog="exit codes: 0 all is well; 1 something wrong was found, or a ring failed; 2 it could not be done",
    )
    verbs = whole.add_subparsers(metavar="COMMAND", dest="verb", required=True)
    for verb in VERBS:
        each = verbs.add_parser(
            verb.name,
            help=verb.summary,
            description=fill(verb.details, WIDTH),
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
    except (CommandError, PartyroomError) as error:
        screen.remark(f"partyroom {chosen.verb}: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code
