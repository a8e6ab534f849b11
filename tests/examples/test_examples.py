"""Every example does what its docstring says, told by the testing kit only."""

from __future__ import annotations

import json
import logging
import runpy
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from partyroom import Every
from partyroom.examples.batch import GATHERED_FOR, Batch
from partyroom.examples.chat_page import Chat as PageChat
from partyroom.examples.expiring_chat import Chat, Lobby
from partyroom.examples.expiring_draft import KEPT_FOR, Draft
from partyroom.examples.game import TIME_TO_ANSWER, Quiz
from partyroom.examples.lazy_session import ENDS_AFTER, Session
from partyroom.examples.link_counter import Link, Page
from partyroom.examples.poll import Poll
from partyroom.examples.reactions import ALLOWED, WINDOW, Reactions
from partyroom.examples.reconnect_grace import GRACE, Table
from partyroom.examples.scheduler import Calendar
from partyroom.testing import FakeClient, Harness

SECOND = timedelta(seconds=1)

FOLDER = Path(__file__).parents[2] / "partyroom" / "examples"
STORIES = sorted(path.stem for path in FOLDER.glob("*.py"))
for own in ("chat_page", "from_cron", "host_scheduler", "lmdb_backend"):
    STORIES.remove(own)

in_every_loop = pytest.mark.anyio


@pytest.fixture(autouse=True)
def log_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    """Turn the log up again at the end: a program that is run may turn it down, and other tests read it."""
    caplog.set_level(logging.ERROR, "partyroom")


@pytest.mark.parametrize("name", STORIES)
def test_an_example_starts_as_its_docstring_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert f"python -m partyroom.examples.{name}" in found["__doc__"]
    assert capsys.readouterr().out


def texts(client: FakeClient) -> list[str]:
    return [str(message) for message in client.inbox]


@in_every_loop
async def test_a_draft_expires_after_its_last_change_and_not_before() -> None:
    async with Harness({"draft": Draft}) as harness:
        room = harness.parties["draft"].get("alice")
        client = await harness.connect(room)
        await client.send("one")
        await harness.advance(timedelta(days=20))
        await client.send("two")
        await harness.advance(KEPT_FOR - SECOND)
        again = await harness.connect(room)
        await harness.settle()
        assert ["two"] == again.inbox
        await harness.advance(SECOND)
        assert {} == await harness.stored(room)


@in_every_loop
async def test_a_chat_is_on_the_list_until_it_is_forgotten() -> None:
    async with Harness({"chat": Chat, "lobby": Lobby}) as harness:
        room, lobby = harness.parties["chat"].get("cats"), harness.parties["lobby"].get("all")
        client = await harness.connect(room)
        for message in ("meow", "purr"):
            await client.send(message)
        await harness.settle()
        late = await harness.connect(room)
        await harness.settle()
        assert ["meow", "purr"] == client.inbox == late.inbox
        assert ["cats"] == await lobby.call(Lobby.names)
        await harness.advance(timedelta(days=1))
        assert [] == await lobby.call(Lobby.names)
        assert {} == await harness.stored(room)
        assert client.closed is not None
        harness.assert_idle()


@in_every_loop
async def test_a_poll_counts_one_vote_each_and_closes() -> None:
    async with Harness({"poll": Poll}) as harness:
        poll = harness.parties["poll"].get("lunch")
        await poll.call(Poll.open, "Where?", ["here", "there"], timedelta(minutes=5))
        ann, bob = await harness.connect(poll, id="ann"), await harness.connect(poll, id="bob")
        for client, vote in ((ann, "here"), (bob, "there"), (bob, "here"), (ann, "nowhere")):
            await client.send(vote)
        await harness.advance(timedelta(minutes=5))
        await bob.send("there")
        await harness.settle()
        standing = json.loads(await poll.call(Poll.standing))
        assert {"question": "Where?", "open": False, "votes": {"here": 2, "there": 0}} == standing
        assert standing == json.loads(ann.inbox[-1])


@in_every_loop
async def test_reactions_are_limited_for_each_client_over_sleep_as_well() -> None:
    async with Harness({"reactions": Reactions}) as harness:
        page = harness.parties["reactions"].get("p")
        ann, bob = await harness.connect(page), await harness.connect(page)
        for _ in range(ALLOWED + 1):
            await ann.send("🎉")
            await harness.put_to_sleep(page)
        await bob.send("👍")
        await bob.send("anything else")
        await harness.advance(WINDOW)
        await ann.send("🎉")
        await harness.settle()
        assert "not so fast" in ann.inbox
        assert "not so fast" not in bob.inbox
        assert {"🎉": ALLOWED + 1, "👍": 1} == json.loads(bob.inbox[-1])


