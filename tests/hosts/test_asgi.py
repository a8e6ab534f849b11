"""The ASGI application, without a network: addresses, hooks, limits, errors, and both directions of a socket."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import chain, repeat
from typing import Any

import anyio
import attrs
import pytest
from typing_extensions import override

from partyroom import Connection, ConnectRejectedError, Limits, Room, Runtime, RuntimeClosedError
from partyroom.asgi import ConnectRequest, PartyApp, Request, Response
from partyroom.asgi._http import read_body
from partyroom.backends.memory import MemoryBackend
from partyroom.testing import FaultyBackend
from partyroom.testing.fake_clock import FakeClock
from tests.hosts.driver import Answer, Exchange, Socket, ask, connected, connecting, denial, scope_of, whole_answer

pytestmark = pytest.mark.anyio

CLOSE_TIMEOUT = timedelta(seconds=10)


class Chat(Room):
    """Tells everybody what anybody says, and remembers who left how."""

    hibernate = True

    async def on_connect(self, connection: Connection) -> None:
        match self.ctx.id:
            case "closed":
                raise ConnectRejectedError(4001, "not today")
            case "broken":
                message = "a secret"
                raise RuntimeError(message)
            case "stuck":
                await self.ctx.storage.put("x", object())
            case "odd":
                raise ConnectRejectedError(1006, "é" * 100)
            case "slow":
                await self.ctx.clock.sleep(timedelta(seconds=30))
            case "kept":
                await self.ctx.storage.put("in", connection.id)
            case _:
                request: ConnectRequest = connection.request
                self.ctx.broadcast(f"{connection.id} is here, {request.user}")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        match message:
            case "go":
                sender.close(4000, "gone")
            case "tags":
                sender.send(",".join(sorted(sender.tags)))
            case "state":
                sender.send(str(sender.state))
            case "uri":
                sender.send(sender.uri)
            case "flood":
                for _ in range(20):
                    sender.send("x" * 100)
            case _:
                self.ctx.broadcast(message)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        left: list[Any] = await self.ctx.storage.get("left", [])
        await self.ctx.storage.put("left", [*left, [connection.id, code, reason, was_clean]])

    async def on_request(self, request: Request) -> object:
        match request.path:
            case "/fail":
                message = "a secret"
                raise RuntimeError(message)
            case "/nothing":
                return None
            case "/slow":
                await self.ctx.clock.sleep(timedelta(seconds=30))
                return Response("late")
            case "/json":
                return Response.json({"got": request.json()}, 201)
            case "/app":
                return plain_app
            case "/empty":
                return Response(status=204)
            case _:
                return Response(f"{request.method} {self.ctx.id} {request.path} {request.text()} {request.user}")


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer as a response of some framework does."""
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b"from an application"})


class Silent(Room):
    """Has no callbacks at all."""


@asynccontextmanager
async def party_app(
    *, limits: Limits | None = None, runtime: dict[str, Any] | None = None, **options: Any
) -> AsyncGenerator[PartyApp]:
    async with Runtime(
        {"chat": Chat, "silent": Silent}, backend=MemoryBackend(), limits=limits, **(runtime or {})
    ) as opened:
        yield PartyApp(opened, **options)


def runtime_of(app: PartyApp) -> Runtime:
    return app._runtime


async def left(app: PartyApp, room_id: str) -> list[Any]:
    await runtime_of(app).wait_idle()
    found = await runtime_of(app).parties["chat"].get(room_id).stored()
    return list(found.get("left", []))


# --- addresses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/parties/chat/lobby", "GET lobby /  None"),
        ("/parties/chat/a%2Fb", "GET a/b /  None"),
        ("/parties/chat/a%252Fb", "GET a%2Fb /  None"),
        ("/parties/chat/caf%C3%A9%20%F0%9F%8E%89", "GET café 🎉 /  None"),
        ("/parties/chat/lobby/some/place%2F", "GET lobby /some/place/  None"),
        ("/parties/chat/lobby/", "GET lobby /  None"),
        ("/parties/ch%61t/..", "GET .. /  None"),
    ],
)
async def test_an_address_names_a_party_a_room_and_a_path(path: str, expected: str) -> None:
    async with party_app() as app:
        answer = await ask(app, "GET", path)
    assert (200, expected) == (answer.status, answer.body.decode())


