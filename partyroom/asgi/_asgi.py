"""The words of ASGI: what a server calls an application with.

Owns the types, which every framework writes in the same way, and nothing else.

Promises nothing: the messages are the servers' own dicts.

Must never be imported for anything but annotations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""What a connection is about."""
Message = MutableMapping[str, Any]
"""What is received or sent on it."""
Receive = Callable[[], Awaitable[Message]]
"""Waits for the next message of the server."""
Send = Callable[[Message], Awaitable[None]]
"""Hands a message to the server; waits while its buffers are full."""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application: serves one connection to its end."""
