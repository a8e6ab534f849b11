"""Answers on disk: kept as JSON, read again to be compared or drawn, and written into the README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Answer, Question

__all__ = ["keep", "publish", "read", "recall"]

FIELDS: Final = {
    "ours": "ours",
    "limit": "beside",
    "ratio": "ratio",
    "low": "low",
    "high": "high",
    "rivals": "rivals",
    "missing": "missing",
}
"""The names of an answer's figures in the file, and on the answer."""
BEGIN: Final = "<!-- figures: written by `python -m benchmarks --publish` -->\n"
END: Final = "<!-- end of figures -->\n"


def keep(path: Path, answers: Sequence[Answer], environment: str) -> None:
    """Write what a later run can be compared with."""
    found = {
        f"{answer.question.name}/{answer.loop}": {
            "text": answer.question.text,
            "beside": answer.question.beside_text,
            "unit": answer.question.unit,
            "verdict": answer.verdict,
            **{name: getattr(answer, field) for name, field in FIELDS.items()},
        }
        for answer in answers
    }
    # Whole or not at all: somebody may read it meanwhile.
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({"environment": environment, "answers": found}, indent=1), encoding="utf-8")
    part.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Read what was kept: ``environment``, and ``answers`` by ``question/loop``."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def recall(kept: Mapping[str, Any], questions: Mapping[str, Question]) -> list[Answer]:
    """Give kept answers again, in the order of the questions; those to questions that are asked no more are left out."""
    found: list[Answer] = []
    for name, asked in questions.items():
        for loop in asked.loops:
            answer = kept.get(f"{name}/{loop}")
            if answer is not None:
                found.append(Answer(asked, loop, **{field: answer[key] for key, field in FIELDS.items()}))
    return found


def publish(readme: Path, text: str) -> None:
    """Put a text between the two marks in a README."""
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"{readme} has no place for figures: {BEGIN.strip()} and {END.strip()}"
        raise ValueError(message)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
