"""The same application on real servers, with real clients that behave, and with such that do not."""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from typing_extensions import override
from websockets.exceptions import ConnectionClosed, InvalidStatus

from partyroom import Connection, ConnectRejectedError, Limits, Room, Runtime
from partyroom.asgi import ConnectRequest, PartyApp, Request, Response
from partyroom.backends.memory import MemoryBackend
from tests.hosts.servers import (
    SERVERS,
    dial,
    fetch,
    in_thread,
    raw_socket,
    raw_websocket,
    read_to_close_frame,
    read_to_end,
    serve,
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def each_of(servers: Iterable[str]) -> list[Any]:
    """Give one of each make and of each loop; those beside them take other ways to the same application, tried at length."""
    few = {"uvicorn", "hypercorn-trio"}
    return [pytest.param(each, marks=() if each in few else pytest.mark.slow) for each in servers]


on_servers_that_stop = pytest.mark.parametrize(
    "server",
    # From Python 3.12 on, hypercorn's Server.wait_closed() waits without end for its clients to leave.
    each_of(each for each in SERVERS if each != "hypercorn" or sys.version_info < (3, 12)),
    indirect=True,
)


@pytest.fixture(params=each_of(SERVERS))
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(server: str) -> str:
    """Each server brings its loop."""
    return SERVERS[server][0]


class Chat(Room):
    async def on_connect(self, connection: Connection) -> None:
        if self.ctx.id == "closed":
            raise ConnectRejectedError(4001, "not today")
        self.ctx.broadcast(f"{connection.id} is here")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message == "flood":
            for _ in range(100):
                self.ctx.broadcast("x" * 65536)
        elif message == "go":
            sender.close(4000, "gone")
        else:
            self.ctx.broadcast(message)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        left: dict[str, int] = await self.ctx.storage.get("left", {})
        await self.ctx.storage.put("left", {**left, connection.id: code})

    async def on_request(self, request: Request) -> Response:
        left: dict[str, int] = await self.ctx.storage.get("left", {})
        return Response.json({"room": self.ctx.id, "body": request.text(), "left": left})


async def log_in(request: ConnectRequest) -> Response | None:
    return Response("log in first", 401) if request.query.get("token") == "wrong" else None


@asynccontextmanager
async def chat_on(server: str, limits: Limits | None = None, **options: Any) -> AsyncGenerator[tuple[int, Runtime]]:
    runtime = Runtime({"chat": Chat}, backend=MemoryBackend(), limits=limits)
    app = PartyApp(runtime, on_before_connect=log_in, **options)
    async with serve(server, app) as port:
        yield port, runtime
    assert (0, 0, 0) == (len(app._connections), app._connected, app._requests)


def still_serves(port: int) -> None:
    """Check that other rooms notice nothing."""
    with dial(port, "/parties/chat/other?_pk=o") as other:
        assert "o is here" == other.recv(10)
        other.send("hello")
        assert "hello" == other.recv(10)


# --- clients that behave -----------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
async def test_clients_connect_speak_hear_and_leave(server: str) -> None:
    # Hypercorn tells an application of every client that left that it did so without a word.
    clean = 1006 if "hypercorn" in server else 1000

    def scenario(port: int) -> None:
        with dial(port, "/parties/chat/a%2Fb%20caf%C3%A9?_pk=ann") as ann:
            assert "ann is here" == ann.recv(10)
            with dial(port, "/parties/chat/a%2Fb%20caf%C3%A9?_pk=bob") as bob:
                assert "bob is here" == ann.recv(10) == bob.recv(10)
                bob.send("hello 🎉")
                assert "hello 🎉" == ann.recv(10) == bob.recv(10)
                bob.send(b"\x00\xff")
                assert b"\x00\xff" == ann.recv(10) == bob.recv(10)
            ann.send("go")
            with pytest.raises(ConnectionClosed) as ended:
                ann.recv(10)
        assert (4000, "gone") == (ended.value.rcvd.code, ended.value.rcvd.reason) if ended.value.rcvd else False
        status, body = fetch(port, "POST", "/parties/chat/a%2Fb%20caf%C3%A9", b"hi")
        assert (200, b'{"room": "a/b caf\\u00e9", "body": "hi", "left": {"bob": %d, "ann": 4000}}' % clean) == (
            status,
            body,
        )

    async with chat_on(server) as (port, _):
        await in_thread(scenario, port)


async def test_who_is_not_let_in_hears_why(server: str) -> None:
    def scenario(port: int) -> None:
        with dial(port, "/parties/chat/closed") as client, pytest.raises(ConnectionClosed) as ended:
            client.recv(10)
        assert ended.value.rcvd is not None
        assert 4001 == ended.value.rcvd.code
        for path, status in (
            ("/parties/chat/lobby?token=wrong", 401),
            ("/parties/nobody/lobby", 404),
            ("/elsewhere", 404),
            ("/parties/chat/%FF", 400),
            ("/parties/chat/" + "x" * 2000, 414),
        ):
            with pytest.raises(InvalidStatus) as refused:
                dial(port, path)
            assert status == refused.value.response.status_code
        with pytest.raises(InvalidStatus) as refused:
            dial(port, "/parties/chat/lobby", origin="http://evil.example")
        assert 403 == refused.value.response.status_code
        assert 413 == fetch(port, "POST", "/parties/chat/lobby", headers={"Content-Length": "2000000"})[0]
        still_serves(port)

    async with chat_on(server) as (port, _):
        await in_thread(scenario, port)


@on_servers_that_stop
async def test_a_server_that_stops_closes_its_clients_and_then_the_runtime(server: str) -> None:
    runtime = Runtime({"chat": Chat}, backend=MemoryBackend())
    async with serve(server, PartyApp(runtime)) as port:
        client = await in_thread(dial, port, "/parties/chat/lobby?_pk=ann")
        assert "ann is here" == await in_thread(client.recv, 10)
    with closing(client.socket), pytest.raises(ConnectionClosed) as ended:
        await in_thread(client.recv, 10)
    # Hypercorn on asyncio cancels its applications first, and says so in its own way.
    own = {1011} if server == "hypercorn" else {1001, 1012}
    assert ended.value.rcvd is None or ended.value.rcvd.code in own
    assert "closed>" in repr(runtime)


# --- clients that do not -----------------------------------------------------


def masked(opcode: int, payload: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """Write a client's frame, whose length may be a lie."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | opcode])
    head += (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + struct.pack("!H", size)
        if size < 65536
        else b"\xff" + struct.pack("!Q", size)
    )
    return head + b"\0\0\0\0" + payload


MALFORMED = {
    "not masked": (b"\x81\x02hi", {1002}),
    "a reserved bit": (b"\xf1\x80\0\0\0\0", {1002}),
    "an unknown kind": (masked(0x3, b"x"), {1002}),
    "a continuation of nothing": (masked(0x0, b"x"), {1002}),
    "a long ping": (masked(0x9, b"x" * 200), {1002}),
    "no UTF-8": (masked(0x1, b"\xff\xfe"), {1007}),
    "a surrogate": (masked(0x1, b"\xed\xa0\x80"), {1007}),
    "too big for the server": (masked(0x1, b"", length=2**40), {1009, 1002}),
    "too big for the application": (masked(0x1, b"x" * 1_500_000), {1009}),
    "too big in parts": (b"".join(masked(0x1 if not n else 0, b"x" * 60_000, final=False) for n in range(40)), {1009}),
    "a close with a bad code": (masked(0x8, b"\x00\x01"), {1002}),
}


async def test_malformed_frames_end_in_a_close_code(server: str) -> None:
    def scenario(port: int) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for name, (frames, _) in MALFORMED.items():
            with closing(raw_websocket(port, "/parties/chat/lobby")) as client:
                with suppress(ConnectionError):
                    client.sendall(frames)
                    client.shutdown(socket.SHUT_WR)
                found[name] = read_to_close_frame(client)
        still_serves(port)
        return found

    async with chat_on(server) as (port, _):
        found = await in_thread(scenario, port)
    # What is built on wsproto, as hypercorn is, hangs up without a code.
    silent: set[int | None] = set() if server == "uvicorn" else {None}
    assert {} == {name: code for name, code in found.items() if code not in MALFORMED[name][1] | silent}


async def test_a_message_that_is_too_big_ends_in_1009(server: str) -> None:
    def scenario(port: int) -> int:
        with dial(port, "/parties/chat/lobby") as client:
            client.recv(10)
            client.send("x" * 1_500_000)
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(10)
        still_serves(port)
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code

    async with chat_on(server) as (port, _):
        assert 1009 == await in_thread(scenario, port)


async def test_a_room_id_of_ten_megabytes_is_refused(server: str) -> None:
    def scenario(port: int) -> bytes:
        with closing(raw_socket(port)) as client:
            with suppress(ConnectionError):
                client.sendall(b"GET /parties/chat/" + b"x" * 10_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = read_to_end(client)
        still_serves(port)
        return answer

    async with chat_on(server) as (port, runtime):
        answer = await in_thread(scenario, port)
        assert [] == await runtime.parties["chat"].rooms(prefix="x")
    assert b"" == answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:100]


async def test_a_flood_of_connections_is_bounded(server: str) -> None:
    def scenario(port: int) -> list[int]:
        refused: list[int] = []
        with ExitStack() as stack:
            for _ in range(30):
                try:
                    stack.enter_context(dial(port, "/parties/chat/lobby"))
                except InvalidStatus as error:
                    refused.append(error.response.status_code)
        still_serves(port)
        return refused

    async with chat_on(server, max_connections=10) as (port, _):
        assert [503] * 20 == await in_thread(scenario, port)


async def test_a_client_that_never_reads_is_closed_with_1013(server: str) -> None:
    def scenario(port: int) -> Any:
        with (
            closing(raw_websocket(port, "/parties/chat/lobby?_pk=deaf", receive_buffer=4096)),
            dial(port, "/parties/chat/lobby?_pk=ann") as ann,
        ):
            assert "ann is here" == ann.recv(10)
            for _ in range(3):
                ann.send("flood")
                assert {"x" * 65536} == {ann.recv(10) for _ in range(100)}
            ann.send("still here")
            assert "still here" == ann.recv(10)
            still_serves(port)
            return fetch(port, "POST", "/parties/chat/lobby")[1]

    limits = Limits(outgoing_messages=100)
    async with chat_on(server, limits, close_timeout=timedelta(milliseconds=100)) as (port, _):
        assert b'"deaf": 1013' in await in_thread(scenario, port)


async def test_clients_that_break_off_anywhere_are_gone(server: str) -> None:
    def scenario(port: int) -> Any:
        reset = struct.pack("ii", 1, 0)
        for number in range(30):
            client = raw_websocket(port, f"/parties/chat/lobby?_pk=c{number}")
            client.sendall((masked(0x1, b"hello") * 3)[: number * 2])
            if number % 2:
                # A reset, as from a machine that lost its power, instead of an orderly end.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            client.close()
            head = b"POST /parties/chat/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
            with closing(raw_socket(port)) as half:
                half.sendall(head[: number * 3])
        still_serves(port)

    async with chat_on(server) as (port, runtime):
        await in_thread(scenario, port)
        await runtime.wait_idle()


@on_servers_that_stop
async def test_garbage_breaks_nothing(server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    random = Random(20)

    def garbage() -> bytes:
        size = random.randrange(1, 300)
        return bytes(random.getrandbits(8) for _ in range(size))

    def mangled(text: bytes) -> bytes:
        place = random.randrange(len(text))
        return text[:place] + garbage()[: random.randrange(1, 9)] + text[place + random.randrange(3) :]

    def scenario(port: int) -> None:
        handshake = (
            b"GET /parties/chat/lobby?_pk=f HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        post = b"POST /parties/chat/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        for number in range(120 if "uvicorn" in server else 40):
            with closing(raw_socket(port)) as client:
                if "hypercorn" in server:
                    # It lets half a request wait; so does this client, but not for long.
                    client.settimeout(0.2)
                with suppress(OSError):
                    client.sendall((garbage(), mangled(handshake), mangled(post), handshake + garbage())[number % 4])
                    client.shutdown(socket.SHUT_WR)
                assert b"Traceback" not in read_to_end(client)
        still_serves(port)

    async with chat_on(server) as (port, runtime):
        await in_thread(scenario, port)
        await runtime.wait_idle()
