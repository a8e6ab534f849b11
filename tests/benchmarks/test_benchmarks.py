"""The benchmarks run, at tiny size, so that they never rot. No figure is asserted: a busy machine is no failure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import figure, main, note, spread
from benchmarks.chart import draw, margin
from benchmarks.measure import LOOPS, QUESTIONS, Answer, Question, Sample, ask, in_fresh_process, installed, run_on
from benchmarks.workerd import find_workerd

HERE = [loop for loop in LOOPS if loop != "uvloop" or installed("uvloop")]


def on_loops() -> Iterator[Any]:
    """Give every question with every loop; by default one of them is asked on, which changes from question to question."""
    for number, (name, question) in enumerate(QUESTIONS.items()):
        loops = [loop for loop in HERE if loop in question.loops]
        for place, loop in enumerate(loops):
            yield pytest.param(name, loop, marks=() if place == number % len(loops) else pytest.mark.slow)


@pytest.mark.parametrize(("name", "loop"), list(on_loops()))
def test_every_question_is_answered_on_every_loop_that_it_names(name: str, loop: str) -> None:
    sample = QUESTIONS[name].measure(loop, True)
    assert math.isfinite(sample.ours)
    assert sample.beside is None or sample.beside > 0


def test_every_question_says_what_it_asks_and_where_its_bar_is() -> None:
    for question in QUESTIONS.values():
        assert question.text, question.name
        assert set(question.loops) <= set(LOOPS), question.name
        assert question.at_least is not None, question.name
        assert question.aim is not None, question.name
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
    runs = iter([100.0, 4.0, 2.0, 3.0])
    asked = Question("q", "", "", "us", None, None, LOOPS, lambda _loop, _quick: Sample(next(runs), 2, {"other": 5}))
    answer = ask(asked, "asyncio", runs=3, quick=True)
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


def test_the_table_names_question_loop_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--loop", "trio", "call", "get-put"]) == 0
    environment, header, *rows = capsys.readouterr().out.splitlines()
    assert environment.startswith("Python 3.")
    assert "anyio 4." in environment
    assert header.split()[:3] == ["question", "loop", "partyroom"]
    assert [row.split()[:2] for row in rows] == [["call", "trio"], ["get-put", "trio"]]


def test_answers_are_kept_compared_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, drawn = tmp_path / "kept.json", tmp_path / "drawn.svg"
    arguments = ["--quick", "--loop", "asyncio", "cached-get", "idle-room"]
    assert main([*arguments, "--json", str(kept), "--svg", str(drawn)]) == 0
    answers = json.loads(kept.read_text(encoding="utf-8"))["answers"]
    assert set(answers) == {"cached-get/asyncio", "idle-room/asyncio"}
    assert answers["cached-get/asyncio"]["ratio"] > 0
    assert answers["idle-room/asyncio"]["unit"] == "bytes"
    assert ET.fromstring(drawn.read_text(encoding="utf-8")).tag.endswith("svg")
    capsys.readouterr()

    assert main([*arguments, "cached-get", "--compare", str(kept)]) == 0
    assert capsys.readouterr().out.count("before ") == 3


def test_a_loop_that_a_question_does_not_name_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--loop", "trio", "import"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


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


def test_a_missing_program_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_workerd() is None
    assert QUESTIONS["put-durable"].measure("asyncio", True).beside is None
