"""Deliberately wrong backends, at least one for each clause of the contract, and each caught by that clause's case."""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom.backends.memory import MemoryBackend
from partyroom.errors import BackendClosedError, BackendError, BrokenContractError, CommitError, FencedError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract
from partyroom.testing.backend_wrapper import BackendWrapper
from partyroom.testing.faults import FaultyBackend
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey
from tests.sizes import in_turn

M = TypeVar("M", bound=Callable[[], StorageBackend])

MUTANTS: list[tuple[str, Callable[[], StorageBackend]]] = []

ALL = 2**31 - 1


def breaks(*cases: str) -> Callable[[M], M]:
    """Say which cases must catch a wrong backend."""

    def register(mutant: M) -> M:
        MUTANTS.extend((f"test_{case}", mutant) for case in cases)
        return mutant

    return register


class Wrong(BackendWrapper):
    """A right backend, to be made wrong."""

    def __init__(self) -> None:
        super().__init__(MemoryBackend())
        self.fences: dict[RoomKey, int] = {}
        """The fences that count, for those who want to get round them."""
        self.highest = 0

    @override
    async def claim(self, room: RoomKey, /) -> int:
        self.fences[room] = self.highest = await super().claim(room)
        return self.highest

    async def rebuild(self, commits: Sequence[Commit]) -> None:
        """Begin anew with these commits only."""
        self.backend = MemoryBackend()
        async with self.backend:
            for commit in commits:
                fence = await self.backend.claim(commit.room)
                await self.backend.commit([commit._replace(fence=fence)])
            while await self.backend.claim(RoomKey("", "")) < self.highest:
                pass


class EachCommit(Wrong):
    """Makes of each commit another one."""

    @abstractmethod
    def changed(self, commit: Commit) -> Commit:
        """Give another one."""

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await super().commit([self.changed(commit) for commit in commits])


class EachKey(Wrong):
    """Keeps values, alarms and rooms under other texts."""

    @abstractmethod
    def text(self, text: str) -> str:
        """Give another one."""

    def room(self, room: RoomKey) -> RoomKey:
        return room

    @override
    async def claim(self, room: RoomKey, /) -> int:
        return await super().claim(self.room(room))

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await super().commit([self.changed(commit) for commit in commits])

    def changed(self, commit: Commit) -> Commit:
        values = {self.text(key): value for key, value in commit.values.items()}
        return commit._replace(room=self.room(commit.room), values=values)

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        found = await super().read(self.room(room), [self.text(key) for key in keys])
        return {key: found[self.text(key)] for key in keys if self.text(key) in found}

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await super().scan(self.room(room), keys, limit)

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return await super().room_alarms(self.room(room))


# --- open and closed ---------------------------------------------------------


@breaks("closed_before_it_is_entered", "closed_after_it_was_left")
class AnswersWhenClosed(Wrong):
    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        try:
            return await super().read(room, keys)
        except BackendClosedError:
            return {}


@breaks("closed_before_it_is_entered", "closed_after_it_was_left")
class FailsInItsOwnWayWhenClosed(Wrong):
    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        try:
            return await super().rooms(party, ids, limit)
        except BackendClosedError as error:
            raise AttributeError("connection") from error


@breaks("closed_after_it_was_left", "entered_again")
class StaysOpen(Wrong):
    @override
    async def __aexit__(self, *_exc: object) -> None:
        return


@breaks("entered_again")
class ForgetsWhenEntered(Wrong):
    @override
    async def __aenter__(self) -> Self:
        self.backend = MemoryBackend()
        return await super().__aenter__()


@breaks("entered_again")
class GivesNothingWhenEntered(Wrong):
    @override
    async def __aenter__(self) -> Any:
        await super().__aenter__()


