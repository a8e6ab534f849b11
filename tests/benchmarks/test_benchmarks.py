"""The benchmarks run, at tiny size, so that they never rot. No figure is asserted: a busy machine is no failure."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import main
from benchmarks.chart import draw, margin
from benchmarks.kept import BEGIN, END, publish
from benchmarks.measure import LOOPS, Answer, Question, Sample, ask, in_fresh_process, in_turns, installed, run_on
from benchmarks.questions import QUESTIONS
from benchmarks.table import as_markdown, bar, figure, note, row, spread
from benchmarks.workerd import find_workerd

RIVALS = [name for name in QUESTIONS if name.endswith("-dbos") or "workerd" in QUESTIONS[name].beside_text]
"""What starts programs, and takes seconds for each."""
OTHERS = [name for name in QUESTIONS if name not in RIVALS]
MEASURED_FIRST = [name for name in RIVALS if name != "awake-room-key"]
"""What finds out that its rival is not there without starting a program of its own."""
HERE = [loop for loop in LOOPS if loop != "uvloop" or installed("uvloop")]


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Leave the collector as it was: a question that is asked has it look at everything again."""
    yield
    gc.freeze()


def on_loops(names: Iterable[str]) -> Iterator[Any]:
    """Give each question with every loop; by default one of them is asked on, which changes from question to question."""
    for number, name in enumerate(names):
        loops = [loop for loop in HERE if loop in QUESTIONS[name].loops]
        for place, loop in enumerate(loops):
            yield pytest.param(name, loop, marks=() if place == number % len(loops) else pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "loop"),
    [*on_loops(OTHERS), *(pytest.param(*each.values, marks=pytest.mark.slow) for each in on_loops(RIVALS))],
)
def test_every_question_is_answered_on_every_loop_that_it_names(name: str, loop: str) -> None:
    sample = QUESTIONS[name].measure(loop, True)
    assert math.isfinite(sample.ours)
    assert sample.beside is None or sample.beside > 0
    # What it is asked beside is left out where it is not installed, and that is told.
    assert (sample.beside is None) == bool(sample.missing or not QUESTIONS[name].beside_text)


