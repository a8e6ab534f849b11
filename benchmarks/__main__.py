"""``python -m benchmarks``: ask the questions, print one table.

Names of questions ask those only. ``--quick`` runs everything at tiny size, to see that it works. ``--json FILE`` keeps the
answers, ``--compare FILE`` sets them beside earlier ones, ``--svg FILE`` draws them, ``--publish`` draws them and writes
them into the README. ``--from FILE`` takes kept answers instead of asking; given again, later ones win.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.kept import keep, publish, read, recall
from benchmarks.measure import LOOPS, Answer, ask, installed
from benchmarks.questions import QUESTIONS
from benchmarks.table import as_markdown, header, heading, row
from benchmarks.workerd import find_workerd

PACKAGES = ("partyroom", "anyio", "attrs", "trio", "uvloop", "apscheduler", "sqlalchemy", "aiosqlite", "dbos")
ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in QUESTIONS]
    if unknown:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    earlier: dict[str, Any] = read(options.compare)["answers"] if options.compare else {}
    if options.taken:
        kept = [read(path) for path in options.taken]
        environment: str = kept[-1]["environment"]
        source = iter(recall({name: answer for each in kept for name, answer in each["answers"].items()}, QUESTIONS))
    else:
        environment = describe_environment()
        source = ask_each(options)
    answers: list[Answer] = []
    print(environment, header(), sep="\n\n")
    for answer in source:
        show(answer, answers[-1] if answers else None, earlier)
        answers.append(answer)
        if options.json:
            # Each time: a run takes long enough to be broken off.
            keep(options.json, answers, environment)
    if options.svg:
        options.svg.write_text(draw(answers), encoding="utf-8")
    if options.publish:
        (options.publish / "benchmarks" / "figures.svg").write_text(draw(answers), encoding="utf-8")
        publish(options.publish / "README.md", as_markdown(answers, environment))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Say what may stand on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ask the questions, print one table.")
    add = parser.add_argument
    add("names", nargs="*", metavar="QUESTION", help=f"one of: {', '.join(QUESTIONS)}")
    add("--quick", action="store_true", help="tiny sizes and one run: not for figures")
    add("--runs", type=int, default=5, help="runs after the warm-up (default: 5)")
    add("--loop", action="append", choices=LOOPS, help="only this loop; may be given again")
    add("--json", type=Path, metavar="FILE", help="keep the answers")
    add("--from", type=Path, metavar="FILE", action="append", dest="taken", help="take kept answers instead of asking")
    add("--compare", type=Path, metavar="FILE", help="answers that were kept earlier")
    add("--svg", type=Path, metavar="FILE", help="draw the answers")
    add(
        "--publish",
        type=Path,
        metavar="FOLDER",
        nargs="?",
        const=ROOT,
        help="write README.md and benchmarks/figures.svg in this folder (default: this project's)",
    )
    return parser


def ask_each(options: argparse.Namespace) -> Iterator[Answer]:
    """Ask what was asked for, showing how far it is."""
    runs = 1 if options.quick else options.runs
    wanted = [
        (name, loop)
        for name in options.names or QUESTIONS
        for loop in options.loop or LOOPS
        if loop in QUESTIONS[name].loops and (loop != "uvloop" or installed("uvloop"))
    ]
    for number, (name, loop) in enumerate(wanted, 1):

        def progress(done: int, where: str = f"{number} of {len(wanted)}: {name} on {loop}") -> None:
            tell(f"{where}, run {done + 1} of {runs} ...")

        yield ask(QUESTIONS[name], loop, runs=runs, quick=options.quick, progress=progress)
        tell("")


def show(answer: Answer, before: Answer | None, earlier: dict[str, Any]) -> None:
    """Print an answer, below its question if that is another one than before."""
    if before is None or before.question is not answer.question:
        print(heading(answer.question))
    print(row(answer, earlier.get(f"{answer.question.name}/{answer.loop}")), flush=True)


def tell(text: str) -> None:
    """Show what is going on, to a person."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def describe_environment() -> str:
    """Say what was measured with, and what else the machine had to do."""
    found = [f"{name} {number}" for name in PACKAGES if (number := installed(name))]
    workerd = find_workerd()
    if workerd is not None:
        found.append(subprocess.run([workerd, "--version"], check=True, capture_output=True, text=True).stdout.strip())
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{describe_load()}"
    return f"Python {platform.python_version()} on {system}; SQLite {sqlite3.sqlite_version}; {', '.join(found)}"


if sys.platform == "win32":

    def describe_load() -> str:
        """Say nothing: this system does not count it."""
        return ""

else:

    def describe_load() -> str:
        """Say how many programs wanted to run over the last minutes."""
        return f" that {os.getloadavg()[1]:.1f} programs were using already"


if __name__ == "__main__":
    raise SystemExit(main())
