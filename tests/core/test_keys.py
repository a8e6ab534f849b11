"""Names and ranges of names."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.keys import check_key, check_limit, check_name, check_room_id, contains, key_range
from partyroom.errors import InvalidKeyError, InvalidRoomIdError, LimitExceededError
from partyroom.types import KeyRange, RoomKey

ROOM = RoomKey("draft", "alice")


class Field(StrEnum):
    TEXT = "text"


class Count(IntEnum):
    THREE = 3


class Loud(str):
    """A text that is written and hashed in ways of its own."""

    __slots__ = ()
    __str__ = str.upper
    __hash__ = str.__len__


# Few characters, so that texts collide, at the borders that matter: NUL, ASCII, the surrogate gap, the very last one.
characters = st.sampled_from("\0ab\x7f\x80\ud7ff\ue000\uffff\U00010000\U0010ffff")
texts = st.text(characters, max_size=4)
bounds = st.none() | texts


# --- keys --------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "text", "\0", "a" * 10, "ä" * 5, "\U0001f600ab", "\uffff", "\U0010ffff"])
def test_a_key_is_any_text_within_the_limit(key: str) -> None:
    assert key == check_key(key, 10, ROOM)


@pytest.mark.parametrize("key", [None, 5, b"text", ("a",), True])
def test_a_key_that_is_no_str_is_refused_by_its_type(key: object) -> None:
    with pytest.raises(InvalidKeyError, match=rf"draft/alice: key must be a str, not {type(key).__name__}"):
        check_key(key, 10, ROOM)


@pytest.mark.parametrize("key", ["\ud800", "a\udfff", "\ud83d\ude00"])
def test_a_key_with_lone_surrogates_is_refused(key: str) -> None:
    with pytest.raises(InvalidKeyError, match=r"draft/alice: key must have a UTF-8 form, and '.*\\u"):
        check_key(key, 100, ROOM)


@pytest.mark.parametrize(("key", "size"), [("a" * 11, 11), ("ä" * 6, 12), ("\U0001f600" * 3, 12), ("a" * 5000, 5000)])
def test_a_key_over_the_limit_is_refused_with_room_key_size_and_limit(key: str, size: int) -> None:
    with pytest.raises(LimitExceededError) as caught:
        check_key(key, 10, ROOM)
    error = caught.value
    assert ("key_bytes", size, 10) == (error.limit, error.size, error.allowed)
    assert f"draft/alice key {key!r:.60}" == error.where
    assert len(str(error)) < 200


@pytest.mark.parametrize("key", [Field.TEXT, Loud("text"), Loud("ä")])
def test_a_key_of_a_subclass_becomes_a_plain_str_of_the_same_text(key: str) -> None:
    checked = check_key(key, 10, ROOM)
    assert str is type(checked)
    assert ("ä" if "ä" in key else "text") == checked


# --- names and ids -----------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "ä", "\0"])
def test_a_name_is_any_text_but_the_empty_one(name: str) -> None:
    assert name == check_name(name, 10, ROOM)


def test_a_wrong_name_is_refused_saying_what_it_names() -> None:
    with pytest.raises(InvalidKeyError, match="draft/alice: alarm name must not be empty"):
        check_name("", 10, ROOM)
    with pytest.raises(InvalidKeyError, match="draft/alice: tag must be a str, not int"):
        check_name(3, 10, ROOM, "tag")
    with pytest.raises(InvalidKeyError, match="draft/alice: tag must have a UTF-8 form"):
        check_name("\ud800", 10, ROOM, "tag")
    with pytest.raises(LimitExceededError, match=r"draft/alice alarm name 'aaa': 3 is over Limits\.key_bytes=2"):
        check_name("aaa", 2, ROOM)


@pytest.mark.parametrize("room_id", ["a", "ä" * 5, "a/b", "\0"])
def test_a_room_id_is_any_text_but_the_empty_one(room_id: str) -> None:
    assert room_id == check_room_id(room_id, 10, "draft")


def test_a_room_id_of_a_subclass_becomes_a_plain_str() -> None:
    assert str is type(check_room_id(Field.TEXT, 10, "draft"))


@pytest.mark.parametrize(
    ("room_id", "reason"), [("", "empty"), (7, "a str, not int"), (b"a", "a str, not bytes"), ("\ud800", "UTF-8")]
)
def test_a_wrong_room_id_is_refused(room_id: object, reason: str) -> None:
    with pytest.raises(InvalidRoomIdError, match=rf"draft: a room's id must .*{reason}"):
        check_room_id(room_id, 10, "draft")


def test_an_overlong_room_id_is_refused_with_party_size_and_limit() -> None:
    with pytest.raises(LimitExceededError) as caught:
        check_room_id("ä" * 6, 10, "draft")
    error = caught.value
    assert ("room_id_bytes", 12, 10, "draft/'ääääää'") == (error.limit, error.size, error.allowed, error.where)


# --- limits ------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (Count.THREE, 3), (2**63 - 1, 2**63 - 1), (10**30, 2**63 - 1)])
def test_a_limit_is_any_positive_int_and_never_more_than_a_store_can_count(limit: int, expected: int) -> None:
    checked = check_limit(limit, ROOM)
    assert expected == checked
    assert int is type(checked)


@pytest.mark.parametrize(
    ("limit", "shown"), [(0, "0"), (-1, "-1"), (True, "bool"), (1.0, "float"), ("2", "str"), (None, "NoneType")]
)
def test_a_limit_that_is_no_positive_int_is_refused(limit: object, shown: str) -> None:
    with pytest.raises(InvalidKeyError, match=f"draft/alice: limit must be a positive int, not {shown}"):
        check_limit(limit, ROOM)


# --- ranges ------------------------------------------------------------------


def test_without_bounds_a_range_holds_every_key() -> None:
    assert KeyRange() == key_range(where=ROOM)
    assert KeyRange(reverse=True) == key_range(where=ROOM, reverse=True)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("a", "b"),
        ("user:", "user;"),
        ("\x7f", "\x80"),
        ("a\ud7ff", "a\ue000"),
        ("\uffff", "\U00010000"),
        ("a\U0010ffff\U0010ffff", "b"),
        ("\U0010ffff", None),
    ],
)
def test_a_prefix_ends_before_the_next_text_that_does_not_begin_with_it(prefix: str, end: str | None) -> None:
    assert KeyRange(prefix, end) == key_range(where=ROOM, prefix=prefix)


@pytest.mark.parametrize(
    "bounds",
    [
        {"end": ""},
        {"start": "b", "end": "a"},
        {"start": "a", "end": "a"},
        {"start_after": "a", "end": "a\0"},
        {"prefix": "a", "start": "b"},
        {"prefix": "b", "end": "b"},
    ],
)
def test_bounds_that_exclude_each_other_give_no_range(bounds: dict[str, object]) -> None:
    assert key_range(where=ROOM, **bounds) is None  # type: ignore[arg-type]


def test_start_with_start_after_is_refused() -> None:
    with pytest.raises(InvalidKeyError, match="draft/alice: start and start_after cannot both be given"):
        key_range(where=ROOM, start="", start_after="")


@pytest.mark.parametrize("name", ["prefix", "start", "start_after", "end"])
def test_a_bound_that_is_no_text_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidKeyError, match=f"draft/alice: {name} must be a str, not int"):
        key_range(where=ROOM, **{name: 3})  # type: ignore[arg-type]
    with pytest.raises(InvalidKeyError, match=f"draft/alice: {name} must have a UTF-8 form"):
        key_range(where=ROOM, **{name: "\ud800"})  # type: ignore[arg-type]


@given(keys=st.sets(texts), prefix=texts, start=bounds, after=bounds, end=bounds)
def test_a_range_holds_exactly_the_keys_that_its_bounds_name(
    keys: set[str], prefix: str, start: str | None, after: str | None, end: str | None
) -> None:
    """G17."""
    if start is not None:
        after = None
    expected = {
        key
        for key in keys
        if key.startswith(prefix)
        and (start is None or start.encode() <= key.encode())
        and (after is None or after.encode() < key.encode())
        and (end is None or key.encode() < end.encode())
    }
    covered = key_range(where=ROOM, prefix=prefix, start=start, start_after=after, end=end)
    assert expected == (set() if covered is None else {key for key in keys if contains(covered, key)})
