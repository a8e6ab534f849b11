"""Rooms over HTTP and WebSocket: an ASGI application for a host to mount.

Owns nothing that outlives a connection: which room an address means, who may
come in, and how messages travel between a socket and a room.

Promises that every bad input over the wire ends in a defined status or close
code, that no traceback reaches a client, and that what one client can make the
process hold is bounded.

Must never import a web framework or a server: what they hand in is plain ASGI.
"""

from __future__ import annotations

from partyroom.asgi.app import PartyApp
from partyroom.asgi.messages import ConnectRequest, Headers, Request, Response

__all__ = ["ConnectRequest", "Headers", "PartyApp", "Request", "Response"]
