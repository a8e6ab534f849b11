"""The case of generated sequences: whatever happens in whatever order, the right rooms are woken.

Owns the making of sequences from a seed, and the model of a scheduler: after
each step, everything that is due has been woken, the earliest first.

Promises that a seed finds the same again, and that a finding names the seed and
what was done.

Must never be the only judge of a clause: a named case says more.
"""

from __future__ import annotations

from random import Random  # noqa: TID251 - chance by a seed, which an author gives
from typing import Final

from partyroom.testing._scheduler_case import SchedulerSuite, case, rooms
from partyroom.testing._scheduler_trial import SchedulerTrial

__all__ = ["GeneratedCases"]

FEW: Final = 6
"""So many rooms, so that they meet often."""


class GeneratedCases(SchedulerSuite):
    """Sequences of everything, in any order."""

    @case
    async def test_generated_sequences(self, trial: SchedulerTrial) -> None:
        """After any sequence of changes, time and restarts, every room was woken once for each alarm that came due, in order."""
        if trial.can_jump:
            now = 0
            for seed in range(self.seed, self.seed + self.sequences):
                now = await self._run(trial, Random(seed), f"seed {seed}", now)  # noqa: S311 - an order, no secret

    async def _run(self, trial: SchedulerTrial, random: Random, words: str, now: int) -> int:
        pending: dict[tuple[str, str], int] = {}
        every = {room.id: room for room in rooms(FEW)}
        done: list[str] = []
        steps = self.steps
        while steps > 0:
            async with trial.running():
                for _ in range(random.randint(1, steps)):
                    steps -= 1
                    room, name = random.choice(list(every)), random.choice("ab")
                    match random.choice(("set", "set", "set", "delete", "pass")):
                        case "set":
                            pending[room, name] = due = now + random.randint(-2, 10)
                            done.append(f"set {room} {name} for {due}")
                            trial.set(every[room], due, name)
                        case "delete":
                            pending = {key: due for key, due in pending.items() if key[0] != room}
                            done.append(f"delete {room}")
                            trial.delete(every[room])
                        case _:
                            now += random.randint(1, 5)
                            done.append(f"until {now}")
                    now += 1 if self.latest else 0
                    await trial.until(now)
                    rung = sorted((due, key) for key, due in pending.items() if due <= now)
                    pending = {key: due for key, due in pending.items() if due > now}
                    when = f"{words}, {len(done)} steps:\n{'; '.join(done[-20:])}"
                    await trial.expect_woken(when, *((due, every[key[0]]) for due, key in rung))
            done.append("run again")
        for left in every.values():
            trial.delete(left)
        return now
