"""One picture of the answers: how far each is on the good side of its bar, or on the bad one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from benchmarks.measure import Answer

__all__ = ["draw", "margin"]

WIDTH, LINE, LEFT, RIGHT, TOP = 1130, 24, 660, 90, 64
DECADES = 2.0
"""The bars reach so many powers of ten on the good side, …"""
WORSE = 1.0
"""… and so many on the bad one; what goes further ends there, its number telling the rest."""
COLOURS = {"aim": "#2a9d5c", "ok": "#d9a514", "short": "#c8442e", "": "#777777"}
MEANINGS = {"aim": "reaches the aim", "ok": "better than the bar", "short": "falls short of it"}
SCALE = (WIDTH - LEFT - RIGHT) / (DECADES + WORSE)
MIDDLE = LEFT + WORSE * SCALE


def draw(answers: Sequence[Answer]) -> str:
    """Give an SVG: for each question on its first loop, how many times better than its bar, or worse."""
    drawn = [(answer, better) for answer in _first_of_each(answers) if (better := margin(answer)) is not None]
    height = TOP + LINE * len(drawn) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *_legend(),
        *_grid(height),
    ]
    for place, (answer, better) in enumerate(drawn):
        lines += _bar(answer, better, TOP + place * LINE)
    return "\n".join([*lines, "</svg>", ""])


def margin(answer: Answer) -> float | None:
    """Give how many times better than the bar an answer is; below 1 it is worse. ``None`` if it cannot be told."""
    value = answer.ratio if answer.question.beside_text else answer.ours
    bar = answer.question.at_least
    if bar is None or value is None:
        return None
    if answer.question.more_is_better:
        return value / bar
    return bar / value if value > 0 else math.inf


def _first_of_each(answers: Sequence[Answer]) -> list[Answer]:
    found: dict[str, Answer] = {}
    for answer in answers:
        found.setdefault(answer.question.name, answer)
    return list(found.values())


def _legend() -> list[str]:
    lines = [
        '<text x="14" y="22" fill="#333" font-weight="bold">How many times better than its bar each figure is</text>'
    ]
    for place, (verdict, meaning) in enumerate(MEANINGS.items()):
        x = LEFT + place * 160
        lines += [
            f'<rect x="{x}" y="11" width="12" height="12" fill="{COLOURS[verdict]}"/>',
            f'<text x="{x + 18}" y="22" fill="#333">{meaning}</text>',
        ]
    return lines


def _grid(height: int) -> list[str]:
    lines: list[str] = []
    for power, label in ((-1, "1/10"), (0, "the bar"), (1, "10 x"), (2, "100 x")):
        x = MIDDLE + power * SCALE
        colour = "#555" if power == 0 else "#ddd"
        lines += [
            f'<text x="{x:.1f}" y="{TOP - 14}" text-anchor="middle" fill="#777" font-size="11">{label}</text>',
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 10}" stroke="{colour}"/>',
        ]
    return lines


def _bar(answer: Answer, better: float, y: float) -> list[str]:
    powers = DECADES if math.isinf(better) else max(-WORSE, min(DECADES, math.log10(better)))
    x, length = MIDDLE + min(0.0, powers) * SCALE, abs(powers) * SCALE
    told = "" if math.isinf(better) else f"{better:.1f} x" if better < 100 else f"{better:.0f} x"  # noqa: PLR2004 - digits
    return [
        f'<text x="{LEFT - 12}" y="{y + 13}" text-anchor="end" fill="#333">{escape(answer.question.text)}</text>',
        f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="16" fill="{COLOURS[answer.verdict]}"/>',
        f'<text x="{WIDTH - RIGHT + 12}" y="{y + 13}" fill="#333">{told}</text>',
    ]
