"""The axe: processes full of rooms are killed at random moments, and nothing may be lost.

``python -m tests.backends.axe --kills 200`` starts processes that write and set alarms in many rooms of one file, on
both loops and with both kinds of durability, and kills them: while they open the file, while they work, while the log
is moved into the file, while they close. After each kill the file is looked at, and the next process opens what was
left. Each file's last process is left alone until all alarms have rung.

Promises to raise at the first thing that is not as promised, and to count what was checked: a run that checked less
than it was asked to is a failure too.

Must never help a process to leave the file in order: what it holds is what it had when it was struck.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from types import TracebackType
from typing import Final, Literal, Self

import attrs

from partyroom import RoomKey
from tests.backends import axe_child
from tests.backends.axe_books import AxeError, Books, expect, open_rings
from tests.backends.axe_child import CLOSE, Order

ROOT: Final = Path(__file__).parents[2]

PATIENCE: Final = 30.0
"""For how many seconds a process may say nothing."""
KILLS_OF_A_FILE: Final = 50

MOST_WRITES: Final = 300
"""How many writes a process lives through at most, before the moment for which it is killed is waited for."""

Moment = Literal["opening", "working", "moving", "closing"]
MOMENTS: Final[tuple[Moment, ...]] = ("working", "opening", "moving", "closing", "working", "working")

LOOPS: Final = ("asyncio", "trio")


KILLED: Final = 1 if sys.platform == "win32" else -9
"""With what a process ends that was killed; elsewhere that is the number of SIGKILL."""


class Dice:
    """Chance that can be repeated: the same seed gives the same throws."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._throws = 0

    def below(self, sides: int) -> int:
        """Give a number from 0 up to ``sides``."""
        self._throws += 1
        throw = sha256(f"{self.seed}/{self._throws}".encode()).digest()
        return int.from_bytes(throw[:8]) % sides

    def seconds(self, most: float) -> float:
        """Give a length of time up to ``most``."""
        return most * self.below(1000) / 1000


