"""Bars over time, as SVG made by hand.

Owns how a panel of bars looks: its frame, its scale, its words, its colours.

Promises a picture that needs no explaining: scales in round numbers, every bar with a tooltip, nothing so small that it
vanishes, and colours that can be told apart by those who see few.

Must never count anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final, final

import attrs

__all__ = ["COLOURS", "LATE", "Bar", "Panel", "draw"]

WIDTH: Final = 960
LEFT: Final = 64
RIGHT: Final = 28
HEIGHT: Final = 170
"""Of the bars of a panel."""
TOP: Final = 118
"""What stands above the first panel: a title, a line of figures, the colours."""
STEP: Final = HEIGHT + 96
"""From one panel to the next."""
LEAST: Final = 2
"""How high the lowest bar is, so that it can be seen."""
LINES: Final = 4
"""How many lines a scale has, at most."""
LATE_UNITS: Final = 4
"""How much wider a bar is that has a figure above it and a name below."""

FONTS: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
INK: Final = "#1f2933"
FAINT: Final = "#5f6b7a"
RULE: Final = "#e1e5ea"
LATE: Final = "#c8102e"
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's, told apart also by those who see few; the last is for all others together."""


@attrs.frozen
class Bar:
    """What falls into one stretch of time."""

    tooltip: str
    parts: Sequence[tuple[str, int]]
    """Colours and counts, from the bottom up."""

    @property
    def total(self) -> int:
        """How much it is altogether."""
        return sum(count for _, count in self.parts)


@attrs.frozen
class Panel:
    """Bars side by side."""

    title: str
    bars: Sequence[Bar]
    ticks: Mapping[int, str]
    """What stands below a bar's left edge, by the bar's place."""
    late: int = 0
    """How many bars, from the left, stand for what is late: apart from the others, each with its figure."""


def draw(title: str, figures: str, legend: Sequence[tuple[str, str]], panels: Sequence[Panel]) -> str:
    """Give the picture: a title, a line of figures, colours with what they mean, and the panels one below the other."""
    height = TOP + STEP * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 38, title, size=20, weight=600),
        _text(LEFT, 62, figures, colour=FAINT),
        *_legend(legend),
    ]
    for place, each in enumerate(panels):
        lines += _panel(each, TOP + STEP * place)
    return "\n".join([*lines, "</svg>"])


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    x = float(LEFT)
    for colour, name in entries:
        yield f'<rect x="{x:.1f}" y="79" width="11" height="11" rx="2" fill="{colour}"/>'
        yield _text(x + 17, 89, name)
        # Wide enough for the widest of letters; nothing can measure a font here.
        x += 17 + 8 * len(name) + 18


def _panel(panel: Panel, y: float) -> Iterator[str]:
    scale = _Scale(panel, y + 42)
    yield _text(LEFT, y + 10, panel.title, size=15, weight=600)
    yield from scale.rules()
    for place, bar in enumerate(panel.bars):
        yield from scale.bar(place, bar)
    for place, name in panel.ticks.items():
        yield from scale.tick(place, name)
    yield f'<path d="M{LEFT} {scale.floor:.1f}H{WIDTH - RIGHT}" stroke="{INK}"/>'
    if panel.late:
        yield from scale.now()


@final
class _Scale:
    """Where things stand in a panel."""

    def __init__(self, panel: Panel, top: float) -> None:
        self.late = panel.late
        self.top = top
        self.floor = top + HEIGHT
        self.unit = (WIDTH - LEFT - RIGHT) / self._units(len(panel.bars))
        # What is late has figures of its own, and would flatten what is ahead: such a bar may be cut.
        ahead = max((bar.total for bar in panel.bars[panel.late :]), default=0)
        most = ahead or max((bar.total for bar in panel.bars), default=0) or 1
        self.step = _round_step(most)
        self.most = self.step * -(-most // self.step)

    def _units(self, place: int) -> int:
        """Give how many units lie before a bar: one for each bar ahead, more for those with a figure."""
        return place + (LATE_UNITS - 1) * min(place, self.late)

    def x(self, place: int) -> float:
        """Give the left edge of a bar."""
        return LEFT + self.unit * self._units(place)

    def height(self, count: float) -> float:
        """Give how high a bar is."""
        return max(LEAST, HEIGHT * min(count, self.most) / self.most) if count else 0.0

    def rules(self) -> Iterator[str]:
        """Draw the lines of the scale, with their figures."""
        for count in range(self.step, self.most + 1, self.step):
            y = self.floor - self.height(count)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{RULE}"/>'
            yield _text(LEFT - 8, y + 4, f"{count:,}", colour=FAINT, anchor="end")

    def bar(self, place: int, bar: Bar) -> Iterator[str]:
        """Draw a bar, from the bottom up."""
        if not bar.total:
            return
        x, width = self.x(place), self.x(place + 1) - self.x(place)
        gap = min(2.0, width / 4) if place >= self.late else width / 3
        height, y = self.height(bar.total), self.floor
        yield f"<g><title>{escape(bar.tooltip)}</title>"
        for colour, count in bar.parts:
            part = height * count / bar.total
            y -= part
            yield (
                f'<rect x="{x + gap / 2:.1f}" y="{y:.1f}" width="{width - gap:.1f}" height="{part:.1f}" fill="{colour}"/>'
            )
        yield "</g>"
        if place < self.late:
            yield _text(x + width / 2, y - 5, f"{bar.total:,}", colour=LATE, anchor="middle")
        if bar.total > self.most:
            yield f'<path d="M{x:.1f} {y + 16:.1f}l{width:.1f} -8" stroke="#ffffff" stroke-width="4"/>'

    def tick(self, place: int, name: str) -> Iterator[str]:
        """Write what stands below a bar: under its middle if it is late, else where its time begins."""
        x, y = self.x(place), self.floor
        if place < self.late:
            yield _text((x + self.x(place + 1)) / 2, y + 19, name, colour=FAINT, anchor="middle")
            return
        yield f'<path d="M{x:.1f} {y:.1f}v5" stroke="{INK}"/>'
        yield _text(x, y + 19, name, colour=FAINT, anchor="middle")

    def now(self) -> Iterator[str]:
        """Draw the line between what is late and what is ahead."""
        x = self.x(self.late)
        yield f'<path d="M{x:.1f} {self.top - 8:.1f}V{self.floor:.1f}" stroke="{INK}" stroke-dasharray="3 3"/>'
        yield _text(x, self.top - 12, "now", anchor="middle")
        yield _text((LEFT + x) / 2, self.floor + 36, "late by", colour=LATE, anchor="middle")


def _round_step(most: int) -> int:
    """Give the distance between the lines of a scale: 1, 2 or 5, with zeros behind it."""
    step = 1
    while True:
        for round_step in (step, step * 2, step * 5):
            if round_step * LINES >= most:
                return round_step
        step *= 10


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: int = 400, colour: str = INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}" '
        f'font-weight="{weight}" font-family="{FONTS}">{escape(text)}</text>'
    )