BAD_ADDRESSES = [
    ("/", 404),
    ("/partiesx/chat/lobby", 404),
    ("/parties", 404),
    ("/parties/chat", 404),
    ("/parties/chat/", 404),
    ("/parties//lobby", 404),
    ("/parties/nobody/lobby", 404),
    ("/parties/chat/%FF", 400),
    ("/parties/%FF/lobby", 400),
    ("/parties/chat/lobby/%FF", 400),
    ("/parties/chat/%ED%A0%80", 400),
    ("/parties/chat/" + "x" * 1025, 414),
    ("/parties/chat/" + "x" * 10_000_000, 414),
    ("/parties/" + "x" * 10_000_000 + "/lobby", 414),
    ("/parties/silent/lobby", 404),
]


async def test_a_bad_address_has_a_status() -> None:
    async with party_app() as app:
        for path, status in BAD_ADDRESSES:
            assert status == (await ask(app, "GET", path)).status, path[:40]
            if "silent" not in path:
                assert status == (await denial(app, path)).status, path[:40]
            assert 0 == runtime_of(app).statistics().busy


async def test_a_server_that_does_not_tell_the_path_as_it_was_written_is_served_too() -> None:
    async with party_app() as app:
        for raw, path, status in (
            (None, "/parties/chat/café/x", 200),
            (None, "/parties/chat/\ud800", 400),
            (b"/parties/chat/\xff", "/", 400),
        ):
            told = {"raw_path": raw, "path": path}
            answer = await ask(app, "GET", "/", instead=told)
            assert status == answer.status
            assert 200 != status or b"GET caf\xc3\xa9 /x  None" == answer.body


@pytest.mark.parametrize(
    ("root", "path", "prefix"),
    [
        ("/api", "/api/parties/chat/lobby", "/parties"),
        ("/api/", "/api/parties/chat/lobby", "/parties"),
        ("/api", "/parties/chat/lobby", "/parties"),
        ("/café/x", "/caf%C3%A9/x/parties/chat/lobby", "/parties"),
        ("/parties", "/parties/chat/lobby", ""),
        ("/parti", "/parties/chat/lobby", "/parties"),
        ("", "/rooms/v1/chat/lobby", "/rooms/v1"),
    ],
)
async def test_a_mounted_application_finds_its_own_part_of_the_path(root: str, path: str, prefix: str) -> None:
    async with party_app(prefix=prefix) as app:
        assert b"GET lobby /  None" == (await ask(app, "GET", path, root_path=root)).body


@pytest.mark.parametrize(
    ("root", "where"),
    [("", "/parties"), ("/parties", "/parties/parties"), ("/café/", "/caf%C3%A9/parties"), ("/\ud800", "/%3F/parties")],
)
async def test_what_is_nothing_says_where_rooms_are(root: str, where: str) -> None:
    async with party_app() as app:
        answer = await ask(app, "GET", "/chat/lobby", root_path=root)
    assert (404, f"there is nothing here: a room is at {where}/PARTY/ID") == (answer.status, answer.body.decode())


async def test_the_mount_itself_is_no_address() -> None:
    async with party_app(prefix="") as app:
        assert 404 == (await ask(app, "GET", "/api", root_path="/api")).status


async def test_a_query_that_is_not_utf_8_is_a_bad_request() -> None:
    async with party_app() as app:
        assert 400 == (await ask(app, "GET", "/parties/chat/lobby", query="a=%FF")).status
        assert 400 == (await denial(app, "/parties/chat/lobby", "_pk=%FF")).status


