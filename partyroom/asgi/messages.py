"""What a room and a host's hooks see of HTTP: requests, responses and their headers.

Owns four frozen values. They know nothing of sockets: a test makes them by hand.

Promises that a response that could be constructed can be sent: its status and
headers are checked where they are written, not where nobody can mend them.

Must never hold a server's own objects but ``scope``, which is handed on as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast, final
from urllib.parse import parse_qsl

import attrs
from typing_extensions import override

__all__ = ["ConnectRequest", "Headers", "Request", "Response"]

BODILESS: Final = {204, 304}
"""The final statuses that have no body (RFC 9110, 6.4.1)."""


@final
class Headers(Mapping[str, str]):
    """Headers by name, in whatever case; of several with one name the first counts, ``get_all`` gives each."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple((name.lower(), value) for name, value in pairs)

    @override
    def __repr__(self) -> str:
        return f"Headers({list(self._pairs)!r})"

    @override
    def __getitem__(self, name: str) -> str:
        for found in self.get_all(name):
            return found
        raise KeyError(name)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    @override
    def __len__(self) -> int:
        return len(dict(self._pairs))

    def get_all(self, name: str) -> list[str]:
        """Give all values of a header, in the order in which they came."""
        wanted = name.lower()
        return [value for found, value in self._pairs if found == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Give all headers in order, names in lower case."""
        return self._pairs


@attrs.frozen(kw_only=True)
class Request:
    """An HTTP request to a room: what ``on_request`` is given, and the host's ``on_before_request`` before it.

    A hook changes one by ``attrs.evolve(request, user=...)``.
    """

    method: str = "GET"
    """In upper case."""
    party: str = ""
    """The name of the party that is asked for; a hook may name another."""
    room_id: str = ""
    """The room that is asked for, percent-decoded; a hook may name another."""
    path: str = "/"
    """What follows the room's id in the address, percent-decoded, beginning with ``/``."""
    url: str = ""
    """The whole address, as far as the server tells it."""
    query: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The parameters behind the ``?``; of several with one name the last counts."""
    headers: Headers = attrs.field(factory=Headers)
    body: bytes = b""
    """The whole body; still empty when ``on_before_request`` sees it."""
    client: str = ""
    """The address of the other end, or ``""``."""
    user: Any = None
    """Whatever the host's hook found out and puts here."""
    scope: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False, eq=False)
    """The server's own description, with what frameworks around have put into it (a session, a user)."""

    def text(self) -> str:
        """Give the body as text; raise ``UnicodeDecodeError`` if it is not UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:  # noqa: ANN401 - whatever the client has sent
        """Give the body as read from JSON; raise ``ValueError`` if it is none."""
        return json.loads(self.body)


@attrs.frozen(kw_only=True)
class ConnectRequest(Request):
    """A client that wants to connect: what ``on_before_connect`` is given, and ``connection.request`` in ``on_connect``."""

    connection_id: str | None = None
    """The id that the client asks for (``_pk``), which anybody can choose; ``None`` for a random one."""
    tags: tuple[str, ...] = ()
    """Tags for the connection, from a hook."""
    state: object = None
    """The connection's first state, from a hook."""
    subprotocols: tuple[str, ...] = ()
    """What the client offers to speak, in its order of preference."""
    subprotocol: str | None = None
    """Which of them is chosen: the first, unless a hook says otherwise. A browser hangs up if none of its offers is."""


def _check_headers(_response: object, _attribute: object, headers: tuple[tuple[str, str], ...]) -> None:
    """Refuse what would end a header and begin something else."""
    for name, value in headers:
        if not name or not name.isascii() or any(each in "\r\n\0" for each in name + value):
            message = f"not a header: {name!r}: {value!r}"
            raise ValueError(message)
        value.encode("latin-1")


def _check_status(_response: object, _attribute: object, status: int) -> None:
    if not 200 <= status <= 599:  # noqa: PLR2004 - the final statuses
        message = f"a response's status is 200 to 599, not {status}"
        raise ValueError(message)


def _to_pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    pairs: Iterable[tuple[str, str]] = (
        cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    )
    return tuple((name.lower(), value) for name, value in pairs)


@attrs.frozen
class Response:
    """An answer over HTTP: what ``on_request`` returns, or a hook that answers instead of the room.

    Text is sent as UTF-8. Without a ``content-type`` among the headers it is ``text/plain`` for text and
    ``application/octet-stream`` for bytes. Raises ``ValueError`` for a status or headers that could not be sent.
    """

    body: str | bytes = b""
    status: int = attrs.field(default=200, validator=_check_status)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_to_pairs, validator=_check_headers)

    @classmethod
    def json(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> Response:
        """Make an answer of a value, written as JSON."""
        return cls(json.dumps(value), status, (*_to_pairs(headers), ("content-type", "application/json")))

    def content(self) -> bytes:
        """Give the bytes of the body, what is not Unicode replaced; none for a status that has no body."""
        if self.status in BODILESS:
            return b""
        return self.body.encode("utf-8", "replace") if isinstance(self.body, str) else self.body

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        """Give the headers as they are sent, with type and length of the body."""
        pairs = [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers]
        names = {name for name, _ in pairs}
        if self.status not in BODILESS:
            if b"content-type" not in names:
                pairs.append((b"content-type", self._media_type()))
            if b"content-length" not in names:
                pairs.append((b"content-length", str(len(self.content())).encode("ascii")))
        return pairs

    def _media_type(self) -> bytes:
        return b"text/plain; charset=utf-8" if isinstance(self.body, str) else b"application/octet-stream"


def read_query(query_string: bytes) -> dict[str, str]:
    """Give the parameters of a query; raise ``UnicodeError`` for what is not UTF-8."""
    return dict(parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict"))
