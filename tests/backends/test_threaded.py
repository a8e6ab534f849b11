"""Stores of plain functions, behind the adapter: the contract, groups, faults, claims and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom._native import current_loop
from partyroom.backends import _group_commit
from partyroom.backends._thread import WorkerThread
from partyroom.backends.threaded import ThreadedBackend
from partyroom.errors import BackendClosedError, BackendError, BackendFullError, CommitError, FencedError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_contract import BackendContract
from partyroom.types import AlarmCursor, AlarmRow, Commit, KeyRange, RoomKey
from tests.loops import needs_asyncio

pytestmark = pytest.mark.anyio

A = RoomKey("party", "a")
B = RoomKey("party", "b")


class DictStore:
    """The plainest store there is: dictionaries, replaced as a whole by every group."""

    def __init__(self) -> None:
        self.epoch = 0
        self.values: Mapping[RoomKey, Mapping[str, bytes]] = {}
        self.alarms: Mapping[RoomKey, Mapping[str, AlarmRow]] = {}
        self.groups: list[list[Commit]] = []
        self.threads: set[str] = set()
        self.before_apply: Callable[[Sequence[Commit]], None] = lambda _commits: None

    def open(self) -> int:
        self.threads.add(threading.current_thread().name)
        self.epoch += 1
        return self.epoch

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)

    def apply(self, commits: Sequence[Commit], /) -> None:
        self.threads.add(threading.current_thread().name)
        self.groups.append(list(commits))
        self.before_apply(commits)
        values = {room: dict(stored) for room, stored in self.values.items()}
        alarms = {room: dict(stored) for room, stored in self.alarms.items()}
        for commit in commits:
            if commit.clear:
                values.pop(commit.room, None)
                alarms.pop(commit.room, None)
            _lay(values, commit.room, commit.values)
            _lay(alarms, commit.room, commit.alarms)
        self.values, self.alarms = values, alarms

    def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        self.threads.add(threading.current_thread().name)
        stored = self.values.get(room, {})
        return {key: stored[key] for key in keys if key in stored}

    def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        stored = self.values.get(room, {})
        return [(key, stored[key]) for key in _within(stored, keys)[:limit]]

    def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        return [row for _, row in sorted(self.alarms.get(room, {}).items())]

    def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        rows = {
            AlarmCursor(row.due, row.room, row.name): row
            for stored in self.alarms.values()
            for row in stored.values()
            if row.due is not None and (before is None or row.due < before)
        }
        return [rows[place] for place in sorted(rows) if after is None or place > after][:limit]

    def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        rows = {
            (room.id, row.name): row
            for room, stored in self.alarms.items()
            for row in stored.values()
            if row.due is None and room.party == party
        }
        return [rows[place] for place in sorted(rows) if after is None or place > after][:limit]

    def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        holding = {room.id for stored in (self.values, self.alarms) for room in stored if room.party == party}
        return _within(holding, ids)[:limit]


def _lay(stored: dict[RoomKey, dict[str, Any]], room: RoomKey, changes: Mapping[str, Any]) -> None:
    entries = stored.setdefault(room, {})
    for key, value in changes.items():
        entries.pop(key, None)
        if value is not None:
            entries[key] = value
    if not entries:
        del stored[room]


def _within(texts: Collection[str], bounds: KeyRange) -> list[str]:
    found = [text for text in texts if text >= bounds.start and (bounds.end is None or text < bounds.end)]
    return sorted(found, reverse=bounds.reverse)


class TestThreadedBackend(BackendContract):
    sequences = 2

    @override
    def make_backend(self) -> StorageBackend:
        return ThreadedBackend(DictStore())


def put(room: RoomKey, fence: int, **values: bytes) -> Commit:
    return Commit(room, fence, values, {})


class Gate:
    """Holds the writer thread in the middle of a group, until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, _commits: Sequence[Commit]) -> None:
        self._reached.set()
        assert self._opened.wait(30)

    async def reached(self) -> None:
        assert await anyio.to_thread.run_sync(self._reached.wait, 30)

    def open(self) -> None:
        self._opened.set()


# --- groups ------------------------------------------------------------------


async def test_calls_that_wait_are_applied_as_one_group_in_order() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence_a, fence_b = await backend.claim(A), await backend.claim(B)
        store.before_apply = gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(A, fence_a, first=b"1")])
            await gate.reached()
            for number in range(5):
                tasks.start_soon(backend.commit, [put(A, fence_a, k=b"%d" % number), put(B, fence_b, k=b"b")])
            await anyio.wait_all_tasks_blocked()
            gate.open()
        assert [1, 10] == [len(group) for group in store.groups]
        assert store.groups[1][-2].values == await backend.read(A, ["k"])