@pytest.mark.parametrize("prefix", ["parties", "/parties/", "/"])
async def test_a_prefix_is_checked_at_once(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        PartyApp(Runtime({}, backend=MemoryBackend()), prefix)


async def test_what_is_no_runtime_is_refused_at_once() -> None:
    wrong: Any = {"chat": Chat}
    with pytest.raises(TypeError, match="^PartyApp serves a Runtime, not a dict$"):
        PartyApp(wrong)


async def test_what_it_is_can_be_seen() -> None:
    app = PartyApp(Runtime({"chat": Chat}, backend=MemoryBackend()), "")
    assert "<PartyApp at / of <Runtime of chat, closed>>" == repr(app)


# --- requests ----------------------------------------------------------------


async def test_a_body_comes_whole_however_it_was_cut() -> None:
    async with party_app() as app:
        answer = await ask(app, "POST", "/parties/chat/lobby/json", [b'{"a":', b"", b" 1}"])
    assert (201, b'{"got": {"a": 1}}', "application/json") == (
        answer.status,
        answer.body,
        answer.headers["content-type"],
    )


async def test_a_body_of_many_empty_parts_holds_no_more_than_its_bytes() -> None:
    messages = chain(
        repeat({"type": "http.request", "body": b"", "more_body": True}, 20_000),
        [{"type": "http.request", "body": b"the end"}],
    )

    async def receive() -> Any:
        return next(messages)

    tracemalloc.start()
    try:
        assert b"the end" == await read_body(receive)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


async def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    async with party_app(max_body_bytes=10) as app:
        assert 200 == (await ask(app, "POST", "/parties/chat/lobby", [b"x" * 5, b"x" * 5])).status
        assert 413 == (await ask(app, "POST", "/parties/chat/lobby", [b"x" * 5, b"x" * 6])).status
        for length, status in (("11", 413), ("1" * 5000, 413), ("nonsense", 200)):
            headers = [("content-length", length)]
            assert status == (await ask(app, "POST", "/parties/chat/lobby", headers=headers)).status


async def test_an_error_of_the_room_is_told_to_the_log_and_not_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async with party_app() as app:
        answer = await ask(app, "GET", "/parties/chat/lobby/fail")
    assert (500, b"the room failed") == (answer.status, answer.body)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "chat/lobby: on_request failed" == record.getMessage()
    assert record.exc_info is not None
    assert "a secret" == str(record.exc_info[1])


async def test_a_room_that_returns_no_response_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    async with party_app() as app:
        assert 500 == (await ask(app, "GET", "/parties/chat/lobby/nothing")).status
    assert "chat/lobby: on_request gave NoneType; a Response is wanted" in caplog.text


async def test_a_room_that_takes_too_long_is_a_gateway_time_out(caplog: pytest.LogCaptureFixture) -> None:
    async with party_app(limits=Limits(event_timeout=timedelta(milliseconds=1))) as app:
        assert 504 == (await ask(app, "GET", "/parties/chat/lobby/slow")).status
    assert "ran longer" in caplog.text


async def test_a_response_may_be_any_asgi_application() -> None:
    async with party_app() as app:
        answer = await ask(app, "GET", "/parties/chat/lobby/app")
    assert (202, b"from an application") == (answer.status, answer.body)


async def test_a_response_without_a_body_has_no_length() -> None:
    async with party_app() as app:
        answer = await ask(app, "GET", "/parties/chat/lobby/empty")
    assert (204, b"", {}) == (answer.status, answer.body, answer.headers)


async def test_a_runtime_that_is_not_open_is_unavailable() -> None:
    app = PartyApp(Runtime({"chat": Chat}, backend=MemoryBackend()))
    assert 503 == (await ask(app, "GET", "/parties/chat/lobby")).status
    assert 503 == (await denial(app, "/parties/chat/lobby")).status


async def test_a_client_that_leaves_in_the_middle_of_its_body_asks_nothing() -> None:
    async with party_app() as app, anyio.create_task_group() as tasks:
        exchange = Exchange()
        tasks.start_soon(exchange.run, app, scope_of("http", "/parties/chat/lobby", method="POST"))
        await exchange.say(type="http.request", body=b"half", more_body=True)
        await exchange.say(type="http.disconnect")
        await exchange.ended.wait()
        assert 0 == runtime_of(app).statistics().awake


async def test_a_client_that_leaves_withdraws_a_request_that_has_not_begun() -> None:
    clock = FakeClock()
    async with party_app(runtime={"clock": clock}) as app, anyio.create_task_group() as tasks:
        first, second = Exchange(), Exchange()
        for exchange in (first, second):
            tasks.start_soon(exchange.run, app, scope_of("http", "/parties/chat/lobby/slow"))
            await exchange.say(type="http.request", body=b"")
            await exchange.say(type="http.request", body=b"")
            # Not until the runtime is idle: that it may be because nobody has come so far.
            await anyio.wait_all_tasks_blocked()
        await second.say(type="http.disconnect")
        await second.ended.wait()
        assert 1 == len(runtime_of(app).describe_work())
        await clock.advance(timedelta(seconds=30))
        assert b"late" == (await whole_answer(first)).body
        await first.ended.wait()


async def test_a_client_that_has_left_is_not_answered() -> None:
    async with party_app() as app:
        for kind in ("http", "websocket"):
            exchange = Exchange()
            exchange.has_left = True
            await exchange.say(type="http.request", body=b"")
            await exchange.run(app, scope_of(kind, "/nowhere"))


async def test_requests_at_once_are_bounded() -> None:
    clock = FakeClock()
    async with party_app(max_requests=1, runtime={"clock": clock}) as app, anyio.create_task_group() as tasks:
        exchange = Exchange()
        await exchange.say(type="http.request", body=b"")
        tasks.start_soon(exchange.run, app, scope_of("http", "/parties/chat/lobby/slow"))
        await anyio.wait_all_tasks_blocked()
        refused = await ask(app, "GET", "/parties/chat/lobby")
        assert (503, "1") == (refused.status, refused.headers["retry-after"])
        await clock.advance(timedelta(seconds=30))
        await whole_answer(exchange)
        assert 200 == (await ask(app, "GET", "/parties/chat/lobby")).status


async def test_another_kind_of_request_takes_its_place() -> None:
    class OtherRequest:
        def __init__(self, scope: Any, receive: Any) -> None:
            self.scope = scope
            self.receive = receive

    class Reader(Room):
        async def on_request(self, request: OtherRequest) -> Response:
            message = await request.receive()
            return Response(message["body"] + request.scope["partyroom"].user)

    async def log_in(request: Request) -> Request:
        return attrs.evolve(request, user=b"!")

    async with Runtime({"reader": Reader}, backend=MemoryBackend()) as runtime:
        app = PartyApp(runtime, request_factory=OtherRequest, on_before_request=log_in, max_body_bytes=5)
        assert b"hello!" == (await ask(app, "POST", "/parties/reader/1", [b"hello"])).body
        assert 413 == (await ask(app, "POST", "/parties/reader/1", [b"hello!"])).status


# --- sockets -----------------------------------------------------------------


async def test_a_client_is_let_in_and_speaks_and_hears() -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann") as ann:
        assert "ann is here, None" == await ann.heard_text()
        async with connected(app, "/parties/chat/lobby", "_pk=bob") as bob:
            assert "bob is here, None" == await ann.heard_text() == await bob.heard_text()
            await bob.text("hello")
            assert "hello" == await ann.heard_text() == await bob.heard_text()
            await ann.say(type="websocket.receive", bytes=b"\xff", text=None)
            assert b"\xff" == (await bob.hear())["bytes"]
        assert [["bob", 1000, "", True]] == await left(app, "lobby")


async def test_a_client_without_an_id_gets_a_fresh_one() -> None:
    async with party_app() as app:
        for query in ("", "_pk="):
            async with connected(app, "/parties/chat/lobby", query) as client:
                assert 24 == len((await client.heard_text()).split()[0])


async def test_a_connection_knows_its_address() -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann&x=1") as ann:
        await ann.hear()
        await ann.text("uri")
        assert "ws://here.example/parties/chat/lobby?_pk=ann&x=1" == await ann.heard_text()


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        ({"code": 1001, "reason": "bye"}, [1001, "bye", True]),
        ({"code": 1006, "reason": None}, [1006, "", False]),
        ({"code": None}, [1005, "", True]),
        ({}, [1005, "", True]),
    ],
)
async def test_a_room_hears_how_a_client_has_left(message: dict[str, Any], heard: list[Any]) -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann") as ann:
        await ann.text("a last word")
        await ann.say(type="websocket.disconnect", **message)
        await ann.ended.wait()
        assert [["ann", *heard]] == await left(app, "lobby")


