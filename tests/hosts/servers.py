"""Real servers on the loopback interface, each in the loop of the test, and what talks to them from a thread."""

from __future__ import annotations

import http.client
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import uvicorn
from anyio import create_task_group, to_thread
from websockets.sync.client import ClientConnection, connect

T = TypeVar("T")

SERVERS: dict[str, tuple[str, str]] = {
    "uvicorn": ("asyncio", "uvicorn"),
    "uvicorn-wsproto": ("asyncio", "uvicorn-wsproto"),
    "hypercorn": ("asyncio", "hypercorn"),
    "hypercorn-trio": ("trio", "hypercorn-trio"),
}
"""Each with the loop that it needs."""


def listening(port: int = 0) -> socket.socket:
    """Give a socket that clients can connect to from now on, so that nobody has to wait for the server."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serve(kind: str, app: Any, port: int = 0) -> AsyncGenerator[int]:
    """Serve an application for as long as the block runs, and give the port; 0 for any that is free."""
    with closing(listening(port)) as listener:
        port = listener.getsockname()[1]
        run, stop = uvicorn_server(app, kind, listener) if "uvicorn" in kind else hypercorn_server(app, kind, listener)
        async with create_task_group() as tasks:
            tasks.start_soon(run)
            yield port
            stop()


def uvicorn_server(app: Any, kind: str, listener: socket.socket) -> tuple[Any, Callable[[], None]]:
    protocol: Any = "wsproto" if kind.endswith("wsproto") else "websockets-sansio"
    config = uvicorn.Config(
        app, log_config=None, lifespan="on", ws=protocol, ws_max_size=2**21, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    return partial(server.serve, sockets=[listener]), stop


def hypercorn_server(app: Any, kind: str, listener: socket.socket) -> tuple[Any, Callable[[], None]]:
    config = hypercorn.config.Config()
    # From here on the socket is the server's to close.
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 1
    config.websocket_max_message_size = 2**21
    stopped = anyio.Event()
    module: Any = hypercorn.trio if kind.endswith("trio") else hypercorn.asyncio
    return partial(module.serve, app, config, shutdown_trigger=stopped.wait, mode="asgi"), stopped.set


async def in_thread(scenario: Callable[..., T], *args: object) -> T:
    """Run what a client does in a thread of its own, while the loop serves it."""
    return await to_thread.run_sync(partial(scenario, *args))


def dial(port: int, path: str, **options: Any) -> ClientConnection:
    """Open a WebSocket."""
    url = f"ws://127.0.0.1:{port}{path}"
    # Without a bound for what waits: a client that is not asked to read must still take part in the end.
    open_socket: Any = connect
    client: ClientConnection = open_socket(
        url, open_timeout=20, close_timeout=10, proxy=None, max_queue=None, max_size=None, **options
    )
    return client


def fetch(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one HTTP request; give status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def raw_socket(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Open a bare connection."""
    client = socket.socket()
    client.settimeout(20)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    return client


def raw_websocket(port: int, path: str, *, receive_buffer: int | None = None) -> socket.socket:
    """Open a WebSocket by hand, so that anything at all can be sent on it."""
    client = raw_socket(port, receive_buffer=receive_buffer)
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Read what comes until the server closes, or for as long as the client is patient."""
    parts = b""
    with suppress(ConnectionError, TimeoutError):
        while part := client.recv(65536):
            parts += part
    return parts


def read_to_close_frame(client: socket.socket) -> int | None:
    """Read what comes until a close frame, and give its code; ``None`` if the server hangs up without one."""
    data = b""
    with suppress(ConnectionError):
        while part := client.recv(65536):
            data += part
            place = data.rfind(b"\x88")
            if 0 <= place <= len(data) - 4:
                return int.from_bytes(data[place + 2 : place + 4], "big")
    return None
