"""The picture of when alarms ring: well-formed, to scale, and with every alarm in it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._cli.chart import COLOURS, LATE, Bar, Panel, draw
from partyroom._cli.timeline import DAYS, HOURS
from partyroom._core.instants import to_micros
from partyroom.types import RoomKey
from tests.cli.command_line import NOW, StoredRoom, alarm, make_file, run

SVG = "{http://www.w3.org/2000/svg}"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def texts(picture: ET.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}text")]


def tooltips(picture: ET.Element) -> list[str]:
    return [each.text or "" for each in picture.iter(f"{SVG}title")][1:]


def bars(picture: ET.Element) -> list[tuple[str, float, float]]:
    """Give the parts of all bars: colour, width and height."""
    groups = picture.iter(f"{SVG}g")
    return [
        (rect.get("fill", ""), float(rect.get("width", "")), float(rect.get("height", "")))
        for group in groups
        for rect in group.iter(f"{SVG}rect")
    ]


def picture_of(tmp_path: Path, *due: tuple[str, timedelta | None]) -> ET.Element:
    rooms = [RoomKey(party, f"{n:04}") for n, (party, _) in enumerate(due)]
    stored = [
        StoredRoom(room, {}, [alarm(room, when, failed=when is None)])
        for room, (_, when) in zip(rooms, due, strict=True)
    ]
    path = make_file(tmp_path / "rooms.db", *stored)
    return ET.fromstring(run("timeline", path).out)


def test_every_alarm_is_in_the_picture_or_in_its_figures(tmp_path: Path) -> None:
    late = [timedelta(), timedelta(seconds=-59), timedelta(minutes=-59), timedelta(hours=-23), timedelta(days=-9)]
    ahead = [timedelta(microseconds=1), HOUR, timedelta(hours=23, minutes=59), DAY, 13 * DAY, 14 * DAY, 900 * DAY]
    picture = picture_of(tmp_path, *[("draft", due) for due in (*late, *ahead, None)])
    assert "13 alarms, 5 late, 1 failed, 2 beyond 14 days" in texts(picture)
    assert [
        *("late by days: 1 alarm (draft 1)", "late by hours: 1 alarm (draft 1)"),
        *("late by min: 1 alarm (draft 1)", "late by s: 2 alarms (draft 2)"),
        *("Tue 1, 00:00: 1 alarm (draft 1)", "Tue 1, 01:00: 1 alarm (draft 1)", "Tue 1, 23:30: 1 alarm (draft 1)"),
        *("Tue 1, 00:00: 2 alarms (draft 2)", "Tue 1, 18:00: 1 alarm (draft 1)"),
        *("Wed 2, 00:00: 1 alarm (draft 1)", "Mon 14, 00:00: 1 alarm (draft 1)"),
    ] == tooltips(picture)


def test_a_paused_and_an_unreadable_alarm_are_told(tmp_path: Path) -> None:
    room = RoomKey("draft", "a")
    rows = [alarm(room, None, "p", paused=to_micros(NOW)), alarm(room, None, "u")._replace(data=b"?")]
    path = make_file(tmp_path / "rooms.db", StoredRoom(room, {}, rows))
    assert (
        f"{tmp_path / 'a.svg'}: 2 alarms, 1 paused, 1 unreadable\n"
        == run("timeline", path, "-o", tmp_path / "a.svg").out
    )
    ET.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))


def test_parties_have_colours_and_the_smallest_share_one(tmp_path: Path) -> None:
    due = [(f"p{party}", HOUR) for party in range(8) for _ in range(9 - party)]
    picture = picture_of(tmp_path, *due)
    assert ["p0", "p1", "p2", "p3", "p4", "3 other parties"] == texts(picture)[2:8]
    assert list(COLOURS) == [colour for colour, _, _ in bars(picture)][:6]
    assert f"Tue 1, 01:00: {len(due)} alarms (p0 9, p1 8, p2 7, p3 6, p4 5, ...)" == tooltips(picture)[0]


def test_as_many_parties_as_colours_have_one_each(tmp_path: Path) -> None:
    picture = picture_of(tmp_path, *[(f"p{party}", HOUR) for party in range(6)])
    assert [f"p{party}" for party in range(6)] == texts(picture)[2:8]


def test_names_do_no_harm(tmp_path: Path) -> None:
    picture = picture_of(tmp_path, ("<script>&\n\x00", HOUR))
    assert r"<script>&\n\x00" in texts(picture)


def test_an_empty_file_has_a_picture(tmp_path: Path) -> None:
    picture = picture_of(tmp_path)
    assert "0 alarms" in texts(picture)
    assert [] == bars(picture)


def test_times_stand_where_they_begin(tmp_path: Path) -> None:
    found = texts(picture_of(tmp_path))
    assert ["Tue 1", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"] == found[found.index("s") + 1 :][:8]
    assert ["Tue 1", "Wed 2", "Thu 3", "Fri 4", "Sat 5", "Sun 6", "Mon 7"] == found[found.index(DAYS.title) + 2 :][:7]


@given(st.timedeltas(timedelta(), timedelta(days=1)))
def test_a_row_of_times_begins_at_a_round_one_before_now(after: timedelta) -> None:
    now = NOW + after
    for span in (HOURS, DAYS):
        assert timedelta() <= now - span.begin(now) < span.step
        assert timedelta() == (span.begin(now) - NOW) % span.step


# --- bars --------------------------------------------------------------------


def panel(*counts: int, late: int = 0) -> ET.Element:
    each = [Bar(f"{count}", [(LATE if place < late else COLOURS[0], count)]) for place, count in enumerate(counts)]
    return ET.fromstring(draw("t", "f", [], [Panel("p", each, {}, late)]))


@pytest.mark.parametrize(
    ("most", "scale"),
    [
        (0, ["1"]),
        (1, ["1"]),
        (4, ["1", "2", "3", "4"]),
        (5, ["2", "4", "6"]),
        (9, ["5", "10"]),
        (40, ["10", "20", "30", "40"]),
        (41, ["20", "40", "60"]),
        (1_234_567, ["500,000", "1,000,000", "1,500,000"]),
    ],
)
def test_scales_are_in_round_numbers(most: int, scale: list[str]) -> None:
    assert scale == [text for text in texts(panel(most)) if re.fullmatch(r"[\d,]+", text)]


def test_bars_are_to_scale_and_none_vanishes() -> None:
    (_, width, whole), (_, _, half), (_, _, least) = bars(panel(1000, 500, 1, 0))
    assert (170.0, 85.0, 2.0) == (whole, half, least)
    assert 0 < width


def test_parts_of_a_bar_are_stacked_to_scale() -> None:
    each = Bar("x", [(COLOURS[0], 3), (COLOURS[1], 1)])
    picture = ET.fromstring(draw("t", "f", [], [Panel("p", [each], {})]))
    assert [127.5, 42.5] == [height for _, _, height in bars(picture)]


def cuts(picture: ET.Element) -> int:
    return sum("stroke-width" in path.attrib for path in picture.iter(f"{SVG}path"))


def test_what_is_late_does_not_flatten_what_is_ahead() -> None:
    picture = panel(5000, 4, late=1)
    assert [(LATE, 170.0), (COLOURS[0], 170.0)] == [(colour, height) for colour, _, height in bars(picture)]
    assert "5,000" in texts(picture)
    assert 1 == cuts(picture)


def test_with_nothing_ahead_what_is_late_gives_the_scale() -> None:
    picture = panel(400, 200, 0, late=2)
    assert [170.0, 85.0] == [height for _, _, height in bars(picture)]
    assert 0 == cuts(picture)


@pytest.mark.parametrize("output", ["rooms.db", "link"])
def test_a_picture_is_not_drawn_over_the_file_itself(tmp_path: Path, output: str) -> None:
    path = make_file(tmp_path / "rooms.db", StoredRoom(RoomKey("draft", "a"), {"k": 1}))
    (tmp_path / "link").hardlink_to(path)
    before = path.read_bytes()
    ran = run("timeline", path, "-o", tmp_path / output)
    told = f"partyroom timeline: {tmp_path / output}: the picture would be drawn over the file itself\n"
    assert (2, told, True) == (ran.code, ran.err, before == path.read_bytes())
