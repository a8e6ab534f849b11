"""Words, figures, tables and progress: what fits a line, a terminal, and a person's eye."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._cli.progress import Progress
from partyroom._cli.screen import Screen
from partyroom._cli.table import Column, table
from partyroom._cli.text import counted, cut, length, moment, one_line, relative, repeats, size, width
from partyroom._core.instants import HIGHEST, LOWEST, to_micros
from partyroom.recurrence import Cron, Every
from tests.cli.command_line import NOW, StillClock


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("draft/alice 日本", "draft/alice 日本"),
        ("a\nb\x1b[31m\u202e", r"a\nb\x1b[31m\u202e"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, expected: str) -> None:
    assert expected == one_line(text)


@given(st.text())
def test_a_line_is_one_line_whatever_stands_in_it(text: str) -> None:
    assert one_line(text).isprintable()


def test_wide_characters_take_two_columns() -> None:
    assert [4, 4, 6] == [width("abcd"), width("日本"), width("ab日本")]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [("abcd", 4, "abcd"), ("abcde", 4, "abc…"), ("日本語", 6, "日本語"), ("日本語", 5, "日本…"), ("日本語", 4, "日…")],
)
def test_what_is_cut_shows_it(text: str, columns: int, expected: str) -> None:
    assert expected == cut(text, columns)


@given(st.text(), st.integers(1, 20))
def test_what_is_cut_fits(text: str, columns: int) -> None:
    assert width(cut(text, columns)) <= columns


@pytest.mark.parametrize(("number", "expected"), [(0, "0 rooms"), (1, "1 room"), (1234, "1,234 rooms")])
def test_things_are_counted_with_their_noun(number: int, expected: str) -> None:
    assert expected == counted(number, "room")


def test_an_unusual_plural_is_given() -> None:
    assert "2 parties" == counted(2, "party", "parties")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.0 KB"), (1024 * 1024 - 1, "1,023.9 KB")),
        *((1024 * 1024, "1.0 MB"), (5 * 2**30, "5.0 GB"), (5 * 2**40, "5.0 TB"), (5000 * 2**40, "5,000.0 TB")),
    ],
)
def test_sizes_are_rounded_down(number: int, expected: str) -> None:
    assert expected == size(number)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (timedelta(), "0 ms"),
        (timedelta(microseconds=999), "0 ms"),
        (timedelta(milliseconds=20), "20 ms"),
        (timedelta(seconds=-1.5), "1 s"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=1, minutes=5), "1 d"),
        (timedelta(days=1, hours=2, minutes=5), "1 d 2 h"),
    ],
)
def test_a_length_is_told_by_its_two_largest_units(span: timedelta, expected: str) -> None:
    assert expected == length(span)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (timedelta(minutes=3), "in 3 min"),
        (timedelta(), "0 ms late"),
        (timedelta(minutes=-3), "3 min late"),
    ],
)
def test_an_instant_is_told_as_seen_from_now(after: timedelta, expected: str) -> None:
    assert expected == relative(to_micros(NOW + after), NOW)


def test_every_instant_can_be_told() -> None:
    assert ["0001-01-01 00:00:00Z", "9999-12-31 23:59:59Z"] == [moment(LOWEST), moment(HIGHEST)]
    assert relative(HIGHEST, NOW).startswith("in 2910")


def test_a_recurrence_is_told_in_a_few_words() -> None:
    assert "" == repeats(None)
    assert "every 1 h 30 min" == repeats(Every(timedelta(minutes=90)))
    assert "cron 0 9 * * mon Europe/Oslo" == repeats(Cron("0 9 * * mon", tz="Europe/Oslo"))


# --- tables ------------------------------------------------------------------

COLUMNS = (Column("name"), Column("figure", figures=True), Column("words"))


def lines(*rows: tuple[str, str, str], space: int | None = None) -> list[str]:
    return list(table(COLUMNS, rows, space))


def test_texts_stand_to_the_left_and_figures_to_the_right() -> None:
    assert ["name    figure  words", "a            1  b", "日本語  12,345"] == lines(
        ("a", "1", "b"), ("日本語", "12,345", "")
    )


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    assert ["name  words", "a     b"] == lines(("a", "", "b"))


def test_without_a_terminal_nothing_is_cut() -> None:
    assert "x" * 1000 == lines(("x" * 1000, "1", ""))[1].split()[0]


def test_the_widest_texts_give_way_and_figures_never() -> None:
    assert [
        "name        figure  words",
        "aaaaaaaaa…  123,456,789",
        "b               1  cccccccc…",
    ] != lines(("a" * 30, "123,456,789", ""), ("b", "1", "c" * 20), space=32)
    assert [
        "name           figure  words",
        "aaaaaaa…  123,456,789",
        "b                   1  ccccccc…",
    ] == lines(("a" * 30, "123,456,789", ""), ("b", "1", "c" * 20), space=31)


def test_half_a_time_is_none() -> None:
    columns = [Column("at", whole=True), Column("words")]
    assert ["at                words", "2030-01-01 00:00  xxxxxxx…"] == list(
        table(columns, [["2030-01-01 00:00", "x" * 30]], 20)
    )


def test_a_table_that_cannot_fit_is_as_narrow_as_can_be() -> None:
    assert ["name      figure  words", "aaaaaaa…       1  ccccccc…"] == lines(("a" * 30, "1", "c" * 20), space=10)


def test_a_column_that_says_again_what_another_does_goes_where_it_is_narrow() -> None:
    columns = (Column("rings", whole=True), Column("at", whole=True, spare=True), Column("name"))
    rows = [["in 5 h", "2030-01-01 00:00", "n" * 20]]
    assert ["rings   name", f"in 5 h  {'n' * 11}…"] == list(table(columns, rows, 20))
    assert ["rings   at                name", f"in 5 h  2030-01-01 00:00  {'n' * 11}…"] == list(
        table(columns, rows, 38)
    )


def test_a_table_of_figures_does_not_give_way() -> None:
    assert ["n", "1"] == list(table([Column("n", figures=True)], [["1"]], 0))


@given(st.lists(st.tuples(st.text(max_size=40), st.just("1"), st.text(max_size=40)), min_size=1), st.integers(30, 120))
def test_a_table_fits_whatever_stands_in_it(rows: list[tuple[str, str, str]], space: int) -> None:
    assert all(width(line) <= space for line in lines(*rows, space=space))


# --- progress ----------------------------------------------------------------


def screen(*, is_watched: bool, columns: int = 80) -> tuple[Screen, StringIO]:
    out, err, still = StringIO(), StringIO(), StillClock()
    found = Screen(out=out, err=err, input=out, clock=still, chance=int, is_watched=is_watched, watched_width=columns)
    return found, err


def test_progress_is_shown_and_gone_at_the_end() -> None:
    watched, err = screen(is_watched=True)
    with Progress(watched, "reading", 4) as progress:
        progress.step()
        assert "\rreading: [######..................]  25%  1 of 4\r" == err.getvalue()
        progress.step(3)
        shown = "reading: [########################] 100%  4 of 4"
        assert err.getvalue().endswith(f"\r{shown}\r")
    assert err.getvalue().endswith(f"\r{' ' * len(shown)}\r")


def test_progress_of_what_nobody_knows_the_end_of_is_a_count() -> None:
    watched, err = screen(is_watched=True)
    with Progress(watched, "reading") as progress:
        progress.step(1234)
        assert "\rreading: 1,234\r" == err.getvalue()
        progress.set(2, 4)
        assert err.getvalue().endswith("50%  2 of 4\r")


@pytest.mark.parametrize(
    ("columns", "shown"), [(50, "reading: [######..................]  25%  1 of 4"), (48, "reading: 25%")]
)
def test_progress_stays_on_one_line_of_a_narrow_terminal(columns: int, shown: str) -> None:
    watched, err = screen(is_watched=True, columns=columns)
    with Progress(watched, "reading", 4) as progress:
        progress.step()
        assert f"\r{shown}\r" == err.getvalue()


def test_a_total_that_was_too_low_does_not_overflow() -> None:
    watched, err = screen(is_watched=True)
    with Progress(watched, "reading", 1) as progress:
        progress.step(5)
    assert "100%  5 of 1" in err.getvalue()


def test_progress_is_silent_where_nobody_watches() -> None:
    unwatched, err = screen(is_watched=False)
    with Progress(unwatched, "reading", 4) as progress:
        progress.step()
    assert "" == err.getvalue()


def test_progress_is_silent_for_work_of_a_moment() -> None:
    watched, err = screen(is_watched=True)
    with Progress(watched, "reading", 4) as progress:
        progress._next = float("inf")
        progress.step()
    assert "" == err.getvalue()