async def test_a_store_is_opened_written_and_closed_in_one_thread_and_read_in_another() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        await backend.commit([put(A, await backend.claim(A), k=b"v")])
        assert {"partyroom-writer"} == store.threads
        store.threads.clear()
        await backend.read(A, ["k"])
        assert {"partyroom-reader"} == store.threads
        store.threads.clear()
    assert {"partyroom-writer"} == store.threads


async def test_reads_are_answered_while_a_commit_goes_on() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        await backend.commit([put(A, fence, k=b"old")])
        store.before_apply = gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(A, fence, k=b"new")])
            await gate.reached()
            assert {"k": b"old"} == await backend.read(A, ["k"])
            gate.open()
        assert {"k": b"new"} == await backend.read(A, ["k"])


async def test_a_commit_that_only_ends_a_claim_does_not_reach_the_store() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        assert [None] == await backend.commit([Commit(A, fence, {}, {}, release=True)])
        assert [] == store.groups
        (refused,) = await backend.commit([put(A, fence, k=b"v")])
        assert isinstance(refused, FencedError)


async def test_an_empty_group_is_answered_by_nothing() -> None:
    async with ThreadedBackend(DictStore()) as backend:
        assert [] == await backend.commit([])


# --- claims ------------------------------------------------------------------


async def test_a_claim_waits_for_the_commits_of_the_claim_before() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        first, other = await backend.claim(A), await backend.claim(B)
        store.before_apply = gate = Gate()
        claimed: list[int] = []

        async def claim() -> None:
            claimed.append(await backend.claim(A))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(A, first, k=b"v")])
            await gate.reached()
            tasks.start_soon(claim)
            tasks.start_soon(claim)
            await anyio.wait_all_tasks_blocked()
            assert [] == claimed
            # Another room's is not held up.
            assert other < await backend.claim(B)
            gate.open()
        assert first < min(claimed)
        assert {"k": b"v"} == await backend.read(A, ["k"])


async def test_a_commit_that_waits_is_refused_once_its_room_is_claimed_anew() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        first, other = await backend.claim(A), await backend.claim(B)
        store.before_apply = gate = Gate()
        answers: list[CommitError | None] = []

        async def commit() -> None:
            answers.extend(await backend.commit([put(A, first, k=b"v")]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(B, other, k=b"v")])
            await gate.reached()
            tasks.start_soon(commit)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(backend.claim, A)
            await anyio.wait_all_tasks_blocked()
            gate.open()
        assert isinstance(answers[0], FencedError)
        assert {} == await backend.read(A, ["k"])


async def test_a_release_on_its_way_does_not_end_a_later_claim() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        first = await backend.claim(A)
        store.before_apply = gate = Gate()
        later: list[int] = []

        async def claim() -> None:
            later.append(await backend.claim(A))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [Commit(A, first, {"k": b"v"}, {}, release=True)])
            await gate.reached()
            tasks.start_soon(claim)
            await anyio.wait_all_tasks_blocked()
            gate.open()
        assert [None] == await backend.commit([put(A, later[0], k=b"w")])


async def test_what_waits_behind_a_release_is_refused() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence, other = await backend.claim(A), await backend.claim(B)
        store.before_apply = gate = Gate()
        answers: dict[bytes | None, CommitError | None] = {}

        async def commit(commit: Commit) -> None:
            (answers[commit.values["k"]],) = await backend.commit([commit])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, put(B, other, k=b"u"))
            await gate.reached()
            tasks.start_soon(commit, Commit(A, fence, {"k": b"v"}, {}, release=True))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(commit, put(A, fence, k=b"w"))
            await anyio.wait_all_tasks_blocked()
            gate.open()
        assert [None, None] == [answers[b"u"], answers[b"v"]]
        assert isinstance(answers[b"w"], FencedError)
        assert {"k": b"v"} == await backend.read(A, ["k"])


# --- faults ------------------------------------------------------------------


def refusing(room: RoomKey, error: Exception) -> Callable[[Sequence[Commit]], None]:
    """Make groups fail that hold a commit of a room with the key "bad"."""

    def refuse(commits: Sequence[Commit]) -> None:
        if any(commit.room == room and "bad" in commit.values for commit in commits):
            raise error

    return refuse


async def test_one_rooms_fault_is_not_anothers() -> None:
    store = DictStore()
    store.before_apply = refusing(A, BackendFullError("no space"))
    async with ThreadedBackend(store) as backend:
        fence_a, fence_b = await backend.claim(A), await backend.claim(B)
        answers = await backend.commit([put(B, fence_b, k=b"1"), put(A, fence_a, bad=b"v"), put(B, fence_b, l=b"2")])
        assert [None, None] == [answers[0], answers[2]]
        assert isinstance(answers[1], CommitError)
        assert "party/a: nothing of the commit is stored: no space" == str(answers[1])
        assert isinstance(answers[1].__cause__, BackendFullError)
        assert {"k": b"1", "l": b"2"} == await backend.read(B, ["k", "l"])


