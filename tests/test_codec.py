"""Values as bytes, and back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from functools import singledispatch
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom.codec import JsonCodec
from partyroom.errors import DecodeError, NotStorableError
from partyroom.protocols import Codec

T = TypeVar("T")

PARIS = ZoneInfo("Europe/Paris")


@attrs.frozen
class Point:
    x: object
    y: object = 0


@attrs.define
class Account:
    _owner: str
    names: list[str] = attrs.field(factory=list[str])
    total: int = attrs.field(init=False, default=0)
    """Kept, for it counts for equality."""
    scratch: object = attrs.field(init=False, eq=False, factory=object)
    """Not kept: it neither is an argument nor counts for equality."""


@dataclass(frozen=True)
class Card:
    suit: str
    rank: int = field(kw_only=True, default=1)
    shown: str = field(init=False, default="back")


class Pair(NamedTuple):
    left: object
    right: object = None


class Colour(Enum):
    RED = 1
    GREEN = (2, "g")


class Level(IntEnum):
    LOW = 1


class Field(StrEnum):
    TEXT = "text"


class Right(Flag):
    READ = 1
    WRITE = 2


class Loud(str):
    __slots__ = ()


REGISTERED = [Point, Account, Card, Pair, Colour, Level, Field, Right]
codec = JsonCodec(REGISTERED)
plain = JsonCodec()


def there_and_back(value: T) -> T:
    back: T = codec.decode(codec.encode(value))
    return back


@singledispatch
def shape(value: Any) -> object:
    """Give what tells two values apart that ``==`` may not: types all through, nan, signs of zero, zones, folds."""
    kind: Any = value.__class__
    if attrs.has(kind):
        return kind, tuple(shape(getattr(value, a.name)) for a in attrs.fields(kind) if a.eq)
    return kind, value


@shape.register(float)
@shape.register(Decimal)
def _(value: float | Decimal) -> object:
    return type(value), repr(value)


@shape.register(datetime)
@shape.register(time)
def _(value: datetime | time) -> object:
    return type(value), value.replace(tzinfo=None).isoformat(), value.fold, shape(value.tzinfo)


@shape.register
def _(value: timezone) -> object:
    return type(value), value.utcoffset(None), value.tzname(None)


@shape.register(dict)
def _(value: dict[Any, Any]) -> object:
    return type(value), tuple((shape(key), shape(part)) for key, part in value.items())


@shape.register(set)
@shape.register(frozenset)
def _(value: Collection[Any]) -> object:
    return type(value), frozenset(Counter(map(shape, value)).items())


@shape.register(list)
@shape.register(tuple)
def _(value: Collection[Any]) -> object:
    return type(value), tuple(map(shape, value))


@shape.register
def _(value: bytearray) -> object:
    return type(value), bytes(value)


# --- strategies --------------------------------------------------------------

Strategy = st.SearchStrategy[Any]


def in_a_zone(moment: Any, fold: int, zone: tzinfo | None) -> Any:
    return moment.replace(fold=fold, tzinfo=zone)


def tagged(tag: str, part: object) -> object:
    return {f"${tag}": part}


surrogates = st.text(st.sampled_from("a\ud83d\ude00\U0001f600ä"), max_size=4)
keys = st.text(max_size=4) | st.sampled_from(["$", "$$", "$tuple", "$$tuple", "$Point", "a$"]) | surrogates
zones = st.sampled_from(
    [
        *[None, UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, microseconds=1)), PARIS],
        *[timezone(timedelta(microseconds=micros)) for micros in (1, -1, 999_999)],
        *[timezone(timedelta(0), "UTC"), timezone(timedelta(hours=2), "CEST"), timezone(timedelta(hours=2), "\ud800")],
    ]
)
folds = st.sampled_from([0, 1])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | keys
# What has no nan in it, so that == may judge.
exact_leaves: Strategy = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | keys
    | st.binary(max_size=6)
    | st.builds(in_a_zone, st.datetimes(), folds, zones)
    | st.dates()
    | st.builds(in_a_zone, st.times(), folds, zones)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | zones
    | st.sampled_from([*Colour, *Level, *Field, *Right, Right.READ | Right.WRITE, Right(0)])
)
leaves: Strategy = exact_leaves | scalars | st.decimals(allow_nan=False) | st.just(Decimal("nan"))


def nested(parts: Strategy) -> Strategy:
    hashable: Strategy = st.recursive(
        parts,
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple)
            | st.frozensets(inner, max_size=3)
            | st.builds(Point, inner, inner)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=4,
    )
    return st.recursive(
        hashable | st.binary(max_size=6).map(bytearray) | st.builds(Card, keys, rank=st.integers()),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=3).map(tuple)
            | st.sets(hashable, max_size=4)
            | st.dictionaries(keys, inner, max_size=3)
            | st.dictionaries(hashable, inner, max_size=3)
            | st.builds(Point, inner, inner)
            | st.builds(Account, keys, st.lists(keys, max_size=2))
        ),
        max_leaves=12,
    )


# --- what comes back ---------------------------------------------------------


@given(nested(leaves))
def test_what_comes_back_has_the_same_shape_all_through(value: object) -> None:
    """G15."""
    assert shape(value) == shape(there_and_back(value))


@given(nested(exact_leaves))
def test_what_comes_back_is_equal(value: object) -> None:
    """G15."""
    assert value == there_and_back(value)


@given(nested(leaves))
def test_a_value_that_came_back_is_written_as_before(value: object) -> None:
    data = codec.encode(value)
    assert data == codec.encode(codec.decode(data))


@given(nested(leaves))
def test_what_is_written_is_json_in_utf_8(value: object) -> None:
    json.loads(codec.encode(value).decode(), parse_constant=pytest.fail, parse_int=str)


plain_values: Strategy = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abä", max_size=3), inner, max_size=4),
)


@given(plain_values)
def test_what_is_plain_json_is_written_as_that_json(value: object) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert expected == codec.encode(value).decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ä", '"ä"'),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        (-0.0, "-0.0"),
        ({"a": [1, 2.5, "b"]}, '{"a":[1,2.5,"b"]}'),
        ({"$a": 1, "b": 2}, '{"$a":1,"b":2}'),
        ({"$tuple": [1]}, '{"$$tuple":[1]}'),
        ({"$": 1}, '{"$$":1}'),
        ((1, "a"), '{"$tuple":[1,"a"]}'),
        ({3, 1, 2}, '{"$set":[1,2,3]}'),
        (frozenset("ba"), '{"$frozenset":["a","b"]}'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        (bytearray(b"a"), '{"$bytearray":"YQ=="}'),
        ({1: "a", None: "b"}, '{"$dict":[1,"a",null,"b"]}'),
        (datetime.fromisoformat("2030-01-01T12:00:00"), '{"$datetime":"2030-01-01T12:00:00"}'),
        (datetime(2030, 1, 1, tzinfo=UTC), '{"$datetime":"2030-01-01T00:00:00+00:00"}'),
        (
            datetime(2030, 10, 27, 2, 30, fold=1, tzinfo=PARIS),
            '{"$datetime":["2030-10-27T02:30:00",1,{"$zoneinfo":"Europe/Paris"}]}',
        ),
        (date(2030, 1, 1), '{"$date":"2030-01-01"}'),
        (time(1, 2), '{"$time":"01:02:00"}'),
        (timedelta(days=1, seconds=2), '{"$timedelta":[1,2,0]}'),
        ((1, "ä"), '{"$tuple":[1,"ä"]}'),
        (timezone(timedelta(hours=1)), '{"$timezone":[{"$timedelta":[0,3600,0]}]}'),
        (timezone(timedelta(hours=1), "CET"), '{"$timezone":[{"$timedelta":[0,3600,0]},"CET"]}'),
        (Decimal("1.50"), '{"$decimal":"1.50"}'),
        (UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        (math.nan, '{"$float":"nan"}'),
        (-math.inf, '{"$float":"-inf"}'),
        ("\ud800", '{"$str":"7aCA"}'),
        (Point(1, (2,)), '{"$Point":{"x":1,"y":{"$tuple":[2]}}}'),
        (Card("hearts"), '{"$Card":{"suit":"hearts","rank":1,"shown":"back"}}'),
        (Pair(1), '{"$Pair":{"left":1,"right":null}}'),
        (Colour.GREEN, '{"$Colour":"GREEN"}'),
        (Right.READ | Right.WRITE, '{"$Right":3}'),
    ],
)
def test_this_is_how_a_value_is_stored(value: object, text: str) -> None:
    """What stands in people's files: a change here is a change of the storage format."""
    assert text == codec.encode(value).decode()
    assert shape(value) == shape(codec.decode(text.encode()))


