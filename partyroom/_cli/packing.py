"""Stored bytes as JSON, and back to the same bytes.

Owns the three forms: a value that is JSON text of the default codec stands as that JSON, any other text as
``{"$text": ...}``, anything else as ``{"$base64": ...}``.

Promises that what is unpacked is what was packed, to the byte, so that values of any codec pass through.

Must never interpret a value.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from typing import Any, Final, cast

from partyroom._core.tagged_json import to_json

__all__ = ["pack", "unpack"]

TEXT: Final = "$text"
BASE64: Final = "$base64"


def pack(data: bytes) -> object:
    """Give something that JSON can hold, for any bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {BASE64: b2a_base64(data, newline=False).decode("ascii")}
    try:
        value = json.loads(text)
        is_same = to_json(value) == text and _form(value) is None
    except (ValueError, RecursionError):
        return {TEXT: text}
    return value if is_same else {TEXT: text}


def unpack(packed: object) -> bytes:
    """Give the bytes that were packed; raise ``ValueError`` or ``TypeError`` for what :func:`pack` has not made."""
    form = _form(packed)
    if form is None:
        return to_json(packed).encode()
    content = cast("Mapping[str, object]", packed)[form]
    if type(content) is not str:
        raise TypeError(f"{form} holds {content!r:.60}, which is no text")
    return content.encode() if form == TEXT else a2b_base64(content, strict_mode=True)


def _form(packed: Any) -> str | None:  # noqa: ANN401 - whatever JSON gave
    """Give the form that an object stands in, if it is one that this module makes."""
    return next((form for form in (TEXT, BASE64) if type(packed) is dict and packed.keys() == {form}), None)
