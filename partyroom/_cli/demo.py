"""``python -m partyroom demo``: a room sets an alarm, its process is killed, and another process rings it.

Owns the two processes from start to end, and what is told of them as it happens.

Promises that every figure comes from the processes or from the file, that it ends by itself in a few seconds, and that
it leaves nothing behind.

Must never judge what it sees: that is the story's.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Final

import attrs
from anyio import run

from partyroom._cli import demo_process
from partyroom._cli.demo_story import Report, Stored, Story, verdicts
from partyroom._cli.screen import FOUND, OK, Screen
from partyroom._cli.table import Column, table
from partyroom._cli.text import length
from partyroom._cli.verb import Verb
from partyroom._core.instants import from_micros
from partyroom.backends._file_view import FileView
from partyroom.codec import JsonCodec
from partyroom.errors import BackendError
from partyroom.types import KeyRange, RoomKey

__all__ = ["VERB", "Demo", "judge"]

KEEP: Final = timedelta(seconds=2)
"""How long the room keeps its text: long enough for one process to die and for another to start."""
WATCHDOG: Final = 30.0
"""After how many seconds a process is killed that has not ended by itself."""
KILL: Final = "TerminateProcess" if sys.platform == "win32" else "SIGKILL"
"""What ends a process without asking it."""
PAGE: Final = 100

SENTENCES: Final[Mapping[str, str]] = {
    "began": "begins",
    "safe": "{party}/{id} stored {stored}, set an alarm for {due:.23}Z, and was told: it is safe",
    "opened": "opened the same file; rooms awake: {awake}",
    "on_alarm": "the alarm rings in {party}/{id}; clients connected: {connections}; it reads {stored}",
    "called": "the room calls {party}/{id}, which answers {answer}; then it deletes all it has",
    "ended": "ends",
}
"""What is told of a report; of others, nothing."""


@attrs.frozen(eq=False)
class Demo:
    """One run of the demo, on a file that is not there yet."""

    screen: Screen
    path: str
    keep: timedelta = KEEP
    meddle: Callable[[str], object] | None = None
    """Called with the path between the two processes: for tests, in which promises are broken on purpose."""

    def run(self) -> Story:
        """Let both processes live, one after the other, and look at the file after each."""
        self.screen.say(
            f"A room sets an alarm {length(self.keep)} ahead; its process is killed; another opens the file.\n"
        )
        story = Story()
        began = self.screen.clock.now()
        due = self._first_life(story, began)
        story.after_kill = run(_look, self.path)
        if due is None:
            return story
        if self.meddle is not None:
            self.meddle(self.path)
        self._second_life(story, began, due)
        story.at_end = run(_look, self.path)
        return story

    def _first_life(self, story: Story, began: datetime) -> str | None:
        """Kill the first process as soon as it has acknowledged; give the time of its alarm."""
        due = None
        with _process("first", self.path, str(self.keep.total_seconds())) as (process, reports):
            for report in reports:
                story.first.append(report)
                self._tell(began, report)
                if report.what == "safe":
                    due = report.facts["due"]
                    process.kill()
                    self._say(began, self.screen.clock.now(), process.pid, f"is killed ({KILL})")
        story.exit_code = process.returncode
        return due

    def _second_life(self, story: Story, began: datetime, due: str) -> None:
        with _process("second", self.path, due) as (_, reports):
            for report in reports:
                story.second.append(report)
                self._tell(began, report)

    def _tell(self, began: datetime, report: Report) -> None:
        sentence = SENTENCES.get(report.what)
        if sentence is not None:
            self._say(began, report.at, report.pid, sentence.format_map(report.facts))

    def _say(self, began: datetime, at: datetime, pid: int, sentence: str) -> None:
        self.screen.say(f"{(at - began).total_seconds():7.3f} s  process {pid}: {sentence}")
        # Told as it happens, also into a pipe.
        self.screen.out.flush()


@contextmanager
def _process(*arguments: str) -> Generator[tuple[subprocess.Popen[str], Iterator[Report]]]:
    """Start a process of the demo; give it with its reports, as they come. It has ended when this is left."""
    command = [sys.executable, "-m", demo_process.__name__, *arguments]
    with subprocess.Popen(  # noqa: S603 - nothing of it comes from anybody else
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="ascii"
    ) as process:
        assert process.stdout is not None
        watchdog = Timer(WATCHDOG, process.kill)
        watchdog.start()
        try:
            yield process, map(Report.read, process.stdout)
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()


async def _look(path: str) -> Stored | None:
    """Read what the file holds of the demo's rooms; ``None`` if it cannot be read."""
    draft, counter = RoomKey(*demo_process.DRAFT), RoomKey(*demo_process.COUNTER)
    try:
        async with FileView(path) as view:
            return Stored(
                await _values(view, draft),
                [None if row.due is None else from_micros(row.due) for row in await view.room_alarms(draft)],
                await _values(view, counter),
            )
    except BackendError:
        return None


async def _values(view: FileView, room: RoomKey) -> dict[str, object]:
    decode = JsonCodec().decode
    return {key: decode(value) for key, value in await view.scan(room, KeyRange(), PAGE)}


def demo_options(_parser: ArgumentParser) -> None:
    """Take nothing: there is nothing to choose."""


def demo(_arguments: Namespace, screen: Screen) -> int:
    """Run the demo in a folder of its own, and compare what was promised with what was seen."""
    with TemporaryDirectory(prefix="partyroom-demo-") as folder:
        return judge(Demo(screen, str(Path(folder) / "rooms.db")).run(), screen)


def judge(story: Story, screen: Screen) -> int:
    """Print what was promised beside what was seen, and give the exit code."""
    found = verdicts(story)
    columns = [Column(""), Column("promised"), Column("seen"), Column("")]
    rows = [[each.number, each.promise, each.seen, "kept" if each.kept else "BROKEN"] for each in found]
    screen.say()
    for line in table(columns, rows, screen.width):
        screen.say(line)
    broken = [each for each in found if not each.kept]
    screen.say()
    screen.say(f"{len(found) - len(broken)} of {len(found)} promises were kept")
    return FOUND if broken else OK


VERB: Final = Verb(
    "demo",
    "show on real parts that an alarm outlives its process",
    "A process lets a room store something and set an alarm two seconds ahead, and is killed. Another opens the "
    "same file, and the alarm rings there. Exit code 1 if any promise was not kept.",
    ("demo",),
    demo_options,
    demo,
)
