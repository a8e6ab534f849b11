"""Values as bytes: readable JSON, with a tag where JSON alone would forget a type.

Owns :class:`JsonCodec` and the ways in which a registered class is taken apart and put together again.

Promises that what comes back is equal to what went in, of the same type all through, and shares nothing mutable with
it (G15); that anything else is refused with the place inside the value that could not be kept; and that no bytes,
damaged or hostile, do more than raise :class:`~partyroom.errors.DecodeError`.

Must never import or call what stored bytes name: a tag is looked up among the classes that the program which reads has
registered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from inspect import Parameter, signature
from json import JSONDecoder
from typing import Any, NamedTuple, NoReturn, TypeVar, cast, final

import attrs
from typing_extensions import override

from partyroom._core.tagged_json import (
    KINDS,
    UNPACK,
    Kind,
    RefusedError,
    Walk,
    by_attribute,
    has_utf8,
    is_kept,
    is_plain,
    to_json,
)
from partyroom.errors import DecodeError, NotStorableError
from partyroom.protocols import Codec

__all__ = ["JsonCodec"]

T = TypeVar("T")


@final
class JsonCodec(Codec):
    """The default codec: JSON text in UTF-8, written so that ``decode`` knows every type again.

    Kept as they are, in readable JSON: ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``, and ``dict`` with
    keys of ``str``. Kept with a tag: ``tuple``, ``set``, ``frozenset``, ``bytes``, ``bytearray``, ``datetime`` (naive,
    or with a ``timezone`` or ``ZoneInfo``, ``fold`` included), ``date``, ``time``, ``timedelta``, ``timezone``,
    ``ZoneInfo``, ``Decimal``, ``UUID``, nan and the infinities, ``dict`` with any other keys, and instances of
    registered classes. All else is refused, instances of subclasses of these included (an ``IntEnum``, an
    ``OrderedDict``): they would come back as another type.

    ``types`` are registered one by one, as by :meth:`register`.
    """

    def __init__(self, types: Iterable[type[Any]] = ()) -> None:
        self._kinds = dict(KINDS)
        self._unpack = dict(UNPACK)
        self._read_plain = JSONDecoder(parse_constant=_refuse_constant).raw_decode
        self._read_tagged = JSONDecoder(parse_constant=_refuse_constant, object_hook=self._revive).raw_decode
        for cls in types:
            self.register(cls)

    def register(
        self,
        cls: type[T],
        /,
        *,
        name: str | None = None,
        encode: Callable[[T], object] | None = None,
        decode: Callable[[Any], T] | None = None,
    ) -> type[T]:
        """Keep instances of a class from now on, under a name that stored values carry; give the class back.

        attrs classes, dataclasses and ``NamedTuple`` classes are kept field by field, and made again by calling the
        class: a field that is missing in what is stored takes its default, one that the class has no more is an error,
        and so is a converter or validator that does not take what it gave. Fields that neither are arguments nor count
        for equality are not kept. Enum members are kept by name, flags by value. For any other class, or to do it in
        another way, give both functions: ``encode`` turns an instance into something that can be kept, ``decode`` turns
        that back; what either it or the class raises then makes a :class:`DecodeError`, with that as its cause. A class
        that compares by identity comes back as another object.

        ``name`` is the class's ``__qualname__`` (without its module) unless given; stored values depend on it. Raises
        ``ValueError`` for a name or a class that is taken, and ``TypeError`` for a class that cannot be kept so.
        """
        tag = cls.__qualname__ if name is None else name
        self._check_free(cls, tag)
        if encode is not None and decode is not None:
            kind = _kind_by_functions(tag, encode, decode)
        elif encode is None and decode is None:
            kind = _kind_of_class(tag, cls)
        else:
            message = f"{cls.__qualname__} needs both encode= and decode=, or neither"
            raise TypeError(message)
        self._kinds[cls] = kind
        self._unpack[tag] = kind.unpack
        return cls

    @override
    def encode(self, value: object, /) -> bytes:
        """Give a value's JSON; raise :class:`NotStorableError`, its ``key`` empty, with the place that cannot be kept.

        What the value's own code raises (an ``encode`` function, a property) leaves as it is.
        """
        try:
            if type(value) is int:
                return str(value).encode()
            if is_plain(value):
                return to_json(value).encode()
        except ValueError:
            # A float that is not finite, a long integer or a lone surrogate: the walk below gives it a tag.
            pass
        except RecursionError:
            raise _out_of_stack() from None
        return self._encode_tagged(value)

    @override
    def decode(self, data: bytes, /) -> Any:
        """Give a fresh value; raise :class:`DecodeError`, naming the tag, for what ``encode`` has not made."""
        try:
            text = data.decode()
            # A quote with a dollar behind it stands in every text that has a tag, and in few others.
            value, end = (self._read_tagged if '"$' in text else self._read_plain)(text)
        except (ValueError, RecursionError) as error:
            if isinstance(error, DecodeError):
                raise
            message = f"these bytes are no JSON of this codec: {error}"
            raise DecodeError(message) from error
        if end != len(text):
            message = f"these bytes are no JSON of this codec: more follows at {end}"
            raise DecodeError(message)
        return value

    def _encode_tagged(self, value: object) -> bytes:
        try:
            return to_json(Walk(self._kinds).pack(value)).encode()
        except RefusedError as refused:
            raise NotStorableError("", refused.path(), refused.reason) from None
        except RecursionError:
            raise _out_of_stack() from None

    def _revive(self, kept: dict[str, Any]) -> object:
        """Give the value that a JSON object stands for; what it holds has been through here before."""
        if len(kept) != 1:
            return kept
        [(key, content)] = kept.items()
        if not key.startswith("$"):
            return kept
        tag = key[1:]
        if tag.startswith("$"):
            return {tag: content}
        unpack = self._unpack.get(tag)
        if unpack is None:
            message = f"no class is registered under the name {tag!r}"
            raise DecodeError(message)
        try:
            return unpack(content)
        except Exception as error:
            message = f"what is stored as {tag!r} cannot be read: {error!r}"
            raise DecodeError(message) from error

    def _check_free(self, cls: type, tag: str) -> None:
        # A second dollar is what marks a dict that only looks like a tag.
        if not tag or tag.startswith("$") or not has_utf8(tag):
            message = f"{tag!r} cannot be a name: it is empty, begins with a dollar, or has no UTF-8 form"
            raise ValueError(message)
        if tag in self._unpack:
            message = f"the name {tag!r} is taken; give {cls.__qualname__} another with name="
            raise ValueError(message)
        if cls in self._kinds or is_kept(cls):
            message = f"{cls.__qualname__} is kept already"
            raise ValueError(message)


# --- registered classes ------------------------------------------------------


class _Field(NamedTuple):
    """What is kept of an instance: an attribute, and the argument that gives it, if there is one."""

    name: str
    argument: str | None


def _kind_by_functions(tag: str, encode: Callable[[Any], object], decode: Callable[[Any], object]) -> Kind:
    def pack(value: object, walk: Walk) -> object:
        [packed] = walk.pack_parts(value, [(None, encode(value))], lambda _: ("encode(", ")"))
        return packed

    return Kind(tag, pack, decode)


def _kind_of_class(tag: str, cls: type[Any]) -> Kind:
    if issubclass(cls, Flag):
        return Kind(tag, lambda value, walk: walk.pack(value.value), cls)
    if issubclass(cls, Enum):
        # Not cls.__getitem__, which is the text's own where the members are texts.
        return Kind(tag, lambda value, walk: walk.pack(value.name), lambda name: cls[name])
    return _kind_by_fields(tag, cls, _fields(cls))


def _fields(cls: type[Any]) -> list[_Field]:
    if attrs.has(cls):
        return [_Field(a.name, a.alias if a.init else None) for a in attrs.fields(cls) if a.init or a.eq]
    if hasattr(cls, "__dataclass_fields__"):
        fields = dataclasses.fields(cls)
        return [_Field(f.name, f.name if f.init else None) for f in fields if f.init or f.compare]
    if issubclass(cls, tuple) and isinstance(names := getattr(cast("object", cls), "_fields", None), tuple):
        return [_Field(name, name) for name in cast("tuple[str, ...]", names)]
    message = f"{cls.__qualname__} is no attrs class, dataclass, NamedTuple or enum: give encode= and decode="
    raise TypeError(message)


def _kind_by_fields(tag: str, cls: type[Any], fields: list[_Field]) -> Kind:
    arguments = {field.name: field.argument for field in fields if field.argument is not None}
    _check_call(cls, set(arguments.values()))

    def pack(value: object, walk: Walk) -> object:
        parts = [(field.name, getattr(value, field.name)) for field in fields]
        packed = walk.pack_parts(value, parts, by_attribute)
        return {field.name: part for field, part in zip(fields, packed, strict=True)}

    def unpack(kept: dict[str, object]) -> object:
        unknown = kept.keys() - {field.name for field in fields}
        if unknown:
            message = f"{cls.__qualname__} has no field {', '.join(sorted(unknown))}"
            raise TypeError(message)
        value = cls(**{arguments[name]: part for name, part in kept.items() if name in arguments})
        for name in kept.keys() - arguments.keys():
            # The way around a frozen class that its own initialiser takes as well.
            object.__setattr__(value, name, kept[name])
        return value

    return Kind(tag, pack, unpack)


def _check_call(cls: type[Any], arguments: set[str]) -> None:
    """Refuse a class that cannot be made by naming its fields."""
    parameters = signature(cls).parameters.values()
    named = {p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
    required = {p.name for p in parameters if p.default is Parameter.empty and p.name in named}
    odd = (required - arguments) | (arguments - named)
    if odd:
        names = ", ".join(sorted(odd))
        message = f"{cls.__qualname__} is not made by naming its fields ({names}): give encode= and decode="
        raise TypeError(message)


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


def _out_of_stack() -> NotStorableError:
    return NotStorableError("", "value", "is nested too deeply for what is left of the stack")