async def test_a_room_closes_a_connection_after_what_it_has_sent() -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann") as ann:
        await ann.hear()
        await ann.text("first")
        await ann.text("go")
        assert "first" == await ann.heard_text()
        assert {"type": "websocket.close", "code": 4000, "reason": "gone"} == await ann.hear()
        await ann.ended.wait()
        assert [["ann", 4000, "gone", True]] == await left(app, "lobby")


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("\ud83d", "\ufffd"),
        ("a\udc00\ud83db", "a\ufffd\ufffdb"),
        ("\ud83d\ude00", "\U0001f600"),
        ("é\U0001f600", "é\U0001f600"),
    ],
)
async def test_a_text_that_is_not_unicode_is_sent_as_a_browser_sends_it(said: str, heard: str) -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann") as ann:
        await ann.hear()
        await runtime_of(app).parties["chat"].get("lobby").call(tell_all, said)
        assert heard == await ann.heard_text()


async def tell_all(room: Room, text: str) -> None:
    room.ctx.broadcast(text)


async def test_a_message_after_the_end_is_not_heard() -> None:
    async with party_app() as app, connected(app, "/parties/chat/lobby") as ann:
        await ann.hear()
        ann.reads = anyio.Event()
        await ann.text("go")
        await runtime_of(app).wait_idle()
        await ann.text("too late")
        await anyio.wait_all_tasks_blocked()
        ann.reads.set()
        assert "websocket.close" == (await ann.hear())["type"]


