"""What a question is, and how it is answered: several runs after a warm-up, the median, and the spread."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from statistics import median
from typing import ParamSpec, TypeVar

import anyio
import attrs

__all__ = [
    "LOOPS",
    "REGISTERED",
    "Answer",
    "Question",
    "Sample",
    "apart",
    "ask",
    "in_fresh_process",
    "in_turns",
    "installed",
    "question",
    "run_on",
]

P = ParamSpec("P")
T = TypeVar("T")

LOOPS = ("asyncio", "uvloop", "trio")


@attrs.frozen
class Sample:
    """One run's figures, all in the question's unit."""

    ours: float
    beside: float | None = None
    """The limit or the rival that the bar is set by, measured in the same run; ``None`` for one that is not installed."""
    rivals: dict[str, float] = attrs.Factory(dict[str, float])
    """More figures to be seen beside it, in the question's unit, or in another if a name ends so: ``p99 in ms``."""
    missing: str = ""
    """Why there is nothing beside it: what is not installed."""


@attrs.frozen
class Question:
    """One line of the table."""

    name: str
    text: str
    """What is measured."""
    beside_text: str
    """What is measured beside it; empty where the bar is a figure of its own and no ratio."""
    unit: str
    """Of the figures: ``us`` and ``s`` for times, ``/s`` for rates, ``bytes``, ``MB``, ``%``."""
    at_least: float | None
    aim: float | None
    loops: Sequence[str]
    measure: Callable[[str, bool], Sample]
    """Takes the loop's name and whether to be quick; gives one run's figures."""
    once: bool = False
    """Whether one run is enough: it is long, and its figure hardly varies."""

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
    missing: str = ""

    @property
    def verdict(self) -> str:
        """``aim``, ``ok`` or ``short``; empty where no bar is set."""
        question = self.question
        value = self.ratio if question.beside_text else self.ours
        if value is None or question.at_least is None or question.aim is None:
            return ""
        if question.more_is_better:
            return "aim" if value >= question.aim else "ok" if value >= question.at_least else "short"
        return "aim" if value <= question.aim else "ok" if value <= question.at_least else "short"


REGISTERED: dict[str, Question] = {}


def question(
    name: str,
    text: str,
    beside: str = "",
    *,
    unit: str = "us",
    at_least: float | None = None,
    aim: float | None = None,
    loops: Sequence[str] = LOOPS,
    once: bool = False,
) -> Callable[[Callable[[str, bool], Sample]], Callable[[str, bool], Sample]]:
    """Make a function that measures one run a line of the table."""

    def register(measure: Callable[[str, bool], Sample]) -> Callable[[str, bool], Sample]:
        REGISTERED[name] = Question(name, text, beside, unit, at_least, aim, loops, measure, once)
        return measure

    return register


def ask(
    asked: Question, loop: str, *, runs: int, quick: bool, progress: Callable[[int], None] = lambda _done: None
) -> Answer:
    """Answer a question on one loop: a warm-up of tiny size, then ``runs`` runs, or one if that is enough.

    ``progress`` hears how many are done.
    """
    if not quick:
        asked.measure(loop, True)  # noqa: FBT003 - quick
    samples: list[Sample] = []
    for done in range(1 if asked.once else runs):
        progress(done)
        # What earlier questions have left in memory is not looked through again and again by the collector.
        gc.collect()
        gc.freeze()
        try:
            samples.append(asked.measure(loop, quick))
        finally:
            gc.unfreeze()
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
        samples[-1].missing,
    )


async def in_turns(
    turns: int, ours: Callable[[], Awaitable[float]], beside: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Give the seconds of two things that take turns, each so often: a machine is not as fast in one second as in the next."""
    taken = [0.0, 0.0]
    for _ in range(turns):
        taken[0] += await ours()
        taken[1] += await beside()
    return taken[0], taken[1]


def run_on(loop: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run a program on the loop of that name."""
    if loop == "uvloop":
        return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
    return anyio.run(main, backend=loop)


def in_fresh_process(body: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function of a module in a Python that has done nothing else, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_unburdened, partial(body, *args, **kwargs)).result()


def _unburdened(body: Callable[[], T]) -> T:
    """Run a function without the collector looking through all modules again and again, as in the process that asks."""
    gc.collect()
    gc.freeze()
    return body()


def apart(body: Callable[[str, bool], T], loop: str, quick: bool) -> T:
    """Measure in a process of its own, so that neither its memory nor its time is another question's.

    At tiny size in this one, for one takes a second to begin.
    """
    return body(loop, quick) if quick else in_fresh_process(body, loop, quick)


def installed(package: str) -> str | None:
    """Give a package's version, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
