"""The values that travel: they refuse what could never hold, and sort as the bytes of their texts do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom.types import Alarm, AlarmCursor, AlarmRow, Limits, RetryPolicy, RoomKey

COUNTS = [field.name for field in attrs.fields(Limits) if isinstance(field.default, int)]
TIMES = [field.name for field in attrs.fields(Limits) if field.name not in COUNTS]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
room_keys = st.builds(RoomKey, texts, texts)


def in_bytes(key: RoomKey) -> tuple[bytes, bytes]:
    return key.party.encode(), key.id.encode()


@given(st.lists(room_keys))
def test_rooms_are_ordered_by_party_then_id_each_by_its_bytes(keys: list[RoomKey]) -> None:
    assert sorted(keys, key=in_bytes) == sorted(keys)


@given(st.lists(st.builds(AlarmCursor, st.integers(-2, 2), room_keys, texts)))
def test_places_among_due_alarms_are_ordered_by_time_then_room_then_name(places: list[AlarmCursor]) -> None:
    assert sorted(places, key=lambda place: (place.due, in_bytes(place.room), place.name.encode())) == sorted(places)


def test_a_room_is_named_by_its_party_and_id() -> None:
    assert "draft/alice" == str(RoomKey("draft", "alice"))


def test_a_row_without_data_has_none() -> None:
    assert b"" == AlarmRow(RoomKey("draft", "alice"), "", None).data


@pytest.mark.parametrize(("failures", "is_retry"), [(0, False), (1, True), (6, True)])
def test_an_alarm_is_a_retry_once_it_has_failed(failures: int, is_retry: bool) -> None:
    alarm = Alarm(None, "1", datetime(2030, 1, 1, tzinfo=UTC), failures)
    assert is_retry is alarm.is_retry


def test_checkers_leave_a_payload_to_its_author_as_they_do_a_stored_value() -> None:
    assert_type(Alarm(None, "1", datetime(2030, 1, 1, tzinfo=UTC)).payload, Any)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_nothing_could_keep_is_refused(name: str, value: int) -> None:
    options: dict[str, int] = {name: value}
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be positive, not {value}"):
        Limits(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [timedelta(), timedelta(microseconds=-1)])
def test_a_time_limit_that_has_always_passed_is_refused(name: str, value: timedelta) -> None:
    options: dict[str, timedelta] = {name: value}
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be positive"):
        Limits(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "int") for name in COUNTS), *((name, "timedelta") for name in TIMES)]
)
def test_a_limit_of_another_kind_is_refused_by_its_name(name: str, kind: str) -> None:
    options: dict[str, Any] = {name: "5"}
    with pytest.raises(TypeError, match=rf"^Limits\.{name} must be of type {kind}, not str$"):
        Limits(**options)


def test_a_delay_that_is_a_number_is_refused_by_its_name() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"^RetryPolicy\.first_delay must be of type timedelta, not int$"):
        RetryPolicy(first_delay=wrong)


@pytest.mark.parametrize("name", COUNTS)
def test_the_smallest_limit_is_one(name: str) -> None:
    options: dict[str, int] = {name: 1}
    assert 1 == getattr(Limits(**options), name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [None, timedelta(microseconds=1)])
def test_a_time_limit_may_be_short_or_none(name: str, value: timedelta | None) -> None:
    options: dict[str, timedelta | None] = {name: value}
    assert value == getattr(Limits(**options), name)  # type: ignore[arg-type]


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Limits().mailbox = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_retries", -1), ("first_delay", timedelta()), ("max_delay", timedelta()), ("jitter", -0.1)],
)
def test_a_retry_policy_refuses_what_makes_no_sense(name: str, value: object) -> None:
    options: dict[str, object] = {name: value}
    with pytest.raises(ValueError, match=name):
        RetryPolicy(**options)  # type: ignore[arg-type]


def test_a_retry_policy_may_say_never() -> None:
    assert 0 == RetryPolicy(max_retries=0, jitter=0).max_retries
