"""What a host pays for the rooms that it mounts: a client that says nothing, beyond what any application costs its server."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from datetime import timedelta
from typing import Any

import anyio

from benchmarks.engine import Plain, resident
from benchmarks.measure import Sample, question, run_on
from partyroom import Runtime
from partyroom.asgi import PartyApp
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FakeClock

Message = MutableMapping[str, Any]


class Socket:
    """One WebSocket of a client that stays and says nothing, as a server's end of it."""

    __slots__ = ("_is_new", "_left", "scope")

    def __init__(self, number: int, rooms: int) -> None:
        path = f"/parties/plain/{number % rooms}"
        self.scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": f"_pk=client{number}".encode(),
            "headers": [(b"host", b"here.example")],
        }
        self._is_new = True
        self._left = anyio.Event()

    def leave(self) -> None:
        """Let the client go."""
        self._left.set()

    async def receive(self) -> Message:
        """Give the handshake, then nothing until the client leaves."""
        if self._is_new:
            self._is_new = False
            return {"type": "websocket.connect"}
        await self._left.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message: Message) -> None:
        """Take what the application sends: that the client is let in, and nothing else."""
        assert message["type"] == "websocket.accept"


async def wait_only(_scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    """Be the least that an application can be: let the client in, and wait for it to leave."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


async def client_bytes(
    app: Callable[..., Coroutine[Any, Any, None]], rest: Callable[[], Awaitable[None]], clients: int, rooms: int
) -> float:
    """Give the memory of each of so many clients that an application serves, when ``rest`` says that all is quiet."""
    sockets: list[Socket] = []
    before = after = 0
    async with anyio.create_task_group() as tasks:

        async def connect(first: int, last: int) -> None:
            for number in range(first, last):
                sockets.append(Socket(number, rooms))
                tasks.start_soon(app, sockets[-1].scope, sockets[-1].receive, sockets[-1].send)
                if not number % 100:
                    await rest()
            await rest()

        # What the first ones make is not the cost of a client: caches, workers, rooms that have been awake.
        await connect(0, rooms)
        tracemalloc.start()
        before = resident()
        await connect(rooms, rooms + clients)
        after = resident()
        tracemalloc.stop()
        for socket in sockets:
            socket.leave()
    return (after - before) / clients


@question(
    "mounted-connections",
    "memory of each of 10,000 idle WebSockets through PartyApp, beyond an application that only waits",
    unit="bytes",
    at_least=4096,
    aim=2048,
    loops=("asyncio", "trio"),
)
def _mounted(loop: str, quick: bool) -> Sample:
    clients, rooms = (50, 5) if quick else (10_000, 1_000)

    async def main() -> Sample:
        clock = FakeClock()
        async with Runtime({"plain": Plain}, backend=MemoryBackend(), clock=clock) as runtime:

            async def rest() -> None:
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                await runtime.wait_idle()
                await clock.advance(timedelta(hours=1))
                assert not runtime.statistics().awake

            ours = await client_bytes(PartyApp(runtime, max_connections=clients + rooms), rest, clients, rooms)
            await runtime.wait_idle()
            least = await client_bytes(wait_only, anyio.lowlevel.checkpoint, clients, rooms)
        return Sample(ours - least, rivals={"the server's own": least})

    return run_on(loop, main)
