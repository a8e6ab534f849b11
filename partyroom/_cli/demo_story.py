"""What was seen in a run of the demo, and whether the promises held.

Owns the reports of the two processes, what a third found in the file, and the comparison with each promise.

Promises that a promise counts as kept only if what it speaks of was seen, and is as it should be: nothing seen is
nothing kept.

Must never look at anything but what was seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

__all__ = ["ON_TIME", "Report", "Stored", "Story", "Verdict", "verdicts"]

MILLISECOND: Final = timedelta(milliseconds=1)
ON_TIME: Final = timedelta(seconds=1)
"""How late an alarm may ring and be on time all the same, on a machine that may have other things to do."""


@attrs.frozen
class Report:
    """What a process said of itself, as it happened."""

    what: str
    at: datetime
    pid: int
    facts: dict[str, Any]

    @staticmethod
    def read(line: str) -> Report:
        """Give the report that is written in a line."""
        facts = json.loads(line)
        return Report(facts.pop("what"), datetime.fromisoformat(facts.pop("at")), facts.pop("pid"), facts)


@attrs.frozen
class Stored:
    """What a file holds of the demo's two rooms."""

    draft: dict[str, object]
    alarms: list[datetime | None]
    counter: dict[str, object]


@attrs.define
class Story:
    """All that was seen, in order."""

    first: list[Report] = attrs.Factory(list[Report])
    exit_code: int | None = None
    """How the first process ended."""
    after_kill: Stored | None = None
    second: list[Report] = attrs.Factory(list[Report])
    at_end: Stored | None = None


@attrs.frozen
class Verdict:
    """One promise, beside what was seen."""

    number: str
    promise: str
    seen: str
    kept: bool


class NothingSeenError(Exception):
    """What a promise speaks of did not happen, as far as anybody knows."""


def verdicts(story: Story) -> list[Verdict]:
    """Hold what was seen against each promise."""
    return [_verdict(story, *promise) for promise in PROMISES]


def _verdict(story: Story, number: str, promise: str, look: Callable[[Story], tuple[str, bool]]) -> Verdict:
    try:
        seen, kept = look(story)
    except NothingSeenError as nothing:
        seen, kept = f"nothing: {nothing}", False
    return Verdict(number, promise, seen, kept)


def _only(chapter: list[Report], what: str) -> Report:
    """Give the one report under a name, of one process."""
    found = [report for report in chapter if report.what == what]
    if len(found) != 1:
        raise NothingSeenError(f"'{what}' was reported {len(found)} times")
    return found[0]


def _stored(seen: Stored | None) -> Stored:
    if seen is None:
        raise NothingSeenError("the file could not be read")
    return seen


def _instant(report: Report, fact: str) -> datetime:
    return datetime.fromisoformat(report.facts[fact])


def _names(report: Report) -> str:
    return f"{report.facts['party']}/{report.facts['id']}"


# --- the promises, each with what there is to be seen of it ------------------


def _safe(story: Story) -> tuple[str, bool]:
    safe, found = _only(story.first, "safe"), _stored(story.after_kill)
    return f"exit {story.exit_code}: {found.draft}", (
        found.draft == safe.facts["stored"] and story.exit_code not in {None, 0}
    )


def _atomic(story: Story) -> tuple[str, bool]:
    safe, found = _only(story.first, "safe"), _stored(story.after_kill)
    due = _instant(safe, "due")
    return f"{len(found.draft)} value, {len(found.alarms)} alarm after the kill", (
        found.alarms == [due] and bool(found.draft)
    )


def _awake(story: Story) -> tuple[str, bool]:
    opened = _only(story.second, "opened")
    order = [report.what for report in story.second if report.what in {"constructor", "on_start", "on_alarm"}]
    return ", ".join(order), (opened.facts["awake"] == 0 and order == ["constructor", "on_start", "on_alarm"])


def _identity(story: Story) -> tuple[str, bool]:
    safe, rang = _only(story.first, "safe"), _only(story.second, "on_alarm")
    everywhere = {_names(_only(story.second, where)) for where in ("constructor", "on_start", "on_alarm")}
    return f"{_names(rang)}, in process {rang.pid}", everywhere == {_names(safe)} and rang.pid != safe.pid


def _neighbour(story: Story) -> tuple[str, bool]:
    called, end = _only(story.second, "called"), _stored(story.at_end)
    return f"{_names(called)} stored {end.counter}", ([called.facts["answer"]] == list(end.counter.values()))


def _never_early(story: Story) -> tuple[str, bool]:
    late = _instant(_only(story.second, "on_alarm"), "began") - _instant(_only(story.first, "safe"), "due")
    return f"{late / MILLISECOND:+.1f} ms after its time", late >= timedelta()


def _on_time(story: Story) -> tuple[str, bool]:
    opened, rang = _only(story.second, "opened"), _only(story.second, "on_alarm")
    due = _instant(_only(story.first, "safe"), "due")
    # A process that has started too late, on a slow machine, rings at once.
    late = _instant(rang, "began") - max(opened.at, due)
    clients = rang.facts["connections"]
    return f"{late / MILLISECOND:+.1f} ms, with {clients} clients connected", (late <= ON_TIME and clients == 0)


def _remembers(story: Story) -> tuple[str, bool]:
    safe, rang = _only(story.first, "safe"), _only(story.second, "on_alarm")
    return f"{rang.facts['stored']}", rang.facts["stored"] == safe.facts["stored"]


def _once(story: Story) -> tuple[str, bool]:
    rings = sum(report.what == "on_alarm" for report in story.second)
    left = len(_stored(story.at_end).alarms)
    return f"{rings} ring, {left} alarms left", rings == 1 and left == 0


def _cleared(story: Story) -> tuple[str, bool]:
    _only(story.second, "on_alarm")
    end = _stored(story.at_end)
    return f"{len(end.draft)} values, {len(end.alarms)} alarms left", not end.draft and not end.alarms


PROMISES: Final = (
    ("G4", "what is acknowledged is safe", _safe),
    ("G13", "value and alarm stored together", _atomic),
    ("G2", "a room is awake before its alarm", _awake),
    ("G7", "it knows its id in the alarm", _identity),
    ("G7", "it reaches another party's room", _neighbour),
    ("G16", "it reads what was stored before", _remembers),
    ("G8", "the alarm is never early", _never_early),
    ("G8", "it is never lost, and on time", _on_time),
    ("G9", "it rings once", _once),
    ("G13", "delete_all takes the alarm too", _cleared),
)