async def test_what_a_room_committed_after_a_failed_commit_is_refused_too() -> None:
    store = DictStore()
    store.before_apply = refusing(A, BackendFullError("no space"))
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        answers = await backend.commit([put(A, fence, a=b"1"), put(A, fence, bad=b"2"), put(A, fence, c=b"3")])
        assert [False, True, True] == [isinstance(answer, CommitError) for answer in answers]
        assert {"a": b"1"} == await backend.read(A, ["a", "bad", "c"])
        store.before_apply = DictStore().before_apply
        assert [None] == await backend.commit([put(A, fence, bad=b"2")])


async def test_a_refused_commit_does_not_end_its_claim() -> None:
    store = DictStore()
    store.before_apply = refusing(A, BackendFullError("no space"))
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        (refused,) = await backend.commit([Commit(A, fence, {"bad": b"v"}, {}, release=True)])
        assert isinstance(refused, CommitError)
        assert [None] == await backend.commit([put(A, fence, good=b"v")])


async def test_any_other_error_of_a_store_is_wrapped() -> None:
    store = DictStore()
    store.before_apply = refusing(A, OSError(5, "Input/output error"))
    async with ThreadedBackend(store) as backend:
        (refused,) = await backend.commit([put(A, await backend.claim(A), bad=b"v")])
        assert refused is not None
        assert type(refused.__cause__) is BackendError
        assert "OSError: [Errno 5] Input/output error" == str(refused.__cause__)
        assert isinstance(refused.__cause__.__cause__, OSError)


class BlindStore(DictStore):
    @override
    def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        raise ConnectionError("cut")


async def test_a_read_that_fails_raises_and_the_next_one_is_answered() -> None:
    async with ThreadedBackend(BlindStore()) as backend:
        with pytest.raises(BackendError, match="ConnectionError: cut"):
            await backend.read(A, ["k"])
        assert [] == await backend.scan(A, KeyRange(), 1)


class ShutStore(DictStore):
    @override
    def open(self) -> int:
        raise PermissionError("shut")


async def test_a_store_that_cannot_be_opened_leaves_the_backend_closed() -> None:
    backend = ThreadedBackend(ShutStore())
    for _ in range(2):
        with pytest.raises(BackendError, match="PermissionError: shut"):
            await backend.__aenter__()
        with pytest.raises(BackendClosedError):
            await backend.claim(A)


class StuckStore(DictStore):
    @override
    def close(self) -> None:
        raise OSError("stuck")


async def test_a_store_that_cannot_be_closed_says_so_and_can_be_opened_again() -> None:
    backend = ThreadedBackend(StuckStore())
    for _ in range(2):
        await backend.__aenter__()
        with pytest.raises(BackendError, match="OSError: stuck"):
            await backend.__aexit__(None, None, None)


# --- life --------------------------------------------------------------------


async def test_leaving_writes_what_waits() -> None:
    store = DictStore()
    backend = await ThreadedBackend(store).__aenter__()
    fence = await backend.claim(A)
    store.before_apply = gate = Gate()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backend.commit, [put(A, fence, k=b"1")])
        await gate.reached()
        tasks.start_soon(backend.commit, [put(A, fence, l=b"2")])
        await anyio.wait_all_tasks_blocked()
        gate.open()
        await backend.__aexit__(None, None, None)
    assert {"k": b"1", "l": b"2"} == store.values[A]


async def test_leaving_is_not_cut_short_by_a_cancellation() -> None:
    store = DictStore()
    with anyio.CancelScope() as scope:
        async with ThreadedBackend(store) as backend:
            fence = await backend.claim(A)
            await backend.commit([put(A, fence, k=b"v")])
            scope.cancel()
    assert scope.cancelled_caught is False
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("partyroom-")]


async def test_opening_and_leaving_are_seen_through_whatever_asyncio_itself_cancels(anyio_backend_name: str) -> None:
    needs_asyncio(anyio_backend_name)

    async def live() -> None:
        async with ThreadedBackend(DictStore()):
            await asyncio.sleep(0)

    for turns in range(12):
        living = asyncio.ensure_future(live())
        for _ in range(turns):
            # As long as a thread takes for a turn.
            await anyio.to_thread.run_sync(threading.get_ident)
        living.cancel()
        await asyncio.wait([living])
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("partyroom-")]


async def test_an_opening_that_asyncio_itself_cancels_when_the_store_is_open_already_closes_it(
    anyio_backend_name: str,
) -> None:
    needs_asyncio(anyio_backend_name)

    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("partyroom-")]

    opening = asyncio.ensure_future(ThreadedBackend(DictStore()).__aenter__())
    # The reading thread begins when the writing one has opened the store.
    while "partyroom-reader" not in names():
        await checkpoint()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [] == names()


