"""Sequences of operations made from a seed, run on a store and on the model at once.

Owns the operations, how they are made up, and how a sequence that finds
something is made shorter.

Promises that a seed gives the same sequence always and on every machine, that a
sequence means something whichever operations are taken out of it, and that
after each operation that writes all that the store shows is compared.

Must never decide what is right: the model does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random  # noqa: TID251 - made with a seed that is shown
from typing import Final, Literal, Protocol, TypeVar, final

import attrs
from typing_extensions import override

from partyroom.errors import BrokenContractError, FencedError
from partyroom.testing._contract_model import Model
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey

__all__ = ["Operation", "Run", "make_sequence", "shorten"]

V = TypeVar("V")

PARTIES: Final = ("p", "p\0")
ROOMS: Final = (RoomKey("p", "a"), RoomKey("p", "a\0"), RoomKey("p", "\U0001f600"), RoomKey("p\0", "a"))
TEXTS: Final = ("", "\0", "a", "a\0", "aa", "b", "\uffff", "\U0001f600")
BYTES: Final = (b"", b"\0", b"1", b"2", b"\xff\xfe")
DUES: Final = (None, -1, 0, 5, 5, 6)

ATTEMPTS: Final = 500
"""How many sequences are tried, at most, to make one shorter."""


@final
class Run:
    """One sequence on its way: the store, and what it should hold."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.model = Model()

    async def compare(self, when: str) -> None:
        """Compare all that the store shows with what it should."""
        expect, backend, model = self.trial.expect, self.trial.backend, self.model
        for room in ROOMS:
            seen = await backend.scan(room, EVERYTHING, ALL)
            expect(f"{when}: scanning {room!r}", model.scan(room, EVERYTHING, ALL), list(seen))
            expect(f"{when}: alarms of {room!r}", model.room_alarms(room), list(await backend.room_alarms(room)))
        expect(
            f"{when}: due alarms", model.due_alarms(None, None, ALL), list(await backend.due_alarms(None, None, ALL))
        )
        for party in PARTIES:
            parked = await backend.parked_alarms(party, None, ALL)
            expect(f"{when}: parked alarms of {party!r}", model.parked_alarms(party, None, ALL), list(parked))
            rooms = await backend.rooms(party, EVERYTHING, ALL)
            expect(f"{when}: rooms of {party!r}", model.rooms(party, EVERYTHING, ALL), list(rooms))


class Operation(Protocol):
    """One step of a sequence; its ``repr`` says what it does."""

    async def run(self, run: Run, /) -> None:
        """Do it to the store and to the model, and compare."""
        ...


# --- operations --------------------------------------------------------------


@attrs.frozen
class Claim(Operation):
    """Take a room."""

    room: RoomKey

    @override
    async def run(self, run: Run) -> None:
        before = run.model.highest.get(self.room)
        fence = await run.trial.backend.claim(self.room)
        if before is not None:
            run.trial.expect(f"{self}: whether fence {fence} is above {before}", True, fence > before)  # noqa: FBT003 - a value
        run.model.claim(self.room, fence)


@attrs.frozen
class Write:
    """One commit of a group. Whose it is decides which fence it carries."""

    room: RoomKey
    by: Literal["holder", "loser", "stranger"]
    values: Mapping[str, bytes | None]
    alarms: Mapping[str, AlarmRow | None]
    clear: bool
    release: bool

    def commit(self, model: Model) -> Commit:
        """Make the commit."""
        fences = {
            "holder": model.claims.get(self.room, 0),
            "loser": model.lost.get(self.room, 0),
            "stranger": model.highest.get(self.room, 0) + 1,
        }
        return Commit(self.room, fences[self.by], self.values, self.alarms, self.clear, self.release)


@attrs.frozen
class Group(Operation):
    """Commit some writes in one call, each room's holder having claimed it."""

    writes: tuple[Write, ...]

    @override
    async def run(self, run: Run) -> None:
        for write in self.writes:
            if write.by == "holder" and write.room not in run.model.claims:
                await Claim(write.room).run(run)
        commits = [write.commit(run.model) for write in self.writes]
        expected = [None if run.model.commit(commit) else FencedError for commit in commits]
        run.trial.expect(f"{self}: the answers", expected, await run.trial.answers(commits))
        await run.compare(f"{self}")


@attrs.frozen
class Reopen(Operation):
    """Close the store, and open it as a later process would."""

    @override
    async def run(self, run: Run) -> None:
        run.model.close()
        await run.trial.reopen()
        await run.compare(f"{self}")


@attrs.frozen
class Crash(Operation):
    """Go on with what a process that died here would leave."""

    @override
    async def run(self, run: Run) -> None:
        run.model.close()
        await run.trial.crash()
        await run.compare(f"{self}")


@attrs.frozen
class Read(Operation):
    """Read some keys of a room."""

    room: RoomKey
    keys: tuple[str, ...]

    @override
    async def run(self, run: Run) -> None:
        seen = await run.trial.backend.read(self.room, self.keys)
        run.trial.expect(f"{self}", run.model.read(self.room, self.keys), dict(seen))