@pytest.mark.parametrize(
    ("room", "code", "reason"),
    [
        ("closed", 4001, "not today"),
        ("broken", 1011, "on_connect failed"),
        ("stuck", 1011, "on_connect failed"),
        ("odd", 1011, "é" * 61),
    ],
)
async def test_a_client_that_a_room_refuses_hears_why_in_a_close_frame(room: str, code: int, reason: str) -> None:
    async with party_app() as app, connecting(app, f"/parties/chat/{room}") as client:
        assert "websocket.accept" == (await client.handshake())["type"]
        assert {"type": "websocket.close", "code": code, "reason": reason} == await client.hear()
        await client.ended.wait()


async def test_why_a_client_could_not_be_let_in_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with party_app() as app, connecting(app, "/parties/chat/broken") as client:
        await client.handshake()
        await client.ended.wait()
    assert "a secret" in caplog.text
    assert "chat/broken: a client could not be let in" in caplog.text


async def test_an_id_that_cannot_be_one_is_a_bad_request() -> None:
    async with party_app() as app:
        assert 400 == (await denial(app, "/parties/chat/lobby", "_pk=" + "x" * 3000)).status


async def test_a_server_that_cannot_answer_a_handshake_is_asked_to_close() -> None:
    async with party_app() as app, connecting(app, "/parties/nobody/lobby", extensions={}) as client:
        assert {"type": "websocket.close", "code": 1008, "reason": ""} == await client.handshake()


async def test_a_message_over_the_limit_closes_the_connection_with_1009() -> None:
    async with party_app(max_message_bytes=10) as app, connected(app, "/parties/chat/lobby") as ann:
        await ann.hear()
        for fits in ("x" * 10, "é" * 5, "🎉" * 2):
            await ann.text(fits)
            assert fits == await ann.heard_text()
        await ann.text("é" * 6)
        assert 1009 == (await ann.hear())["code"]


@pytest.mark.parametrize("message", [{"text": "x" * 11}, {"bytes": b"x" * 11}, {"text": "🎉\udfff" * 2}])
async def test_every_kind_of_message_is_measured(message: dict[str, Any]) -> None:
    async with party_app(max_message_bytes=9) as app, connected(app, "/parties/chat/lobby") as ann:
        await ann.hear()
        await ann.say(type="websocket.receive", **message)
        assert 1009 == (await ann.hear())["code"]


async def test_a_client_that_does_not_read_is_closed_and_holds_up_nobody() -> None:
    clock = FakeClock()
    limits = Limits(outgoing_messages=10)
    async with (
        party_app(limits=limits, runtime={"clock": clock}) as app,
        connecting(app, "/parties/chat/lobby", "_pk=slow") as slow,
        connected(app, "/parties/chat/lobby", "_pk=ann") as ann,
    ):
        await slow.handshake()
        slow.reads = anyio.Event()
        for number in range(20):
            await ann.text(str(number))
        heard = [await ann.heard_text() for _ in range(22)]
        assert [str(number) for number in range(20)] == heard[2:]
        assert [["slow", 1013, "too many messages wait to be received", False]] == await left(app, "lobby")
        assert not slow.ended.is_set()
        await anyio.wait_all_tasks_blocked()
        await clock.advance(timedelta(seconds=10))
        await slow.ended.wait()


async def test_a_client_that_is_closed_before_it_is_spoken_to_is_waited_for_no_longer() -> None:
    clock, faulty = FakeClock(), FaultyBackend(MemoryBackend())
    async with (
        Runtime({"chat": Chat}, backend=faulty, clock=clock) as runtime,
        connecting(PartyApp(runtime), "/parties/chat/kept", "_pk=slow") as slow,
    ):
        slow.reads = anyio.Event()
        with faulty.hold_answer() as hold:
            await slow.say(type="websocket.connect")
            await hold.arrived()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runtime.parties["chat"].get("kept").call, close_all)
                await anyio.wait_all_tasks_blocked()
                hold.release()
        await anyio.wait_all_tasks_blocked()
        await clock.advance(CLOSE_TIMEOUT)
        await slow.ended.wait()


async def test_a_client_that_is_refused_and_does_not_hear_it_is_waited_for_no_longer() -> None:
    clock = FakeClock()
    async with party_app(runtime={"clock": clock}) as app, connecting(app, "/parties/chat/closed") as slow:
        slow.reads = anyio.Event()
        await slow.say(type="websocket.connect")
        await anyio.wait_all_tasks_blocked()
        await clock.advance(CLOSE_TIMEOUT)
        await slow.ended.wait()


async def close_all(room: Room) -> None:
    for each in room.ctx.get_connections():
        each.close(4000, "gone")


