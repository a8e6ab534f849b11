"""``python -m benchmarks``: ask the questions, print one table.

Names of questions ask those only. ``--quick`` runs everything at tiny size, to see that it works. ``--json FILE`` keeps the
answers, ``--compare FILE`` sets them beside earlier ones, ``--svg FILE`` draws them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import alarms, durable_objects, engine, footprint, rivals, storage
from benchmarks.chart import draw
from benchmarks.measure import LOOPS, QUESTIONS, Answer, ask, installed
from benchmarks.workerd import find_workerd

FILES = (engine, storage, alarms, rivals, footprint, durable_objects)
PACKAGES = ("partyroom", "anyio", "attrs", "trio", "uvloop", "apscheduler", "sqlalchemy")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ask the questions, print one table.")
    parser.add_argument("names", nargs="*", metavar="QUESTION", help=f"one of: {', '.join(QUESTIONS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one run: not for figures")
    parser.add_argument("--runs", type=int, default=5, help="runs after the warm-up (default: 5)")
    parser.add_argument("--loop", action="append", choices=LOOPS, help="only this loop; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the answers")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="answers that were kept earlier")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the answers")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in QUESTIONS]
    if unknown:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    earlier = json.loads(options.compare.read_text()) if options.compare else None
    print(environment())
    print(header(compared=earlier is not None))
    answers: list[Answer] = []
    for name in options.names or QUESTIONS:
        for loop in options.loop or LOOPS:
            if loop not in QUESTIONS[name].loops or (loop == "uvloop" and not installed("uvloop")):
                continue
            tell(f"{name} on {loop} ...")
            answer = ask(QUESTIONS[name], loop, runs=1 if options.quick else options.runs, quick=options.quick)
            tell("")
            answers.append(answer)
            print(row(answer, earlier), flush=True)
    if options.json:
        options.json.write_text(json.dumps(as_json(answers), indent=1))
    if options.svg:
        options.svg.write_text(draw(answers), encoding="utf-8")
    return 0


def tell(text: str) -> None:
    """Show what is going on, to a person."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def environment() -> str:
    """Say what was measured with."""
    found = [f"{name} {number}" for name in PACKAGES if (number := installed(name))]
    workerd = find_workerd()
    if workerd is not None:
        found.append(subprocess.run([workerd, "--version"], check=True, capture_output=True, text=True).stdout.strip())
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Python {platform.python_version()} on {system}; SQLite {sqlite3.sqlite_version}; {', '.join(found)}"


COLUMNS = "{:<25} {:<8} {:>12} {:>12} {:>8} {:>15} {:>12} {:>6}  {}"


def header(*, compared: bool) -> str:
    """Give the table's first line."""
    last = "rivals" + ("; before" if compared else "")
    return COLUMNS.format("question", "loop", "partyroom", "beside it", "ratio", "spread", "bar / aim", "", last)


def row(answer: Answer, earlier: dict[str, Any] | None) -> str:
    """Give an answer as a line of the table."""
    asked = answer.question
    notes = [note(name, value, asked.unit) for name, value in answer.rivals.items()]
    before = (earlier or {}).get("answers", {}).get(f"{asked.name}/{answer.loop}")
    if before is not None:
        notes.append(f"before {before['ratio'] or before['ours']:,.3g}")
    return COLUMNS.format(
        asked.name,
        answer.loop,
        figure(answer.ours, asked.unit),
        "" if answer.beside is None else figure(answer.beside, asked.unit),
        "" if answer.ratio is None else figure(answer.ratio, "x"),
        spread(answer),
        "" if asked.at_least is None else f"{asked.at_least:g} / {asked.aim:g}",
        answer.verdict,
        ", ".join(notes),
    ).rstrip()


def spread(answer: Answer) -> str:
    """Give the lowest and the highest ratio of a run."""
    if answer.low is None or answer.high is None:
        return ""
    return f"{figure(answer.low, '').strip()} to {figure(answer.high, '').strip()}"


def figure(value: float, unit: str) -> str:
    """Give three digits that a person reads."""
    if value and abs(value) < 1:
        return f"{value:.2g} {unit}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f} {unit}"


def note(name: str, value: float, unit: str) -> str:
    """Give a figure with what it is of; a name that says its own unit wins."""
    of, _, own = name.partition(" in ")
    return f"{of} {figure(value, own)}" if own else f"{name} {figure(value, unit)}"


def as_json(answers: list[Answer]) -> dict[str, Any]:
    """Give what a later run can be compared with."""
    return {
        "environment": environment(),
        "answers": {
            f"{answer.question.name}/{answer.loop}": {
                "text": answer.question.text,
                "beside": answer.question.beside_text,
                "unit": answer.question.unit,
                "ours": answer.ours,
                "limit": answer.beside,
                "ratio": answer.ratio,
                "low": answer.low,
                "high": answer.high,
                "rivals": answer.rivals,
            }
            for answer in answers
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
