"""A quiz whose phases follow each other by one alarm, with nobody connected if need be.

Shows a state machine driven by an alarm that its own handler sets again, with the next phase as its payload.

    python -m partyroom.examples.game
"""

from __future__ import annotations

import json
from datetime import timedelta

import anyio

from partyroom import Alarm, Connection, Room
from partyroom.testing import Harness

QUESTIONS = (("6 x 7?", "42"), ("The capital of France?", "Paris"))
TIME_TO_ANSWER = timedelta(seconds=20)
TIME_TO_LOOK = timedelta(seconds=5)


class Quiz(Room):
    """One game: a question, its answer, the next question, and so on to the end."""

    async def start(self) -> None:
        """Begin a new game."""
        await self.ctx.storage.delete_all()
        await self.ask(0)

    async def ask(self, number: int) -> None:
        """Show a question, for as long as there is to answer it."""
        await self.ctx.storage.put("open", number)
        await self.ctx.storage.set_alarm(TIME_TO_ANSWER, payload={"reveal": number})
        self.ctx.broadcast(f"question: {QUESTIONS[number][0]}")

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        number = await self.ctx.storage.get("open")
        if number is not None:
            await self.ctx.storage.put(f"answer:{number}:{sender.id}", message)

    async def on_alarm(self, alarm: Alarm) -> None:
        match alarm.payload:
            case {"reveal": int(number)}:
                await self.reveal(number)
            case {"ask": int(number)} if number < len(QUESTIONS):
                await self.ask(number)
            case _:
                self.ctx.broadcast(f"over: {json.dumps(await self.ctx.storage.list(prefix='score:'))}")

    async def reveal(self, number: int) -> None:
        """Show the answer, and count who had it."""
        right = QUESTIONS[number][1]
        await self.ctx.storage.delete("open")
        prefix = f"answer:{number}:"
        for key, answer in (await self.ctx.storage.list(prefix=prefix)).items():
            score = f"score:{key.removeprefix(prefix)}"
            await self.ctx.storage.put(score, await self.ctx.storage.get(score, 0) + (answer == right))
        await self.ctx.storage.set_alarm(TIME_TO_LOOK, payload={"ask": number + 1})
        self.ctx.broadcast(f"answer: {right}")


async def main() -> None:
    """Play a game."""
    async with Harness({"quiz": Quiz}) as harness:
        game = harness.parties["quiz"].get("1")
        async with game.connect(id="ann") as ann:
            await game.call(Quiz.start)
            await ann.send("42")
            await harness.advance(timedelta(minutes=1))
            for _ in range(5):
                print(await ann.receive())


if __name__ == "__main__":
    anyio.run(main)