async def test_a_client_that_reads_again_hears_that_it_was_too_slow() -> None:
    async with (
        party_app(limits=Limits(outgoing_messages=10)) as app,
        connected(app, "/parties/chat/lobby", "_pk=slow") as slow,
    ):
        await slow.hear()
        slow.reads = anyio.Event()
        await slow.text("flood")
        await left(app, "lobby")
        await anyio.wait_all_tasks_blocked()
        slow.reads.set()
        assert 1013 == (await slow.hear())["code"]


async def test_a_client_that_leaves_while_it_is_let_in_is_gone() -> None:
    clock = FakeClock()
    async with party_app(runtime={"clock": clock}) as app, connecting(app, "/parties/chat/slow", "_pk=ann") as ann:
        await ann.say(type="websocket.connect")
        await anyio.wait_all_tasks_blocked()
        await ann.leave(1006)
        await ann.ended.wait()
        await clock.advance(timedelta(seconds=30))
        await runtime_of(app).wait_idle()
        assert [["ann", 1006, "", False]] == await left(app, "slow")


async def test_a_client_that_leaves_while_it_is_spoken_to_is_gone() -> None:
    async with party_app() as app, connecting(app, "/parties/chat/lobby", "_pk=ann") as ann:
        await ann.handshake()
        await ann.hear()
        ann.has_left = True
        await ann.text("hello")
        await ann.text("hello")
        await ann.ended.wait()
        assert [["ann", 1006, "", False]] == await left(app, "lobby")


async def test_what_a_server_raises_at_a_message_ends_the_connection_and_reaches_it() -> None:
    class Broken(Socket):
        @override
        async def app_send(self, message: Any) -> None:
            if message["type"] == "websocket.send":
                error = "no such message"
                raise RuntimeError(error)
            await super().app_send(message)

    async with party_app() as app:
        socket = Broken()
        await socket.say(type="websocket.connect")
        with pytest.raises(RuntimeError, match="no such message"):
            await socket.run(app, scope_of("websocket", "/parties/chat/lobby", "_pk=ann"))
        assert [["ann", 1000, "", True]] == await left(app, "lobby")


async def test_a_client_that_leaves_before_anything_was_done_for_it_is_nobody() -> None:
    async with party_app() as app:
        socket = Socket()
        await socket.say(type="websocket.connect")
        await socket.say(type="websocket.disconnect", code=1006)
        await socket.run(app, scope_of("websocket", "/parties/chat/lobby", "_pk=ann"))
        assert [] == await left(app, "lobby")


async def test_a_server_that_ends_its_task_ends_the_connection() -> None:
    async with party_app() as app:
        async with connecting(app, "/parties/chat/lobby", "_pk=ann") as ann:
            await ann.handshake()
        assert [["ann", 1000, "", True]] == await left(app, "lobby")


async def test_a_server_that_ends_its_task_is_held_up_by_nobody_and_not_spoken_to_any_more() -> None:
    was_late: list[bool] = []

    class Stuck(Socket):
        @override
        async def app_send(self, message: Any) -> None:
            was_late.append(self.ended.is_set())
            try:
                await super().app_send(message)
            except anyio.get_cancelled_exc_class():
                tasks.start_soon(chatter)
                raise

    async def chatter() -> None:
        for number in range(20):
            await ann.text(str(number))

    async with party_app() as app, connected(app, "/parties/chat/lobby", "_pk=ann") as ann:
        stuck = Stuck()
        await stuck.say(type="websocket.connect")
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as server:
                server.start_soon(stuck.run, app, scope_of("websocket", "/parties/chat/lobby", "_pk=stuck"))
                await stuck.hear()
                stuck.reads = anyio.Event()
                await ann.text("hello")
                await runtime_of(app).wait_idle()
                server.cancel_scope.cancel()
            stuck.reads.set()
        await runtime_of(app).wait_idle()
        await anyio.wait_all_tasks_blocked()
        assert {False} == {*was_late}
        assert [["stuck", 1000, "", True]] == await left(app, "lobby")


async def test_a_client_that_is_refused_may_speak_before_it_hears_so() -> None:
    class Eager(Socket):
        @override
        async def app_send(self, message: Any) -> None:
            await super().app_send(message)
            if message["type"] == "websocket.accept":
                await self.text("at last")
                await anyio.wait_all_tasks_blocked()

    async with party_app() as app:
        eager = Eager()
        await eager.say(type="websocket.connect")
        await eager.run(app, scope_of("websocket", "/parties/chat/closed"))
        assert ["websocket.accept", "websocket.close"] == [(await eager.hear())["type"] for _ in range(2)]


