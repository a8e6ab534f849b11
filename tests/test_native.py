"""The one-shot wake-up, the running task and the way in from a thread, on every loop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from anyio.to_thread import run_sync

from partyroom._native import OneShot, current_loop, seed_turns

pytestmark = pytest.mark.anyio


def one_shot() -> OneShot[str]:
    return current_loop().one_shot()


async def waited_for(act: Callable[[OneShot[str]], object]) -> str | LookupError:
    """Let a task wait for a one-shot, act on it meanwhile, and give what the task got."""
    shot = one_shot()
    got: list[str | LookupError] = []

    async def wait() -> None:
        try:
            got.append(await shot.wait())
        except LookupError as error:
            got.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        act(shot)
    assert 1 == len(got)
    return got[0]


async def cancelled_and(act: Callable[[OneShot[str]], object]) -> OneShot[str]:
    """Let a task wait for a one-shot, cancel the task, and act before it has run again."""
    shot = one_shot()
    async with anyio.create_task_group() as group:
        group.start_soon(shot.wait)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        act(shot)
    return shot


def nothing(shot: OneShot[str]) -> None:
    assert not shot.done


async def test_a_result_wakes_the_waiter() -> None:
    assert "x" == await waited_for(lambda shot: shot.set("x"))


async def test_an_error_is_raised_in_the_waiter() -> None:
    error = LookupError("x")
    assert error is await waited_for(lambda shot: shot.fail(error))


async def test_a_result_that_is_there_is_given_at_once() -> None:
    shot = one_shot()
    shot.set("x")
    assert "x" == await shot.wait()


async def test_an_error_that_is_there_is_raised_at_once() -> None:
    shot = one_shot()
    shot.fail(LookupError("x"))
    with pytest.raises(LookupError, match="x"):
        await shot.wait()


async def test_the_first_answer_stands() -> None:
    def answer_thrice(shot: OneShot[str]) -> None:
        shot.set("first")
        shot.set("second")
        shot.fail(LookupError("third"))

    assert "first" == await waited_for(answer_thrice)


async def test_the_first_error_stands() -> None:
    shot = one_shot()
    shot.fail(LookupError("first"))
    shot.fail(LookupError("second"))
    shot.set("third")
    with pytest.raises(LookupError, match="first"):
        await shot.wait()


async def test_an_answer_to_a_waiter_who_has_left_is_harmless_and_kept() -> None:
    shot = await cancelled_and(nothing)
    shot.set("late")
    assert "late" == await shot.wait()


async def test_an_answer_to_a_waiter_who_is_leaving_is_harmless_and_kept() -> None:
    shot = await cancelled_and(lambda shot: shot.set("just too late"))
    assert "just too late" == await shot.wait()


async def test_on_done_is_called_once_and_before_the_waiter_wakes() -> None:
    order: list[str] = []
    shot = one_shot()
    shot.on_done = lambda: order.append("done")

    async def wait() -> None:
        order.append(await shot.wait())

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        shot.set("woken")
        shot.set("again")
    assert ["done", "woken"] == order


async def test_a_thread_can_have_the_loop_call_something() -> None:
    loop = current_loop()
    shot: OneShot[str] = loop.one_shot()

    async with anyio.create_task_group() as group:
        group.start_soon(run_sync, loop.call_soon_from_thread, lambda: shot.set("from a thread"))
        assert "from a thread" == await shot.wait()


async def test_the_loop_can_call_something_later() -> None:
    loop = current_loop()
    shot: OneShot[str] = loop.one_shot()
    loop.call_later(0.001, partial(shot.set, "later"))
    assert not shot.done
    assert "later" == await shot.wait()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_later_call_is_forgotten_if_the_loop_ends_before(backend: str) -> None:
    called: list[str] = []

    async def main() -> None:
        current_loop().call_later(3600, partial(called.append, "later"))
        await checkpoint()

    anyio.run(main, backend=backend)
    assert [] == called


async def test_a_task_is_itself_and_no_other() -> None:
    current_task = current_loop().current_task
    here = current_task()
    others: list[object] = []

    async def note() -> None:
        others.append(current_task())
        await checkpoint()
        others.append(current_task())

    async with anyio.create_task_group() as group:
        group.start_soon(note)
    assert here is current_task()
    assert others[0] is others[1]
    assert here is not others[0]


async def test_code_in_the_loop_is_told_from_code_elsewhere() -> None:
    loop = current_loop()

    async def in_another_loop() -> bool:
        return loop.is_running_here()

    assert loop.is_running_here()
    assert not await run_sync(loop.is_running_here)
    assert not await run_sync(anyio.run, in_another_loop)


async def test_the_token_is_the_loops() -> None:
    assert current_token() == current_loop().token == current_loop().token


async def test_two_one_shots_of_a_loop_are_of_one_class() -> None:
    assert current_loop().one_shot is current_loop().one_shot


def test_without_a_loop_there_are_no_parts_of_one() -> None:
    with pytest.raises(RuntimeError):
        current_loop()


def test_without_trio_there_are_no_turns_to_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio._core._run", raising=False)
    assert seed_turns(1)() is None
