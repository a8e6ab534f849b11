"""Cases of reading a room: exact bytes, odd keys, order, ranges, limits, and reads during a commit.

Owns the clauses about ``read`` and ``scan``.

Promises to ask for ranges on and beside every key that is stored.

Must never rely on a store's own order of equal things.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from partyroom.testing._contract_case import ODD_TEXTS, ROUNDS, A, B, Contract, case, rows
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial, cancelled_after, checkpoints, together
from partyroom.types import AlarmRow, KeyRange, RoomKey

__all__ = ["ReadCases"]

ODD_BYTES: Final = (
    b"",
    b"\0",
    b"\0\0",
    bytes(range(256)),
    b"\xff\xfe",
    b"\x80",
    b"text",
    b"1",
    b"1.0",
    b"null",
    b"a\r\nb ",
)
"""Values that stores have been seen to change."""


class ReadCases(Contract):
    """What reads show: what was put, exactly, in order, as of one commit."""

    @case
    async def test_what_comes_back(self, trial: Trial) -> None:
        """All that comes back can be counted and looked into: a mapping, else sequences; rows are AlarmRow with a RoomKey."""
        await trial.write(A, {"k": b"1"}, rows(A, due=1, parked=None))
        backend = trial.backend
        read = await backend.read(A, ["k"])
        trial.expect("reading: whether it gives a mapping", "a mapping", _kind(read, Mapping, "a mapping"))
        listings: dict[str, Sequence[AlarmRow]] = {
            "room_alarms": await backend.room_alarms(A),
            "due_alarms": await backend.due_alarms(None, None, ALL),
            "parked_alarms": await backend.parked_alarms("party", None, ALL),
        }
        answers = {
            "commit": await backend.commit([await trial.commit_of(A)]),
            "scan": await backend.scan(A, EVERYTHING, ALL),
            "rooms": await backend.rooms("party", EVERYTHING, ALL),
            **listings,
        }
        for call, found in answers.items():
            kind = _kind(found, Sequence, "a sequence")
            trial.expect(f"{call}: whether it gives a sequence, such as a list", "a sequence", kind)
        for call, found in listings.items():
            kinds = {(type(row).__name__, type(row.room).__name__) for row in found}
            trial.expect(f"{call}: the types of rows and of their rooms", {("AlarmRow", "RoomKey")}, kinds)

    @case
    async def test_bytes_are_kept_exactly(self, trial: Trial) -> None:
        """Values and the bytes of alarms come back exactly as they were put, as ``bytes``."""
        values = {str(number): value for number, value in enumerate(ODD_BYTES)}
        values["long"] = bytes(range(256)) * (self.longest_value // 256)
        alarms = {
            key: AlarmRow(A, key, int(key) if key.isdigit() else None, value[:5000]) for key, value in values.items()
        }
        await trial.write(A, values, alarms)
        await trial.expect_room("reading odd bytes", A, values, alarms)
        await trial.reopen()
        await trial.expect_room("reopened", A, values, alarms)
        due = list(await trial.backend.due_alarms(None, None, ALL))
        parked = list(await trial.backend.parked_alarms("party", None, ALL))
        trial.expect("all alarms", list(alarms.values()), due + parked)
        found = [*(await trial.backend.read(A, tuple(values))).values(), *(await trial.values(A)).values()]
        found += [row.data for row in [*due, *parked, *await trial.backend.room_alarms(A)]]
        trial.expect("the types of all that came back", {"bytes"}, {type(value).__name__ for value in found})

    @case
    async def test_odd_keys(self, trial: Trial) -> None:
        """Any text is a key, an alarm's name or, but for the empty one, a room's id, and equal to no other text."""
        values = {key: key.encode() for key in ODD_TEXTS}
        alarms = {name: AlarmRow(A, name, 1, name.encode()) for name in ODD_TEXTS}
        await trial.write(A, values, alarms)
        await trial.expect_room("after writing odd keys", A, values, alarms)
        for key in ODD_TEXTS:
            trial.expect(
                f"reading the key {key!r} alone", {key: key.encode()}, dict(await trial.backend.read(A, [key]))
            )
        ids = sorted(set(ODD_TEXTS) - {""})
        others = [RoomKey("others", text) for text in ids]
        await trial.store(
            [await trial.commit_of(room, {"k": room.id.encode()}) for room in others], "writing to odd rooms"
        )
        trial.expect("listing odd rooms", ids, list(await trial.backend.rooms("others", EVERYTHING, ALL)))
        for room in others:
            await trial.expect_room("after writing to odd rooms", room, {"k": room.id.encode()})

    @case
    async def test_long_keys(self, trial: Trial) -> None:
        """Keys, names and ids may be as long as the limits allow, and differ in their last character only."""
        room = RoomKey("party", "r" * self.longest_id)
        twin = RoomKey("party", "r" * (self.longest_id - 1) + "s")
        stem = "k" * (self.longest_key - 1)
        keys = ["k" * (self.longest_key // 2), stem, stem + "\0", stem + "k", stem + "l", "l" + stem]
        values = {key: key[-1].encode() for key in keys}
        alarms = {key: AlarmRow(room, key, None if key == stem else 1, key[-1].encode()) for key in keys}
        await trial.write(room, values, alarms)
        await trial.write(twin, {stem: b"twin"})
        await trial.expect_room("after writing long keys", room, values, alarms)
        await trial.expect_room("after writing long keys", twin, {stem: b"twin"})
        for place, key in enumerate(keys):
            seen = [found for found, _ in await trial.backend.scan(room, KeyRange(key), ALL)]
            trial.expect(f"scanning from the long key at place {place}", keys[place:], seen)
        trial.expect("listing rooms", [room.id, twin.id], list(await trial.backend.rooms("party", EVERYTHING, ALL)))
        await trial.write(room, {keys[3]: None, keys[2]: b"2"})
        del values[keys[3]]
        await trial.expect_room("after deleting a long key", room, {**values, keys[2]: b"2"}, alarms)

    @case
    async def test_reads_give_what_exists(self, trial: Trial) -> None:
        """A read gives those of its keys that exist, however many it is asked for, and nothing else."""
        await trial.write(A, {"a": b"1", "b": b"", "c": b"3"})
        asked: list[Collection[str]] = [
            [],
            ["a"],
            ("a", "c"),
            {"b"},
            {"never"},
            {"a": 1}.keys(),
            ["never", "c", "nor", "a"],
        ]
        stored = {"a": b"1", "b": b"", "c": b"3"}
        for keys in asked:
            expected = {key: stored[key] for key in keys if key in stored}
            trial.expect(f"reading {keys!r}", expected, dict(await trial.backend.read(A, keys)))
        many = [f"{number}" for number in range(40_000)] + ["c"]
        trial.expect("reading 40,001 keys", {"c": b"3"}, dict(await trial.backend.read(A, many)))
        trial.expect("reading a room without values", {}, dict(await trial.backend.read(B, ["a"])))

    @case
    async def test_scans_are_ordered(self, trial: Trial) -> None:
        """A scan gives keys in the order of their UTF-8 bytes: U+FFFF before U+1F600, "Z" before "a"."""
        ordered = sorted(ODD_TEXTS, key=str.encode)
        await trial.write(A, dict.fromkeys(reversed(ODD_TEXTS), b""))
        seen = [key for key, _ in await trial.backend.scan(A, EVERYTHING, ALL)]
        trial.expect("scanning upwards", ordered, seen)
        seen = [key for key, _ in await trial.backend.scan(A, KeyRange(reverse=True), ALL)]
        trial.expect("scanning downwards", ordered[::-1], seen)

    @case
    async def test_scans_keep_to_their_range(self, trial: Trial) -> None:
        """A scan begins with ``start``, which is in it, and ends before ``end``, in either direction."""
        stored = ["", "a", "a\0", "b", "c", "\uffff", "\U0001f600"]
        await trial.write(A, {key: key.encode() for key in stored})
        # A neighbour on either side, for a scan that runs out of its room.
        await trial.write(RoomKey("party", "A"), {"a": b"before"})
        await trial.write(B, {"a": b"behind"})
        bounds = [*stored, "\0", "aa", "bb", "\U0010ffff"]
        for start in bounds:
            for end in [*bounds, None]:
                within = [(key, key.encode()) for key in stored if start <= key and (end is None or key < end)]
                for reverse in (False, True):
                    keys = KeyRange(start, end, reverse)
                    expected = within[::-1] if reverse else within
                    trial.expect(f"scanning {keys}", expected, list(await trial.backend.scan(A, keys, ALL)))

    @case
    async def test_scans_keep_to_their_limit(self, trial: Trial) -> None:
        """A scan gives the first ``limit`` entries in its own direction, and fewer only if there are no more."""
        stored = [f"{number:03}" for number in range(300)]
        await trial.write(A, dict.fromkeys(stored, b"1"))
        for limit in (1, 2, 299, 300, 301, 2**63 - 1):
            for keys in (EVERYTHING, KeyRange(reverse=True)):
                seen = [key for key, _ in await trial.backend.scan(A, keys, limit)]
                expected = stored[::-1] if keys.reverse else stored
                trial.expect(f"scanning {keys} with a limit of {limit}", expected[:limit], seen)
        trial.expect("scanning a room without values", [], list(await trial.backend.scan(B, EVERYTHING, 1)))

    @case
    async def test_reads_during_a_commit(self, trial: Trial) -> None:
        """A read that overlaps a commit shows the state before it or after it, never between, and never goes back."""
        keys = [f"{number:02}" for number in range(30)]
        await trial.write(A, dict.fromkeys(keys, b"0"), rows(A, ring=0))
        writing = True

        async def write() -> None:
            nonlocal writing
            for number in range(1, 20):
                other = await trial.commit_of(B, {"k": b"%d" % number})
                group = [
                    other,
                    await trial.commit_of(A, dict.fromkeys(keys, b"%d" % number), rows(A, ring=number)),
                    other,
                ]
                await trial.store(group, "committing while reads run")
                await checkpoints(1)
            writing = False

        async def read(look: Callable[[], Awaitable[Mapping[str, bytes]]], what: str) -> None:
            last = 0
            while writing:
                seen = await look()
                number = int(seen.get(keys[0], b"-1"))
                trial.expect(
                    f"{what} while commits run: all keys as of one commit", dict.fromkeys(keys, b"%d" % number), seen
                )
                trial.expect(f"{what} while commits run: after what commit {last} wrote", max(last, number), number)
                last = number
                await checkpoints(1)

        async def look_up() -> Mapping[str, bytes]:
            return dict(await trial.backend.read(A, keys))

        await together(write, partial(read, look_up, "reading"), partial(read, partial(trial.values, A), "scanning"))

    @case
    async def test_reads_that_are_cancelled(self, trial: Trial) -> None:
        """A read or a claim that is cancelled changes nothing that is stored, and the store goes on."""
        values = dict.fromkeys("abc", b"1")
        await trial.write(A, values, rows(A, ring=1, parked=None))
        backend = trial.backend
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(backend.read, A, "abc"),
            partial(backend.scan, A, EVERYTHING, ALL),
            partial(backend.room_alarms, A),
            partial(backend.due_alarms, None, None, ALL),
            partial(backend.parked_alarms, "party", None, ALL),
            partial(backend.rooms, "party", EVERYTHING, ALL),
            partial(backend.claim, A),
        )
        for turn in range(ROUNDS):
            for call in calls:
                await cancelled_after(turn, call)
                await trial.expect_room(
                    f"after a call that was cancelled at its turn {turn}", A, values, rows(A, ring=1, parked=None)
                )
            await trial.claim(A)
            await trial.write(A, {"a": b"1"})


def _kind(found: object, kind: type, name: str) -> str:
    """Say whether something is of a kind."""
    return name if isinstance(found, kind) else f"of type {type(found).__name__}"
