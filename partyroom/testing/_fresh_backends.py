"""What makes an empty backend for each of many runs, looked at before it spoils them.

Owns the words for what makes none, and for one whose backends are the same.

Promises that no run sees what another one has stored, where it would be taken
for a fault of the rooms.

Must never touch a backend that a run uses.
"""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypeIs

from partyroom.protocols import StorageBackend
from partyroom.testing.options import BackendFactory
from partyroom.types import KeyRange, RoomKey

__all__ = ["check_is_fresh", "check_maker", "is_backend"]


def is_backend(value: object) -> TypeIs[StorageBackend]:
    """Tell a backend from what makes one: a class has the shape of its instances."""
    return isinstance(value, StorageBackend) and not isinstance(value, type)


def check_maker(verb: str, backend: object) -> None:
    """Refuse a backend where one is to be made for each run."""
    if is_backend(backend):
        message = (
            f"{verb} needs what makes an empty backend for each run, such as MemoryBackend, or a function that gives one, "
            f"not one {type(backend).__name__}"
        )
        raise TypeError(message)


async def check_is_fresh(verb: str, make: BackendFactory, parties: Iterable[str]) -> None:
    """Refuse a maker whose backends hold what a run before has stored: what is found then would be nobody's fault."""
    async with make() as backend:
        for party in parties:
            for room_id in await backend.rooms(party, KeyRange(), 1):
                message = (
                    f"{verb} needs an empty backend for each run, and backend() gave one that holds "
                    f"{RoomKey(party, room_id)} from the first: give each a place of its own, such as a file of another name"
                )
                raise ValueError(message)
