"""An ASGI server for tests, without a network: it calls an application as a server does, one message at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import anyio
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from partyroom.asgi import PartyApp

Message = MutableMapping[str, Any]


class Pipe:
    """Messages on their way in one direction, without a bound."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._more = anyio.Event()

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._more.set()

    async def get(self) -> Message:
        while not self._messages:
            self._more = anyio.Event()
            await self._more.wait()
        return self._messages.popleft()


class Exchange:
    """Both directions of one ASGI call, as the server sees them."""

    def __init__(self) -> None:
        self._to_app = Pipe()
        self._from_app = Pipe()
        self.reads = anyio.Event()
        """Set while the client reads; an application that sends to one that does not waits."""
        self.reads.set()
        self.has_left = False
        self.ended = anyio.Event()

    async def app_receive(self) -> Message:
        return await self._to_app.get()

    async def app_send(self, message: Message) -> None:
        await self.reads.wait()
        if self.has_left:
            raise OSError
        self._from_app.put(message)

    async def say(self, **message: Any) -> None:
        """Hand the application a message."""
        self._to_app.put(message)
        await checkpoint()

    async def hear(self) -> Message:
        """Wait for the application's next message."""
        return await self._from_app.get()

    async def run(self, app: Any, scope: Message) -> None:
        try:
            await app(scope, self.app_receive, self.app_send)
        finally:
            self.ended.set()


class Socket(Exchange):
    """A WebSocket as its client sees it."""

    async def handshake(self) -> Message:
        """Begin, and give the first answer."""
        await self.say(type="websocket.connect")
        return await self.hear()

    async def text(self, text: str) -> None:
        await self.say(type="websocket.receive", text=text)

    async def leave(self, code: int = 1000, reason: str = "") -> None:
        await self.say(type="websocket.disconnect", code=code, reason=reason)
        await self.ended.wait()

    async def heard_text(self) -> str:
        return str((await self.hear())["text"])


def scope_of(kind: str, path: str, query: str = "", headers: Iterable[tuple[str, str]] = (), **more: Any) -> Message:
    """Make what a server says of a connection; ``path`` is as it is written in the address."""
    told = [(name.encode(), value.encode()) for name, value in (("host", "here.example"), *headers)]
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "ws" if kind == "websocket" else "http",
        "method": "GET",
        "path": decoded(path),
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": more.pop("raw_headers", told),
        "client": ("192.0.2.1", 50000),
        "extensions": {"websocket.http.response": {}} if kind == "websocket" else {},
        **more.pop("instead", {}),
        **more,
    }


def decoded(path: str) -> str:
    """Decode a path as servers do, badly written parts replaced."""
    return unquote(path)


@asynccontextmanager
async def connecting(app: Any, path: str, query: str = "", **more: Any) -> AsyncGenerator[Socket]:
    """Open a WebSocket that has not begun; the application is left behind cancelled if it has not ended."""
    socket = Socket()
    async with create_task_group() as tasks:
        tasks.start_soon(socket.run, app, scope_of("websocket", path, query, **more))
        yield socket
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected(app: Any, path: str, query: str = "", **more: Any) -> AsyncGenerator[Socket]:
    """Open a WebSocket that has been accepted, and let the client leave at the end."""
    async with connecting(app, path, query, **more) as socket:
        answer = await socket.handshake()
        assert "websocket.accept" == answer["type"], answer
        yield socket
        if not socket.ended.is_set():
            with CancelScope(shield=True):
                await socket.leave()


class Answer:
    """A whole HTTP response."""

    def __init__(self, start: Message, body: bytes) -> None:
        self.status: int = start.get("status", 0)
        self.headers = {name.decode(): value.decode() for name, value in start.get("headers", ())}
        self.body = body


async def ask(app: Any, method: str, path: str, body: Iterable[bytes] = (b"",), query: str = "", **more: Any) -> Answer:
    """Send a request in parts, and give the response."""
    exchange = Exchange()
    parts = list(body)
    for number, part in enumerate(parts, 1):
        await exchange.say(type="http.request", body=part, more_body=number < len(parts))
    async with create_task_group() as tasks:
        tasks.start_soon(exchange.run, app, scope_of("http", path, query, method=method, **more))
        await exchange.ended.wait()
    return await whole_answer(exchange)


async def whole_answer(exchange: Exchange) -> Answer:
    start = await exchange.hear()
    assert "http.response.start" == start["type"]
    return Answer(start, (await exchange.hear())["body"])


async def denial(app: PartyApp, path: str, query: str = "", **more: Any) -> Answer:
    """Open a WebSocket that is refused by a response, and give that."""
    async with connecting(app, path, query, **more) as socket:
        start = await socket.handshake()
        assert "websocket.http.response.start" == start["type"], start
        body: bytes = (await socket.hear())["body"]
    return Answer(start, body)