class Child:
    """A process that has begun, and waits for its order."""

    def __init__(self, loop: str, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._process = subprocess.Popen(
            [sys.executable, "-m", axe_child.__name__, loop],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines = SimpleQueue[str]()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def order(self, order: Order) -> None:
        """Wait until it is ready, and give it its order."""
        expect("ready", self.hear(), "a process's first word")
        self.tell(json.dumps(attrs.asdict(order)))

    def tell(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Wait for its next line; an empty one is the end."""
        try:
            line = self._lines.get(timeout=self._patience)
        except Empty:
            raise AxeError(f"the process has said nothing for {self._patience} seconds") from None
        # A line that was cut off by the kill tells nothing.
        return line.removesuffix("\n") if line.endswith("\n") else ""

    def let_live(self, seconds: float) -> None:
        """Leave it alone for a while, in which it must not end."""
        self._reader.join(seconds)

    def kill(self) -> None:
        """Kill it. What it had said before can still be heard."""
        ended = self._process.poll() is not None
        self._process.kill()
        code = self._process.wait()
        if ended or code != KILLED:
            raise AxeError(f"the process ended by itself, with code {code}")

    def let_go(self) -> None:
        """Let it end in order, as one that waits for its input does when there is no more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        expect(0, self._process.wait(self._patience), "the code that a process ended with")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self._process.kill()
        with self._process:
            self._reader.join()


@attrs.define
class Tally:
    """What a run has done."""

    kills: Counter[str] = attrs.field(factory=Counter[str])
    """How many, by what the process was doing."""
    files: int = 0
    writes: int = 0
    """How many acknowledged writes were found."""
    alarms: int = 0
    """How many alarms were found to have rung, once for each of their times."""

    def __str__(self) -> str:
        moments = ", ".join(f"{count} {moment}" for moment, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total():,} kills ({moments}); {self.writes:,} acknowledged writes checked; "
            f"{self.alarms:,} alarms checked; {self.files} files whole"
        )

    def shortfalls(self, *, kills: int, writes: int, alarms: int) -> list[str]:
        """Say in what the run falls short of what was asked."""
        asked = {"kills": (self.kills.total(), kills), "writes": (self.writes, writes), "alarms": (self.alarms, alarms)}
        return [f"{done:,} {what}, where {least:,} were asked" for what, (done, least) in asked.items() if done < least]


class Axe:
    """One run."""

    def __init__(self, folder: Path, dice: Dice) -> None:
        self._folder = folder
        self._dice = dice
        self.tally = Tally()
        self._born = 0
        self._next = self._bear()

    def _bear(self) -> Child:
        """Start a process ahead of time: the next one begins while this one lives."""
        self._born += 1
        return Child(LOOPS[self._born % len(LOOPS)])

    def close(self) -> None:
        """End the process that waits."""
        with self._next:
            pass

    def swing(self, kills: int) -> None:
        """Kill so many processes, some dozens on each file."""
        while kills > 0:
            self._fell(min(kills, KILLS_OF_A_FILE))
            kills -= KILLS_OF_A_FILE

    def _fell(self, kills: int) -> None:
        """Take a file from its first process to its last."""
        path, books = self._folder / f"{self.tally.files}.db", Books()
        for number in range(kills):
            moment = MOMENTS[number] if number < len(MOMENTS) else MOMENTS[self._dice.below(len(MOMENTS))]
            self._live(path, books, moment)
            books.judge(path)
            self.tally.kills[moment] += 1
        self._ring_all(path, books)
        self.tally.files += 1

    def _live(self, path: Path, books: Books, moment: Moment) -> None:
        """Let a process live up to a moment, and kill it."""
        with self._order(path, durability=("full", "normal")[self._dice.below(2)]) as child:
            await_line(child, books, "opening")
            if moment != "opening":
                await_writes(child, books, self._dice.below(MOST_WRITES))
            if moment == "closing":
                child.tell(CLOSE)
            if moment in {"moving", "closing"}:
                await_line(child, books, moment)
            child.let_live(self._dice.seconds(0.03 if moment == "opening" else 0.01))
            child.kill()
            await_line(child, books, "")

    def _ring_all(self, path: Path, books: Books) -> None:
        """Let a process live until all alarms have rung, and look at the file for the last time."""
        with self._order(path, rings=open_rings(books.judge(path))) as child:
            await_line(child, books, "closed")
            child.let_go()
        rooms = books.judge(path)
        expect(0, open_rings(rooms), "rings that did not come")
        self.tally.writes += books.count()
        self.tally.alarms += sum(stored.number for room, stored in rooms.items() if room.party == "ledger")

    def _order(self, path: Path, *, durability: Literal["full", "normal"] = "full", rings: int | None = None) -> Child:
        child, self._next = self._next, self._bear()
        child.order(Order(str(path), durability, rings))
        return child


def await_line(child: Child, books: Books, awaited: str) -> None:
    """Hear a process up to a line, and note what was acknowledged."""
    while (line := child.hear()) != awaited:
        note(line, books)


def await_writes(child: Child, books: Books, count: int) -> None:
    """Hear a process until so many more writes were acknowledged."""
    wanted = books.count() + count
    while books.count() < wanted:
        note(child.hear(), books)


def note(line: str, books: Books) -> None:
    """Note what a process says."""
    if not line:
        raise AxeError("the process ended by itself; what it said stands on its error output")
    if line.startswith("write "):
        _, room, number = line.split(" ")
        party, _, id_ = room.partition("/")
        books.note(RoomKey(party, id_), int(number))


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says, and print what was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.backends.axe", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writes", type=int, help="how many acknowledged writes have to be checked (20 a kill)")
    parser.add_argument("--alarms", type=int, help="how many alarms have to be checked (20 a kill)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="of all that is left to chance")
    options = parser.parse_args(arguments)
    each = 20 * options.kills
    with TemporaryDirectory(prefix="partyroom-axe-") as folder:
        axe = Axe(Path(folder), Dice(options.seed))
        try:
            axe.swing(options.kills)
        finally:
            axe.close()
            sys.stdout.write(f"{axe.tally} (seed {options.seed})\n")
    shortfalls = axe.tally.shortfalls(
        kills=options.kills,
        writes=each if options.writes is None else options.writes,
        alarms=each if options.alarms is None else options.alarms,
    )
    sys.stdout.writelines(f"{shortfall}\n" for shortfall in shortfalls)
    return 1 if shortfalls else 0


if __name__ == "__main__":
    sys.exit(main())
