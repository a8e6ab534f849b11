"""The one way in which a command changes a store: whole commits, under a claim of their own.

Owns claims and commits of rooms that no program has awake.

Promises that a commit is applied whole or refused, and that a refusal is told with its room.

Must never be used beside a running program: the store's lock, where it has one, sees to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from partyroom._cli.screen import CommandError
from partyroom.protocols import StorageBackend
from partyroom.types import AlarmRow, Commit, RoomKey

__all__ = ["Change", "write"]


@attrs.frozen
class Change:
    """What is to be changed in one room."""

    room: RoomKey
    values: Mapping[str, bytes | None] = attrs.Factory(dict[str, bytes | None])
    alarms: Mapping[str, AlarmRow | None] = attrs.Factory(dict[str, AlarmRow | None])
    clear: bool = False
    """Whether all that the room has is deleted first."""


async def write(backend: StorageBackend, changes: Sequence[Change]) -> None:
    """Store changes of different rooms, each of them whole."""
    commits = [
        Commit(each.room, await backend.claim(each.room), each.values, each.alarms, clear=each.clear, release=True)
        for each in changes
    ]
    answers = await backend.commit(commits)
    for commit, refused in zip(commits, answers, strict=True):
        if refused is not None:
            raise CommandError(f"{commit.room} was not stored: {refused}") from refused
