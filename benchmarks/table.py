"""The answers as people read them: a table for the terminal, and one for the README."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.measure import LOOPS, Answer, Question

__all__ = ["VERDICTS", "as_markdown", "bar", "figure", "header", "heading", "note", "row", "spread"]

VERDICTS: Final = {"aim": "reaches the aim", "ok": "reaches the bar", "short": "FALLS SHORT", "": ""}
COLUMNS: Final = "    {:<8} {:>13} {:>13} {:>9} {:>16} {:>12} {:>12}  {}"


# --- the terminal ------------------------------------------------------------


def header() -> str:
    """Give the table's first line."""
    return COLUMNS.format("loop", "partyroom", "beside it", "ratio", "spread", "bar", "aim", "verdict")


def heading(asked: Question) -> str:
    """Give a question as the line above its answers."""
    return f"\n{asked.name}: {asked.text}" + (f"\n  beside it: {asked.beside_text}" if asked.beside_text else "")


def row(answer: Answer, earlier: Mapping[str, Any] | None = None) -> str:
    """Give an answer as a line of the table, what else is to be said of it in another below."""
    asked = answer.question
    line = COLUMNS.format(
        answer.loop,
        figure(answer.ours, asked.unit),
        "" if answer.beside is None else figure(answer.beside, asked.unit),
        "" if answer.ratio is None else figure(answer.ratio, "x"),
        spread(answer),
        bar(asked, asked.at_least),
        bar(asked, asked.aim),
        VERDICTS[answer.verdict],
    ).rstrip()
    notes = _notes(answer)
    if answer.missing:
        notes.append(f"nothing beside it: {answer.missing}")
    if earlier is not None:
        notes.append(f"before {_before(earlier, asked)}")
    return line + (f"\n             {'; '.join(notes)}" if notes else "")


def _before(earlier: Mapping[str, Any], asked: Question) -> str:
    ratio = earlier["ratio"]
    return figure(earlier["ours"], asked.unit) if ratio is None else figure(ratio, "x")


def bar(asked: Question, value: float | None) -> str:
    """Give a bar with the side that it is to be reached from: ``<= 3 x``."""
    if value is None:
        return ""
    return f"{'>=' if asked.more_is_better else '<='} {value:,.4g} {'x' if asked.beside_text else asked.unit}"


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
    of, _, own = name.rpartition(" in ")
    return f"{of} {figure(value, own)}" if of else f"{name} {figure(value, unit)}"


# --- the README --------------------------------------------------------------

SHORT_VERDICTS: Final = {"aim": "aim", "ok": "bar", "short": "**short**", "": ""}


def as_markdown(answers: Sequence[Answer], environment: str) -> str:
    """Give the answers as tables: those with a bar, what else was measured in their runs, and the rivals beside."""
    by_question: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        by_question.setdefault(answer.question.name, {})[answer.loop] = answer
    judged = [found for found in by_question.values() if _first(found).question.at_least is not None]
    others = [found for found in by_question.values() if _first(found).question.at_least is None]
    lines = [f"Measured with {environment}.", ""]
    if judged:
        lines += [
            "| what | beside it, in the same run | bar (aim) | asyncio | uvloop | trio |",
            "|---|---|---|---|---|---|",
            *(_judged_row(found) for found in judged),
            "",
        ]
    noted = [found for found in judged if _first(found).rivals]
    if noted:
        lines += ["| what | in the same runs |", "|---|---|", *(_noted_row(_first(found)) for found in noted), ""]
    if others:
        lines += [
            "| what | rival | partyroom | rival | ratio |",
            "|---|---|---|---|---|",
            *(_rival_row(_first(found)) for found in others),
            "",
        ]
    return "\n".join(lines)


def _first(found: Mapping[str, Answer]) -> Answer:
    return next(iter(found.values()))


def _judged_row(found: Mapping[str, Answer]) -> str:
    asked = _first(found).question
    aim = bar(asked, asked.aim).split()[1] if asked.aim is not None else ""
    cells = [asked.text, asked.beside_text, f"{bar(asked, asked.at_least)} ({aim})"]
    return _line([*cells, *(_cell(found[loop]) if loop in found else "" for loop in LOOPS)])


def _cell(answer: Answer) -> str:
    ours = figure(answer.ours, answer.question.unit)
    if not answer.question.beside_text:
        return f"{ours} {SHORT_VERDICTS[answer.verdict]}".strip()
    if answer.ratio is None:
        return f"({ours})"
    return f"{figure(answer.ratio, 'x')} {SHORT_VERDICTS[answer.verdict]} ({ours})"


def _noted_row(answer: Answer) -> str:
    return _line([answer.question.text, "; ".join(_notes(answer))])


def _notes(answer: Answer) -> list[str]:
    return [note(name, value, answer.question.unit) for name, value in answer.rivals.items()]


def _rival_row(answer: Answer) -> str:
    asked = answer.question
    also = "".join(f"; {each}" for each in _notes(answer))
    beside = "" if answer.beside is None else figure(answer.beside, asked.unit)
    ratio = "" if answer.ratio is None else figure(answer.ratio, "x")
    return _line([asked.text, asked.beside_text + also, figure(answer.ours, asked.unit), beside, ratio])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
