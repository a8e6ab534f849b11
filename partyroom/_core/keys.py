"""Names and ranges of names: what may be a key, a room's id, an alarm's name, and which keys a listing covers.

Owns the checks of everything textual that an author hands in, and the way from ``prefix``, ``start``, ``start_after``
and ``end`` to one :class:`~partyroom.types.KeyRange`.

Promises that what passes is an exact ``str`` that has a UTF-8 form within its limit, that no key is equal to another
by anything but its text, and that a range holds exactly the keys that G17 names.

Must never touch a store: whether a key exists is not asked here.
"""

from __future__ import annotations

from typing import Final

from partyroom.errors import InvalidKeyError, InvalidRoomIdError, LimitExceededError
from partyroom.types import KeyRange

__all__ = ["check_key", "check_limit", "check_name", "check_room_id", "contains", "key_range"]

MAX_LIMIT: Final = 2**63 - 1
"""The largest count that a store can be expected to take: a signed integer of 64 bits."""

LAST_CHARACTER: Final = "\U0010ffff"
LAST_BEFORE_SURROGATES: Final = "\ud7ff"
FIRST_AFTER_SURROGATES: Final = "\ue000"


def check_key(key: object, limit: int, where: object) -> str:
    """Give a storage key as an exact ``str``; the empty one is a key as well.

    ``limit`` is ``Limits.key_bytes``. ``where`` is the room, turned into text only for an error. Raises
    :class:`InvalidKeyError`, :class:`LimitExceededError`.
    """
    # Nearly every key ends here; each read and write of a room pays for this line.
    if type(key) is str and key.isascii() and len(key) <= limit:
        return key
    return _check_size(_check_text(key, "key", where), limit, "key", where)


def check_name(name: object, limit: int, where: object, what: str = "alarm name") -> str:
    """Give a name (of an alarm, a connection, a tag: ``what``) as an exact ``str`` that is not empty.

    ``limit`` is ``Limits.key_bytes``. Raises :class:`InvalidKeyError`, :class:`LimitExceededError`.
    """
    text = _check_text(name, what, where)
    if not text:
        message = f"{where}: {what} must not be empty"
        raise InvalidKeyError(message)
    return _check_size(text, limit, what, where)


def check_room_id(room_id: object, limit: int, party: str) -> str:
    """Give a room's id as an exact ``str`` that is not empty.

    ``limit`` is ``Limits.room_id_bytes``. Raises :class:`InvalidRoomIdError`, :class:`LimitExceededError`.
    """
    if not isinstance(room_id, str):
        message = f"{party}: a room's id must be a str, not {type(room_id).__name__}"
        raise InvalidRoomIdError(message)
    if not room_id:
        message = f"{party}: a room's id must not be empty"
        raise InvalidRoomIdError(message)
    size = _utf8_size(room_id)
    if size is None:
        message = f"{party}: a room's id must have a UTF-8 form, and {_shown(room_id)} has none"
        raise InvalidRoomIdError(message)
    if size > limit:
        raise LimitExceededError("room_id_bytes", size, limit, f"{party}/{_shown(room_id)}")
    return str.__str__(room_id)


def check_limit(limit: object, where: object) -> int:
    """Give the ``limit`` of a listing, cut to what a store can count to. Raises :class:`InvalidKeyError`."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        message = f"{where}: limit must be a positive int, not {type(limit).__name__}"
        raise InvalidKeyError(message)
    if limit <= 0:
        message = f"{where}: limit must be a positive int, not {limit}"
        raise InvalidKeyError(message)
    return min(int(limit), MAX_LIMIT)


def key_range(
    *,
    prefix: object = "",
    start: object = None,
    start_after: object = None,
    end: object = None,
    reverse: bool = False,
    where: object = "range",
) -> KeyRange | None:
    """Give the range of keys that a listing covers, or ``None`` if no key can be in it (G17).

    ``start`` is inclusive, ``start_after`` and ``end`` are exclusive, ``prefix`` is intersected with them. Bounds need
    not be keys, and may be longer than one. ``where`` is the room or the party, for errors. Raises
    :class:`InvalidKeyError`.
    """
    beginning = _check_text(prefix, "prefix", where)
    first = _first_key(start, start_after, where)
    low = max(first, beginning)
    high = _successor(beginning)
    if end is not None:
        bound = _check_text(end, "end", where)
        high = bound if high is None else min(bound, high)
    if high is not None and high <= low:
        return None
    return KeyRange(low, high, reverse)


def contains(keys: KeyRange, key: str) -> bool:
    """Say whether a range holds a key."""
    return keys.start <= key and (keys.end is None or key < keys.end)


def _first_key(start: object, start_after: object, where: object) -> str:
    if start_after is None:
        return "" if start is None else _check_text(start, "start", where)
    if start is not None:
        message = f"{where}: start and start_after cannot both be given"
        raise InvalidKeyError(message)
    # No text lies between a key and the same key with a NUL behind it.
    return _check_text(start_after, "start_after", where) + "\0"


def _successor(prefix: str) -> str | None:
    """Give the first text behind all that begin with ``prefix``, or ``None`` if there is none."""
    stem = prefix.rstrip(LAST_CHARACTER)
    if not stem:
        return None
    last = stem[-1]
    # Surrogates are no characters: what follows U+D7FF in UTF-8 is U+E000.
    following = FIRST_AFTER_SURROGATES if last == LAST_BEFORE_SURROGATES else chr(ord(last) + 1)
    return stem[:-1] + following


def _check_text(text: object, what: str, where: object) -> str:
    if not isinstance(text, str):
        message = f"{where}: {what} must be a str, not {type(text).__name__}"
        raise InvalidKeyError(message)
    if _utf8_size(text) is None:
        message = f"{where}: {what} must have a UTF-8 form, and {_shown(text)} has none"
        raise InvalidKeyError(message)
    # A subclass (a member of a StrEnum, say) may compare and hash as it likes.
    return str.__str__(text)


def _check_size(text: str, limit: int, what: str, where: object) -> str:
    size = len(text.encode())
    if size > limit:
        raise LimitExceededError("key_bytes", size, limit, f"{where} {what} {_shown(text)}")
    return text


def _utf8_size(text: str) -> int | None:
    """Give how long a text is in UTF-8; ``None`` if it holds lone surrogates, which have no such form."""
    try:
        return len(str.encode(text))
    except UnicodeEncodeError:
        return None


def _shown(text: str) -> str:
    """Give a text as an error shows it: quoted, and cut to a length that can be read."""
    return f"{str.__str__(text)!r:.60}"