@pytest.mark.parametrize(("name", "loop"), list(on_loops(MEASURED_FIRST)))
def test_a_question_whose_rival_is_not_there_says_so(name: str, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PARTYROOM_NODE_MODULES", raising=False)
    monkeypatch.setattr("benchmarks.dbos_rival.installed", lambda _package: None)
    sample = QUESTIONS[name].measure(loop, True)
    assert sample.beside is None
    assert "is not installed" in sample.missing or "workerd is neither" in sample.missing


@pytest.mark.parametrize("package", ["apscheduler", "aiosqlite"])
def test_without_a_package_its_figure_is_left_out(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> str | None:
        return None if name == package else installed(name)

    monkeypatch.setattr("benchmarks.rivals.installed", without)
    monkeypatch.setattr("benchmarks.by_hand.installed", without)
    assert package in QUESTIONS["alarms-apscheduler-file"].measure("asyncio", True).missing
    in_memory = QUESTIONS["alarms-apscheduler-memory"].measure("asyncio", True)
    assert (in_memory.beside is None) == (package == "apscheduler")
    by_hand = QUESTIONS["by-hand-one-caller"].measure("asyncio", True)
    assert ("aiosqlite" in by_hand.rivals) == (without("aiosqlite") is not None)


def test_workerd_is_looked_for_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ".bin" / "workerd"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PARTYROOM_NODE_MODULES", os.fspath(tmp_path))
    assert find_workerd() == os.fspath(program)


def test_every_question_says_what_it_asks_and_where_its_bar_is_if_it_has_one() -> None:
    for question in QUESTIONS.values():
        assert 0 < len(question.text) <= 100, question.name  # a line of the picture
        assert set(question.loops) <= set(LOOPS), question.name
        if question.at_least is None or question.aim is None:
            assert question.beside_text, question.name
            assert question.at_least == question.aim, question.name
        else:
            best = max if question.more_is_better else min
            assert question.aim == best(question.aim, question.at_least), question.name


def a_question(
    unit: str = "us", *, beside: str = "a limit", bar: float | None = 3, aim: float | None = 1.5, ours: float = 4.0
) -> Question:
    return Question("made-up", "what <it> costs", beside, unit, bar, aim, LOOPS, lambda _loop, _quick: Sample(ours, 2))


def an_answer(asked: Question, ratio: float | None, ours: float = 1.0) -> Answer:
    return Answer(asked, "asyncio", ours, None, ratio, ratio, ratio, {})


@pytest.mark.parametrize(("verdict", "ratio"), [("aim", 1.5), ("ok", 3.0), ("short", 3.1), ("", None)])
def test_a_time_is_judged_by_its_ratio(verdict: str, ratio: float | None) -> None:
    assert verdict == an_answer(a_question(), ratio).verdict


@pytest.mark.parametrize(("verdict", "ratio"), [("aim", 0.85), ("ok", 0.6), ("short", 0.5)])
def test_a_rate_is_the_better_the_higher_it_is(verdict: str, ratio: float) -> None:
    assert verdict == an_answer(a_question("/s", bar=0.6, aim=0.85), ratio).verdict


def test_without_something_beside_it_the_figure_itself_is_judged() -> None:
    assert an_answer(a_question("ms", beside=""), None, ours=2).verdict == "ok"


def test_a_question_without_a_bar_has_no_verdict_and_no_margin() -> None:
    answer = an_answer(a_question(bar=None, aim=None), 1.0)
    assert answer.verdict == ""
    assert margin(answer) is None


def test_a_question_whose_rival_is_missing_has_no_margin() -> None:
    assert margin(an_answer(a_question(), None)) is None


def test_the_margin_is_how_many_times_better_than_the_bar() -> None:
    assert margin(an_answer(a_question(), 1.5)) == 2
    assert margin(an_answer(a_question("/s", bar=2), 1.0)) == 0.5
    assert margin(an_answer(a_question("ms", beside=""), None, ours=-1)) == math.inf


def test_an_answer_is_the_median_of_runs_after_a_warm_up() -> None:
    runs, heard = iter([100.0, 4.0, 2.0, 3.0]), list[int]()
    asked = Question("q", "", "", "us", None, None, LOOPS, lambda _loop, _quick: Sample(next(runs), 2, {"other": 5}))
    answer = ask(asked, "asyncio", runs=3, quick=False, progress=heard.append)
    assert heard == [0, 1, 2]
    assert answer.ours == 3
    assert answer.beside == 2
    assert answer.ratio == 1.5
    assert answer.low == 1
    assert answer.high == 2
    assert answer.rivals == {"other": 5}
    assert spread(answer) == "1.00 to 2.00"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("0 x", 0, "x"),
        ("0.012 x", 0.0123, "x"),
        ("1.23 us", 1.234, "us"),
        ("-12.3 ms", -12.34, "ms"),
        ("12,345 /s", 12345, "/s"),
    ],
)
def test_a_figure_has_as_many_digits_as_a_person_reads(text: str, value: float, unit: str) -> None:
    assert text == figure(value, unit)


def test_a_note_may_have_a_unit_of_its_own() -> None:
    assert note("in memory", 1200, "/s") == "in memory 1,200 /s"
    assert note("p99 in ms", 2.5, "/s") == "p99 2.50 ms"


def test_without_a_spread_and_a_bar_nothing_is_said_of_them() -> None:
    assert spread(an_answer(a_question(), None)) == ""
    assert bar(a_question(bar=None), None) == ""
    assert bar(a_question(), 3) == "<= 3 x"
    assert bar(a_question("/s", beside="", bar=4096), 4096) == ">= 4,096 /s"


def test_what_is_not_installed_and_what_was_before_stand_below_an_answer() -> None:
    missing = Answer(a_question(), "trio", 5.0, None, None, None, None, {"p99 in ms": 2.0}, "no rival here")
    first, below = row(missing, {"ratio": None, "ours": 6.0}).splitlines()
    assert first.split() == ["trio", "5.00", "us", "<=", "3", "x", "<=", "1.5", "x"]
    assert below.strip() == "p99 2.00 ms; nothing beside it: no rival here; before 6.00 us"


def test_the_table_names_question_loop_versions_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--loop", "trio", "call", "get-put"]) == 0
    out = capsys.readouterr().out
    environment, *_ = out.splitlines()
    assert environment.startswith("Python 3.")
    assert "anyio 4." in environment
    assert "\ncall: a call to a warm room, one caller\n  beside it: a round trip" in out
    rows = [line for line in out.splitlines() if line.startswith("    trio")]
    assert len(rows) == 2
    assert all(line.endswith(("reaches the aim", "reaches the bar", "FALLS SHORT")) for line in rows)


