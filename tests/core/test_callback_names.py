"""A callback whose name nothing calls is told of, with the one that was meant."""

from __future__ import annotations

import pytest

from partyroom import Room, RoomContext, Runtime
from partyroom._core.callback_names import CALLBACKS, slips_of
from partyroom.backends.memory import MemoryBackend


def room_with(*names: str) -> type[Room]:
    async def method(_self: Room) -> None:
        raise NotImplementedError

    return type("Chat", (Room,), dict.fromkeys(names, method))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("onMessage", "on_message"),
        ("onAlarmFailed", "on_alarm_failed"),
        ("on_mesage", "on_message"),
        ("on_closed", "on_close"),
        ("onConnected", "on_connect"),
        ("on_alarms", "on_alarm"),
    ],
)
def test_a_slip_is_found_with_what_was_meant(name: str, meant: str) -> None:
    assert [(name, meant)] == list(slips_of(room_with(name)))
    assert [] == list(slips_of(room_with(name, meant))), "its author knows both"


@pytest.mark.parametrize("name", [*CALLBACKS, "on_restart", "on_tick", "only", "message", "once", "on"])
def test_what_resembles_no_callback_is_its_authors_business(name: str) -> None:
    assert [] == list(slips_of(room_with(name)))


def test_what_is_no_method_and_what_is_no_room_of_ours_are_looked_at_too() -> None:
    class Lazy:
        def __get__(self, _instance: object, _owner: object) -> object:
            raise NotImplementedError

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, *_args: object) -> None:
            raise NotImplementedError

    class Plain:
        on_mesage = 5
        on_closing = Lazy()
        on_alarm = Unhashable()
        on_alarms = Unhashable()

        async def onClose(self) -> None:  # noqa: N802 - PartyKit's spelling
            raise NotImplementedError

    assert [("onClose", "on_close")] == list(slips_of(Plain))


def test_a_runtime_tells_of_slips_in_the_log_and_takes_the_room_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def make(ctx: RoomContext) -> Room:
        raise NotImplementedError(ctx)

    Runtime({"chat": room_with("onMessage"), "made": make}, backend=MemoryBackend())
    assert ["party 'chat': nothing calls Chat.onMessage; is on_message meant?"] == caplog.messages
    assert ("", "onMessage") == (caplog.records[0].__dict__["room"], caplog.records[0].__dict__["event"])
