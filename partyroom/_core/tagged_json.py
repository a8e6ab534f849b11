"""What JSON cannot say by itself: which values need a tag, and what stands behind each tag.

Owns the walk through a value on its way to JSON, and the kinds of values that are always kept. A tagged value is an
object with one key, ``{"$tuple": [1, 2]}``; a ``dict`` that looks like one gets one ``$`` more.

Promises that a value passes only if it would come back equal and of the same type all through (types are compared
exactly, for an instance of a subclass would come back as another type), and that what it becomes does not hang on the
order of its sets.

Must never import what stored bytes name. What only some values need (``decimal``, ``uuid``, ``zoneinfo``) is looked up
when one comes, to keep ``import partyroom`` quick: a value whose module was never imported cannot be there.
"""

from __future__ import annotations

import sys
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from importlib import import_module
from json import JSONEncoder
from math import isfinite
from typing import Any, Final, Protocol, TypeVar, cast

import attrs

__all__ = [
    "KINDS",
    "MAX_DEPTH",
    "UNPACK",
    "Kind",
    "RefusedError",
    "Step",
    "Walk",
    "by_attribute",
    "has_utf8",
    "is_kept",
    "is_plain",
    "to_json",
]

T = TypeVar("T")

MAX_DEPTH: Final = 100
"""How deep values may nest: far from what the interpreter's stack bears when they are read, wherever that is."""

LARGE: Final = 10**600
"""From where on the walk writes integers in hexadecimal: a program may forbid decimal ones from 640 digits on."""

SCALARS: Final = frozenset({str, int, float, bool, type(None)})
TEXT: Final = frozenset({str})
CLEAN: Final = frozenset({bool, type(None)})

Step = tuple[str, str]
"""One step of the way into a value: what is written before, and behind, the way so far."""

to_json: Final = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
"""Turns plain JSON into text; raises ``ValueError`` for what is not finite, or an integer that is too long."""


# --- plain values ------------------------------------------------------------


def is_plain(value: object, depth: int = MAX_DEPTH) -> bool:
    """Say whether a value is made of nothing but what JSON has types for, nested at most ``depth`` deep."""
    kind = type(value)
    if kind in SCALARS:
        return True
    parts: Iterable[object]
    if kind is dict:
        names = cast("dict[str, object]", value)
        if not TEXT.issuperset(map(type, names)) or looks_tagged(names):
            return False
        parts = names.values()
    elif kind is list:
        parts = cast("list[object]", value)
    else:
        return False
    if depth == 0:
        return False
    # Asking for all types at once costs a third of asking one by one, and most containers hold scalars only.
    return SCALARS.issuperset(map(type, parts)) or _are_plain(parts, depth - 1)


def _are_plain(parts: Iterable[object], depth: int) -> bool:
    # A loop, for all() with a generator takes a second frame of the stack for each level.
    for part in parts:  # noqa: SIM110
        if not is_plain(part, depth):
            return False
    return True


def looks_tagged(value: Mapping[str, object]) -> bool:
    """Say whether a plain ``dict`` would be read as a tag."""
    return len(value) == 1 and next(iter(value)).startswith("$")


# --- one walk through one value ----------------------------------------------


