"""``timeline``: a picture of when alarms ring over the next hours and days, and of those that are late.

Owns which alarm falls into which stretch of time.

Promises that every alarm of the file is in the picture or in its line of figures.

Must never ring one, nor write to the file.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import attrs

from partyroom._cli.chart import COLOURS, LATE, Bar, Panel, draw
from partyroom._cli.progress import Progress
from partyroom._cli.screen import OK, CommandError, Screen
from partyroom._cli.sights import sight
from partyroom._cli.stores import view_of
from partyroom._cli.text import counted, one_line
from partyroom._cli.verb import LOOKS, Verb, file_option, on_loop, path_option
from partyroom._cli.walk import each_due, each_parked
from partyroom._core.instants import from_micros
from partyroom.backends._file_view import FileView

__all__ = ["VERB"]

LATENESS: Final = (
    ("days", timedelta(days=1)),
    ("hours", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(0)),
)
"""How late an alarm is: by the largest unit that fits, from the latest on."""
WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NAMED: Final = 5
"""How many parties a tooltip names."""


@attrs.frozen
class Span:
    """A row of stretches of time, of one length."""

    title: str
    step: timedelta
    steps: int

    def begin(self, now: datetime) -> datetime:
        """Give when the first one begins: at a round time, the last before now."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return now - (now - midnight) % self.step


HOURS: Final = Span("The next 24 hours, by half hours (UTC)", timedelta(minutes=30), 48)
DAYS: Final = Span("The next 14 days, by quarters of a day (UTC)", timedelta(hours=6), 56)


def _empty(bins: int) -> list[Counter[str]]:
    return [Counter() for _ in range(bins)]


@attrs.define
class Counts:
    """How many alarms of which party fall where."""

    now: datetime
    late: list[Counter[str]] = attrs.Factory(lambda: _empty(len(LATENESS)))
    hours: list[Counter[str]] = attrs.Factory(lambda: _empty(HOURS.steps))
    days: list[Counter[str]] = attrs.Factory(lambda: _empty(DAYS.steps))
    parties: Counter[str] = attrs.Factory(Counter[str])
    statuses: Counter[str] = attrs.Factory(Counter[str])
    beyond: int = 0

    def add(self, party: str, due: datetime) -> None:
        """Count one that will ring."""
        self.parties[party] += 1
        if due <= self.now:
            late = self.now - due
            place = next(place for place, (_, least) in enumerate(LATENESS) if late >= least)
            self.late[place][party] += 1
            return
        for span, bins in ((HOURS, self.hours), (DAYS, self.days)):
            place = (due - span.begin(self.now)) // span.step
            if place < span.steps:
                bins[place][party] += 1
            elif span is DAYS:
                self.beyond += 1


def timeline_options(parser: ArgumentParser) -> None:
    """Take of which file a picture is drawn, and where to."""
    file_option(parser)
    parser.add_argument(
        "-o", "--output", type=path_option, metavar="SVG", help="where to draw it, instead of to the screen"
    )


async def timeline(arguments: Namespace, screen: Screen) -> int:
    """Draw the picture."""
    if arguments.output is not None and _is_same(arguments.output, arguments.file):
        raise CommandError(f"{arguments.output}: the picture would be drawn over the file itself")
    async with view_of(arguments.file) as view:
        counts = await _count(view, screen)
    picture = _draw(Path(arguments.file).name, counts)
    _write(picture, arguments.output, counts, screen)
    return OK


def _is_same(path: str, other: str) -> bool:
    return Path(path).exists() and Path(other).exists() and Path(path).samefile(other)


def _write(picture: str, path: str | None, counts: Counts, screen: Screen) -> None:
    if path is None:
        screen.say(picture)
    else:
        Path(path).write_text(f"{picture}\n", encoding="utf-8")
        screen.say(f"{path}: {_figures(counts)}")


async def _count(view: FileView, screen: Screen) -> Counts:
    counts = Counts(screen.clock.now())
    with Progress(screen, "counting alarms") as progress:
        async for row in each_due(view):
            assert row.due is not None
            counts.add(row.room.party, from_micros(row.due))
            progress.step()
        for party in await view.parties():
            async for row in each_parked(view, party):
                counts.statuses[sight(row, counts.now).status] += 1
                progress.step()
    return counts


