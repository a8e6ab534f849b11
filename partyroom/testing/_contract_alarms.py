"""Cases of the listings over rooms: alarms that are due, alarms that are parked, and rooms that hold something.

Owns the clauses about alarms and about ``rooms``.

Promises to ask from places on, before and behind every row that is stored.

Must never read the time: when an alarm is due is a number here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from partyroom.testing._contract_case import A, B, Contract, alarm, case, rows
from partyroom.testing._contract_trial import ALL, EVERYTHING, Trial, checkpoints, together
from partyroom.types import AlarmCursor, AlarmRow, KeyRange, RoomKey

__all__ = ["AlarmCases"]

EARLIEST: Final = -62_135_596_800_000_000
"""0001-01-01, the first time that a ``datetime`` can tell."""

LATEST: Final = 253_402_300_799_999_999
"""9999-12-31, the last one."""

Listing: TypeAlias = Callable[[], Awaitable[Sequence[object]]]


class AlarmCases(Contract):
    """How alarms and rooms are listed: each once, in order, from any place on."""

    # --- alarms ---------------------------------------------------------------

    @case
    async def test_alarms_of_a_room(self, trial: Trial) -> None:
        """A room's alarms are listed by name, one for each name, parked ones included."""
        named = {
            name: AlarmRow(A, name, due, name.encode()) for name, due in zip("z\0aZ", (3, None, -1, 3), strict=True)
        }
        await trial.write(A, {}, {**named, "": AlarmRow(A, "", 7, b"no name")})
        await trial.write(B, {}, rows(B, z=3, only=4))
        expected = [row for _, row in sorted({**named, "": AlarmRow(A, "", 7, b"no name")}.items())]
        seen = list(await trial.backend.room_alarms(A))
        trial.expect("listing them", expected, seen)
        trial.expect(
            "listing those of a room that has none", [], list(await trial.backend.room_alarms(RoomKey("party", "c")))
        )

    @case
    async def test_an_alarm_replaces_the_one_of_its_name(self, trial: Trial) -> None:
        """Setting an alarm replaces the one of that name, in every listing, and deleting it leaves nothing of it."""
        for due in (5, 9, None, 1, 1, None, 3):
            await trial.write(A, {}, rows(A, ring=due, other=4))
            ring, other = alarm(A, "ring", due), alarm(A, "other", 4)
            expected = sorted((row for row in (ring, other) if row.due is not None), key=_place)
            trial.expect(f"due alarms after {due}", expected, list(await trial.backend.due_alarms(None, None, ALL)))
            parked = list(await trial.backend.parked_alarms("party", None, ALL))
            trial.expect(f"parked alarms after {due}", [ring] if due is None else [], parked)
            await trial.expect_room(f"after {due}", A, {}, rows(A, ring=due, other=4))
        await trial.write(A, {}, {"ring": None, "other": None})
        await trial.expect_room("after deleting them", A, {})
        trial.expect("due alarms", [], list(await trial.backend.due_alarms(None, None, ALL)))

    @case
    async def test_due_alarms_are_ordered(self, trial: Trial) -> None:
        """Due alarms come by due time, then room, then name, and no parked one is among them."""
        expected = await _write_alarms(trial)
        trial.expect("listing them", expected, list(await trial.backend.due_alarms(None, None, ALL)))
        for limit in (1, 2, len(expected), 2**63 - 1):
            seen = list(await trial.backend.due_alarms(None, None, limit))
            trial.expect(f"the first {limit}", expected[:limit], seen)

    @case
    async def test_due_alarms_before(self, trial: Trial) -> None:
        """Due alarms before a time are those that are due earlier, not those that are due then."""
        every = await _write_alarms(trial)
        for before in (EARLIEST, EARLIEST + 1, -1, 0, 1, 6, LATEST, LATEST + 1):
            expected = [row for row in every if row.due is not None and row.due < before]
            trial.expect(f"those before {before}", expected, list(await trial.backend.due_alarms(before, None, ALL)))
            trial.expect(
                f"the first before {before}", expected[:1], list(await trial.backend.due_alarms(before, None, 1))
            )

    @case
    async def test_due_alarms_after(self, trial: Trial) -> None:
        """Due alarms after a place are those behind it, the one at that place not included, whether or not there is one."""
        every = await _write_alarms(trial)
        places = [AlarmCursor(*_place(row)) for row in every]
        places += [AlarmCursor(place.due, place.room, place.name + "\0") for place in places]
        places += [AlarmCursor(place.due - 1, place.room, place.name) for place in places]
        places += [AlarmCursor(place.due, RoomKey("n", "n"), "n") for place in places]
        for place in places:
            expected = [row for row in every if _place(row) > place]
            trial.expect(f"those after {place}", expected, list(await trial.backend.due_alarms(None, place, ALL)))
            within = [row for row in expected if row.due is not None and row.due < 1]
            trial.expect(f"two after {place}, before 1", within[:2], list(await trial.backend.due_alarms(1, place, 2)))

    @case
    async def test_parked_alarms(self, trial: Trial) -> None:
        """Parked alarms of a party come by room id, then name, behind a place if one is given, and no due one is among them."""
        await _write_alarms(trial)
        every = [
            alarm(RoomKey("p", room), name, None)
            for room in ("a", "a\0", "b")
            for name in ("", "x", "\uffff", "\U0001f600")
        ]
        for row in reversed(every):
            await trial.write(row.room, {}, {row.name: row})
        await trial.write(RoomKey("p\0", "a"), {}, rows(RoomKey("p\0", "a"), x=None))
        await trial.write(RoomKey("p", "a"), {}, rows(RoomKey("p", "a"), due=1))
        places = [None, ("", ""), ("a", "y"), ("a", "\U0010ffff"), ("aa", ""), ("c", "")]
        for place in [*places, *((row.room.id, row.name) for row in every)]:
            expected = [row for row in every if place is None or (row.room.id, row.name) > place]
            for limit in (1, 5, ALL):
                seen = list(await trial.backend.parked_alarms("p", place, limit))
                trial.expect(f"the first {limit} after {place}", expected[:limit], seen)
        trial.expect("those of a party that has none", [], list(await trial.backend.parked_alarms("q", None, ALL)))

    @case
    async def test_listings_during_a_commit(self, trial: Trial) -> None:
        """A listing that overlaps a commit shows the state before it or after it, never between, and never goes back."""
        stored = [[AlarmRow(A, "parked", None, b"%d" % number), alarm(A, "ring", number)] for number in range(20)]
        backend = trial.backend
        writing = True
        await trial.write(A, {"k": b"1"}, {row.name: row for row in stored[0]})

        async def write() -> None:
            nonlocal writing
            for state in stored[1:]:
                await trial.write(A, {"k": b"1"}, {row.name: row for row in state})
                await checkpoints(1)
            writing = False

        async def look(what: str, listing: Listing, states: Sequence[Sequence[object]]) -> None:
            last = 0
            while writing:
                seen = list(await listing())
                expected = seen if seen in states[last:] else states[last]
                trial.expect(f"listing {what} while commits run: as after commit {last} or a later one", expected, seen)
                last = states.index(seen, last)
                await checkpoints(1)

        parked, due = [state[:1] for state in stored], [state[1:] for state in stored]
        await together(
            write,
            partial(look, "a room's alarms", partial(backend.room_alarms, A), stored),
            partial(look, "parked alarms", partial(backend.parked_alarms, "party", None, ALL), parked),
            partial(look, "due alarms", partial(backend.due_alarms, None, None, ALL), due),
            partial(look, "rooms", partial(backend.rooms, "party", EVERYTHING, ALL), [["a"]]),
        )

    # --- listing rooms --------------------------------------------------------

    @case
    async def test_rooms_that_hold_something(self, trial: Trial) -> None:
        """A room is listed as long as it holds a value or an alarm, parked ones included, and no longer."""
        await trial.write(RoomKey("party", "value"), {"k": b""})
        await trial.write(RoomKey("party", "both"), {"k": b""}, rows(RoomKey("party", "both"), ring=1))
        await trial.write(RoomKey("party", "due"), {}, rows(RoomKey("party", "due"), ring=1))
        await trial.write(RoomKey("party", "parked"), {}, rows(RoomKey("party", "parked"), ring=None))
        await trial.write(RoomKey("other", "else"), {"k": b""})
        await trial.claim(RoomKey("party", "claimed"))

        async def expect_listed(when: str, *expected: str) -> None:
            trial.expect(f"{when}: rooms", list(expected), list(await trial.backend.rooms("party", EVERYTHING, ALL)))

        await expect_listed("after writing", "both", "due", "parked", "value")
        await trial.write(RoomKey("party", "both"), {"k": None})
        await trial.write(RoomKey("party", "value"), {"k": None})
        await expect_listed("after deleting two values", "both", "due", "parked")
        await trial.write(RoomKey("party", "both"), {"k": b"1"}, {"ring": None})
        await trial.write(RoomKey("party", "due"), {}, {"ring": None})
        await trial.write(RoomKey("party", "parked"), clear=True)
        await expect_listed("after deleting three alarms", "both")
        await trial.reopen()
        await expect_listed("reopened", "both")

    @case
    async def test_rooms_are_ordered(self, trial: Trial) -> None:
        """A party's rooms come in the order of their ids' UTF-8 bytes, within a range and a limit, in either direction."""
        ids = ["a", "a\0", "aa", "b", "c", "\uffff", "\U0001f600"]
        for number, room_id in enumerate(reversed(ids)):
            room = RoomKey("party", room_id)
            await trial.write(
                room, {"k": b""} if number % 3 else {}, rows(room, ring=1) if number % 2 else rows(room, ring=None)
            )
        for party in ("part", "party\0", "partz"):
            await trial.write(RoomKey(party, "b"), {"k": b""})
        bounds = ["", *ids, "\U0010ffff"]
        for start, end in [(start, end) for start in bounds for end in [*bounds, None]]:
            within = [room_id for room_id in ids if start <= room_id and (end is None or room_id < end)]
            for keys in (KeyRange(start, end), KeyRange(start, end, reverse=True)):
                expected = within[::-1] if keys.reverse else within
                for limit in (2, ALL):
                    seen = list(await trial.backend.rooms("party", keys, limit))
                    trial.expect(f"rooms of {keys} with a limit of {limit}", expected[:limit], seen)


async def _write_alarms(trial: Trial) -> list[AlarmRow]:
    """Store alarms with all kinds of ties, in an order unlike their own; give those that are due, in order."""
    rooms = [RoomKey(party, room) for party in ("p", "p\0", "P") for room in ("a", "a\0", "\uffff", "\U0001f600")]
    names = ("", "\0", "n", "\uffff", "\U0001f600")
    every = [alarm(room, name, due) for room in rooms for name, due in zip(names, (5, 0, 5, -1, 0), strict=True)]
    every += [alarm(rooms[0], "first", EARLIEST), alarm(rooms[1], "last", LATEST)]
    # A fixed disorder: each step of 37 goes round all of them, for that is prime.
    scrambled = [every[place * 37 % len(every)] for place in range(len(every))]
    commits = [await trial.commit_of(row.room, {}, {row.name: row}) for row in scrambled]
    commits += [await trial.commit_of(room, {}, {"parked": alarm(room, "parked", None)}) for room in (A, B)]
    await trial.store(commits, "storing alarms")
    return sorted(every, key=_place)


def _place(row: AlarmRow) -> tuple[int, RoomKey, str]:
    """Give the place of a row that is due."""
    return (row.due or 0, row.room, row.name)
