"""``ring-due``: ring what is due, once, and end: for the operating system's cron.

Owns one short life of a program's runtime.

Promises that what was due when it began has rung and is stored when it ends, and that the exit code tells of handlers
that raised.

Must never ring beside a running program: the store's lock, where it has one, sees to that.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from anyio import run

from partyroom._cli.listing import positive
from partyroom._cli.screen import FOUND, OK, CommandError, Screen
from partyroom._cli.stores import found_object
from partyroom._cli.text import counted, moment, one_line, relative
from partyroom._cli.verb import STOPPED, Verb
from partyroom._core.instants import to_micros
from partyroom.runtime import Runtime
from partyroom.types import RingFailure, RingReport

__all__ = ["VERB"]


def ring_due_options(parser: ArgumentParser) -> None:
    """Take whose alarms ring, and how many."""
    parser.add_argument(
        "runtime", metavar="MODULE:RUNTIME", help="a Runtime, or a function that gives one, such as myapp.rooms:runtime"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="ring at most N, the earliest")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio", help="what to run it on")
    parser.add_argument("--json", action="store_true", help="print one object of JSON")


def ring_due(arguments: Namespace, screen: Screen) -> int:
    """Ring what is due."""
    runtime = _runtime(arguments.runtime)
    runtime.alarms = "manual"
    report = run(_ring, runtime, arguments.limit, backend=arguments.loop)
    if arguments.json:
        screen.emit(_facts(report))
    else:
        _tell(report, screen)
    return FOUND if report.failed else OK


def _runtime(name: str) -> Runtime:
    found = found_object(name)
    if not isinstance(found, Runtime) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise CommandError(f"{name}() raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Runtime):
        raise CommandError(f"{name} is no Runtime, and gives none, but {type(found).__name__}")
    return found


async def _ring(runtime: Runtime, limit: int | None) -> RingReport:
    async with runtime:
        report = await runtime.ring_due(limit)
    # Behind the block: a checker takes a runtime for one that may swallow errors.
    return report  # noqa: RET504


def _tell(report: RingReport, screen: Screen) -> None:
    following = "no other is set"
    if report.next is not None:
        due = to_micros(report.next)
        following = f"the next is due {relative(due, screen.clock.now())}, at {moment(due)}"
    screen.say(f"rang {counted(report.rung, 'alarm')}, {len(report.failed):,} failed; {following}")
    for failure in report.failed:
        where = f"{failure.room} alarm {failure.name!r}" if failure.name else str(failure.room)
        screen.say(f"  {one_line(f'{where}: {_error(failure)}')}")


def _error(failure: RingFailure) -> str:
    return f"{type(failure.error).__name__}: {failure.error}"


def _facts(report: RingReport) -> dict[str, object]:
    return {
        "rung": report.rung,
        "failed": [
            {"party": each.room.party, "room": each.room.id, "alarm": each.name, "error": _error(each)}
            for each in report.failed
        ],
        "next": None if report.next is None else report.next.isoformat(),
    }


VERB: Final = Verb(
    "ring-due",
    "ring what is due, once, and end: for cron",
    "Open a program's runtime, ring what is due, and end when all of it is stored. Exit code 1 if a handler "
    f"raised. {STOPPED}",
    ("ring-due app.rooms:runtime", "ring-due app.rooms:make_runtime --loop trio --limit 1000"),
    ring_due_options,
    ring_due,
)