@pytest.mark.parametrize("digits", [599, 600, 639, 4299, 4300, 10_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_of_any_length_comes_back(digits: int, sign: int) -> None:
    number = sign * 10**digits
    for value in (number, [number], (number, number - 1), {number: {number}}):
        assert value == there_and_back(value)


def test_a_signalling_nan_comes_back() -> None:
    assert "Decimal('sNaN123')" == repr(there_and_back(Decimal("sNaN123")))


def test_a_value_is_copied_not_shared() -> None:
    inner = [1]
    value: Any = {"a": inner, "b": inner, "c": (inner,)}
    back = there_and_back(value)
    back["a"].append(2)
    assert {"a": [1, 2], "b": [1], "c": ([1],)} == back
    assert [1] == inner
    data = codec.encode(value)
    assert codec.decode(data)["a"] is not codec.decode(data)["a"]


def test_the_order_of_a_set_does_not_show() -> None:
    names = [f"name {number}" for number in range(50)]
    backwards = names[::-1]
    assert codec.encode(set(names)) == codec.encode(set(backwards))


def test_white_space_and_indentation_do_no_harm() -> None:
    assert {"a": (1,)} == codec.decode(b'{ "a" :\n { "$tuple" : [ 1 ] } }')


def test_it_is_a_codec() -> None:
    kept: Codec = JsonCodec()
    assert [1] == kept.decode(kept.encode([1]))


# --- what is refused ---------------------------------------------------------


# A zone of somebody's own, as other libraries have.
Elsewhere: Any = type("Elsewhere", (tzinfo,), {})


class Rank(IntEnum):
    FIRST = 1


class Spot(NamedTuple):
    x: object


class Unknown:
    pass


@pytest.mark.parametrize(
    ("value", "path", "name"),
    [
        (Unknown(), "value", "Unknown"),
        (Rank.FIRST, "value", "Rank"),
        (Loud("a"), "value", "Loud"),
        ({"a": [0, 1, 2, OrderedDict[str, int]()]}, "value['a'][3]", "OrderedDict"),
        ({"a": defaultdict[str, int](int)}, "value['a']", "defaultdict"),
        ([Spot(1)], "value[0]", "Spot"),
        ((1, deque[int]()), "value[1]", "deque"),
        ({Rank.FIRST: 1}, "list(value)[0]", "Rank"),
        ({"b": {"a": 1, Loud("b"): 2}}, "list(value['b'])[1]", "Loud"),
        ({1: {2: Fraction(1)}}, "value[1][2]", "Fraction"),
        ([{Fraction(1)}], "list(value[0])[0]", "Fraction"),
        ([frozenset([(0, Fraction(1))])], "list(value[0])[0][1]", "Fraction"),
        ([Point(0, {"b": 1j})], "value[0].y['b']", "complex"),
        ({"x": datetime(2030, 1, 1, tzinfo=Elsewhere())}, "value['x'].tzinfo", "Elsewhere"),
        (time(1, tzinfo=Elsewhere()), "value.tzinfo", "Elsewhere"),
        ({"k" * 100: 1j}, f"value['{'k' * 59}]", "complex"),
        ({10**5000: 1j}, "value[<int>]", "complex"),
        (type, "value", "type"),
        (test_it_is_a_codec, "value", "function"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place_and_type(value: object, path: str, name: str) -> None:
    with pytest.raises(NotStorableError) as caught:
        codec.encode(value)
    assert ("", path) == (caught.value.key, caught.value.path)
    assert f"is of type {name}, which is not registered with the codec" == caught.value.reason


def test_a_value_that_contains_itself_is_refused_where_it_does() -> None:
    value: dict[str, object] = {"a": 1}
    value["b"] = [value]
    with pytest.raises(NotStorableError, match=r"value\['b'\]\[0\] contains itself"):
        codec.encode(value)
    items: list[object] = [1, 2]
    items.append((items,))
    with pytest.raises(NotStorableError, match=r"value\[2\]\[0\] contains itself"):
        codec.encode(items)


def deep(levels: int, wrap: Callable[[list[object]], object] = list) -> object:
    value: object = 1
    for _ in range(levels):
        value = wrap([value])
    return value


def test_values_nest_a_hundred_levels_deep_and_no_deeper() -> None:
    assert deep(100) == there_and_back(deep(100))
    assert deep(100, tuple) == there_and_back(deep(100, tuple))
    for value in (deep(101), deep(101, tuple), deep(50_000)):
        with pytest.raises(NotStorableError) as caught:
            codec.encode(value)
        assert "value" + "[0]" * 100 == caught.value.path
        assert "is nested more than 100 levels deep" == caught.value.reason


def test_where_the_stack_ends_there_is_a_clear_error_too() -> None:
    found: list[NotStorableError] = []

    def sink(value: object) -> None:
        """Fill the stack, and try at every depth on the way back."""
        with suppress(RecursionError):
            sink(value)
        try:
            codec.encode(value)
        except NotStorableError as error:
            found.append(error)

    for value in (deep(100), deep(100, tuple)):
        found.clear()
        sink(value)
        assert {"is nested too deeply for what is left of the stack"} == {error.reason for error in found}


def test_a_zone_is_kept_only_if_its_key_leads_back_to_it() -> None:
    zone_file = b"TZif2".ljust(44, b"\0") + b"TZif2".ljust(44, b"\0") + b"\nUTC0\n"
    strange = [
        ZoneInfo.no_cache("Europe/Paris"),
        ZoneInfo.from_file(BytesIO(zone_file)),
        ZoneInfo.from_file(BytesIO(zone_file), key="Europe/Paris"),
        ZoneInfo.from_file(BytesIO(zone_file), key="No/Such"),
        ZoneInfo.from_file(BytesIO(zone_file), key="../escape"),
    ]
    for zone in strange:
        with pytest.raises(NotStorableError, match=rf"value\[0\] is not the zone that ZoneInfo\({zone.key!r}\) gives"):
            codec.encode([zone])
    assert PARIS is there_and_back(PARIS)


def test_an_error_of_the_value_s_own_code_leaves_as_it_is() -> None:
    def refuse(value: Unknown) -> object:
        raise LookupError(value)

    own = JsonCodec()
    own.register(Unknown, encode=refuse, decode=lambda _: Unknown())
    with pytest.raises(LookupError):
        own.encode([Unknown()])


# --- bytes that encode has not made ------------------------------------------

TAGS = [
    *["tuple", "set", "frozenset", "dict", "bytes", "bytearray", "datetime", "date", "time", "timedelta", "timezone"],
    *[
        "zoneinfo",
        "decimal",
        "uuid",
        "float",
        "int",
        "str",
        "Point",
        "Account",
        "Card",
        "Pair",
        "Colour",
        "Right",
        "",
        "$x",
    ],
]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"1 2",
        b"NaN",
        b"[-Infinity]",
        b'{"a":Infinity}',
        b"9" * 5000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\x80\x04K\x01.",
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"these bytes are no JSON of this codec: \S"):
        codec.decode(data)


def test_an_unknown_tag_is_refused_by_its_name() -> None:
    with pytest.raises(DecodeError, match="no class is registered under the name 'Point'"):
        plain.decode(codec.encode([Point(1)]))
    with pytest.raises(DecodeError, match="no class is registered under the name ''"):
        plain.decode(b'{"$":1}')


@pytest.mark.parametrize(
    "text",
    [
        '{"$tuple":"ab"}',
        '{"$set":{"a":1}}',
        '{"$set":[[1]]}',
        '{"$dict":[1]}',
        '{"$dict":[[],1]}',
        '{"$bytes":"a"}',
        '{"$bytes":1}',
        '{"$int":"x"}',
        '{"$int":5}',
        '{"$float":"x"}',
        '{"$str":"AP8="}',
        '{"$datetime":"yesterday"}',
        '{"$datetime":5}',
        '{"$datetime":["2030-01-01T00:00:00",0]}',
        '{"$datetime":["2030-01-01T00:00:00",0,"Europe/Paris"]}',
        '{"$date":"2030-13-01"}',
        '{"$timedelta":[1e400]}',
        '{"$timedelta":{"$tuple":[1]}}',
        '{"$timezone":[1]}',
        '{"$zoneinfo":"../../etc/passwd"}',
        '{"$zoneinfo":"No/Such"}',
        '{"$decimal":"x"}',
        '{"$uuid":"x"}',
        '{"$Point":{"z":1}}',
        '{"$Point":{}}',
        '{"$Point":[1]}',
        '{"$Colour":"BLUE"}',
        '{"$Colour":[]}',
        '{"$Right":"READ"}',
    ],
)
def test_damage_behind_a_tag_is_refused_by_its_name(text: str) -> None:
    tag = text[3 : text.index(":") - 1]
    with pytest.raises(DecodeError, match=f"what is stored as '{tag}' cannot be read: ") as caught:
        codec.decode(f"[{text}]".encode())
    assert caught.value.__cause__ is not None


@given(st.recursive(plain_values, lambda inner: st.builds(tagged, st.sampled_from(TAGS), inner)))
def test_whatever_stands_behind_a_tag_nothing_but_a_decode_error_comes_of_it(value: object) -> None:
    with suppress(DecodeError):
        codec.decode(json.dumps(value).encode())


# --- registered classes ------------------------------------------------------


def test_a_class_is_registered_under_its_qualified_name_or_a_given_one() -> None:
    own = JsonCodec()
    assert Point is own.register(Point)
    assert Colour is own.register(Colour, name="colour.v1")
    assert b'[{"$Point":{"x":1,"y":0}},{"$colour.v1":"RED"}]' == own.encode([Point(1), Colour.RED])


def test_codecs_do_not_share_what_is_registered() -> None:
    JsonCodec([Unregistered])
    with pytest.raises(NotStorableError):
        JsonCodec().encode(Unregistered())


@attrs.define
class Unregistered:
    pass


def test_any_class_can_be_registered_with_functions_of_its_own() -> None:
    own = JsonCodec([Point])
    own.register(PurePosixPath, encode=str, decode=PurePosixPath)
    own.register(Fraction, name="ratio", encode=Fraction.as_integer_ratio, decode=lambda parts: Fraction(*parts))
    own.register(OrderedDict, encode=lambda value: list(value.items()), decode=OrderedDict)
    own.register(Loud, encode=str.__str__, decode=Loud)
    value: object = {
        Fraction(1, 3): PurePosixPath("/a"),
        "b": OrderedDict[str, object](z=Point(Fraction(2)), a=Loud("c")),
    }
    assert shape(value) == shape(own.decode(own.encode(value)))
    assert b'{"$ratio":{"$tuple":[1,2]}}' == own.encode(Fraction(1, 2))


def test_what_an_encode_function_gives_is_looked_into() -> None:
    own = JsonCodec()
    own.register(Unknown, encode=lambda value: {"inside": [value, 1j]}, decode=lambda _: Unknown())
    with pytest.raises(NotStorableError, match=r"encode\(value\['a'\]\)\['inside'\]\[0\] contains itself"):
        own.encode({"a": Unknown()})
    own = JsonCodec()
    own.register(Unknown, encode=lambda _: {"inside": [0, 1j]}, decode=lambda _: Unknown())
    with pytest.raises(NotStorableError, match=r"encode\(value\['a'\]\)\['inside'\]\[1\] is of type complex"):
        own.encode({"a": Unknown()})


def test_what_a_decode_function_raises_is_the_cause_of_the_error() -> None:
    own = JsonCodec()
    own.register(Fraction, encode=str, decode=lambda _: Fraction(1, 0))
    with pytest.raises(DecodeError, match="what is stored as 'Fraction' cannot be read") as caught:
        own.decode(own.encode(Fraction(1)))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_private_fields_and_those_that_are_no_argument_come_back_too() -> None:
    account = Account("ann")
    account.total = 5
    back = there_and_back(account)
    assert account == back
    assert account.scratch is not back.scratch
    card = Card("spades")
    object.__setattr__(card, "shown", "front")
    assert "front" == there_and_back(card).shown


def test_a_field_that_was_added_later_takes_its_default() -> None:
    assert Point(1, 0) == codec.decode(b'{"$Point":{"x":1}}')
    assert Pair(1, None) == codec.decode(b'{"$Pair":{"left":1}}')
    assert Card("hearts", rank=1) == codec.decode(b'{"$Card":{"suit":"hearts"}}')


def test_a_field_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(DecodeError, match="Point has no field u, z"):
        codec.decode(b'{"$Point":{"x":1,"z":2,"u":3}}')


@pytest.mark.parametrize(
    ("cls", "name"),
    [(Point, "tuple"), (Point, "dict"), (Point, "decimal"), (Point, "Colour")],
)
def test_a_name_that_is_taken_is_refused(cls: type, name: str) -> None:
    own = JsonCodec([Colour])
    with pytest.raises(ValueError, match=f"the name '{name}' is taken; give Point another with name="):
        own.register(cls, name=name)


@pytest.mark.parametrize("name", ["", "$a", "$", "\ud800"])
def test_a_name_that_could_not_be_told_from_a_plain_dict_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name: it is empty, begins with a dollar, or has no UTF-8 form"):
        JsonCodec().register(Point, name=name)


@pytest.mark.parametrize("cls", [str, list, dict, bool, tuple, datetime, Decimal, ZoneInfo, UUID, Colour])
def test_a_class_that_is_kept_already_is_refused(cls: type) -> None:
    with pytest.raises(ValueError, match=f"{cls.__qualname__} is kept already"):
        JsonCodec([Colour]).register(cls, name="another")


def test_a_class_that_only_borrows_the_name_of_a_kept_one_is_another_class() -> None:
    other = type("Decimal", (), {"__module__": "decimal"})
    with pytest.raises(NotStorableError, match="is of type Decimal"):
        codec.encode(other())
    absent = type("UUID", (), {"__module__": "nowhere"})
    with pytest.raises(NotStorableError, match="is of type UUID"):
        codec.encode(absent())


@dataclass
class Opened:
    path: str
    mode: InitVar[str]


@attrs.define(init=False)
class Own:
    x: int

    def __init__(self, *, text: str) -> None:
        """Take anything but the fields."""


@pytest.mark.parametrize(("cls", "names"), [(Opened, "mode"), (Own, "text, x")])
def test_a_class_that_its_fields_cannot_make_is_refused(cls: type, names: str) -> None:
    with pytest.raises(TypeError, match=rf"{cls.__name__} is not made by naming its fields \({names}\): give encode="):
        JsonCodec([cls])


@pytest.mark.parametrize("cls", [Unknown, OrderedDict, Fraction, object])
def test_a_class_without_known_fields_is_refused(cls: type) -> None:
    with pytest.raises(TypeError, match=f"{cls.__qualname__} is no attrs class, dataclass, NamedTuple or enum"):
        JsonCodec([cls])


def test_one_function_without_the_other_is_refused() -> None:
    with pytest.raises(TypeError, match="Unknown needs both encode= and decode=, or neither"):
        JsonCodec().register(Unknown, encode=repr)


def test_what_few_values_need_is_imported_late() -> None:
    program = """
import sys
before = set(sys.modules)
import partyroom.codec
codec = partyroom.codec.JsonCodec()
codec.decode(codec.encode({"a": (1, b"c")}))
late = ["decimal", "uuid", "zoneinfo"]
print([name for name in late if name in sys.modules.keys() - before])
print(repr(codec.decode(b'{"$decimal":"1.5"}')))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "[]\nDecimal('1.5')\n" == done.stdout