def test_answers_are_kept_compared_taken_again_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, drawn = tmp_path / "kept.json", tmp_path / "drawn.svg"
    arguments = ["--quick", "--loop", "asyncio", "cached-get", "idle-room"]
    assert main([*arguments, "--json", str(kept), "--svg", str(drawn)]) == 0
    answers = json.loads(kept.read_text(encoding="utf-8"))["answers"]
    assert set(answers) == {"cached-get/asyncio", "idle-room/asyncio"}
    assert answers["cached-get/asyncio"]["ratio"] > 0
    assert answers["idle-room/asyncio"]["unit"] == "bytes"
    assert ET.fromstring(drawn.read_text(encoding="utf-8")).tag.endswith("svg")
    first = capsys.readouterr().out

    assert main(["--from", str(kept), "--compare", str(kept)]) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[0] == first.splitlines()[0]
    assert again.count("before ") == 2


def test_kept_answers_are_published_between_the_marks_of_a_readme(tmp_path: Path) -> None:
    kept, readme = tmp_path / "kept.json", tmp_path / "README.md"
    figures = {"ours": 2.0, "limit": 1.0, "ratio": 2.0, "low": 1.0, "high": 3.0, "rivals": {"aiosqlite": 7.0}}
    answer = figures | {"missing": ""}
    names = ("call/asyncio", "call/trio", "idle-room/asyncio", "by-hand-one-caller/asyncio")
    told = {"environment": "Python", "answers": dict.fromkeys(names, answer) | {"asked no more/trio": answer}}
    kept.write_text(json.dumps(told), encoding="utf-8")
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n", encoding="utf-8")
    (tmp_path / "benchmarks").mkdir()

    assert main(["--from", str(kept), "--publish", str(tmp_path)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\nMeasured with Python.\n")
    assert text.endswith(f"{END}after\n")
    assert "old" not in text
    assert "| 2.00 x bar (2.00 us) |  | 2.00 x bar (2.00 us) |" in text
    assert "| 2.00 bytes aim |" in text
    assert "; aiosqlite 7.00 /s | 2.00 /s | 1.00 /s | 2.00 x |" in text
    assert (tmp_path / "benchmarks" / "figures.svg").exists()


def test_a_readme_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(END + BEGIN, encoding="utf-8")
    with pytest.raises(ValueError, match="no place for figures"):
        publish(readme, "text")
    assert readme.read_text(encoding="utf-8") == END + BEGIN


def test_the_table_of_a_readme_says_where_nothing_is_beside_a_figure() -> None:
    unmeasured = Answer(a_question(), "trio", 5.0, None, None, None, None, {})
    rival = Answer(a_question(bar=None, aim=None), "trio", 5.0, None, None, None, None, {})
    assert "|  |  | (5.00 us) |" in as_markdown([unmeasured], "Python")
    assert "| what <it> costs | a limit | 5.00 us |  |  |" in as_markdown([rival], "Python")


def test_a_loop_that_a_question_does_not_name_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--loop", "trio", "import"]) == 0
    assert "import: " not in capsys.readouterr().out


def test_an_unknown_question_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["coll"])
    assert refused.value.code == 2
    told = capsys.readouterr().err
    assert "no question coll" in told
    assert "cold-wake" in told


def test_a_picture_shows_the_first_loop_of_each_question_that_has_a_margin() -> None:
    asked = a_question()
    texts = draw([an_answer(asked, 1.5), an_answer(asked, 30), an_answer(a_question(bar=None), 1)])
    assert texts.count("what &lt;it&gt; costs") == 1
    assert "2.0 x" in texts


def test_what_is_run_in_a_fresh_process_gives_its_result() -> None:
    assert in_fresh_process(math.hypot, 3, 4) == 5


def test_a_program_runs_on_the_loop_that_is_named() -> None:
    async def name() -> str:
        return "ran"

    assert run_on("trio", name) == "ran"


def test_two_things_take_turns_and_their_seconds_are_added_up() -> None:
    order: list[str] = []

    async def step(name: str, taken: float) -> float:
        order.append(name)
        return taken

    async def both() -> tuple[float, float]:
        return await in_turns(2, lambda: step("ours", 1), lambda: step("theirs", 3))

    assert run_on("asyncio", both) == (2, 6)
    assert order == ["ours", "theirs", "ours", "theirs"]
