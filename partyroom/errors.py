"""The whole tree of errors, under one base class.

Owns every exception that the library raises by itself. Each class says when it
is raised, whose fault it is and what to do about it. *Closed* is what an owner
did, *broken* is what a failure did.

Promises that every error carries its facts as attributes as well as in words,
survives pickling, and that an error of an author's own code is never wrapped
in one of these: it reaches its caller as it was raised.

Must never import anything of the library: everything else may import it.
"""

from __future__ import annotations

import os

__all__ = [
    "AlarmTimeError",
    "BackendClosedError",
    "BackendCorruptError",
    "BackendError",
    "BackendFullError",
    "BackendLockedError",
    "BackendReadOnlyError",
    "BackendVersionError",
    "BrokenContractError",
    "BrokenInvariantError",
    "ClockStalledError",
    "CommitError",
    "ConnectRejectedError",
    "ConnectionClosedError",
    "DeadlockError",
    "DecodeError",
    "EndlessTimersError",
    "EventCancelledError",
    "EventTimeoutError",
    "ExpectationError",
    "FencedError",
    "InvalidKeyError",
    "InvalidRecurrenceError",
    "InvalidRoomIdError",
    "LimitExceededError",
    "MissingExtraError",
    "NoHandlerError",
    "NotStorableError",
    "OutsideEventError",
    "PartyroomError",
    "RoomAbortedError",
    "RoomBrokenError",
    "RuntimeClosedError",
    "RuntimeCrashedError",
    "RuntimeStateError",
    "UnknownPartyError",
    "WrongRoomError",
]


class PartyroomError(Exception):
    """The base of every error that the library raises by itself."""


SHOWN_FAILURES = 5
"""How many failures of one kind a message shows: the others say the same in most cases."""


def _indented(text: str) -> str:
    """Lay out several lines beside a name."""
    return text.replace("\n", "\n" + " " * 12)


# --- what an author handed in ------------------------------------------------


class InvalidKeyError(PartyroomError, ValueError):
    """A storage key or a range that cannot be one: no ``str``, lone surrogates, bounds that exclude each other.

    The caller's fault; nothing was read or written.
    """


class InvalidRoomIdError(PartyroomError, ValueError):
    """A room id that is no ``str``, is empty, or holds lone surrogates. The caller's fault."""


class NotStorableError(PartyroomError, TypeError):
    """A value that would not come back equal and of its own type (G15). The caller's fault; nothing was written.

    ``key`` says what was to hold it: the room and the storage key (``"chat/lobby 'topic'"``), or what stood in its place,
    such as an alarm's payload; empty from a codec, which knows neither. ``path`` is the place inside the value, written
    as Python would reach it (``value["a"][3]``), ``reason`` what is wrong there.
    """

    def __init__(self, key: str, path: str, reason: str) -> None:
        super().__init__(key, path, reason)
        self.key = key
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot store {self.key!r}: {self.path} {self.reason}"


class DecodeError(PartyroomError, ValueError):
    """Stored bytes that the codec cannot read: written by another codec, or of a class that is not registered here."""


class LimitExceededError(PartyroomError, ValueError):
    """Something is larger than a field of :class:`~partyroom.Limits` allows (G18). The caller's fault.

    ``limit`` is the field's name, ``size`` what was handed in, ``allowed`` the field's value, ``where`` the room
    (``"party/id"``), and the key where there is one.
    """

    def __init__(self, limit: str, size: int, allowed: int, where: str) -> None:
        super().__init__(limit, size, allowed, where)
        self.limit = limit
        self.size = size
        self.allowed = allowed
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.size} is over Limits.{self.limit}={self.allowed}"


class AlarmTimeError(PartyroomError, ValueError):
    """A time that ``set_alarm`` does not take: naive, out of the range of ``datetime``, or no time at all.

    The caller's fault; the alarm stays as it was.
    """


class InvalidRecurrenceError(PartyroomError, ValueError):
    """An ``Every`` or a ``Cron`` that names no instants: a length that is not positive, an expression or a zone that nobody knows.

    The caller's fault; the message says what is wrong with what.
    """


