"""One picture of the answers: each ratio beside its bar."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

from benchmarks.measure import Answer

__all__ = ["draw"]

WIDTH, LINE, LEFT, RIGHT, TOP = 900, 22, 420, 110, 46
COLOURS = {"aim": "#2a9d5c", "ok": "#d9a514", "short": "#c8442e", "": "#777777"}


def draw(answers: Sequence[Answer]) -> str:
    """Give an SVG: for each question on its first loop, how many times better than asked for, or worse."""
    drawn = [answer for answer in _first_of_each(answers) if answer.question.at_least is not None]
    height = TOP + LINE * len(drawn) + 20
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" fill="#333">how much better than the bar (right), or worse (left)</text>',
        f'<line x1="{middle}" y1="{TOP - 14}" x2="{middle}" y2="{height - 12}" stroke="#999"/>',
    ]
    for place, answer in enumerate(drawn):
        lines += _bar(answer, TOP + place * LINE, middle)
    return "\n".join([*lines, "</svg>", ""])


def _first_of_each(answers: Sequence[Answer]) -> list[Answer]:
    found: dict[str, Answer] = {}
    for answer in answers:
        found.setdefault(answer.question.name, answer)
    return list(found.values())


def margin(answer: Answer) -> float:
    """Give how many times better than the bar an answer is; below 1 it is worse."""
    value = answer.ours if answer.ratio is None else answer.ratio
    bar = answer.question.at_least
    if bar is None or value <= 0:
        return 1.0
    return value / bar if answer.question.more_is_better else bar / value


def _bar(answer: Answer, y: float, middle: float) -> list[str]:
    better = margin(answer)
    half = (WIDTH - LEFT - RIGHT) / 2
    length = max(-half, min(half, log10(better) * half / 1.5))
    x = middle if length >= 0 else middle + length
    text = escape(f"{answer.question.text}")
    return [
        f'<text x="{LEFT - 10}" y="{y + 12}" text-anchor="end" fill="#333">{text[:70]}</text>',
        f'<rect x="{x:.1f}" y="{y}" width="{abs(length):.1f}" height="14" fill="{COLOURS[answer.verdict]}"/>',
        f'<text x="{WIDTH - RIGHT + 8}" y="{y + 12}" fill="#333">{better:.1f} x</text>',
    ]
