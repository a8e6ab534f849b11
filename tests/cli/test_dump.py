"""The form in which rooms travel: what was packed is unpacked, and what is no dump is refused with its line."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._cli.dump import FIRST, RoomContent, Totals, alarm_line, last_line, read_dump, value_line
from partyroom._cli.packing import pack, unpack
from partyroom._cli.screen import CommandError
from partyroom._core.instants import HIGHEST, LOWEST
from partyroom.codec import JsonCodec
from partyroom.types import AlarmRow, RoomKey
from tests.cli.command_line import alarm

A, B = RoomKey("draft", "a"), RoomKey("draft", "b")
HOUR = timedelta(hours=1)


# --- bytes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":[1,2.5,null,true]}', {"a": [1, 2.5, None, True]}),
        ('"Käse"'.encode(), "Käse"),
        (b'{"a": 1}', {"$text": '{"a": 1}'}),
        (b'{"a":1,"a":1}', {"$text": '{"a":1,"a":1}'}),
        (b"1e5", {"$text": "1e5"}),
        (b"NaN", {"$text": "NaN"}),
        (b"Dear diary", {"$text": "Dear diary"}),
        (b"", {"$text": ""}),
        (b"9" * 5000, {"$text": "9" * 5000}),
        (b"[" * 100_000, {"$text": "[" * 100_000}),
        (b'{"$text":"x"}', {"$text": '{"$text":"x"}'}),
        (b'{"$base64":"x"}', {"$text": '{"$base64":"x"}'}),
        (b'{"$tuple":[1]}', {"$tuple": [1]}),
        (b"\xff\x00", {"$base64": "/wA="}),
    ],
)
def test_bytes_are_packed_as_readable_as_they_are(data: bytes, expected: object) -> None:
    assert expected == pack(data)
    assert data == unpack(pack(data))


@given(st.binary(max_size=99) | st.text(st.characters(codec="utf-8"), max_size=99).map(str.encode))
def test_any_bytes_are_unpacked_as_they_were(data: bytes) -> None:
    assert data == unpack(json.loads(json.dumps(pack(data))))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        lambda parts: st.lists(parts) | st.dictionaries(st.text(st.characters(codec="utf-8")), parts),
    )
)
def test_values_of_the_default_codec_stand_as_they_are(value: Any) -> None:
    data = JsonCodec().encode(value)
    assert data == unpack(json.loads(json.dumps(pack(data))))


# --- whole dumps -------------------------------------------------------------


def dump(*contents: RoomContent) -> list[str]:
    lines: list[object] = [FIRST]
    totals = Totals(rooms=len(contents))
    for content in contents:
        lines += [value_line(content.room, key, data) for key, data in content.values.items()]
        lines += [alarm_line(row) for row in content.alarms.values()]
        totals.values += len(content.values)
        totals.alarms += len(content.alarms)
    return [json.dumps(line) for line in [*lines, last_line(totals)]]


def content(room: RoomKey, values: dict[str, bytes], *alarms: AlarmRow) -> RoomContent:
    size = sum(map(len, values.values())) + sum(len(row.data) for row in alarms)
    return RoomContent(room, values, {row.name: row for row in alarms}, size)


ROOMS = (
    content(A, {"": b"1", "k": b"\xff"}, alarm(A, HOUR), alarm(A, None, "n", failed=True, error="é\n")),
    content(B, {}, alarm(B, HOUR, payload=b"[1]"), AlarmRow(B, "z", LOWEST, b"\n\n"), AlarmRow(B, "y", HIGHEST, b"")),
)


def test_what_is_read_is_what_was_written() -> None:
    assert list(ROOMS) == list(read_dump(dump(*ROOMS)))


def test_lines_say_what_they_are() -> None:
    assert {"party": "draft", "room": "a", "key": "k", "value": "x"} == value_line(A, "k", b'"x"')
    assert {
        "party": "draft",
        "room": "b",
        "alarm": None,
        "due": "2030-01-01T01:00:00+00:00",
        "record": {"id": "0123456789abcdef"},
        "payload": [1],
    } == alarm_line(alarm(B, HOUR, payload=b"[1]"))


def test_a_dump_of_nothing_is_one() -> None:
    assert [] == list(read_dump(dump()))


def test_two_dumps_in_a_row_are_read_as_one() -> None:
    first, second = ROOMS
    assert [first, second] == list(read_dump([*dump(first), "\n", *dump(second)]))


LINES = dump(*ROOMS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the dump is cut off: its last line is missing"),
        (LINES[:-1], "the dump is cut off: its last line is missing"),
        (LINES[1:], "line 1 is none of a dump of rooms: it begins with"),
        (["Dear diary"], "line 1 is none of a dump of rooms: Expecting value"),
        ([*LINES[:2], *LINES[3:]], "its end speaks of"),
        ([*LINES[:2], LINES[5], LINES[1]], "line 4 is none of a dump of rooms: draft/a comes twice"),
        ([*LINES, *LINES], "draft/a comes twice"),
        ([LINES[0], '{"party":"p"}'], "line 2 is none of a dump of rooms: 'room'"),
        ([LINES[0], '{"party":"p","room":1,"key":"k","value":1}'], "1 is no text"),
        ([LINES[0], '{"party":"p","room":"\\ud800","key":"k","value":1}'], "surrogates not allowed"),
        ([LINES[0], '{"party":"p","room":"r","key":"k","value":{"$base64":"?"}}'], "line 2"),
        ([LINES[0], '{"party":"p","room":"r","alarm":null,"due":"soon","record":{}}'], "Invalid isoformat"),
        ([LINES[0], '{"party":"p","room":"r","alarm":null,"due":"2030-01-01","record":{}}'], "line 2"),
        ([LINES[0], '{"party":"p","room":"r"}'], "line 2 is none of a dump of rooms: 'alarm'"),
        ([LINES[0], '{"party":"p","room":"r","key":"k","value":{"$text":5}}'], "$text holds 5, which is no text"),
        (
            [LINES[0], '{"party":"p","room":"r","alarm":null,"due":"0001-01-01T00:00+01:00","record":1}'],
            "years 1 to 9999",
        ),
        ([LINES[0], "[" * 100_000], "line 2 is none of a dump of rooms: "),
        (["[]"], "it begins with"),
        ([LINES[0], "[]"], "line 2"),
    ],
)
def test_what_is_no_dump_is_refused_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(CommandError) as refused:
        list(read_dump(lines))
    assert message in str(refused.value)
