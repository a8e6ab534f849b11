"""Requests, responses and headers, made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from partyroom.asgi import Headers, Request, Response


def test_headers_are_found_in_any_case_and_the_first_counts() -> None:
    headers = Headers([("Accept", "a"), ("accept", "b"), ("X-One", "1")])
    assert "a" == headers["ACCEPT"]
    assert ["a", "b"] == headers.get_all("Accept")
    assert (("accept", "a"), ("accept", "b"), ("x-one", "1")) == headers.pairs()
    assert ["accept", "x-one"] == list(headers)
    assert 2 == len(headers)
    assert "none" == headers.get("missing", "none")
    assert "Headers([('a', 'b')])" == repr(Headers([("A", "b")]))


def test_a_header_that_is_missing_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="missing"):
        Headers()["missing"]


def test_a_request_is_made_by_hand_for_tests() -> None:
    request = Request(body=b'{"a": [1]}')
    assert {"a": [1]} == request.json()
    assert '{"a": [1]}' == request.text()
    assert ("GET", "/", "", None) == (request.method, request.path, request.url, request.user)


@pytest.mark.parametrize(
    ("response", "headers", "content"),
    [
        (Response("é"), [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")], b"\xc3\xa9"),
        (Response("\ud83d"), [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"1")], b"?"),
        (Response(b"x"), [(b"content-type", b"application/octet-stream"), (b"content-length", b"1")], b"x"),
        (Response(b"", 304, {"ETag": "1"}), [(b"etag", b"1")], b""),
        (
            Response.json([1], headers=[("X-A", "1")]),
            [(b"x-a", b"1"), (b"content-type", b"application/json"), (b"content-length", b"3")],
            b"[1]",
        ),
        (
            Response("", 200, {"Content-Length": "0", "Content-Type": "a/b"}),
            [(b"content-length", b"0"), (b"content-type", b"a/b")],
            b"",
        ),
    ],
)
def test_a_response_knows_what_is_sent(response: Response, headers: list[Any], content: bytes) -> None:
    assert headers == response.wire_headers()
    assert content == response.content()


@pytest.mark.parametrize("status", [0, 100, 199, 600])
def test_a_status_that_ends_nothing_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        Response("", status)


@pytest.mark.parametrize("header", [("", "x"), ("é", "x"), ("a", "b\r\nc: d"), ("a\n", "b"), ("a", "\0"), ("a", "🎉")])
def test_a_header_that_would_be_something_else_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"header|latin-1"):
        Response("", 200, [header])
