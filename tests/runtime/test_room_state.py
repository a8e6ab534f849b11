"""What an awake room knows of its alarms while they are being read: by whom they are told, and whether it is still true."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from partyroom import RoomKey
from partyroom._core.read_cache import CacheBudget
from partyroom._room_state import RoomState
from partyroom.backends.memory import MemoryBackend
from partyroom.testing.backend_wrapper import BackendWrapper
from partyroom.types import AlarmRow

pytestmark = pytest.mark.anyio

ROOM = RoomKey("box", "a")


class Interrupted(BackendWrapper):
    """Has something done while alarms are read."""

    meanwhile: Callable[[], Awaitable[object]]

    @override
    async def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        await self.meanwhile()
        return []


def state_of(backend: Interrupted) -> RoomState:
    return RoomState(ROOM, backend, CacheBudget(1000, 1000))


async def test_what_was_read_while_a_commit_was_refused_is_given_and_forgotten() -> None:
    backend = Interrupted(MemoryBackend())
    state = state_of(backend)

    async def refuse() -> None:
        state.reset()

    backend.meanwhile = refuse
    found = await state.alarms()
    assert {} == found.rows
    assert state.known_alarms is None


async def test_of_two_who_read_at_once_both_get_what_the_first_has_read() -> None:
    backend = Interrupted(MemoryBackend())
    state = state_of(backend)

    async def read() -> None:
        backend.meanwhile = checkpoint
        await state.alarms()

    backend.meanwhile = read
    assert await state.alarms() is state.known_alarms