class MissingExtraError(PartyroomError, ImportError):
    """Something needs a package that an optional extra of this library brings. The message names the extra to install."""


class UnknownPartyError(PartyroomError, KeyError):
    """A party name that the runtime was not given. The caller's fault; ``known`` lists the names that exist."""

    def __init__(self, party: str, known: tuple[str, ...]) -> None:
        super().__init__(party, known)
        self.party = party
        self.known = known

    def __str__(self) -> str:
        return f"no party {self.party!r}; this runtime has {', '.join(map(repr, self.known)) or 'none'}"


class WrongRoomError(PartyroomError, TypeError):
    """``call`` was given a method of a class that the room is no instance of. The caller's fault."""


class NoHandlerError(PartyroomError, TypeError):
    """The room's class lacks the callback that was asked for: ``on_request`` for ``request``, ``on_alarm`` for ``set_alarm`` (G14)."""


# --- events ------------------------------------------------------------------


class OutsideEventError(PartyroomError, RuntimeError):
    """Storage, ``send`` or ``broadcast`` was used with no event of that room running (G6a).

    In the constructor, in a background task or through a context that leaked. Use ``await ctx.run(...)``.
    """


class DeadlockError(PartyroomError, RuntimeError):
    """A call between rooms would wait for itself (G1). Raised at the call that closes the cycle; ``chain`` names it, in order.

    Only the rooms' code can mend it: call in one order, or from ``ctx.start_soon``.
    """

    def __init__(self, chain: tuple[str, ...]) -> None:
        super().__init__(chain)
        self.chain = chain

    def __str__(self) -> str:
        return "these wait for each other: " + " -> ".join(self.chain)


class EventTimeoutError(PartyroomError, TimeoutError):
    """An event ran longer than ``Limits.event_timeout``, or an alarm than ``alarm_timeout`` (G6).

    Nothing of it is stored; the instance is gone.
    """


class EventCancelledError(PartyroomError):
    """A handler ended by a cancellation of its own making. The event failed, nothing of it is stored; the room goes on."""


class RoomBrokenError(PartyroomError):
    """The backend refused a commit of this room, or its outcome is unknown (G5).

    Whether what the event wrote is stored is unknown: read it again. ``__cause__`` says why. The instance is gone,
    the next event starts a fresh one from what is stored.
    """


class RoomAbortedError(PartyroomError):
    """The room's own code called ``ctx.abort(reason)``. Nothing of the event is stored; the next one gets a fresh instance."""


# --- the runtime -------------------------------------------------------------


class RuntimeStateError(PartyroomError, RuntimeError):
    """A runtime was used in a way its state forbids: entered twice, or from another loop or thread. The host's fault."""


class RuntimeClosedError(PartyroomError, RuntimeError):
    """The runtime is not running, or its closing cut this event off. An owner closed it; nothing of the event is stored."""


class RuntimeCrashedError(RuntimeClosedError):
    """``Harness.crash()`` ended this call. As after a real crash: what was not committed is gone."""


# --- connections -------------------------------------------------------------


