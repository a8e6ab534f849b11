"""Rooms without an event loop, alarms by hand: all of it in the thread that opened the runtime, while a call of it waits."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from typing_extensions import override

from partyroom import (
    Alarm,
    BackendLockedError,
    Connection,
    Limits,
    Room,
    Runtime,
    RuntimeClosedError,
    RuntimeStateError,
)
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.blocking import BlockingRuntime
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.hosts.test_blocking import FORK, REFUSAL, Counter, Trouble, next_count, run_program

SOON = timedelta(milliseconds=1)


class Diary(Room):
    """Writes down which thread it was in."""

    threads: list[int]
    begun: threading.Event
    gate: anyio.Event

    async def on_start(self) -> None:
        self.note()

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        self.note()
        await anyio.lowlevel.checkpoint()
        await self.ctx.storage.put("message", message)
        sender.send(message)

    async def on_alarm(self, alarm: Alarm) -> None:
        self.note()
        await self.ctx.storage.put("rang", True)

    async def remind(self, after: timedelta) -> None:
        self.note()
        await self.ctx.storage.set_alarm(after)

    async def stick(self) -> None:
        Diary.gate = anyio.Event()
        self.begun.set()
        await Diary.gate.wait()
        await self.ctx.storage.put("stuck", True)

    def note(self) -> None:
        self.threads.append(threading.get_ident())


@pytest.fixture
def runtime() -> Iterator[BlockingRuntime]:
    Diary.threads = []
    Diary.begun = threading.Event()
    parties = {"diary": Diary, "counter": Counter}
    with BlockingRuntime(parties, backend=MemoryBackend(), alarms="manual") as opened:
        yield opened


def test_all_of_a_room_is_in_the_callers_thread_and_there_is_no_other(runtime: BlockingRuntime) -> None:
    before = threading.active_count()
    room = runtime.parties["diary"].get("ann")
    room.call(Diary.remind, -SOON)
    with room.connect() as client:
        client.send("hello")
        assert "hello" == client.receive()
    assert 1 == runtime.ring_due().rung
    assert {"message": "hello", "rang": True} == room.stored()
    assert (4, {threading.get_ident()}) == (len(Diary.threads), set(Diary.threads))
    assert threading.active_count() == before


def test_a_client_gives_up_in_time_and_misses_nothing(runtime: BlockingRuntime) -> None:
    with runtime.parties["diary"].get("a").connect() as client:
        with pytest.raises(TimeoutError, match="no message within"):
            client.receive(timeout=SOON)
        client.send("hello")
        assert "hello" == client.receive(timeout=timedelta(minutes=5))


def test_a_handler_may_use_what_belongs_to_the_thread(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "letters.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE letters (text)")

        class Office(Room):
            async def post(self) -> None:
                await self.ctx.storage.set_alarm(-SOON, payload="hello")

            async def on_alarm(self, alarm: Alarm) -> None:
                connection.execute("INSERT INTO letters VALUES (?)", [alarm.payload])

        backend = FileBackend(tmp_path / "rooms.db")
        with BlockingRuntime({"office": Office}, backend=backend, alarms="manual") as runtime:
            runtime.parties["office"].get("main").call(Office.post)
            assert () == runtime.ring_due().failed
        assert [("hello",)] == connection.execute("SELECT text FROM letters").fetchall()


def test_between_two_calls_nothing_goes_on(runtime: BlockingRuntime) -> None:
    room = runtime.parties["diary"].get("ann")
    room.call(Diary.remind, -SOON)
    with room.connect() as client:
        for number in range(20):
            client.send(str(number))
        stored = room.stored
        assert not threading.Event().wait(0.05)
        runtime.wait_idle()
        assert {"message": "19"} == stored(), "the alarm, overdue, has not rung by itself"
    runtime.ring_due()
    assert {"message": "19", "rang": True} == stored()


def elsewhere(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1, "other") as pool:
        pool.submit(call).result()


def test_another_thread_is_refused_and_told_which_one_it_is(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")
    for use in (partial(room.call, Counter.increment), runtime.open, runtime.close, runtime.ring_due):
        with pytest.raises(RuntimeStateError, match=r"lives in MainThread, .* this is other_0$"):
            elsewhere(use)
    assert 1 == room.call(Counter.increment)


def test_a_room_does_not_wait_for_its_own_thread(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")

    async def wait_for_itself(_room: Counter) -> None:
        room.stored()

    with pytest.raises(RuntimeStateError, match=r"self\.ctx"):
        room.call(wait_for_itself)
    assert 1 == room.call(Counter.increment)


def test_a_room_that_closes_it_while_it_closes_holds_nobody_up() -> None:
    refused: list[str] = []

    class Meddler(Room):
        async def on_message(self, message: str | bytes, sender: Connection) -> None:
            while "closing" not in repr(meddled):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(RuntimeStateError, match=r"self\.ctx") as error:
                meddled.close()
            refused.append(str(error.value))

    meddled = BlockingRuntime({"meddler": Meddler}, backend=MemoryBackend(), alarms="manual").open()
    client = meddled.parties["meddler"].get("a").connect().__enter__()
    client.send("handled while it closes")
    assert [] == refused
    meddled.close()
    assert 1 == len(refused)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_thread_in_which_a_loop_runs_is_refused(runtime: BlockingRuntime, loop: str) -> None:
    other = BlockingRuntime({}, backend=MemoryBackend(), alarms="manual")

    async def main() -> None:
        for use in (other.open, runtime.wait_idle, runtime.close):
            with pytest.raises(RuntimeStateError, match="an event loop runs in this thread"):
                use()

    anyio.run(main, backend=loop)
    runtime.wait_idle()


def test_it_is_asyncios_only() -> None:
    with pytest.raises(ValueError, match="on asyncio only, not on trio"):
        BlockingRuntime({}, backend=MemoryBackend(), alarms="manual", loop="trio")


def test_errors_keep_their_shape(runtime: BlockingRuntime) -> None:
    with pytest.raises(LookupError, match="of its own"):
        runtime.parties["counter"].get("all").call(Counter.fail)


def test_it_may_be_opened_again_by_any_thread(tmp_path: Path) -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=FileBackend(tmp_path / "rooms.db"), alarms="manual")
    room = runtime.parties["counter"].get("all")

    def use(expected: int) -> None:
        with runtime:
            assert expected == room.call(Counter.increment)
        runtime.close()
        with pytest.raises(RuntimeClosedError, match="open"):
            room.call(Counter.increment)

    use(1)
    use(2)
    elsewhere(partial(use, 3))


def test_what_was_accepted_is_handled_when_it_closes() -> None:
    backend = MemoryBackend()
    Diary.threads = []
    runtime = BlockingRuntime({"diary": Diary}, backend=backend, alarms="manual")
    room = runtime.parties["diary"].get("ann")
    with runtime, room.connect() as client:
        client.send("at last")
    with runtime:
        assert {"message": "at last"} == room.stored()


def test_a_backend_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    runtime = BlockingRuntime({"counter": Counter}, backend=FileBackend(path), alarms="manual")
    with BlockingRuntime({}, backend=FileBackend(path)), pytest.raises(BackendLockedError):
        runtime.open()
    with runtime:
        assert 1 == runtime.parties["counter"].get("all").call(Counter.increment)


def test_trouble_at_the_end_is_told_to_who_closes() -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=Trouble(MemoryBackend()), alarms="manual").open()
    with pytest.raises(OSError, match="no way out"):
        runtime.close()
    runtime.close()


class Interrupted(BackendWrapper):
    """Is interrupted while it opens."""

    @override
    async def __aenter__(self) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_while_it_opens_leaves_nothing_open() -> None:
    runtime = BlockingRuntime({}, backend=Interrupted(MemoryBackend()), alarms="manual")
    with pytest.raises(KeyboardInterrupt):
        runtime.open()
    assert "<BlockingRuntime of , closed>" == repr(runtime)


@pytest.mark.skipif(sys.platform == "win32", reason="there the loop sees to it by itself")
def test_a_signal_wakes_a_loop_that_is_just_falling_asleep_and_no_other_program(runtime: BlockingRuntime) -> None:
    async def bell(_room: Diary) -> int:
        rung = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
        os.write(rung, b"x")
        await anyio.lowlevel.checkpoint()
        return rung

    assert -1 != runtime.parties["diary"].get("ann").call(bell)
    assert -1 == signal.set_wakeup_fd(-1)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system does not interrupt threads")
def test_an_interrupt_ends_the_call_that_waits_and_not_the_runtime(runtime: BlockingRuntime) -> None:
    room = runtime.parties["diary"].get("ann")

    def interrupt() -> None:
        assert Diary.begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            room.call(Diary.stick)
    # What had begun goes on (G6), as soon as this thread waits for something again.
    assert 1 == runtime.parties["counter"].get("all").call(Counter.increment)
    assert {} == room.stored()
    Diary.gate.set()
    runtime.wait_idle()
    assert {"stuck": True} == room.stored()


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_between_the_end_of_a_call_and_the_loops_stop_does_not_break_the_next_call(
    runtime: BlockingRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = runtime.parties["counter"].get("all")
    assert 1 == room.call(Counter.increment)
    stored = Runtime.next_alarm

    async def interrupt(runtime: Runtime) -> object:
        # The next of the loop's steps: the call has ended by then, and the loop is to hear of that in the one after.
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        return None

    monkeypatch.setattr(Runtime, "next_alarm", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runtime.next_alarm()
    monkeypatch.setattr(Runtime, "next_alarm", stored)
    assert 2 == room.call(Counter.increment)
    assert runtime.next_alarm() is None


def test_a_time_out_is_noticed_by_the_next_call() -> None:
    Diary.begun = threading.Event()
    Diary.threads = []
    limits = Limits(event_timeout=timedelta(milliseconds=20))
    with BlockingRuntime({"diary": Diary}, backend=MemoryBackend(), alarms="manual", limits=limits) as runtime:
        with pytest.raises(TimeoutError):
            runtime.parties["diary"].get("ann").call(Diary.stick)


BY_HAND = 'alarms="manual", '


def test_a_program_may_end_without_closing(tmp_path: Path) -> None:
    assert "1\n" == run_program(tmp_path, options=BY_HAND)
    assert 2 == next_count(tmp_path)


OTHER_THREAD = """
    from threading import Thread
    def use():
        runtime.open()
        print(runtime.parties["counter"].get("all").call(Counter.increment), flush=True)
    runtime.close()
    thread = Thread(target=use)
    thread.start()
    thread.join()
"""


def test_a_program_whose_other_thread_has_opened_it_keeps_what_was_told(tmp_path: Path) -> None:
    assert "1\n2\n" == run_program(tmp_path, OTHER_THREAD, options=BY_HAND)
    assert 3 == next_count(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_and_ends_in_peace(tmp_path: Path) -> None:
    assert "1\n" + REFUSAL * 3 + "0 2\n" == run_program(tmp_path, FORK, options=BY_HAND)
