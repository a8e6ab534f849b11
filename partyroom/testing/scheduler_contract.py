"""The contract of :class:`~partyroom.AlarmScheduler`, as a suite that judges any implementation.

Owns :class:`AlarmSchedulerContract`: one case for each clause, and sequences of
changes that are compared with a model. Subclass it with a factory, and hand it
to pytest or to unittest; it needs neither.

Promises that each case runs on a new scheduler, on a clock that the suite
moves, on each loop that is installed, and that a finding is a
:class:`~partyroom.errors.BrokenContractError` whose words say which clause is
broken, what was expected and what was seen.

Must never ask for more than the contract says: a scheduler that passes may be
late by a length that it states, may hold all alarms in memory, and may wake in
any order those that are due at one instant.
"""

from __future__ import annotations

from partyroom.testing._scheduler_generated import GeneratedCases
from partyroom.testing._scheduler_life import AnswerCases, LifeCases, ReadCases
from partyroom.testing._scheduler_times import ChangeCases, TimeCases

__all__ = ["AlarmSchedulerContract"]


class AlarmSchedulerContract(TimeCases, ChangeCases, AnswerCases, ReadCases, LifeCases, GeneratedCases):
    """Judges a scheduler: subclass it, give it ``make_scheduler``, and have pytest or unittest run it.

    ::

        class TestMyScheduler(AlarmSchedulerContract):     # for unittest: (AlarmSchedulerContract, unittest.TestCase)
            def make_scheduler(self, clock: Clock) -> AlarmScheduler:
                return MyScheduler(clock)

    Every ``test_`` method judges one clause, on a new scheduler on each of ``loops``; what is broken is told by a
    :class:`~partyroom.errors.BrokenContractError`. ``make_scheduler`` is called in the event loop, with the clock that
    the scheduler is to live on; time passes on it when the suite says so.

    What else may be given: ``opened(scheduler)``, an async context manager of what has to run beside it; ``latest``, how
    late it may be by its design. One that lives on the system's time says ``on_real_time = True``, and a ``tick`` of some
    hundredths of a second: then the suite waits, and leaves out the wall clock's jumps and the generated sequences.
    ``sequences`` and ``steps`` are raised for a longer search from ``seed`` on.
    """
