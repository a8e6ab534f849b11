"""The whole life of alarms against a simple model: any steps, on all loops and on both backends.

What an alarm's handler does stands in its payload, so that a program of steps, which hypothesis makes and shrinks, says
all that will happen: setting, moving, deleting, ringing, raising, retrying, replacing in the handler, repeating, pausing,
sleeping, restarting, crashing, and a wall clock that is set either way.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, cast, final

import attrs
import pytest
from anyio import Event, create_task_group
from hypothesis import example, given
from hypothesis import strategies as st
from typing_extensions import override

from partyroom import Alarm, AlarmInfo, Every, RetryPolicy, Room, RoomContext, RoomHandle, Storage, StorageBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.errors import RuntimeClosedError
from partyroom.testing import FaultyBackend, Harness
from tests.runtime.boxes import make_store
from tests.runtime.towers import START
from tests.sizes import examples

pytestmark = pytest.mark.anyio

Step: TypeAlias = tuple[Any, ...]
Ring: TypeAlias = tuple[float | None, str, str | None, float | None, int, int]
"""When which room rang which alarm, which was for when, how often it had failed, and how many it stood for."""

MAX_RETRIES = 2
FIRST_DELAY = 10


# --- what can happen ----------------------------------------------------------

ROOMS = ("a", "b")
NAMES = (None, "x")

rooms = st.sampled_from(ROOMS)
names = st.sampled_from(NAMES)
moments = st.sampled_from([-50, 0, 1, 10, 15, 60, 61])
"""Seconds from now."""
wishes = st.one_of(
    st.none(),
    st.tuples(st.just("again"), moments),
    st.tuples(st.just("repeat")),
    st.tuples(st.just("delete")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("other"), names, moments),
)
"""What a handler does when it does not fail."""
plans = st.fixed_dictionaries(
    {
        "fails": st.sampled_from([0, 0, 0, 1, 2, 3]),
        "how": st.sampled_from(["raise", "abort", "set and raise", "sync and raise"]),
        "wish": wishes,
    }
)
PLAN: dict[str, Any] = {"fails": 0, "how": "raise", "wish": None}
"""That of an alarm which was set in a handler."""

changes: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("set"), names, moments, plans),
    st.tuples(st.just("set"), names, moments, plans),
    st.tuples(st.just("every"), names, st.sampled_from([10, 25]), st.sampled_from(["once", "each"]), plans),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("clear")),
    st.tuples(st.just("pause"), names),
    st.tuples(st.just("resume"), names),
    st.tuples(st.just("ring"), names),
)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("change"), rooms, changes),
    st.tuples(st.just("change"), rooms, changes),
    st.tuples(st.just("change"), rooms, changes),
    st.tuples(st.just("undo"), rooms, changes),
    st.tuples(st.just("lose"), rooms, changes),
    st.tuples(st.just("advance"), st.sampled_from([0, 1, 10, 30, 100])),
    st.tuples(st.just("advance"), st.sampled_from([0, 1, 10, 30, 100])),
    st.tuples(st.just("jump"), st.sampled_from([10, 100])),
    st.tuples(st.just("correct"), st.sampled_from([-100, -7, 7, 100])),
    st.tuples(st.just("sleep"), rooms),
    st.tuples(st.just("restart")),
    st.tuples(st.just("crash")),
)
programs = st.lists(st.lists(steps)).map(lambda parts: [step for part in parts for step in part])
"""Of parts, since hypothesis makes lists of five on average."""


# --- what should happen -------------------------------------------------------


@attrs.define
class Entry:
    """One alarm, in seconds since the beginning."""

    scheduled: float
    due: float | None
    plan: dict[str, Any]
    interval: int | None = None
    missed: str = "once"
    retry_count: int = 0
    paused: float | None = None
    failed: bool = False
    last: float | None = None
    error: str | None = None

    @property
    def outcome(self) -> str | None:
        return None if self.last is None else "success" if self.error is None else "error"

    @property
    def status(self) -> str:
        if self.due is None:
            return "failed" if self.failed else "paused"
        return "retrying" if self.retry_count else "pending"


@final
class Model:
    """What the rooms should hold, and what should have rung."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alarms: dict[tuple[str, str | None], Entry] = {}
        self.rings: list[Ring] = []
        self.counts: dict[str, int] = dict.fromkeys(ROOMS, 0)

    # --- what is done to alarms

    def change(self, room: str, kind: str, *args: Any) -> None:
        getattr(self, kind)(room, *args)

    def set(self, room: str, name: str | None, moment: int, plan: dict[str, Any]) -> None:
        self.alarms[room, name] = Entry(self.now + moment, self.now + moment, plan)

    def every(self, room: str, name: str | None, interval: int, missed: str, plan: dict[str, Any]) -> None:
        entry = self.alarms.get((room, name))
        if entry is not None and (entry.interval, entry.missed) == (interval, missed):
            entry.plan = {**plan, "every": (interval, missed)}
        else:
            first = self.now + interval
            self.alarms[room, name] = Entry(first, first, {**plan, "every": (interval, missed)}, interval, missed)

    def delete(self, room: str, name: str | None) -> None:
        self.alarms.pop((room, name), None)

    def clear(self, room: str) -> None:
        self.alarms = {key: entry for key, entry in self.alarms.items() if key[0] != room}
        self.counts[room] = 0

    def pause(self, room: str, name: str | None) -> None:
        entry = self.alarms.get((room, name))
        if entry is not None and entry.due is not None:
            entry.paused, entry.due = entry.due, None

    def resume(self, room: str, name: str | None) -> None:
        entry = self.alarms.get((room, name))
        if entry is None or entry.paused is None:
            return
        entry.due, entry.paused = entry.paused, None
        if entry.interval is not None and entry.due <= self.now:
            entry.retry_count = 0
            if entry.scheduled > self.now:
                # Rung by hand before its time, which is still to come.
                entry.due = entry.scheduled
            else:
                self.go_on(entry, self.now)

    def ring(self, room: str, name: str | None) -> None:
        entry = self.alarms.get((room, name))
        if entry is not None:
            entry.due, entry.paused, entry.failed, entry.retry_count = self.now, None, False, 0

    @staticmethod
    def go_on(entry: Entry, last: float) -> None:
        """Go on with the first occurrence after ``last``."""
        assert entry.interval is not None
        entry.scheduled += ((last - entry.scheduled) // entry.interval + 1) * entry.interval
        entry.due = entry.scheduled

    # --- time

    def advance(self, seconds: float) -> None:
        target = self.now + seconds
        while (key := self.next(target)) is not None:
            due = self.alarms[key].due
            assert due is not None
            shift = max(0.0, due - self.now)
            self.now += shift
            self.rung(*key)
        self.now = target

    def jump(self, seconds: float) -> None:
        self.now += seconds
        self.advance(0)

    def correct(self, seconds: float) -> None:
        self.now += seconds

    def next(self, target: float) -> tuple[str, str | None] | None:
        due = [
            (entry.due, room, name or "", name)
            for (room, name), entry in self.alarms.items()
            if entry.due is not None and entry.due <= target
        ]
        if not due:
            return None
        _, room, _, name = min(due, key=lambda each: each[:3])
        return room, name

    def rung(self, room: str, name: str | None) -> None:
        entry = self.alarms[room, name]
        missed = 0
        if entry.interval is not None and entry.missed == "once":
            missed = int(max(0.0, self.now - entry.scheduled) // entry.interval)
        self.rings.append((self.now, room, name, entry.scheduled, entry.retry_count, missed))
        entry.last, entry.error = self.now, None
        if entry.retry_count < entry.plan["fails"]:
            entry.error = f"RoomAbortedError: bell/{room}: aborted" if entry.plan["how"] == "abort" else "FailedError"
            self.failure(room, entry)
        else:
            self.success(room, name, entry)

    def failure(self, room: str, entry: Entry) -> None:
        if entry.plan["how"] == "sync and raise":
            self.counts[room] += 1
        if entry.retry_count < MAX_RETRIES:
            entry.due = self.now + FIRST_DELAY * 2**entry.retry_count
            entry.retry_count += 1
        elif entry.interval is not None:
            self.goes_away(entry)
        else:
            entry.retry_count += 1
            entry.due, entry.failed = None, True

    def goes_away(self, entry: Entry) -> None:
        """Go on to the next occurrence, for a recurrence."""
        entry.retry_count = 0
        if entry.scheduled > self.now:
            # Rung by hand before its time, which is still to come.
            entry.due = entry.scheduled
        else:
            self.go_on(entry, entry.scheduled if entry.missed == "each" else max(entry.scheduled, self.now))

    def success(self, room: str, name: str | None, entry: Entry) -> None:
        self.counts[room] += 1
        wish: Step = entry.plan["wish"] or ("nothing",)
        kind = wish[0]
        if kind == "clear":
            self.clear(room)
            return
        if kind == "other":
            self.set(room, wish[1], wish[2], PLAN)
        if kind == "again":
            self.set(room, name, wish[1], PLAN)
        elif self.alarms[room, name] is not entry:
            pass  # It was set again, under its own name.
        elif kind == "delete" or entry.interval is None:
            self.delete(room, name)
        else:
            self.goes_away(entry)
            if kind == "repeat":
                entry.plan = {**PLAN, "every": entry.plan["every"]}

    def looks(self) -> list[tuple[Any, ...]]:
        """Give what should be seen of all alarms."""
        return sorted(
            (
                (
                    *(room, name, entry.status, entry.due, entry.scheduled, entry.retry_count),
                    *(entry.interval, entry.plan, entry.outcome, entry.last, entry.error),
                )
                for (room, name), entry in self.alarms.items()
            ),
            key=lambda each: (each[0], each[1] or ""),
        )


# --- what does happen ---------------------------------------------------------


class FailedError(Exception):
    """Raised where the program says so."""


def since(when: datetime | None) -> float | None:
    return None if when is None else (when - START).total_seconds()


class Bell(Room):
    """Does what the payload of its alarm says."""

    alarm_retry = RetryPolicy(max_retries=MAX_RETRIES, first_delay=timedelta(seconds=FIRST_DELAY))

    def __init__(self, ctx: RoomContext, rings: list[Ring]) -> None:
        super().__init__(ctx)
        self.rings = rings

    @override
    async def on_alarm(self, alarm: Alarm) -> None:
        storage, now, plan = self.ctx.storage, self.ctx.clock.now(), plan_of(alarm)
        self.rings.append(
            (since(now), self.ctx.id, alarm.name, since(alarm.scheduled_time), alarm.retry_count, alarm.missed)
        )
        assert await storage.get_alarm(alarm.name) is None
        assert max(timedelta(), now - alarm.scheduled_time) == alarm.lateness
        await storage.put("count", await storage.get("count", 0) + 1)
        if alarm.retry_count < plan["fails"]:
            await self.fail(alarm, plan["how"])
        kind, *args = plan["wish"] or ("nothing",)
        if kind == "again":
            await storage.set_alarm(timedelta(seconds=args[0]), name=alarm.name, payload=PLAN)
        elif kind == "other":
            await storage.set_alarm(timedelta(seconds=args[1]), name=args[0], payload=PLAN)
        elif kind == "repeat" and "every" in plan:
            payload = {**PLAN, "every": plan["every"]}
            await storage.set_alarm(recurrence(*plan["every"]), name=alarm.name, payload=payload)
        elif kind == "delete":
            await storage.delete_alarm(alarm.name)
        elif kind == "clear":
            await storage.delete_all()

    async def fail(self, alarm: Alarm, how: str) -> None:
        if how == "set and raise":
            await self.ctx.storage.set_alarm(timedelta(seconds=5), name=alarm.name, payload=PLAN)
            await self.ctx.storage.delete_all()
        elif how == "sync and raise":
            await self.ctx.storage.sync()
            await self.ctx.storage.delete_all()
        elif how == "abort":
            self.ctx.abort()
        raise FailedError


def plan_of(alarm: Alarm) -> dict[str, Any]:
    return cast("dict[str, Any]", alarm.payload)


def recurrence(interval: int, missed: Literal["once", "each"]) -> Every:
    return Every(timedelta(seconds=interval), missed=missed)


async def change(storage: Storage, kind: str, *args: Any) -> None:
    if kind == "set":
        name, moment, plan = args
        await storage.set_alarm(timedelta(seconds=moment), name=name, payload=plan)
    elif kind == "every":
        name, interval, missed, plan = args
        payload = {**plan, "every": (interval, missed)}
        await storage.set_alarm(recurrence(interval, missed), name=name, payload=payload)
    elif kind == "clear":
        await storage.delete_all()
    else:
        await getattr(storage, f"{kind}_alarm")(*args)


async def change_in(room: Bell, step: Step) -> None:
    await change(room.ctx.storage, *step)


async def look(harness: Harness) -> list[tuple[Any, ...]]:
    """Give what is seen of all alarms."""
    party = harness.parties["bell"]
    infos = [*await party.list_alarms(), *await party.parked_alarms()]
    return sorted((seen(info) for info in infos), key=lambda each: (each[0], each[1] or ""))


def seen(info: AlarmInfo) -> tuple[Any, ...]:
    interval = info.recurrence.interval.total_seconds() if isinstance(info.recurrence, Every) else None
    times = since(info.next_time), since(info.scheduled_time)
    error = None if info.last_error is None else info.last_error.rpartition(".")[2]
    outcome = info.last_outcome, since(info.last_time), error
    return info.room.id, info.name, info.status, *times, info.retry_count, interval, info.payload, *outcome


@final
class Play:
    """Takes a program's steps in rooms and in the model, and compares after each."""

    def __init__(self, harness: Harness, faulty: FaultyBackend, rings: list[Ring]) -> None:
        self.harness = harness
        self.faulty = faulty
        self.rings = rings
        self.model = Model()

    async def run(self, program: list[Step]) -> None:
        for kind, *args in program:
            await getattr(self, kind)(*args)
            await self.harness.settle()
            assert self.model.rings == self.rings
            assert self.model.looks() == await look(self.harness)
        for room, count in self.model.counts.items():
            assert ({"count": count} if count else {}) == await self.room(room).stored()

    def room(self, name: str) -> RoomHandle:
        return self.harness.parties["bell"].get(name)

    async def change(self, room: str, step: Step) -> None:
        await self.room(room).call(change_in, step)
        kind, *args = step
        self.model.change(room, kind, *args)

    async def undo(self, room: str, step: Step) -> None:
        async def change_and_fail(room: Bell) -> None:
            await change(room.ctx.storage, *step)
            raise FailedError

        with pytest.raises(FailedError):
            await self.room(room).call(change_and_fail)

    async def lose(self, room: str, step: Step) -> None:
        """Crash before the change is committed, if there is anything to commit."""
        hold = self.faulty.hold("commit")
        either = Event()

        async def change_it() -> None:
            with suppress(RuntimeClosedError):
                await self.room(room).call(change_in, step)
            either.set()

        async def arrive() -> None:
            await hold.arrived()
            either.set()

        async with create_task_group() as tasks:
            tasks.start_soon(change_it)
            tasks.start_soon(arrive)
            await either.wait()
            await self.harness.crash()
            tasks.cancel_scope.cancel()
        self.faulty.heal()

    async def advance(self, seconds: int) -> None:
        await self.harness.advance(timedelta(seconds=seconds))
        self.model.advance(seconds)

    async def jump(self, seconds: int) -> None:
        await self.harness.jump(timedelta(seconds=seconds))
        self.model.jump(seconds)

    async def correct(self, seconds: int) -> None:
        self.harness.clock.set_wall(self.harness.now() + timedelta(seconds=seconds))
        self.model.correct(seconds)

    async def sleep(self, room: str) -> None:
        await self.harness.put_to_sleep(self.room(room))

    async def restart(self) -> None:
        await self.harness.restart()

    async def crash(self) -> None:
        await self.harness.crash()


async def play(store: StorageBackend, program: list[Step]) -> None:
    rings: list[Ring] = []
    faulty = FaultyBackend(store)
    async with Harness({"bell": lambda ctx: Bell(ctx, rings)}, backend=faulty, fail_on_errors=False) as harness:
        await Play(harness, faulty, rings).run(program)


def plan(wish: Step | None = None, *, fails: int = 0, how: str = "raise") -> dict[str, Any]:
    return {"fails": fails, "how": how, "wish": wish}


EVERYTHING: list[Step] = [
    # A recurrence is set again as it is, rung by hand before its time, which keeps it, and paused until it is overdue.
    ("change", "a", ("every", None, 10, "once", PLAN)),
    ("change", "a", ("every", None, 10, "once", plan(("repeat",)))),
    ("change", "a", ("ring", None)),
    ("advance", 0),
    ("change", "a", ("pause", None)),
    ("advance", 30),
    ("change", "a", ("resume", None)),
    ("advance", 10),
    ("change", "a", ("clear",)),
    # One that fails for good goes on with its next occurrence, another alarm is kept.
    ("change", "b", ("every", "x", 25, "each", plan(fails=3, how="abort"))),
    ("change", "b", ("set", None, 1, plan(fails=3, how="set and raise"))),
    ("advance", 100),
    ("change", "b", ("ring", None)),
    ("change", "b", ("delete", "x")),
    ("change", "b", ("set", "x", 1, plan(fails=1, how="sync and raise"))),
    ("advance", 30),
    # What handlers wish.
    ("change", "a", ("set", "x", 1, plan(("other", None, 10)))),
    ("change", "a", ("set", None, 1, plan(("other", None, 10)))),
    ("change", "b", ("set", "x", 1, plan(("again", 1)))),
    ("advance", 1),
    ("change", "b", ("set", "x", 1, plan(("delete",)))),
    ("advance", 1),
    ("change", "a", ("set", "x", 1, plan(("clear",)))),
    ("advance", 1),
    # A host asks for what is not there, and for an alarm to go on that has time yet.
    ("change", "a", ("pause", "x")),
    ("change", "a", ("resume", "x")),
    ("change", "a", ("ring", "x")),
    ("change", "b", ("set", "x", 60, plan(fails=1))),
    ("change", "b", ("pause", "x")),
    ("change", "b", ("resume", "x")),
    # And what becomes of alarms by what is nobody's wish.
    ("undo", "a", ("set", None, 10, PLAN)),
    ("lose", "a", ("set", None, 10, PLAN)),
    ("lose", "a", ("delete", None)),
    ("change", "a", ("set", None, 10, PLAN)),
    ("sleep", "a"),
    ("restart",),
    ("crash",),
    ("correct", -7),
    ("jump", 100),
]
"""In which everything happens that the model knows of, whatever hypothesis thinks of."""


@given(programs)
@example(EVERYTHING)
@examples(few=10, many=2000)
async def test_alarms_in_memory_live_as_the_model_says(program: list[Step]) -> None:
    await play(MemoryBackend(), program)


@given(programs)
@examples(few=3, many=200)
async def test_alarms_on_a_file_live_as_the_model_says(
    tmp_path_factory: pytest.TempPathFactory, program: list[Step]
) -> None:
    await play(make_store("file", tmp_path_factory.mktemp("rooms")), program)
