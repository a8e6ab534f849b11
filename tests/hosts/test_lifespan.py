"""The runtime's life around an inner application's, and whose it is to begin and end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from typing_extensions import override

from partyroom import BackendLockedError, Room, Runtime, RuntimeClosedError
from partyroom.asgi import PartyApp
from partyroom.backends.memory import MemoryBackend
from partyroom.testing.backend_wrapper import BackendWrapper
from tests.hosts.driver import Exchange, Message

pytestmark = pytest.mark.anyio

SCOPE: Message = {"type": "lifespan", "asgi": {"version": "3.0"}}


def new_runtime() -> Runtime:
    return Runtime({"room": Room}, backend=MemoryBackend())


def is_open(runtime: Runtime) -> bool:
    return "open>" in repr(runtime)


@asynccontextmanager
async def serving(app: PartyApp) -> AsyncGenerator[Exchange]:
    """Run a lifespan as a server does, as far as its start."""
    exchange = Exchange()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, app, SCOPE)
        await exchange.say(type="lifespan.startup")
        yield exchange


async def stop(exchange: Exchange) -> Message:
    await exchange.say(type="lifespan.shutdown")
    return await exchange.hear()


async def test_alone_it_opens_and_closes_the_runtime() -> None:
    runtime = new_runtime()
    async with serving(PartyApp(runtime)) as exchange:
        assert {"type": "lifespan.startup.complete"} == await exchange.hear()
        assert is_open(runtime)
        assert {"type": "lifespan.shutdown.complete"} == await stop(exchange)
        assert not is_open(runtime)


async def test_an_inner_application_lives_within_the_runtime_s_life() -> None:
    runtime = new_runtime()
    seen: list[tuple[str, bool]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        for what in ("startup", "shutdown"):
            message = await receive()
            seen.append((message["type"], is_open(runtime)))
            await send({"type": f"lifespan.{what}.complete"})

    async with serving(PartyApp(runtime, app=inner)) as exchange:
        assert {"type": "lifespan.startup.complete"} == await exchange.hear()
        assert {"type": "lifespan.shutdown.complete"} == await stop(exchange)
        assert not is_open(runtime)
    assert [("lifespan.startup", True), ("lifespan.shutdown", True)] == seen


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    message = "only http here"
    raise ValueError(message)


async def reads_and_refuses(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await refuses(scope, receive, send)


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    return


async def starts_and_goes(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("inner", [refuses, reads_and_refuses, says_nothing, starts_and_goes])
async def test_an_inner_application_without_a_lifespan_or_with_half_of_one_loses_nothing(inner: Any) -> None:
    runtime = new_runtime()
    async with serving(PartyApp(runtime, app=inner)) as exchange:
        assert {"type": "lifespan.startup.complete"} == await exchange.hear()
        await anyio.wait_all_tasks_blocked()
        assert is_open(runtime)
        assert {"type": "lifespan.shutdown.complete"} == await stop(exchange)
        assert not is_open(runtime)


async def test_an_inner_application_that_cannot_start_says_so_itself() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    runtime = new_runtime()
    async with serving(PartyApp(runtime, app=inner)) as exchange:
        assert {"type": "lifespan.startup.failed", "message": "no database"} == await exchange.hear()
        await exchange.ended.wait()
        assert not is_open(runtime)


async def test_an_inner_application_that_breaks_later_takes_the_runtime_with_it() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        message = "broken"
        raise ValueError(message)

    runtime = new_runtime()
    exchange = Exchange()
    await exchange.say(type="lifespan.startup")
    await exchange.say(type="lifespan.shutdown")
    with pytest.raises(ValueError, match="broken"):
        await exchange.run(PartyApp(runtime, app=inner), SCOPE)
    assert not is_open(runtime)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendLockedError("rooms.db", 42), "BackendLockedError: rooms.db is open for writing in process 42"),
        (ConnectionError("nobody there"), "ConnectionError: nobody there"),
    ],
    ids=["of the library", "of a backend's own"],
)
async def test_a_runtime_that_cannot_be_opened_stops_the_server(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Locked(BackendWrapper):
        @override
        async def __aenter__(self) -> Any:
            raise error

    async with serving(PartyApp(Runtime({}, backend=Locked(MemoryBackend())))) as exchange:
        answer = await exchange.hear()
    assert "lifespan.startup.failed" == answer["type"]
    assert told in answer["message"]
    assert "could not be opened" in caplog.text


async def test_a_runtime_that_the_host_has_entered_stays_the_host_s() -> None:
    async with new_runtime() as runtime:
        async with serving(PartyApp(runtime)) as exchange:
            assert {"type": "lifespan.startup.complete"} == await exchange.hear()
            assert {"type": "lifespan.shutdown.complete"} == await stop(exchange)
        assert is_open(runtime)
    with pytest.raises(RuntimeClosedError):
        runtime.statistics()
