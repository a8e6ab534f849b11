"""Rooms in the frameworks that people use, each by its recipe, on a real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import attrs
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from partyroom import Connection, Room, Runtime
from partyroom.asgi import ConnectRequest, PartyApp
from partyroom.backends.memory import MemoryBackend
from partyroom.blocking import BlockingRuntime
from tests.hosts.servers import dial, fetch, in_thread, serve

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def anyio_backend() -> str:
    """Give the frameworks' own loop."""
    return "asyncio"


def framework(module: str) -> Any:
    """Give what takes long to import, and one test needs."""
    return import_module(module)


class Echo(Room):
    async def on_connect(self, connection: Connection) -> None:
        request: ConnectRequest = connection.request
        connection.send(f"{self.ctx.id} {request.user}")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        sender.send(message)

    async def on_request(self, request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"room": self.ctx.id, "got": await request.json(), "path": request.url.path})


async def log_in(request: ConnectRequest) -> ConnectRequest:
    headers = HTTPConnection(dict(request.scope)).headers
    return attrs.evolve(request, user=headers.get("x-user"))


def visit(port: int, prefix: str) -> None:
    """Use what a framework serves: its own page, a room by HTTP, a room by WebSocket."""
    assert (200, b"own page") == fetch(port, "GET", "/own")
    assert 404 == fetch(port, "GET", "/nowhere")[0]
    status, body = fetch(port, "POST", f"{prefix}/echo/a%2Fb", b"[1]")
    assert (200, f'{{"room":"a/b","got":[1],"path":"{prefix}/echo/a/b"}}'.encode()) == (status, body)
    with dial(port, f"{prefix}/echo/a%2Fb", additional_headers={"X-User": "ann"}) as client:
        assert "a/b ann" == client.recv(10)
        client.send("hello")
        assert "hello" == client.recv(10)


def new_runtime() -> Runtime:
    return Runtime({"echo": Echo}, backend=MemoryBackend())


async def own_page(_request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse("own page")


async def test_starlette_mounts_rooms_and_enters_the_runtime() -> None:
    runtime = new_runtime()
    rooms = PartyApp(runtime, prefix="", on_before_connect=log_in, request_factory=StarletteRequest)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with runtime:
            yield

    app = Starlette(routes=[Route("/own", own_page), Mount("/rooms", rooms)], lifespan=lifespan)
    async with serve("uvicorn", app) as port:
        await in_thread(visit, port, "/rooms")


async def test_rooms_around_starlette_need_no_lifespan_of_the_host() -> None:
    inner = Starlette(routes=[Route("/own", own_page)])
    app = PartyApp(new_runtime(), app=inner, on_before_connect=log_in, request_factory=StarletteRequest)
    async with serve("uvicorn", app) as port:
        await in_thread(visit, port, "/parties")


async def test_fastapi_mounts_rooms_and_enters_the_runtime() -> None:
    runtime = new_runtime()

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None]:
        async with runtime:
            yield

    app = framework("fastapi").FastAPI(lifespan=lifespan)
    app.add_api_route("/own", own_page)
    app.mount("/api", PartyApp(runtime, on_before_connect=log_in, request_factory=StarletteRequest))
    async with serve("uvicorn", app) as port:
        await in_thread(visit, port, "/api/parties")


async def test_django_which_refuses_lifespan_lives_inside() -> None:
    # By name, since Django says nothing of its types.
    names = ("django.conf", "django.core.asgi", "django.http", "django.urls", "django.test")
    conf, asgi, http, urls, test = map(import_module, names)

    async def django_page(_request: object) -> Any:
        return http.HttpResponse("own page")

    # Once in a process; the README's program may have done it.
    with suppress(RuntimeError):
        conf.settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"])
    with test.override_settings(ROOT_URLCONF=(urls.path("own", django_page),)):
        app = PartyApp(
            new_runtime(), app=asgi.get_asgi_application(), on_before_connect=log_in, request_factory=StarletteRequest
        )
        async with serve("uvicorn", app) as port:
            await in_thread(visit, port, "/parties")


class Counter(Room):
    async def increment(self) -> int:
        total: int = await self.ctx.storage.get("total", 0) + 1
        await self.ctx.storage.put("total", total)
        return total


def test_flask_calls_rooms_and_waits() -> None:
    app = framework("flask").Flask(__name__)
    with BlockingRuntime({"counter": Counter}, backend=MemoryBackend()) as runtime:

        def count(name: str) -> dict[str, Any]:
            return {"total": runtime.parties["counter"].get(name).call(Counter.increment)}

        app.add_url_rule("/count/<name>", view_func=count)
        client = app.test_client()
        assert [{"total": 1}, {"total": 2}] == [client.get("/count/a").json for _ in range(2)]
