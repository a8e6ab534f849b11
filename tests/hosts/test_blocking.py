"""Rooms without an event loop: threads, alarms in the background and by hand, the program's end, and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event, main_thread
from threading import enumerate as enumerate_threads
from typing import Any, assert_type

import anyio.lowlevel
import pytest
from typing_extensions import override

from partyroom import (
    Alarm,
    BackendLockedError,
    Connection,
    ConnectionClosedError,
    ConnectRejectedError,
    EventCancelledError,
    NoHandlerError,
    Room,
    RuntimeClosedError,
    RuntimeStateError,
    UnknownPartyError,
)
from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.blocking import BlockingRuntime
from partyroom.testing.backend_wrapper import BackendWrapper


class Counter(Room):
    async def increment(self, by: int = 1) -> int:
        total: int = await self.ctx.storage.get("total", 0) + by
        await self.ctx.storage.put("total", total)
        return total

    async def fail(self) -> None:
        message = "of its own"
        raise LookupError(message)

    async def remind(self, after: timedelta) -> None:
        await self.ctx.storage.set_alarm(after)

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.increment(100)
        rang.set()

    async def on_connect(self, connection: Connection) -> None:
        if connection.request == "no":
            raise ConnectRejectedError(4000)

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message == "go":
            sender.close(4001)
        else:
            self.ctx.broadcast(message)


class Echo(Room):
    async def on_request(self, request: object) -> object:
        return request


rang = Event()


@pytest.fixture(params=["asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> Iterator[BlockingRuntime]:
    rang.clear()
    parties = {"counter": Counter, "echo": Echo}
    with BlockingRuntime(parties, backend=MemoryBackend(), loop=request.param) as opened:
        yield opened


def test_the_verbs_wait_and_keep_their_types(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")
    assert ("all", "counter", "counter") == (room.id, room.party, runtime.parties["counter"].name)
    total = room.call(Counter.increment, by=2)
    assert_type(total, int)
    assert 2 == total
    assert {"total": 2} == room.stored()
    assert ["all"] == runtime.parties["counter"].rooms()
    thing = object()
    assert thing is runtime.parties["echo"].get("1").request(thing)
    runtime.wait_idle()
    assert 0 == runtime.statistics().busy
    assert 1 == runtime.stored_statistics()["counter"].rooms
    assert runtime.why_awake(room).sleeps_at
    assert runtime.next_alarm() is None


def test_errors_keep_their_shape(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")
    with pytest.raises(LookupError, match="of its own"):
        room.call(Counter.fail)
    with pytest.raises(NoHandlerError):
        room.request("anything")
    with pytest.raises(ConnectRejectedError):
        room.connect(request="no").__enter__()


def test_a_client_speaks_and_hears(runtime: BlockingRuntime) -> None:
    with runtime.parties["counter"].get("all").connect(id="ann") as ann:
        assert "ann" == ann.id
        ann.send("hello")
        assert "hello" == ann.receive()
        ann.send("one")
        ann.send("go")
        assert ["one"] == list(ann)
        with pytest.raises(ConnectionClosedError):
            ann.receive()
        ann.close()


def test_a_client_gives_up_in_time_and_misses_nothing(runtime: BlockingRuntime) -> None:
    soon, ever = timedelta(milliseconds=1), timedelta(minutes=5)
    with runtime.parties["counter"].get("all").connect(id="ann") as ann:
        with pytest.raises(TimeoutError, match=r"^<Client of .*: no message within 0:00:00.001000$"):
            ann.receive(timeout=soon)
        ann.send("hello")
        assert "hello" == ann.receive(timeout=ever)
        ann.send("go")
        with pytest.raises(ConnectionClosedError):
            ann.receive(timeout=ever)
        wrong: Any = 5
        with pytest.raises(TypeError, match="^timeout must be a timedelta, not int$"):
            ann.receive(timeout=wrong)


def test_many_threads_may_use_it_at_once(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(partial(room.call, Counter.increment), [1] * 200))
    assert list(range(1, 201)) == sorted(totals)


def test_alarms_ring_in_the_background(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")
    room.call(Counter.remind, timedelta())
    assert rang.wait(20)
    runtime.wait_idle()
    assert {"total": 100} == room.stored()


def test_alarms_ring_by_hand_and_only_then() -> None:
    with BlockingRuntime({"counter": Counter}, backend=MemoryBackend(), alarms="manual") as runtime:
        room = runtime.parties["counter"].get("all")
        room.call(Counter.remind, timedelta())
        runtime.wait_idle()
        assert {} == room.stored()
        assert runtime.next_alarm() is not None
        assert (1, ()) == (runtime.ring_due().rung, runtime.ring_due().failed)
        assert {"total": 100} == room.stored()


def test_alarms_are_steered_from_outside(runtime: BlockingRuntime) -> None:
    party = runtime.parties["counter"]
    room = party.get("all")
    room.call(Counter.remind, timedelta(days=1))
    assert 1 == len(room.list_alarms()) == len(party.list_alarms())
    assert room.pause_alarm()
    assert 1 == len(party.parked_alarms())
    assert room.resume_alarm()
    assert room.delete_alarm()
    assert not room.ring_alarm()
    assert [] == party.failed_alarms()


def test_it_may_be_opened_again_and_closed_twice(tmp_path: Path) -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=FileBackend(tmp_path / "rooms.db"))
    room = runtime.parties["counter"].get("all")
    for expected in (1, 2):
        with runtime:
            assert expected == room.call(Counter.increment)
        runtime.close()
        with pytest.raises(RuntimeClosedError, match="open"):
            room.call(Counter.increment)
    assert "<BlockingRuntime of counter, closed>" == repr(runtime)
    assert ("<party counter>", "<handle of counter/all>") == (repr(runtime.parties["counter"]), repr(room))


def test_it_is_opened_once_at_a_time(runtime: BlockingRuntime) -> None:
    with pytest.raises(RuntimeStateError, match="open already"):
        runtime.open()


def test_a_backend_that_cannot_be_opened_says_why_and_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"
    runtime = BlockingRuntime({"counter": Counter}, backend=FileBackend(path))
    with BlockingRuntime({"counter": Counter}, backend=FileBackend(path)), pytest.raises(BackendLockedError) as locked:
        runtime.open()
    assert os.getpid() == locked.value.pid
    with runtime:
        assert 1 == runtime.parties["counter"].get("all").call(Counter.increment)


class Trouble(BackendWrapper):
    """Cannot be closed."""

    @override
    async def __aexit__(self, *_: object) -> None:
        message = "no way out"
        raise OSError(message)


def test_trouble_at_the_end_is_told_to_who_closes() -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=Trouble(MemoryBackend())).open()
    with pytest.raises(OSError, match="no way out"):
        runtime.close()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_interrupt_that_has_ended_it_is_told_to_who_closes(loop: Any) -> None:
    async def interrupt(_room: Room) -> None:
        raise KeyboardInterrupt

    runtime = BlockingRuntime({"counter": Counter}, backend=MemoryBackend(), loop=loop)
    others = enumerate_threads()
    with pytest.raises(KeyboardInterrupt), runtime:
        (thread,) = [each for each in enumerate_threads() if each not in others]
        room = runtime.parties["counter"].get("a")
        with pytest.raises(EventCancelledError):
            room.call(interrupt)
        thread.join(30)
        with pytest.raises(RuntimeClosedError):
            room.call(Counter.increment)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system does not interrupt threads")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_interrupt_while_it_opens_leaves_nothing_open(loop: Any) -> None:
    class Interrupting(BackendWrapper):
        @override
        async def __aenter__(self) -> Any:
            if not interrupted:
                interrupted.append(True)
                signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
            return await super().__aenter__()

    interrupted: list[bool] = []
    runtime = BlockingRuntime({"counter": Counter}, backend=Interrupting(MemoryBackend()), loop=loop)
    with pytest.raises(KeyboardInterrupt):
        runtime.open()
    assert "<BlockingRuntime of counter, closed>" == repr(runtime)
    with runtime:
        assert 1 == runtime.parties["counter"].get("all").call(Counter.increment)


def test_who_waits_for_a_message_is_told_that_the_runtime_closes() -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=MemoryBackend()).open()
    waits = Event()

    def wait_for_a_message() -> int:
        with runtime.parties["counter"].get("all").connect() as client:
            assert "<Client" in repr(client)
            waits.set()
            with pytest.raises(ConnectionClosedError) as closed:
                client.receive()
            return closed.value.code

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_a_message)
        assert waits.wait(20)
        runtime.close()
        assert 1001 == waiting.result(20)


def test_a_call_while_it_closes_or_has_closed_is_refused(runtime: BlockingRuntime) -> None:
    thread: Any = runtime._home
    room = runtime.parties["counter"].get("all")
    runtime.close()
    runtime._home = thread
    with pytest.raises(RuntimeClosedError, match="closed"):
        room.call(Counter.increment)
    runtime._home = None


def test_a_room_does_not_wait_for_its_own_thread(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")

    async def wait_for_itself(_room: Counter) -> None:
        room.stored()

    with pytest.raises(RuntimeStateError, match=r"self\.ctx"):
        room.call(wait_for_itself)


def test_a_room_neither_opens_nor_closes_it(runtime: BlockingRuntime) -> None:
    room = runtime.parties["counter"].get("all")

    async def meddle(_room: Counter, verb: Callable[[], object]) -> None:
        verb()

    for verb in (runtime.open, runtime.close):
        with pytest.raises(RuntimeStateError, match=r"self\.ctx"):
            room.call(meddle, verb)
    assert 1 == room.call(Counter.increment)


def test_a_room_that_closes_it_while_it_closes_holds_nobody_up(runtime: BlockingRuntime) -> None:
    begun = Event()

    async def close(_room: Counter) -> None:
        begun.set()
        while "closing" not in repr(runtime):
            await anyio.lowlevel.checkpoint()
        runtime.close()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(runtime.parties["counter"].get("all").call, close)
        assert begun.wait(20)
        runtime.close()
        with pytest.raises(RuntimeStateError, match=r"self\.ctx"):
            asked.result(20)


PROGRAM = """
    import os, sys
    from datetime import timedelta
    from partyroom import Room, RuntimeStateError
    from partyroom.backends.file import FileBackend
    from partyroom.blocking import BlockingRuntime

    class Counter(Room):
        async def increment(self):
            total = await self.ctx.storage.get("total", 0) + 1
            await self.ctx.storage.put("total", total)
            return total

    runtime = BlockingRuntime({"counter": Counter}, backend=FileBackend(sys.argv[1]), idle_timeout=timedelta(hours=1), OPTIONS)
    runtime.open()
    room = runtime.parties["counter"].get("all")
    print(room.call(Counter.increment), flush=True)