async def test_a_client_is_spoken_to_in_the_context_of_its_own_connection() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def watched(message: Any) -> None:
            seen.append(whose.get())
            await send(message)

        whose.set(scope["query_string"].decode())
        await app(scope, receive, watched)

    async with party_app() as app, connected(server, "/parties/chat/lobby", "_pk=ann") as ann:
        await ann.text("hello")
        assert ["ann is here, None", "hello"] == [await ann.heard_text(), await ann.heard_text()]
    assert {"_pk=ann"} == set(seen)


async def test_a_client_in_a_runtime_that_closes_hears_1001() -> None:
    runtime = Runtime({"chat": Chat}, backend=MemoryBackend())
    app = PartyApp(runtime)
    async with connecting(app, "/parties/chat/lobby") as ann:
        async with runtime:
            await ann.handshake()
            await ann.hear()
        assert 1001 == (await ann.hear())["code"]


async def test_a_message_to_a_runtime_that_is_closing_goes_nowhere() -> None:
    clock = FakeClock()
    runtime = Runtime({"chat": Chat}, backend=MemoryBackend(), clock=clock, close_timeout=CLOSE_TIMEOUT)
    app = PartyApp(runtime)
    async with connecting(app, "/parties/chat/lobby") as ann, anyio.create_task_group() as tasks:
        async with runtime:
            await ann.handshake()
            await ann.hear()
            tasks.start_soon(ask_until_the_end, runtime)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(close_after_a_message, runtime, ann, clock)
        assert 1001 == (await ann.hear())["code"]


async def test_a_client_whom_a_closing_runtime_does_not_let_in_is_told_that_it_is_unavailable() -> None:
    clock, answers = FakeClock(), list[Any]()
    runtime = Runtime({"chat": Chat}, backend=MemoryBackend(), clock=clock, close_timeout=CLOSE_TIMEOUT)
    app = PartyApp(runtime)
    async with anyio.create_task_group() as tasks:
        async with runtime:
            tasks.start_soon(ask_until_the_end, runtime)
            await anyio.wait_all_tasks_blocked()

            async def knock() -> None:
                answers.append(await denial(app, "/parties/chat/slow"))

            tasks.start_soon(knock)
            await anyio.wait_all_tasks_blocked()

            async def let_time_pass() -> None:
                await anyio.wait_all_tasks_blocked()
                await clock.advance(CLOSE_TIMEOUT)

            tasks.start_soon(let_time_pass)
    assert [503] == [each.status for each in answers]


async def ask_until_the_end(runtime: Runtime) -> None:
    """Keep a room busy for longer than the runtime waits for it."""
    with pytest.raises(RuntimeClosedError):
        await runtime.parties["chat"].get("slow").request(Request(path="/slow"))


async def close_after_a_message(runtime: Runtime, client: Any, clock: FakeClock) -> None:
    """Say something while the runtime closes, then let time pass so that it can."""
    await anyio.wait_all_tasks_blocked()
    assert "closing" in repr(runtime)
    await client.text("too late")
    await anyio.wait_all_tasks_blocked()
    # No further: the application is as patient with a client that does not take its end.
    await clock.advance(CLOSE_TIMEOUT)


async def test_clients_are_bounded_for_each_room_and_in_all() -> None:
    async with party_app(max_connections=2, max_room_connections=1) as app:
        async with connected(app, "/parties/chat/a"):
            assert 503 == (await denial(app, "/parties/chat/a")).status
            async with connected(app, "/parties/chat/b"):
                assert 503 == (await denial(app, "/parties/chat/c")).status
            async with connected(app, "/parties/chat/c"):
                pass
        async with connected(app, "/parties/chat/a"):
            pass
        assert 0 == len(app._connections)


async def test_the_first_subprotocol_that_is_offered_is_spoken() -> None:
    async with party_app() as app, connecting(app, "/parties/chat/lobby", subprotocols=["one", "two"]) as client:
        assert "one" == (await client.handshake())["subprotocol"]


# --- hooks and origins -------------------------------------------------------


async def test_a_hook_lets_pass_changes_or_answers_instead() -> None:
    async def hook(request: ConnectRequest) -> ConnectRequest | Response | None:
        match request.query.get("token"):
            case "secret":
                return attrs.evolve(
                    request, user="ann", room_id="vip", connection_id="c1", tags=("host",), state={"n": 1}
                )
            case "none":
                return None
            case _:
                return Response("log in first", 401)

    async with party_app(on_before_connect=hook) as app:
        refused = await denial(app, "/parties/chat/lobby")
        assert (401, b"log in first") == (refused.status, refused.body)
        assert 0 == runtime_of(app).statistics().awake
        async with connected(app, "/parties/chat/lobby", "token=none&_pk=x") as client:
            assert "x is here, None" == await client.heard_text()
        async with connected(app, "/parties/chat/lobby", "token=secret") as client:
            assert "c1 is here, ann" == await client.heard_text()
            await client.text("tags")
            await client.text("state")
            assert ("host", "{'n': 1}") == (await client.heard_text(), await client.heard_text())
        assert [["c1", 1000, "", True]] == await left(app, "vip")