class RefusedError(Exception):
    """Something inside a value cannot be kept. On its way out it gathers where that was."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[Step] = []

    def path(self) -> str:
        """Give the way to the place, written as Python would reach it."""
        path = "value"
        for before, behind in reversed(self.steps):
            path = f"{before}{path}{behind}"
        return path


@attrs.frozen
class Kind:
    """How the values of one class are kept: as ``{"$tag": pack(value, walk)}``."""

    tag: str
    pack: Callable[[Any, Walk], object]
    """Gives what stands behind the tag; sends what may need tags of its own through the walk."""
    unpack: Callable[[Any], object]
    """Gives the value for what stands behind the tag, itself unpacked before. Whatever it raises means: damaged."""


class Walk:
    """Turns one value into plain JSON with tags; raises :class:`RefusedError` for one that cannot be kept."""

    __slots__ = ("_kinds", "_open")

    def __init__(self, kinds: Mapping[type, Kind]) -> None:
        self._kinds = kinds
        self._open: set[int] = set()

    def pack(self, value: object) -> object:
        """Give plain JSON for a value."""
        kind: type = type(value)
        if kind in SCALARS:
            return _pack_scalar(value)
        if kind is list:
            return _pack_sequence(cast("list[object]", value), self)
        if kind is dict:
            return self._pack_dict(cast("dict[object, object]", value))
        known = self._kinds.get(kind) or _find_late(kind)
        if known is None:
            message = f"is of type {kind.__qualname__}, which is not registered with the codec"
            raise RefusedError(message)
        return {f"${known.tag}": known.pack(value, self)}

    def pack_parts(self, whole: object, parts: Iterable[tuple[T, object]], step: Callable[[T], Step]) -> list[object]:
        """Pack the named parts of a value, in order; ``step`` says how a name reaches its part."""
        self._enter(whole)
        packed: list[object] = []
        for name, part in parts:
            try:
                packed.append(part if type(part) in CLEAN else self.pack(part))
            except RefusedError as refused:
                refused.steps.append(step(name))
                raise
        self._open.remove(id(whole))
        return packed

    def _enter(self, whole: object) -> None:
        if id(whole) in self._open:
            message = "contains itself"
            raise RefusedError(message)
        if len(self._open) == MAX_DEPTH:
            message = f"is nested more than {MAX_DEPTH} levels deep"
            raise RefusedError(message)
        self._open.add(id(whole))

    def _pack_dict(self, value: dict[object, object]) -> object:
        packed = self.pack_parts(value, value.items(), _by_item)
        if not (TEXT.issuperset(map(type, value)) and has_utf8("".join(cast("dict[str, object]", value)))):
            keys = self.pack_parts(value, enumerate(value), _by_place)
            return {"$dict": [part for pair in zip(keys, packed, strict=True) for part in pair]}
        if looks_tagged(cast("dict[str, object]", value)):
            return {f"${key}": part for key, part in zip(value, packed, strict=True)}
        return dict(zip(value, packed, strict=True))


def by_attribute(name: str) -> Step:
    """Reach an attribute."""
    return "", f".{name}"


def _by_place(index: int) -> Step:
    """Reach what has no index: a key, or an element of a set."""
    return "list(", f")[{index}]"


def _by_item(key: object) -> Step:
    try:
        return "", f"[{key!r:.60}]"
    except Exception:  # noqa: BLE001 - a key's own code must not hide what is wrong with its value
        return "", f"[<{type(key).__qualname__}>]"


def _pack_scalar(value: object) -> object:
    if isinstance(value, str):
        return value if has_utf8(value) else {"$str": _pack_surrogates(value)}
    if isinstance(value, float):
        return value if isfinite(value) else {"$float": repr(value)}
    if isinstance(value, int) and not -LARGE < value < LARGE:
        return {"$int": hex(value)}
    return value


def has_utf8(text: str) -> bool:
    """Say whether a text is free of lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- the kinds that are always kept ------------------------------------------


def _pack_text(value: object, _walk: Walk) -> str:
    return str(value)


def _pack_bytes(value: bytes | bytearray, _walk: Walk) -> str:
    return b2a_base64(value, newline=False).decode()


def _unpack_bytes(kept: str) -> bytes:
    return a2b_base64(kept, strict_mode=True)


def _pack_surrogates(text: str) -> str:
    return b2a_base64(text.encode("utf-8", "surrogatepass"), newline=False).decode()


def _unpack_surrogates(kept: str) -> str:
    return _unpack_bytes(kept).decode("utf-8", "surrogatepass")


def _pack_sequence(value: Iterable[object], walk: Walk) -> list[object]:
    return walk.pack_parts(value, enumerate(value), _by_item)


def _pack_set(value: Iterable[object], walk: Walk) -> list[object]:
    # Sets have no order of their own: equal ones shall become equal JSON.
    return sorted(walk.pack_parts(value, enumerate(value), _by_place), key=to_json)


def _unpack_dict(kept: list[Any]) -> object:
    parts = iter(_items(kept))
    return dict(zip(parts, parts, strict=True))


def _items(kept: list[Any]) -> list[Any]:
    """Give a list, and refuse whatever else could be iterated."""
    if type(kept) is not list:
        message = f"a list was expected, not {type(kept).__name__}"
        raise TypeError(message)
    return kept


