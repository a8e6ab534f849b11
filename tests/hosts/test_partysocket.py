"""PartyKit's own client, unchanged, under Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from partyroom import Connection, Room, Runtime
from partyroom.asgi import PartyApp, Request, Response
from partyroom.backends.memory import MemoryBackend
from tests.hosts.servers import in_thread, serve

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NODE = shutil.which("node")
MODULES = Path(os.environ.get("PARTYROOM_NODE_MODULES", "node_modules"))
"""Where `npm install partysocket ws` has put them."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Chat(Room):
    async def on_connect(self, connection: Connection) -> None:
        connection.send(f"{connection.id} in {self.ctx.id}")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        if message == "go":
            sender.close(4000, "gone")
        else:
            self.ctx.broadcast(message)

    async def on_request(self, request: Request) -> Response:
        return Response(f"{request.method} {request.path} {request.text()}")


def run_client(port: int) -> list[str]:
    assert NODE is not None
    script = Path(__file__).with_name("partysocket.mjs")
    answer = subprocess.run(
        [NODE, str(script), str(port), str(MODULES.resolve())], check=True, capture_output=True, text=True, timeout=40
    )
    heard: list[str] = json.loads(answer.stdout)
    return heard


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.skipif(not (MODULES / "partysocket").is_dir(), reason="PARTYROOM_NODE_MODULES names no partysocket")
async def test_partysocket_connects_speaks_hears_and_comes_back_with_the_same_id() -> None:
    async with serve("uvicorn", PartyApp(Runtime({"chat": Chat}, backend=MemoryBackend()))) as port:
        heard = await in_thread(run_client, port)
    assert ["ann in café", "hello", "ann in café", "again", "POST /x hi"] == heard