async def test_a_hook_of_requests_lets_pass_changes_or_answers_instead() -> None:
    async def hook(request: Request) -> Request | Response | None:
        match request.headers.get("Authorization"):
            case "secret":
                return attrs.evolve(request, user="ann", party="chat", room_id="vip")
            case "none":
                return None
            case _:
                return Response("log in first", 401, {"WWW-Authenticate": "Basic"})

    async with party_app(on_before_request=hook) as app:
        answers: list[Answer] = [
            await ask(app, "POST", "/parties/chat/lobby", [b"hi"], headers=[("authorization", word)])
            for word in ("", "none", "secret")
        ]
    assert [b"log in first", b"POST lobby / hi None", b"POST vip / hi ann"] == [answer.body for answer in answers]
    assert (401, "Basic") == (answers[0].status, answers[0].headers["www-authenticate"])


@pytest.mark.parametrize("wrong", ["a string", Request()])
async def test_a_hook_that_gives_something_else_lets_nobody_in(wrong: object, caplog: pytest.LogCaptureFixture) -> None:
    async def hook(_request: ConnectRequest) -> Any:
        return wrong

    async with party_app(on_before_connect=hook) as app:
        assert 500 == (await denial(app, "/parties/chat/lobby")).status
    assert "ConnectRequest" in caplog.text


async def test_a_hook_that_raises_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async def hook(_request: Request) -> None:
        message = "a secret"
        raise RuntimeError(message)

    async with party_app(on_before_request=hook) as app:
        answer = await ask(app, "GET", "/parties/chat/lobby")
    assert (500, b"the host failed") == (answer.status, answer.body)
    assert "a secret" in caplog.text


async def test_a_room_that_a_hook_made_up_is_checked_too() -> None:
    async def hook(request: Request) -> Request:
        return attrs.evolve(request, room_id="")

    async with party_app(on_before_request=hook) as app:
        assert 400 == (await ask(app, "GET", "/parties/chat/lobby")).status


ORIGINS: list[tuple[Any, str, str, int]] = [
    ((), "http://here.example", "here.example", 200),
    ((), "https://here.example", "here.example:443", 200),
    ((), "http://HERE.example:80", "here.example", 200),
    ((), "http://here.example:8080", "here.example", 403),
    ((), "http://evil.example", "here.example", 403),
    ((), "null", "here.example", 403),
    ((), "http://here.example:port", "here.example", 403),
    ((), "http://[", "[", 403),
    (("https://there.example",), "https://there.example", "here.example", 200),
    (("https://there.example",), "https://evil.example", "here.example", 403),
    ("*", "https://evil.example", "here.example", 200),
]


async def test_a_page_of_another_origin_may_not_ask() -> None:
    for allowed, origin, host, status in ORIGINS:
        async with party_app(allowed_origins=allowed) as app:
            headers = [(b"host", host.encode()), (b"origin", origin.encode())]
            answer = await ask(app, "GET", "/parties/chat/lobby", raw_headers=headers)
            assert status == answer.status, (allowed, origin, host)


async def test_origins_are_no_single_string() -> None:
    one: Any = "https://example.org"
    with pytest.raises(ValueError, match="allowed_origins"):
        PartyApp(Runtime({}, backend=MemoryBackend()), allowed_origins=one)


# --- around and inside other applications ------------------------------------


async def test_what_is_not_below_the_prefix_is_the_inner_application_s() -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "http":
            await plain_app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4004, "reason": "inner"})

    async with party_app(app=inner) as app:
        assert 202 == (await ask(app, "GET", "/other")).status
        async with connecting(app, "/other") as socket:
            assert 4004 == (await socket.handshake())["code"]
        await Exchange().run(app, {"type": "something"})
    assert ["http", "websocket", "something"] == seen


async def test_an_unknown_kind_of_connection_is_refused() -> None:
    exchange = Exchange()
    app = PartyApp(Runtime({}, backend=MemoryBackend()))
    with pytest.raises(ValueError, match="something"):
        await exchange.run(app, {"type": "something"})
