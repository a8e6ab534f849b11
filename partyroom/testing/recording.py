"""A backend that tells what it was asked for.

Owns :class:`RecordingBackend`, which stands before any backend, and the list of
all calls of it.

Promises that the list is exact: each call once, when it has ended, with what it
was given and what it gave.

Must never change what passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar, final

import attrs
from typing_extensions import override

from partyroom.errors import CommitError
from partyroom.protocols import StorageBackend
from partyroom.testing.backend_wrapper import BackendWrapper, Call
from partyroom.types import Commit

__all__ = ["Effect", "RecordingBackend"]

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class Effect:
    """One call that a backend was asked for. Effects can be compared with ``==``."""

    call: Call
    arguments: tuple[object, ...] = ()
    """What it was given; a group of commits and a collection of keys are tuples here. Of ``open`` and ``close``, nothing."""
    result: object = None
    """What it gave: of ``commit`` a tuple with, for each commit, ``None`` or the class of its refusal; of a call that raised,
    the class of the error."""


@final
class RecordingBackend(BackendWrapper):
    """Wraps any backend, and lists all calls of it in the order in which they ended.

    ::

        recording = RecordingBackend(MemoryBackend())
        ...
        assert [Effect("claim", (room,), 1)] == recording.of("claim")
        assert [{"total": b"1"}] == [commit.values for commit in recording.commits]
    """

    def __init__(self, backend: StorageBackend) -> None:
        super().__init__(backend)
        self.effects: list[Effect] = []
        """All calls so far. Clear it to begin anew."""

    @property
    def commits(self) -> list[Commit]:
        """The commits that were stored, in order. Those of a call that raised are not among them: of these nobody knows."""
        return [commit for effect in self.of("commit") for commit in _stored(effect)]

    def of(self, *calls: Call) -> list[Effect]:
        """Give the calls of these kinds."""
        return [effect for effect in self.effects if effect.call in calls]

    @override
    async def around(self, call: Call, proceed: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Copied now: the caller may go on with its own mappings while the call runs.
        arguments = _arguments(call, args)
        try:
            result = await proceed(*args, **kwargs)
        except BaseException as error:
            self.effects.append(Effect(call, arguments, type(error)))
            raise
        self.effects.append(Effect(call, arguments, _result(call, result)))
        return result


def _arguments(call: Call, args: Sequence[Any]) -> tuple[object, ...]:
    if call in {"open", "close"}:
        return ()
    if call == "commit":
        return (tuple(_copied(commit) for commit in args[0]),)
    if call == "read":
        return (args[0], tuple(args[1]))
    return tuple(args)


def _copied(commit: Commit) -> Commit:
    return commit._replace(values=dict(commit.values), alarms=dict(commit.alarms))


def _result(call: Call, result: Any) -> object:  # noqa: ANN401 - of any of the calls
    if call in {"open", "close"}:
        return None
    if call == "commit":
        answers: list[CommitError | None] = list(result)
        return tuple(None if error is None else type(error) for error in answers)
    if call == "read":
        return dict(result)
    return result if call == "claim" else list(result)


def _stored(effect: Effect) -> list[Commit]:
    """Give the commits of one call that were stored."""
    if not isinstance(effect.result, tuple):
        return []
    call: Any = effect
    return [commit for commit, refusal in zip(call.arguments[0], call.result, strict=True) if refusal is None]