class ConnectRejectedError(PartyroomError):
    """The room did not let this connection in (G19).

    A room raises it in ``on_connect`` to refuse with a code and a reason of its own; ``connect`` raises it to the host.
    ``code`` is a WebSocket close code.
    """

    def __init__(self, code: int = 1008, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"connection rejected ({self.code}{': ' if self.reason else ''}{self.reason})"


class ConnectionClosedError(PartyroomError):
    """The connection has ended; ``code`` and ``reason`` say how, as WebSocket close codes do.

    1000 and 1001 are an owner's doing, 1011 a broken room, 1012 a restarted one, 1013 a buffer that ran over (G21).
    """

    def __init__(self, code: int = 1000, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"connection closed ({self.code}{': ' if self.reason else ''}{self.reason})"


# --- backends ----------------------------------------------------------------


class BackendError(PartyroomError):
    """A backend could not do its work: an input or output error, a vanished file. The message says what happened to which file."""


class BackendClosedError(BackendError):
    """The backend is not open: used before it was entered or after it was left."""


class BackendLockedError(BackendError):
    """Another process, or another backend in this one, has the file open for writing. ``pid`` is its process id where it is known."""

    def __init__(self, path: str, pid: int | None = None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid

    def __str__(self) -> str:
        if self.pid == os.getpid():
            return f"{self.path} is open for writing in this very process; one file belongs to one backend at a time"
        owner = "another process" if self.pid is None else f"process {self.pid}"
        return f"{self.path} is open for writing in {owner}; one file belongs to one process at a time"


class BackendCorruptError(BackendError):
    """The file is no database of this library, or is damaged. Restore a backup; nothing was changed."""


class BackendVersionError(BackendError):
    """The file was written by a newer version of the library. Update the library; nothing was changed."""


class BackendReadOnlyError(BackendError):
    """The file or its folder cannot be written by this process."""


class BackendFullError(BackendError):
    """There is no space left for the write. Nothing of the commit is stored; the backend goes on when there is space again."""


class CommitError(BackendError):
    """One commit of a group was refused, and nothing of it is stored. The others of the group are not affected."""


class FencedError(CommitError):
    """A commit carried a lower fence than the room's: somebody else has claimed the room since. Nothing of it is stored."""


# --- the testing kit ---------------------------------------------------------


class BrokenContractError(PartyroomError, AssertionError):
    """A backend does not keep a clause of the contract. The backend's fault.

    ``clause`` says what every backend promises, and in which case; ``when`` what was being done, ``expected`` what
    should have been seen then, ``seen`` what was; ``pending`` what would have happened next, for what lives on a clock.
    """

    def __init__(self, clause: str, when: str, expected: str, seen: str, pending: tuple[str, ...] = ()) -> None:
        super().__init__(clause, when, expected, seen, pending)
        self.clause = clause
        self.when = when
        self.expected = expected
        self.seen = seen
        self.pending = pending

    def __str__(self) -> str:
        told = f"{self.clause}\n  when:     {self.when}\n  expected: {self.expected}\n  seen:     {self.seen}"
        return f"{told}\n  pending:  {_indented(chr(10).join(self.pending))}" if self.pending else told


class ClockStalledError(PartyroomError, AssertionError):
    """Time cannot move: work is in flight that does not end by itself. The message names room, event, age and what it waits for."""


class ExpectationError(PartyroomError, AssertionError):
    """A test expected something of rooms that is not so: the assertion of the testing kit.

    ``expected`` and ``seen`` say what; ``room`` is the room (``"party/id"``), empty if it is none in particular; ``at`` the
    virtual time; ``pending`` what would have happened next, a line each.
    """

    def __init__(self, expected: str, seen: str, room: str = "", at: str = "", pending: tuple[str, ...] = ()) -> None:
        super().__init__(expected, seen, room, at, pending)
        self.expected = expected
        self.seen = seen
        self.room = room
        self.at = at
        self.pending = pending

    def __str__(self) -> str:
        facts = {
            "expected": self.expected,
            "seen": self.seen or "nothing",
            "room": self.room or "none in particular",
            "at": f"{self.at} (virtual)",
            "pending": "\n".join(self.pending) or "nothing",
        }
        return "\n".join(["not as expected", *(f"  {name + ':':10}{_indented(fact)}" for name, fact in facts.items())])


class BrokenInvariantError(PartyroomError, AssertionError):
    """What a test says must always hold did not, after a crash or in one order of events.

    ``summary`` says in how many of how many; ``failures`` has an entry for each, which says where, and how to see it
    again. The first one's own error is the cause.
    """

    def __init__(self, summary: str, failures: tuple[str, ...]) -> None:
        super().__init__(summary, failures)
        self.summary = summary
        self.failures = failures

    def __str__(self) -> str:
        shown = self.failures[:SHOWN_FAILURES]
        rest = len(self.failures) - len(shown)
        return "\n\n".join([self.summary, *shown, *([f"... and {rest} more: see `failures`"] if rest else [])])


class EndlessTimersError(PartyroomError, AssertionError):
    """Timers were armed again and again without end while time was moved. The message names the room that does it."""