def _figures(counts: Counts) -> str:
    figures = [
        (sum(each.total() for each in counts.late), "late"),
        *((counts.statuses[status], status) for status in ("failed", "paused", "unreadable")),
        (counts.beyond, "beyond 14 days"),
    ]
    alarms = counts.parties.total() + counts.statuses.total()
    return ", ".join([counted(alarms, "alarm"), *(f"{count:,} {what}" for count, what in figures if count)])


def _draw(name: str, counts: Counts) -> str:
    colours = _colours(counts.parties)
    late = [
        Bar(_tooltip(f"late by {what}", each), [(LATE, each.total())])
        for (what, _), each in zip(LATENESS, counts.late, strict=True)
    ]
    ahead = _bars(HOURS, counts.now, counts.hours, colours)
    ticks = dict(enumerate(what for what, _ in LATENESS))
    ticks |= {len(late) + place: text for place, text in _ticks(HOURS, counts.now, every=timedelta(hours=3)).items()}
    panels = [
        Panel(HOURS.title, [*late, *ahead], ticks, late=len(late)),
        Panel(
            DAYS.title,
            _bars(DAYS, counts.now, counts.days, colours),
            _ticks(DAYS, counts.now, every=timedelta(days=1)),
        ),
    ]
    title = f"{one_line(name)}: alarms at {counts.now:%Y-%m-%d %H:%M} UTC"
    return draw(title, _figures(counts), _legend(colours, counts), panels)


def _colours(parties: Counter[str]) -> dict[str, str]:
    """Give each party a colour, the largest first; the last colour is for all that are left."""
    return {party: COLOURS[min(place, len(COLOURS) - 1)] for place, (party, _) in enumerate(parties.most_common())}


def _legend(colours: Mapping[str, str], counts: Counts) -> list[tuple[str, str]]:
    entries = [(colour, one_line(party)) for party, colour in colours.items()]
    if len(entries) > len(COLOURS):
        others = len(entries) - len(COLOURS) + 1
        entries[len(COLOURS) - 1 :] = [(COLOURS[-1], counted(others, "other party", "other parties"))]
    return [*entries, (LATE, "late")] if any(counts.late) else entries


def _bars(span: Span, now: datetime, bins: Sequence[Counter[str]], colours: Mapping[str, str]) -> list[Bar]:
    begin = span.begin(now)
    return [
        Bar(_tooltip(_clock(begin + place * span.step), each), _parts(each, colours)) for place, each in enumerate(bins)
    ]


def _parts(counts: Counter[str], colours: Mapping[str, str]) -> list[tuple[str, int]]:
    parts = Counter[str]()
    for party, count in counts.items():
        parts[colours[party]] += count
    return sorted(parts.items(), key=lambda part: COLOURS.index(part[0]))


def _tooltip(when: str, counts: Counter[str]) -> str:
    parties = ", ".join(f"{one_line(party)} {count:,}" for party, count in counts.most_common(NAMED))
    return f"{when}: {counted(counts.total(), 'alarm')} ({parties}{', ...' if len(counts) > NAMED else ''})"


def _ticks(span: Span, now: datetime, every: timedelta) -> dict[int, str]:
    """Give what stands below the bars: a time wherever a round one begins."""
    begins = [span.begin(now) + place * span.step for place in range(span.steps)]
    ticks: dict[int, str] = {}
    for place, begin in enumerate(begins):
        of_day = timedelta(hours=begin.hour, minutes=begin.minute)
        if not of_day % every:
            ticks[place] = f"{begin:%H:%M}" if of_day else _day(begin)
    return ticks


def _day(when: datetime) -> str:
    # Not strftime's name, which is in the language of this machine.
    return f"{WEEKDAYS[when.weekday()]} {when.day}"


def _clock(when: datetime) -> str:
    return f"{_day(when)}, {when:%H:%M}"


VERB: Final = Verb(
    "timeline",
    "draw when alarms ring over the next hours and days",
    "Draw an SVG of the alarms of a file: when they ring, and how late those are whose time has come. An alarm "
    f"that repeats is drawn at its next ring. {LOOKS}",
    ("timeline rooms.db -o alarms.svg",),
    timeline_options,
    on_loop(timeline),
)