@breaks("one_answer_for_each_commit")
class AnswersWithTheClass(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Any:
        return [answer and type(answer) for answer in await super().commit(commits)]


@breaks("entered_again")
class FailsWhenLeft(Wrong):
    @override
    async def __aexit__(self, *_exc: object) -> None:
        await super().__aexit__(None, None, None)
        message = "bad file descriptor"
        raise OSError(message)


# --- durable -----------------------------------------------------------------


class Journal(Wrong):
    """Is left with what it decides to have kept."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[Sequence[Commit]] = []

    @abstractmethod
    def kept(self) -> list[Commit]:
        """Give what of the last group is kept."""

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        answers = await super().commit(commits)
        self.groups.append([commit for commit, error in zip(commits, answers, strict=True) if error is None])
        return answers

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        kept = self.kept()
        self.groups = [kept]
        await self.rebuild(kept)


@breaks("durable_when_commit_returns", "kept_when_it_is_left")
class LosesTheLastGroup(Journal):
    @override
    def kept(self) -> list[Commit]:
        return [commit for group in self.groups[:-1] for commit in group]


@breaks("a_group_is_durable_when_commit_returns")
class KeepsTheFirstOfAGroup(Journal):
    @override
    def kept(self) -> list[Commit]:
        return [group[0] for group in self.groups if group]


@breaks("kept_when_it_is_left")
class ForgetsAlarmsWhenLeft(Journal):
    @override
    def kept(self) -> list[Commit]:
        return [commit._replace(alarms={}) for group in self.groups for commit in group]


class Keeps(Journal):
    """Right: it is left with everything."""

    @override
    def kept(self) -> list[Commit]:
        return [commit for group in self.groups for commit in group]


@breaks("durable_when_commit_returns", "a_group_is_durable_when_commit_returns")
class WritesWhenLeft(Keeps):
    """Keeps everything, if only it is left in order: see :func:`contract_of` for how it crashes."""


# --- commits -----------------------------------------------------------------


@breaks("atomic")
def tears() -> StorageBackend:
    faulty = FaultyBackend(MemoryBackend())
    faulty.tear(nth=2)
    return faulty


@breaks("atomic")
class ForgetsDeletions(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values={key: value for key, value in commit.values.items() if value is not None})


@breaks("atomic")
class StoresAThousandAtMost(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values=dict(list(commit.values.items())[:1000]))


@breaks("atomic", "durable_when_commit_returns", "an_alarm_replaces_the_one_of_its_name")
class ForgetsAlarms(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(alarms={})


@breaks("atomic_when_cancelled", "reads_during_a_commit")
class StoresInHalves(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        for commit in commits:
            keys = sorted(commit.values)[::2]
            half = commit._replace(values={key: commit.values[key] for key in keys}, alarms={}, release=False)
            await super().commit([half])
            await checkpoint()
        return await super().commit(commits)


@breaks("atomic_when_cancelled")
class HangsOnceCancelled(Wrong):
    cancelled = False

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        while self.cancelled:
            await checkpoint()
        self.cancelled = True
        for _ in range(3):
            await checkpoint()
        self.cancelled = False
        return await super().commit(commits)


@breaks("ordered")
class AppliesTheLastFirst(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return (await super().commit(commits[::-1]))[::-1]


@breaks("seen_when_commit_returns")
class AppliesOneCallLate(Wrong):
    late: Sequence[Commit] = ()

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        await super().commit(self.late)
        self.late = commits
        return [None] * len(commits)


@breaks("seen_when_commit_returns")
class ReadsFromAStaleCache(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[RoomKey, Mapping[str, bytes]] = {}

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        if room not in self.cache:
            self.cache[room] = await super().read(room, keys)
        return self.cache[room]


@breaks("idempotent")
class RefusesWhatItHasSeen(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Commit] = []

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        answers = await super().commit(commits)
        known = [commit in self.seen for commit in commits]
        self.seen += commits
        return [CommitError("duplicate") if seen else answer for seen, answer in zip(known, answers, strict=True)]


@breaks("one_answer_for_each_commit", "one_refusal_is_not_anothers")
class AnswersRefusalsOnly(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return [error for error in await super().commit(commits) if error is not None]


@breaks("one_answer_for_each_commit")
class AnswersRefusalsFirst(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return sorted(await super().commit(commits), key=lambda error: error is None)


@breaks("one_answer_for_each_commit")
class AnswersWithoutCommits(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await super().commit(commits) or [None]


@breaks("one_refusal_is_not_anothers", "one_answer_for_each_commit")
class RefusesTheWholeGroup(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        refused = [commit for commit in commits if self.fences.get(commit.room) != commit.fence]
        return await super().commit([commit._replace(fence=-1) for commit in commits] if refused else commits)


@breaks("nothing_to_write", "rooms_that_hold_something")
class ListsRoomsForEver(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.known: set[RoomKey] = set()

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self.known.update(commit.room for commit in commits)
        return await super().commit(commits)

    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        return sorted(room.id for room in self.known if room.party == party)


@breaks("nothing_to_write")
class RefusesToDeleteWhatIsNotThere(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        for commit in commits:
            gone = {key for key, value in commit.values.items() if value is None}
            if gone - (await self.read(commit.room, tuple(gone))).keys():
                return [CommitError("no such key")] * len(commits)
        return await super().commit(commits)


@breaks("clear")
class ClearsValuesOnly(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        kept = [
            commit._replace(alarms={row.name: row for row in await self.room_alarms(commit.room)} | dict(commit.alarms))
            if commit.clear
            else commit
            for commit in commits
        ]
        return await self.backend.commit(kept)


@breaks("clear")
class ClearsLast(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values={}, alarms={}) if commit.clear else commit


@breaks("clear", "isolated")
class ClearsTheWholeParty(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        for party in {commit.room.party for commit in commits if commit.clear}:
            for room_id in await self.rooms(party, KeyRange(), ALL):
                room = RoomKey(party, room_id)
                await super().commit([Commit(room, self.fences[room], {}, {}, clear=True)])
        return await super().commit(commits)


@breaks("nothing_of_the_caller_is_kept")
class KeepsTheCallersMapping(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[RoomKey, Mapping[str, bytes | None]] = {}

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self.kept.update({commit.room: commit.values for commit in commits})
        return await super().commit(commits)

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        found = {**await super().read(room, keys), **self.kept.get(room, {})}
        return {key: value for key, value in found.items() if value is not None and key in keys}


@breaks("nothing_of_the_caller_is_kept")
class HandsOutItsOwnMapping(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.own: dict[RoomKey, dict[str, bytes]] = {}

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        if room not in self.own:
            self.own[room] = dict(await super().read(room, keys))
        return self.own[room]


class LostError(FencedError):
    """Says more of a lost claim."""


class TellsMoreOfALostClaim(Wrong):
    """Right: its error is a FencedError."""

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        answers = await super().commit(commits)
        return [LostError("lost") if isinstance(answer, FencedError) else answer for answer in answers]


class GivesReadOnlyMappings(Wrong):
    """Right: what was read cannot be changed."""

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        return MappingProxyType(dict(await super().read(room, keys)))


# --- rooms apart -------------------------------------------------------------


@breaks("isolated")
class PutsNamesTogether(EachKey):
    @override
    def text(self, text: str) -> str:
        return text

    @override
    def room(self, room: RoomKey) -> RoomKey:
        return RoomKey("", f"{room.party}/{room.id}")


@breaks("isolated")
class ForgetsTheParty(EachKey):
    @override
    def text(self, text: str) -> str:
        return text

    @override
    def room(self, room: RoomKey) -> RoomKey:
        return RoomKey("party", room.id)


# --- reading -----------------------------------------------------------------


@breaks("what_comes_back")
class GivesWhatCanBeReadOnce(Wrong):
    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Any:
        return iter(await super().scan(room, keys, limit))


@breaks("what_comes_back")
class GivesPairs(Wrong):
    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Any:
        return list((await super().read(room, keys)).items())


@breaks("what_comes_back")
class GivesRoomsAsPlainTuples(Wrong):
    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Any:
        return [row._replace(room=tuple(row.room)) for row in await super().parked_alarms(party, after, limit)]  # type: ignore[arg-type]


@breaks("reads_that_are_cancelled")
class KeepsItsLockOnceCancelled(Wrong):
    locked = False

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        while self.locked:
            await checkpoint()
        self.locked = True
        await checkpoint()
        self.locked = False
        return await super().scan(room, keys, limit)


@breaks("bytes_are_kept_exactly")
class DropsEmptyValues(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values={key: value or None for key, value in commit.values.items()})


@breaks("bytes_are_kept_exactly")
class CutsAtNul(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(
            values={key: value and value.partition(b"\0")[0] for key, value in commit.values.items()}
        )


@breaks("bytes_are_kept_exactly")
class CutsLongValues(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values={key: value and value[:1_000_000] for key, value in commit.values.items()})


@breaks("bytes_are_kept_exactly")
class KeepsAlarmsAsText(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        alarms = {
            name: row and row._replace(data=row.data.decode("utf-8", "replace").encode())
            for name, row in commit.alarms.items()
        }
        return commit._replace(alarms=alarms)


@breaks("bytes_are_kept_exactly")
class GivesByteArrays(Wrong):
    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Any:
        return {key: bytearray(value) for key, value in (await super().read(room, keys)).items()}


@breaks("odd_keys")
class FoldsCase(EachKey):
    @override
    def text(self, text: str) -> str:
        return text.casefold()


@breaks("odd_keys")
class Normalises(EachKey):
    @override
    def text(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


@breaks("odd_keys")
class CutsKeysAtNul(EachKey):
    @override
    def text(self, text: str) -> str:
        return text.partition("\0")[0]


@breaks("odd_keys")
class StripsKeys(EachKey):
    @override
    def text(self, text: str) -> str:
        return text.strip(" ")


@breaks("odd_keys")
class RefusesTheEmptyKey(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(fence=-1) if "" in commit.values else commit


@breaks("odd_keys")
class TakesNumbersForNumbers(EachKey):
    @override
    def text(self, text: str) -> str:
        return str(int(text)) if text.isascii() and text.isdigit() else text


@breaks("long_keys")
class CutsLongKeys(EachKey):
    @override
    def text(self, text: str) -> str:
        return text[:511]


@breaks("long_keys")
class CutsLongIds(EachKey):
    @override
    def text(self, text: str) -> str:
        return text

    @override
    def room(self, room: RoomKey) -> RoomKey:
        return RoomKey(room.party, room.id[:1000])


@breaks("reads_give_what_exists")
class GivesEmptyValuesForMissingKeys(Wrong):
    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        return dict.fromkeys(keys, b"") | dict(await super().read(room, keys))


@breaks("reads_give_what_exists")
class TakesOnlySoManyKeys(Wrong):
    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        if len(keys) > 32_766:
            message = "too many SQL variables"
            raise BackendError(message)
        return await super().read(room, keys)


@breaks("scans_are_ordered", "scans_keep_to_their_range")
class OrdersAsUtf16(Wrong):
    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        found = await super().scan(room, keys, ALL)
        return sorted(found, key=lambda entry: entry[0].encode("utf-16-be"), reverse=keys.reverse)[:limit]


@breaks("scans_are_ordered")
class OrdersWithoutCase(Wrong):
    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        found = await super().scan(room, keys, ALL)
        return sorted(found, key=lambda entry: entry[0].casefold(), reverse=keys.reverse)[:limit]


class OtherRange(Wrong):
    """Scans another range than the one it is given."""

    @abstractmethod
    def other(self, keys: KeyRange) -> KeyRange:
        """Give another one."""

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await super().scan(room, self.other(keys), limit)


@breaks("scans_keep_to_their_range")
class EndIsInclusive(OtherRange):
    @override
    def other(self, keys: KeyRange) -> KeyRange:
        return KeyRange(keys.start, None if keys.end is None else keys.end + "\0", keys.reverse)


@breaks("scans_keep_to_their_range")
class StartIsExclusive(OtherRange):
    @override
    def other(self, keys: KeyRange) -> KeyRange:
        return KeyRange(keys.start + "\0" if keys.start else "", keys.end, keys.reverse)


@breaks("scans_keep_to_their_range", "scans_are_ordered")
class DoesNotReverse(OtherRange):
    @override
    def other(self, keys: KeyRange) -> KeyRange:
        return KeyRange(keys.start, keys.end)


@breaks("scans_keep_to_their_range")
class SwapsBoundsWhenReversed(OtherRange):
    @override
    def other(self, keys: KeyRange) -> KeyRange:
        return KeyRange(keys.end or "", keys.start, reverse=True) if keys.reverse else keys


@breaks("scans_keep_to_their_limit")
class LimitsBeforeItReverses(Wrong):
    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        found = await super().scan(room, KeyRange(keys.start, keys.end), limit)
        return found[::-1] if keys.reverse else found


@breaks("scans_keep_to_their_limit")
class GivesPagesOf256(Wrong):
    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        return await super().scan(room, keys, min(limit, 256))


@breaks("reads_during_a_commit")
class GoesBack(Wrong):
    """Every third read is answered by a copy that lags behind."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.copy: Mapping[str, bytes] = {}

    @override
    async def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        self.reads += 1
        if self.reads % 3 == 0 and self.copy:
            return self.copy
        found = await super().read(room, keys)
        if self.reads % 3 == 1:
            self.copy = found
        return found


# --- alarms and rooms --------------------------------------------------------


@breaks("alarms_of_a_room")
class HidesParkedAlarms(Wrong):
    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return [row for row in await super().room_alarms(room) if row.due is not None]


@breaks("alarms_of_a_room")
class OrdersARoomsAlarmsByTime(Wrong):
    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return sorted(await super().room_alarms(room), key=lambda row: row.due or 0)


@breaks("listings_during_a_commit")
class BuildsItsIndexAnew(Wrong):
    """Has no due alarms while it commits."""

    committing = False

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self.committing = True
        await checkpoint()
        answers = await super().commit(commits)
        self.committing = False
        return answers

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return [] if self.committing else await super().due_alarms(before, after, limit)


@breaks("an_alarm_replaces_the_one_of_its_name")
class LeavesTheOldDueTimeBehind(Wrong):
    def __init__(self) -> None:
        super().__init__()
        self.index: set[AlarmRow] = set()

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        self.index.update(row for commit in commits for row in commit.alarms.values() if row and row.due is not None)
        return await super().commit(commits)

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return sorted(self.index, key=lambda row: (row.due, row.room, row.name))


class OtherDueAlarms(Wrong):
    """Lists due alarms in its own way."""

    @abstractmethod
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        """List them."""

    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        return self.listed(list(await super().due_alarms(None, None, ALL)), before, after)[:limit]


def place(row: Any) -> AlarmCursor:
    return AlarmCursor(row.due, row.room, row.name)


def is_asked_for(row: Any, before: int | None, after: AlarmCursor | None) -> bool:
    return (before is None or row.due < before) and (after is None or place(row) > after)


@breaks("due_alarms_are_ordered")
class OrdersTiesByName(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        rows.sort(key=lambda row: (row.due, row.name, row.room))
        return [row for row in rows if is_asked_for(row, before, after)]


@breaks("due_alarms_are_ordered")
class PutsParkedAlarmsFirst(Wrong):
    @override
    async def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        parked = await super().parked_alarms("party", None, ALL)
        return [*parked, *await super().due_alarms(before, after, limit)][:limit]


@breaks("due_alarms_before")
class BeforeIsInclusive(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        return [row for row in rows if is_asked_for(row, None if before is None else before + 1, after)]


@breaks("due_alarms_before")
class TakesZeroForNoBound(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        return [row for row in rows if is_asked_for(row, before or None, after)]


@breaks("due_alarms_after")
class AfterIsInclusive(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        return [row for row in rows if is_asked_for(row, before, after) or place(row) == after]


@breaks("due_alarms_after")
class GoesOnBehindTheDueTime(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        return [row for row in rows if is_asked_for(row, before, None) and (after is None or row.due > after.due)]


@breaks("due_alarms_after")
class ForgetsThePlaceOfARowThatIsGone(OtherDueAlarms):
    @override
    def listed(self, rows: list[Any], before: int | None, after: AlarmCursor | None) -> list[AlarmRow]:
        known = after in {place(row) for row in rows}
        return [row for row in rows if is_asked_for(row, before, after if known else None)]


class OtherParkedAlarms(Wrong):
    """Lists parked alarms in its own way."""

    async def every(self, party: str) -> list[AlarmRow]:
        return list(await super().parked_alarms(party, None, ALL))


@breaks("parked_alarms")
class ListsEveryPartysParkedAlarms(OtherParkedAlarms):
    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        found = sorted([*await self.every("p"), *await self.every("p\0")])
        return [row for row in found if after is None or (row.room.id, row.name) > after][:limit]


@breaks("parked_alarms")
class GoesOnBehindTheRoom(OtherParkedAlarms):
    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        return [row for row in await self.every(party) if after is None or row.room.id > after[0]][:limit]


@breaks("parked_alarms")
class OrdersParkedAlarmsByName(OtherParkedAlarms):
    @override
    async def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        found = sorted(await self.every(party), key=lambda row: row.name)
        return [row for row in found if after is None or (row.room.id, row.name) > after][:limit]


@breaks("rooms_that_hold_something")
class ListsRoomsWithValuesOnly(Wrong):
    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        found = await super().rooms(party, ids, ALL)
        return [room_id for room_id in found if await self.scan(RoomKey(party, room_id), KeyRange(), 1)][:limit]


@breaks("rooms_are_ordered", "isolated")
class ListsPartiesOfThatPrefix(Wrong):
    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        both = [*await super().rooms(party, ids, ALL), *await super().rooms(f"{party}\0", ids, ALL)]
        return sorted(both, reverse=ids.reverse)[:limit]

    @override
    async def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        neighbour = RoomKey(room.party, f"{room.id}\0")
        return [*await super().scan(room, keys, limit), *await super().scan(neighbour, keys, limit)][:limit]


@breaks("rooms_are_ordered")
class ListsRoomsUpwardsOnly(Wrong):
    @override
    async def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        return await super().rooms(party, KeyRange(ids.start, ids.end), limit)


# --- fences ------------------------------------------------------------------


class OwnFences(Wrong):
    """Counts fences in its own way, and decides by itself who may commit."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[RoomKey, int] = {}
        """The latest fence of each room."""
        self.ended: set[RoomKey] = set()
        """Rooms whose claim has ended."""

    @override
    async def claim(self, room: RoomKey, /) -> int:
        await super().claim(room)
        self.ended.discard(room)
        self.given[room] = fence = self.next(room)
        return fence

    def next(self, room: RoomKey) -> int:
        return self.given.get(room, 0) + 1

    def accepts(self, room: RoomKey, fence: int) -> bool:
        return self.given.get(room) == fence and room not in self.ended

    def end(self, room: RoomKey) -> None:
        self.ended.add(room)

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return [await self.commit_one(commit) for commit in commits]

    async def commit_one(self, commit: Commit) -> CommitError | None:
        if not self.accepts(commit.room, commit.fence):
            return FencedError("lost")
        if commit.release:
            self.end(commit.room)
        fence = await self.backend.claim(commit.room)
        (answer,) = await self.backend.commit([commit._replace(fence=fence)])
        return answer

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.ended.update(self.given)
        await super().__aexit__(exc_type, exc, traceback)


@breaks("fences_grow")
class CountsFromOneWhenEntered(OwnFences):
    @override
    async def __aenter__(self) -> Self:
        self.given.clear()
        return await super().__aenter__()


@breaks("fences_grow", "fenced_during_anothers_claim")
class GivesEverybodyTheSameFence(OwnFences):
    @override
    def next(self, room: RoomKey) -> int:
        return 1


@breaks("fences_grow")
class ForgetsFencesAtRelease(OwnFences):
    @override
    def end(self, room: RoomKey) -> None:
        del self.given[room]


@breaks("fenced_before_a_claim")
class AcceptsWhereNobodyHasClaimed(OwnFences):
    @override
    def accepts(self, room: RoomKey, fence: int) -> bool:
        return room not in self.given or super().accepts(room, fence)


@breaks("fenced_during_anothers_claim", "one_answer_for_each_commit")
class NeverRefuses(OwnFences):
    @override
    def accepts(self, room: RoomKey, fence: int) -> bool:
        return True


@breaks("fenced_during_anothers_claim")
class AcceptsHigherFences(OwnFences):
    @override
    def accepts(self, room: RoomKey, fence: int) -> bool:
        return super().accepts(room, fence) or fence > self.given.get(room, fence)


@breaks("fenced_during_anothers_claim")
class RefusesAndStores(OwnFences):
    @override
    async def commit_one(self, commit: Commit) -> CommitError | None:
        answer = await super().commit_one(commit)
        if answer is not None:
            fence = await self.backend.claim(commit.room)
            await self.backend.commit([commit._replace(fence=fence)])
        return answer


@breaks("fenced_after_anothers_claim")
class AcceptsEarlierFencesOnceReleased(OwnFences):
    @override
    def accepts(self, room: RoomKey, fence: int) -> bool:
        return super().accepts(room, fence) or (room in self.ended and fence < self.given[room])


@breaks("fenced_after_release")
class IgnoresReleases(OwnFences):
    @override
    def end(self, room: RoomKey) -> None:
        return


@breaks("fenced_after_release")
class ReleasesAfterTheCall(OwnFences):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        answers = await super().commit([commit._replace(release=False) for commit in commits])
        for commit in commits:
            if commit.release:
                self.end(commit.room)
        return answers


@breaks("fenced_after_release")
class DropsWhatAReleaseWrites(EachCommit):
    @override
    def changed(self, commit: Commit) -> Commit:
        return commit._replace(values={}, alarms={}) if commit.release else commit


@breaks("a_refused_release_ends_nothing")
class LetsAnybodyRelease(OwnFences):
    @override
    async def commit_one(self, commit: Commit) -> CommitError | None:
        answer = await super().commit_one(commit)
        if commit.release:
            self.end(commit.room)
        return answer


@breaks("claims_are_of_one_room")
class HasOneClaimForEachParty(OwnFences):
    @override
    def accepts(self, room: RoomKey, fence: int) -> bool:
        return [*(other for other in self.given if other.party == room.party)][-1:] == [room]


@breaks("claims_are_of_one_room")
class ReleasesAllRooms(OwnFences):
    @override
    def end(self, room: RoomKey) -> None:
        self.ended.update(self.given)


@breaks("claims_at_the_same_time")
class WritesAllClaimsBack(OwnFences):
    @override
    async def claim(self, room: RoomKey, /) -> int:
        given = dict(self.given)
        await checkpoint()
        fence = await super().claim(room)
        self.given = {**given, room: fence}
        return fence


@breaks("claims_end_when_it_is_left")
class KeepsClaimsWhenLeft(OwnFences):
    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        ended = set(self.ended)
        await super().__aexit__(exc_type, exc, traceback)
        self.ended = ended


@breaks("a_claim_during_a_commit")
class LooksAtTheFenceTooEarly(OwnFences):
    @override
    async def commit_one(self, commit: Commit) -> CommitError | None:
        accepted = self.accepts(commit.room, commit.fence)
        for _ in range(3):
            await checkpoint()
        return await super().commit_one(commit._replace(fence=self.given[commit.room]) if accepted else commit)


# --- faults ------------------------------------------------------------------


class Breakable(Wrong):
    """Fails while it is told to, each kind in its own way."""

    broken = False

    @abstractmethod
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        """Answer, or do not."""

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await (self.fail(commits) if self.broken else super().commit(commits))


@breaks("goes_on_after_a_fault")
class RaisesWhatItsClientRaises(Breakable):
    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        message = "no space left on device"
        raise OSError(message)


@breaks("goes_on_after_a_fault")
class SaysNothing(Breakable):
    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        return [None] * len(commits)


@breaks("goes_on_after_a_fault")
class StaysBroken(Breakable):
    failed = False

    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        self.failed = True
        message = "connection lost"
        raise BackendError(message)

    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        return await (self.fail(commits) if self.failed else super().commit(commits))


@breaks("goes_on_after_a_fault")
class StoresAPartAndRaises(Breakable):
    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        await self.backend.commit([commit._replace(alarms={}) for commit in commits])
        message = "connection lost"
        raise BackendError(message)


@breaks("goes_on_after_a_fault")
class RefusesWhatItHasStored(Breakable):
    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        await self.backend.commit(commits)
        return [CommitError("refused")] * len(commits)


class RaisesWhatItHasStored(Breakable):
    """Right: it says that nothing is known."""

    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        await self.backend.commit(commits)
        message = "connection lost"
        raise BackendError(message)


class RefusesProperly(Breakable):
    """Right: it refuses, and has not stored anything."""

    @override
    async def fail(self, commits: Sequence[Commit]) -> Sequence[CommitError | None]:
        return [CommitError("refused")] * len(commits)


# --- what no case has thought of ---------------------------------------------


@breaks("generated_sequences")
class DropsAParkedAlarmWithTheLastValue(Wrong):
    @override
    async def commit(self, commits: Sequence[Commit], /) -> Sequence[CommitError | None]:
        answers = await super().commit(commits)
        for commit, answer in zip(commits, answers, strict=True):
            emptied = None in commit.values.values() and not await self.scan(commit.room, KeyRange(), 1)
            if answer is None and emptied and not commit.release:
                parked = {row.name: None for row in await self.room_alarms(commit.room) if row.due is None}
                await super().commit([Commit(commit.room, commit.fence, {}, parked)])
        return answers


@breaks("generated_sequences")
class DropsDeletionsOfAGroupWhenReopened(Journal):
    @override
    def kept(self) -> list[Commit]:
        return [
            commit._replace(values={key: value for key, value in commit.values.items() if value is not None})
            if len(group) > 1
            else commit
            for group in self.groups
            for commit in group
        ]


# --- the contract judges them ------------------------------------------------


def contract_of(mutant: Callable[[], StorageBackend]) -> BackendContract:
    class MutantContract(BackendContract):
        # One that hangs is told as soon as may be, and no other one on a slow machine.
        patience = 1.0 if mutant in (HangsOnceCancelled, KeepsItsLockOnceCancelled) else BackendContract.patience

        @override
        def make_backend(self) -> StorageBackend:
            return mutant()

        @override
        def crash(self, backend: StorageBackend, /) -> StorageBackend:
            return WritesWhenLeft() if isinstance(backend, WritesWhenLeft) else super().crash(backend)

        @override
        def fault(self, backend: StorageBackend, /) -> AbstractContextManager[object] | None:
            return broken(backend) if isinstance(backend, Breakable) else None

    return MutantContract()


@contextmanager
def broken(backend: Breakable) -> Generator[None, None, None]:
    backend.broken = True
    yield
    backend.broken = False


def clause_of(found: BrokenContractError) -> str:
    return found.clause.rpartition("(")[2].partition(",")[0]


CASES = sorted(name for name in dir(BackendContract) if name.startswith("test_"))


@pytest.mark.parametrize(("case", "mutant"), MUTANTS, ids=[f"{mutant.__name__}-{case}" for case, mutant in MUTANTS])
def test_a_wrong_backend_is_caught_by_the_case_of_its_clause(case: str, mutant: Callable[[], StorageBackend]) -> None:
    for loop in in_turn(MUTANTS.index((case, mutant)), "asyncio", "trio"):
        contract = contract_of(mutant)
        contract.loops = (loop,)
        with pytest.raises(BrokenContractError) as caught:
            getattr(contract, case)()
        assert case == clause_of(caught.value), loop


def test_every_clause_has_a_wrong_backend() -> None:
    assert set(CASES) == {case for case, _ in MUTANTS}


RIGHT: list[Callable[[], StorageBackend]] = [
    Wrong,
    GivesReadOnlyMappings,
    TellsMoreOfALostClaim,
    Keeps,
    RaisesWhatItHasStored,
    RefusesProperly,
]


@pytest.mark.parametrize("backend", RIGHT)
def test_a_right_backend_passes_every_case(backend: Callable[[], StorageBackend]) -> None:
    contract = contract_of(backend)
    contract.sequences = 2
    contract.loops = in_turn(RIGHT.index(backend), "asyncio", "trio")
    for case in CASES:
        getattr(contract, case)()