"""


def run_program(tmp_path: Path, more: str = "", *, options: str = "") -> str:
    program = textwrap.dedent(PROGRAM).replace("OPTIONS", options) + textwrap.dedent(more)
    path = tmp_path / "rooms.db"
    answer = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True, timeout=40
    )
    assert "" == answer.stderr
    return answer.stdout


def next_count(tmp_path: Path) -> int:
    """Count on from where the last program on the file has ended."""
    with BlockingRuntime({"counter": Counter}, backend=FileBackend(tmp_path / "rooms.db")) as runtime:
        return runtime.parties["counter"].get("all").call(Counter.increment)


def test_a_program_may_end_without_closing(tmp_path: Path) -> None:
    assert "1\n" == run_program(tmp_path)
    assert 2 == next_count(tmp_path)


FORK = """
    import warnings
    warnings.simplefilter("ignore")
    child = os.fork()
    for use in (lambda: room.call(Counter.increment), runtime.open, runtime.close):
        try:
            use() if not child else None
        except RuntimeStateError as error:
            print(str(error).replace(str(os.getppid()), "PARENT"), flush=True)
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), room.call(Counter.increment))
"""
REFUSAL = "this runtime lives in process PARENT; a forked child must open one of its own\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused_and_ends_in_peace(tmp_path: Path) -> None:
    assert "1\n" + REFUSAL * 3 + "0 2\n" == run_program(tmp_path, FORK)


def test_a_copy_of_it_in_a_forked_child_closes_nothing_at_exit(runtime: BlockingRuntime) -> None:
    thread: Any = runtime._home
    thread._process += 1
    runtime._close_at_exit()
    thread._process -= 1
    assert 1 == runtime.parties["counter"].get("all").call(Counter.increment)


def test_parties_are_a_mapping_and_say_what_there_is_not() -> None:
    runtime = BlockingRuntime({"counter": Counter}, backend=MemoryBackend())
    assert (1, ["counter"]) == (len(runtime.parties), list(runtime.parties))
    with pytest.raises(UnknownPartyError, match="counter"):
        runtime.parties["nobody"]


def test_a_loop_that_there_is_not_is_told_at_once() -> None:
    nonsense: Any = "nonsense"
    with pytest.raises(LookupError, match="nonsense"):
        BlockingRuntime({}, backend=MemoryBackend(), loop=nonsense).open()