def _pack_timedelta(value: timedelta, _walk: Walk) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _pack_moment(value: datetime | time, walk: Walk) -> object:
    zone = value.tzinfo
    if not value.fold and (zone is None or _is_told_by_text(zone)):
        return value.isoformat()
    [packed] = walk.pack_parts(value, [("tzinfo", zone)], by_attribute)
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, packed]


def _unpack_moment(cls: type[datetime | time], kept: str | list[Any]) -> object:
    if isinstance(kept, str):
        return cls.fromisoformat(kept)
    text, fold, zone = _items(kept)
    return cls.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _is_told_by_text(zone: object) -> bool:
    """Say whether the offset in a time's text is all there is to its zone."""
    # A text whose offset is less than a second is read as one without any (by Python 3.11 to 3.13).
    return type(zone) is timezone and _has_usual_name(zone) and not zone.utcoffset(None).microseconds


def _has_usual_name(zone: timezone) -> bool:
    return zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _pack_timezone(value: timezone, walk: Walk) -> list[object]:
    parts: list[tuple[str, object]] = [("utcoffset(None)", value.utcoffset(None))]
    if not _has_usual_name(value):
        parts.append(("tzname(None)", value.tzname(None)))
    return walk.pack_parts(value, parts, by_attribute)


def _pack_zone(value: _Zone, _walk: Walk) -> str:
    key = value.key
    try:
        found = key is not None and type(value)(key) is value
    except (LookupError, OSError, ValueError):
        found = False
    if key is None or not found:
        message = f"is not the zone that ZoneInfo({key!r}) gives"
        raise RefusedError(message)
    return key


class _Zone(Protocol):
    """What is used of a ``ZoneInfo``, whose module is not imported here."""

    key: str | None

    def __init__(self, key: str, /) -> None:
        """Find the zone of a key."""
        ...


def _late(module: str, name: str) -> Callable[[object], object]:
    """Call a class of a module that is imported when it is needed."""

    def unpack(kept: object) -> object:
        return getattr(import_module(module), name)(kept)

    return unpack


KINDS: Final[Mapping[type, Kind]] = {
    tuple: Kind("tuple", _pack_sequence, lambda kept: tuple(_items(kept))),
    set: Kind("set", _pack_set, lambda kept: set(_items(kept))),
    frozenset: Kind("frozenset", _pack_set, lambda kept: frozenset(_items(kept))),
    bytes: Kind("bytes", _pack_bytes, _unpack_bytes),
    bytearray: Kind("bytearray", _pack_bytes, lambda kept: bytearray(_unpack_bytes(kept))),
    datetime: Kind("datetime", _pack_moment, lambda kept: _unpack_moment(datetime, kept)),
    date: Kind("date", _pack_text, date.fromisoformat),
    time: Kind("time", _pack_moment, lambda kept: _unpack_moment(time, kept)),
    timedelta: Kind("timedelta", _pack_timedelta, lambda kept: timedelta(*_items(kept))),
    timezone: Kind("timezone", _pack_timezone, lambda kept: timezone(*_items(kept))),
}
"""The classes that are kept besides those of JSON itself, but for the late ones."""

_LATE: Final[Mapping[str, Kind]] = {
    "decimal.Decimal": Kind("decimal", _pack_text, _late("decimal", "Decimal")),
    "uuid.UUID": Kind("uuid", _pack_text, _late("uuid", "UUID")),
    "zoneinfo.ZoneInfo": Kind("zoneinfo", _pack_zone, _late("zoneinfo", "ZoneInfo")),
}
"""Those whose modules are imported only when one of their values comes, by the full name of the class."""

UNPACK: Final[Mapping[str, Callable[[Any], object]]] = {
    **{kind.tag: kind.unpack for kind in (*KINDS.values(), *_LATE.values())},
    "dict": _unpack_dict,
    "float": float,
    "int": lambda kept: int(kept, 16),
    "str": _unpack_surrogates,
}
"""What reads what stands behind each tag."""


def _find_late(cls: type) -> Kind | None:
    """Give the kind of a class that has a late one, if it is the very class of that name."""
    known = _LATE.get(f"{cls.__module__}.{cls.__qualname__}")
    return known if known is not None and getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls else None


def is_kept(cls: type) -> bool:
    """Say whether the values of a class are kept without registering it."""
    return cls in SCALARS or cls in (list, dict) or cls in KINDS or _find_late(cls) is not None