async def test_a_cancelled_commit_is_stored_all_the_same() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        store.before_apply = gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(A, fence, k=b"v")])
            await gate.reached()
            tasks.cancel_scope.cancel()
        gate.open()
        assert [None] == await backend.commit([put(A, fence, l=b"w")])
        assert {"k": b"v", "l": b"w"} == await backend.read(A, ["k", "l"])


async def test_a_cancelled_read_harms_no_other() -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        await backend.commit([put(A, await backend.claim(A), k=b"v")])
        with anyio.CancelScope() as scope:
            scope.cancel()
            await backend.read(A, ["k"])
        assert scope.cancelled_caught
        assert {"k": b"v"} == await backend.read(A, ["k"])


async def test_it_is_refused_while_it_is_open_and_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ThreadedBackend(DictStore())
    async with backend:
        with pytest.raises(BackendError, match="is open already"):
            await backend.__aenter__()
        with monkeypatch.context() as forked:
            forked.setattr("os.getpid", lambda: -1)
            with pytest.raises(BackendClosedError, match="forked"):
                await backend.claim(A)
        assert 0 < await backend.claim(A)
    with pytest.raises(BackendClosedError, match="is not open"):
        await backend.claim(A)


async def test_leaving_in_a_forked_child_leaves_the_parents_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = await ThreadedBackend(DictStore()).__aenter__()
    parents = backend._opened
    assert parents is not None
    with monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: -1)
        await backend.__aexit__(None, None, None)
    assert 1 == sum(thread.name == "partyroom-writer" for thread in threading.enumerate())
    await parents.stop()


async def test_leaving_twice_is_harmless() -> None:
    backend = await ThreadedBackend(DictStore()).__aenter__()
    await backend.__aexit__(None, None, None)
    await backend.__aexit__(None, None, None)


class PanicError(BaseException):
    """What a client in Rust raises where it should not have come to: no ``Exception``."""


async def test_a_fault_of_any_kind_is_told_and_ends_no_thread() -> None:
    def panic(*_arguments: object) -> NoReturn:
        raise PanicError("unreachable")

    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        store.before_apply = panic
        (error,) = await backend.commit([put(A, fence, k=b"v")])
        assert "PanicError: unreachable" in str(error)
        store.before_apply = lambda _commits: None
        assert [None] == await backend.commit([put(A, fence, k=b"w")])
        store.read, read = panic, store.read  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="PanicError: unreachable"):
            await backend.read(A, ["k"])
        store.read = read  # type: ignore[method-assign]
        assert {"k": b"w"} == await backend.read(A, ["k"])


# --- a busy loop -------------------------------------------------------------


async def test_the_loop_gives_way_while_a_group_outlasts_its_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        fence = await backend.claim(A)
        store.before_apply = gate = Gate()
        given = 0
        enough = anyio.Event()

        def give_way() -> None:
            nonlocal given
            given += 1
            if given == 3:
                enough.set()

        monkeypatch.setattr(_group_commit, "_give_way", give_way)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.commit, [put(A, fence, k=b"v")])
            await enough.wait()
            # In haste, a hand-over gives way at once.
            seen = given
            tasks.start_soon(backend.commit, [put(A, fence, l=b"w")])
            await anyio.wait_all_tasks_blocked()
            assert seen < given
            gate.open()


async def test_haste_ends_when_groups_are_quick_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_group_commit, "HASTE", 2)
    store = DictStore()
    async with ThreadedBackend(store) as backend:
        assert backend._opened is not None
        writer = backend._opened.writer
        fence = await backend.claim(A)
        writer._haste = 2
        while writer._haste:
            await backend.commit([put(A, fence, k=b"v")])


# --- the thread --------------------------------------------------------------


class Nothing:
    """A duty that does nothing."""

    def open(self) -> None:
        """There is nothing to open."""

    def run(self, jobs: list[object], /) -> None:
        """Nothing is handed in."""

    def rest(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to close."""


class Failing(Nothing):
    """A duty that cannot be ended well."""

    @override
    def close(self) -> None:
        raise OSError("the disk is gone")


def started(duty: Nothing) -> WorkerThread[object]:
    """Start a thread in a loop that ends at once."""

    async def start() -> WorkerThread[object]:
        thread: WorkerThread[object] = WorkerThread("partyroom-orphan", duty, current_loop())
        await thread.start()
        return thread

    return anyio.run(start)


async def test_a_thread_whose_loop_has_ended_is_stopped_from_another() -> None:
    thread = await anyio.to_thread.run_sync(started, Nothing())
    await thread.stop()
    assert not thread._thread.is_alive()


async def test_what_ending_raises_is_told_in_another_loop_too() -> None:
    thread = await anyio.to_thread.run_sync(started, Failing())
    with pytest.raises(OSError, match="the disk is gone"):
        await thread.stop()