@in_every_loop
async def test_a_game_goes_on_by_itself_and_counts() -> None:
    async with Harness({"quiz": Quiz}) as harness:
        game = harness.parties["quiz"].get("1")
        ann, bob = await harness.connect(game, id="ann"), await harness.connect(game, id="bob")
        await game.call(Quiz.start)
        await ann.send("42")
        await bob.send("41")
        await harness.advance(TIME_TO_ANSWER)
        await bob.send("42, but too late")
        await harness.advance(timedelta(minutes=1))
        assert ["question", "answer", "question", "answer", "over"] == [text.split(":")[0] for text in texts(ann)]
        assert 'over: {"score:ann": 1, "score:bob": 0}' == ann.inbox[-1]
        await ann.close()
        await bob.close()
        await harness.settle()
        harness.assert_idle()


@in_every_loop
async def test_a_table_waits_a_minute_for_somebody_to_come_back() -> None:
    async with Harness({"table": Table}) as harness:
        table = harness.parties["table"].get("1")
        first, second = await harness.connect(table), await harness.connect(table)
        await first.send("hello")
        await first.close()
        await harness.advance(2 * GRACE)
        await second.close()
        await harness.advance(GRACE - SECOND)
        third = await harness.connect(table)
        await harness.advance(2 * GRACE)
        assert ["hello"] == third.inbox
        await third.close()
        await harness.advance(GRACE)
        assert {} == await harness.stored(table)
        harness.assert_idle()


@in_every_loop
async def test_a_session_ends_half_an_hour_after_its_last_use() -> None:
    async with Harness({"session": Session}) as harness:
        session = harness.parties["session"].get("s")
        for expected in (1, 2, 3):
            assert expected == await session.call(Session.use)
            await harness.advance(timedelta(minutes=20))
        await harness.advance(ENDS_AFTER - timedelta(minutes=20) - SECOND)
        assert 3 == (await harness.stored(session))["uses"]
        await harness.advance(SECOND)
        assert {} == await harness.stored(session)
        harness.assert_idle()


@in_every_loop
async def test_a_batch_is_sent_until_it_arrives_with_one_id() -> None:
    tried: list[tuple[str, list[object]]] = []

    async def send(batch_id: str, things: list[object]) -> None:
        tried.append((batch_id, things))
        if len(tried) < 3:
            raise ConnectionError

    async with Harness({"batch": lambda ctx: Batch(ctx, send)}) as harness:
        batch = harness.parties["batch"].get("mail")
        for thing in ("a", "b"):
            await batch.call(Batch.add, thing)
        with harness.expect_error(ConnectionError):
            await harness.advance(GATHERED_FOR + timedelta(minutes=1))
        assert [["a", "b"]] * 3 == [things for _, things in tried]
        assert 1 == len({batch_id for batch_id, _ in tried})
        assert {"added": 2} == await harness.stored(batch)
        harness.assert_idle()


@in_every_loop
async def test_two_parties_call_each_other_in_a_cycle() -> None:
    async with Harness({"page": Page, "link": Link}) as harness:
        home = harness.parties["page"].get("home")
        assert "x: 1, last from home with 1 clicks" == await home.call(Page.follow, "x")
        assert "x: 2, last from home with 2 clicks" == await home.call(Page.follow, "x")
        assert {"clicks": 2} == await harness.stored(home)


@in_every_loop
async def test_a_calendar_reminds_by_name_once_or_again_and_again() -> None:
    async with Harness({"calendar": Calendar}) as harness:
        calendar = harness.parties["calendar"].get("ann")
        client = await harness.connect(calendar)
        await calendar.call(Calendar.remind, "tea", Every(timedelta(hours=6)), "kettle")
        await calendar.call(Calendar.remind, "call", timedelta(hours=7), "Carol")
        await calendar.call(Calendar.remind, "call", harness.now() + timedelta(hours=8), "Bob")
        await calendar.call(Calendar.remind, "nap", timedelta(hours=9), "sleep")
        await calendar.call(Calendar.cancel, "nap")
        await harness.advance(timedelta(hours=13))
        assert ["tea: kettle", "call: Bob", "tea: kettle"] == client.inbox
        assert ["tea"] == [alarm.name for alarm in await calendar.list_alarms()]


@in_every_loop
async def test_a_chat_page_s_room_tells_who_is_here_and_is_cleared() -> None:
    async with Harness({"chat": lambda ctx: PageChat(ctx, SECOND)}) as harness:
        room = harness.parties["chat"].get("lobby")
        ann = await harness.connect(room, id="ann")
        await ann.send("hello")
        await harness.settle()
        bob = await harness.connect(room, id="bob")
        await bob.close()
        await harness.put_to_sleep(room)
        await harness.advance(SECOND)
        heard = [json.loads(text) for text in texts(ann)]
        hello = {"from": "ann", "text": "hello"}
        assert [
            {"people": ["ann"]},
            hello,
            {"people": ["ann", "bob"]},
            {"people": ["ann"]},
            {"cleared": True},
        ] == heard
        assert [hello, {"people": ["ann", "bob"]}] == [json.loads(text) for text in texts(bob)]
        assert {} == await harness.stored(room)


def test_the_stories_run_on_the_other_loop_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(anyio, "run", partial(anyio.run, backend="trio"))
    for name in STORIES:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        assert capsys.readouterr().out