@attrs.frozen
class Scan(Operation):
    """List a range of a room's keys."""

    room: RoomKey
    keys: KeyRange
    limit: int

    @override
    async def run(self, run: Run) -> None:
        seen = await run.trial.backend.scan(self.room, self.keys, self.limit)
        run.trial.expect(f"{self}", run.model.scan(self.room, self.keys, self.limit), list(seen))


@attrs.frozen
class Due(Operation):
    """List due alarms."""

    before: int | None
    after: AlarmCursor | None
    limit: int

    @override
    async def run(self, run: Run) -> None:
        seen = await run.trial.backend.due_alarms(self.before, self.after, self.limit)
        run.trial.expect(f"{self}", run.model.due_alarms(self.before, self.after, self.limit), list(seen))


@attrs.frozen
class Parked(Operation):
    """List a party's parked alarms."""

    party: str
    after: tuple[str, str] | None
    limit: int

    @override
    async def run(self, run: Run) -> None:
        seen = await run.trial.backend.parked_alarms(self.party, self.after, self.limit)
        run.trial.expect(f"{self}", run.model.parked_alarms(self.party, self.after, self.limit), list(seen))


@attrs.frozen
class Rooms(Operation):
    """List a party's rooms."""

    party: str
    ids: KeyRange
    limit: int

    @override
    async def run(self, run: Run) -> None:
        seen = await run.trial.backend.rooms(self.party, self.ids, self.limit)
        run.trial.expect(f"{self}", run.model.rooms(self.party, self.ids, self.limit), list(seen))


# --- making them up ----------------------------------------------------------


def make_sequence(seed: int, steps: int) -> list[Operation]:
    """Make up a sequence; the same seed and number of steps give the same one."""
    random = Random(seed)  # noqa: S311 - no secret
    makers, weights = zip(*_MAKERS, strict=True)
    return [maker(random) for maker in random.choices(makers, weights, k=steps)]


def _group(random: Random) -> Operation:
    return Group(tuple(_write(random) for _ in range(random.choice((1, 1, 2, 4)))))


def _write(random: Random) -> Write:
    room = random.choice(ROOMS)
    by: Literal["holder", "loser", "stranger"] = random.choice(("holder",) * 8 + ("loser", "stranger"))
    values = {random.choice(TEXTS): random.choice((*BYTES, None)) for _ in range(random.randrange(4))}
    rows = [
        AlarmRow(room, random.choice(TEXTS), random.choice(DUES), random.choice(BYTES))
        for _ in range(random.randrange(3))
    ]
    alarms = {row.name: _sometimes_none(random, row) for row in rows}
    return Write(room, by, values, alarms, _seldom(random), _seldom(random))


def _read(random: Random) -> Operation:
    return Read(random.choice(ROOMS), tuple(random.sample(TEXTS, random.randrange(len(TEXTS)))))


def _scan(random: Random) -> Operation:
    return Scan(random.choice(ROOMS), _range(random), _limit(random))


def _due(random: Random) -> Operation:
    place = AlarmCursor(random.choice((-1, 0, 5, 6)), random.choice(ROOMS), random.choice(TEXTS))
    return Due(random.choice((None, -1, 0, 5, 6, 7)), _sometimes_none(random, place), _limit(random))


def _parked(random: Random) -> Operation:
    place = (random.choice(ROOMS).id, random.choice(TEXTS))
    return Parked(random.choice(PARTIES), _sometimes_none(random, place), _limit(random))


def _rooms(random: Random) -> Operation:
    return Rooms(random.choice(PARTIES), _range(random), _limit(random))


def _range(random: Random) -> KeyRange:
    return KeyRange(random.choice(TEXTS), _sometimes_none(random, random.choice(TEXTS)), random.choice((True, False)))


def _limit(random: Random) -> int:
    return random.choice((1, 2, 3, ALL))


def _seldom(random: Random) -> bool:
    return not random.randrange(10)


def _sometimes_none(random: Random, value: V) -> V | None:
    return random.choice((value, value, None))


_MAKERS: Final[Sequence[tuple[Callable[[Random], Operation], int]]] = (
    (_group, 10),
    (lambda random: Claim(random.choice(ROOMS)), 2),
    (lambda _: Reopen(), 1),
    (lambda _: Crash(), 1),
    (_read, 2),
    (_scan, 3),
    (_due, 3),
    (_parked, 2),
    (_rooms, 2),
)


# --- making them shorter -----------------------------------------------------


async def shorten(
    operations: Sequence[Operation], judge: Callable[[Sequence[Operation]], Awaitable[BrokenContractError | None]]
) -> list[Operation]:
    """Take out of a sequence that finds something whatever it does not need for that: first halves, then ever less."""
    shortest = list(operations)
    attempts = ATTEMPTS
    size = len(shortest) // 2
    while size:
        start = 0
        while start < len(shortest) and attempts:
            attempts -= 1
            shorter = shortest[:start] + shortest[start + size :]
            if await judge(shorter) is None:
                start += size
            else:
                shortest = shorter
        size //= 2
    return shortest
