"""What a question is, and how it is answered: several runs after a warm-up, the median, and the spread."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from time import perf_counter
from typing import TypeVar

import anyio
import attrs

__all__ = ["LOOPS", "QUESTIONS", "Answer", "Question", "Sample", "ask", "question", "run_on", "seconds"]

T = TypeVar("T")

LOOPS = ("asyncio", "uvloop", "trio")


@attrs.frozen
class Sample:
    """One run's figures, all in the question's unit."""

    ours: float
    beside: float | None = None
    """The limit, measured in the same run."""
    rivals: dict[str, float] = attrs.Factory(dict[str, float])


@attrs.frozen
class Question:
    """One line of the table."""

    name: str
    text: str
    """What is measured."""
    beside_text: str
    """What is measured beside it."""
    unit: str
    """Of the figures: ``us`` and ``s`` for times, ``/s`` for rates, ``bytes``, ``MB``."""
    at_least: float | None
    aim: float | None
    loops: Sequence[str]
    measure: Callable[[str, bool], Sample]
    """Takes the loop's name and whether to be quick; gives one run's figures."""

    @property
    def more_is_better(self) -> bool:
        """Whether the ratio, or the figure, is to be high."""
        return self.unit == "/s"


@attrs.frozen
class Answer:
    """The medians of several runs on one loop."""

    question: Question
    loop: str
    ours: float
    beside: float | None
    ratio: float | None
    low: float | None
    high: float | None
    """The lowest and the highest ratio of a run."""
    rivals: dict[str, float]

    @property
    def verdict(self) -> str:
        """``aim``, ``ok`` or ``short``; empty where no bar is set."""
        value = self.ours if self.beside is None else self.ratio
        question = self.question
        if value is None or question.at_least is None or question.aim is None:
            return ""
        if question.more_is_better:
            return "aim" if value >= question.aim else "ok" if value >= question.at_least else "short"
        return "aim" if value <= question.aim else "ok" if value <= question.at_least else "short"


QUESTIONS: dict[str, Question] = {}


def question(
    name: str,
    text: str,
    beside: str = "",
    *,
    unit: str = "us",
    at_least: float | None = None,
    aim: float | None = None,
    loops: Sequence[str] = LOOPS,
) -> Callable[[Callable[[str, bool], Sample]], Callable[[str, bool], Sample]]:
    """Make a function that measures one run a line of the table."""

    def register(measure: Callable[[str, bool], Sample]) -> Callable[[str, bool], Sample]:
        QUESTIONS[name] = Question(name, text, beside, unit, at_least, aim, loops, measure)
        return measure

    return register


def ask(asked: Question, loop: str, *, runs: int, quick: bool) -> Answer:
    """Answer a question on one loop: a warm-up, then ``runs`` runs."""
    asked.measure(loop, quick)
    samples: list[Sample] = []
    for _ in range(runs):
        gc.collect()
        samples.append(asked.measure(loop, quick))
    ratios = [sample.ours / sample.beside for sample in samples if sample.beside]
    beside = [sample.beside for sample in samples if sample.beside is not None]
    names = {name for sample in samples for name in sample.rivals}
    return Answer(
        asked,
        loop,
        median(sample.ours for sample in samples),
        median(beside) if beside else None,
        median(ratios) if ratios else None,
        min(ratios, default=None),
        max(ratios, default=None),
        {name: median(sample.rivals[name] for sample in samples if name in sample.rivals) for name in sorted(names)},
    )


def run_on(loop: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run a program on the loop of that name."""
    if loop == "uvloop":
        return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
    return anyio.run(main, backend=loop)


async def seconds(body: Callable[[], Awaitable[object]]) -> float:
    """Give how long something takes."""
    begin = perf_counter()
    await body()
    return perf_counter() - begin
