"""``python -m benchmarks``: ask the questions, print one table.

Names of questions ask those only. ``--quick`` runs everything at tiny size, to see that it works. ``--json FILE`` keeps the
answers, ``--compare FILE`` sets them beside earlier ones, ``--svg FILE`` draws them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import alarms, engine, storage
from benchmarks.chart import draw
from benchmarks.measure import LOOPS, QUESTIONS, Answer, ask

FILES = (engine, storage, alarms)
PACKAGES = ("partyroom", "anyio", "attrs", "trio", "uvloop", "apscheduler", "dbos")


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


def installed(package: str) -> str | None:
    """Give a package's version, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment() -> str:
    """Say what was measured with."""
    found = [f"{name} {number}" for name in PACKAGES if (number := installed(name))]
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; {', '.join(found)}"


COLUMNS = "{:<22} {:<8} {:>12} {:>12} {:>8} {:>15} {:>8} {:>6}  {}"


def header(*, compared: bool) -> str:
    """Give the table's first line."""
    last = "rivals" + ("; before" if compared else "")
    return COLUMNS.format("question", "loop", "partyroom", "beside it", "ratio", "spread", "bar", "", last)


def row(answer: Answer, earlier: dict[str, Any] | None) -> str:
    """Give an answer as a line of the table."""
    asked = answer.question
    notes = [f"{name} {value:,.6g} {asked.unit}" for name, value in answer.rivals.items()]
    before = (earlier or {}).get("answers", {}).get(f"{asked.name}/{answer.loop}")
    if before is not None:
        notes.append(f"before {before['ratio'] or before['ours']:,.3g}")
    return COLUMNS.format(
        asked.name,
        answer.loop,
        f"{answer.ours:,.4g} {asked.unit}",
        "" if answer.beside is None else f"{answer.beside:,.4g} {asked.unit}",
        "" if answer.ratio is None else f"{answer.ratio:.2f} x",
        "" if answer.low is None else f"{answer.low:.2f} to {answer.high:.2f}",
        "" if asked.at_least is None else f"{asked.at_least:g}",
        answer.verdict,
        ", ".join(notes),
    ).rstrip()


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
