"""Every error: one tree, facts as attributes as well as in words, and a way through pickle."""

from __future__ import annotations

import inspect
import os
import pickle
from typing import Any

import pytest

from partyroom import errors
from partyroom.errors import (
    BackendLockedError,
    BrokenContractError,
    BrokenInvariantError,
    ConnectionClosedError,
    ConnectRejectedError,
    DeadlockError,
    ExpectationError,
    LimitExceededError,
    NotStorableError,
    PartyroomError,
    UnknownPartyError,
)

CLASSES: list[type[Any]] = [value for value in vars(errors).values() if inspect.isclass(value)]

EXAMPLES: list[tuple[PartyroomError, dict[str, object], str]] = [
    (
        NotStorableError("k", 'value["a"][3]', "is a generator"),
        {"key": "k", "path": 'value["a"][3]', "reason": "is a generator"},
        "cannot store 'k': value[\"a\"][3] is a generator",
    ),
    (
        LimitExceededError("key_bytes", 4096, 2048, "draft/alice"),
        {"limit": "key_bytes", "size": 4096, "allowed": 2048, "where": "draft/alice"},
        "draft/alice: 4096 is over Limits.key_bytes=2048",
    ),
    (
        UnknownPartyError("chta", ("chat", "draft")),
        {"party": "chta", "known": ("chat", "draft")},
        "no party 'chta'; this runtime has 'chat', 'draft'",
    ),
    (UnknownPartyError("chat", ()), {"known": ()}, "no party 'chat'; this runtime has none"),
    (
        DeadlockError(("a/1", "b/2", "a/1")),
        {"chain": ("a/1", "b/2", "a/1")},
        "these wait for each other: a/1 -> b/2 -> a/1",
    ),
    (ConnectRejectedError(), {"code": 1008, "reason": ""}, "connection rejected (1008)"),
    (ConnectRejectedError(4001, "full"), {"code": 4001, "reason": "full"}, "connection rejected (4001: full)"),
    (ConnectionClosedError(), {"code": 1000, "reason": ""}, "connection closed (1000)"),
    (ConnectionClosedError(1012, "restart"), {"code": 1012, "reason": "restart"}, "connection closed (1012: restart)"),
    (
        BackendLockedError("rooms.db", 7),
        {"path": "rooms.db", "pid": 7},
        "rooms.db is open for writing in process 7; one file belongs to one process at a time",
    ),
    (
        BackendLockedError("rooms.db", os.getpid()),
        {"path": "rooms.db", "pid": os.getpid()},
        "rooms.db is open for writing in this very process; one file belongs to one backend at a time",
    ),
    (
        BackendLockedError("rooms.db"),
        {"path": "rooms.db", "pid": None},
        "rooms.db is open for writing in another process; one file belongs to one process at a time",
    ),
    (
        BrokenContractError("Reads give what was put", "reading 'k'", "b'1'", "b'2'"),
        {"clause": "Reads give what was put", "when": "reading 'k'", "expected": "b'1'", "seen": "b'2'"},
        "Reads give what was put\n  when:     reading 'k'\n  expected: b'1'\n  seen:     b'2'",
    ),
    (
        ExpectationError("no alarm", "two:\nrings", "draft/a", "2030-01-01T00:00:00+00:00", ("one", "two")),
        {"expected": "no alarm", "seen": "two:\nrings", "room": "draft/a", "pending": ("one", "two")},
        (
            "not as expected\n  expected: no alarm\n  seen:     two:\n            rings\n  room:     draft/a\n"
            "  at:       2030-01-01T00:00:00+00:00 (virtual)\n  pending:  one\n            two"
        ),
    ),
    (
        ExpectationError("a message", "", at="2030-01-01T00:00:00+00:00"),
        {"room": "", "pending": ()},
        (
            "not as expected\n  expected: a message\n  seen:     nothing\n  room:     none in particular\n"
            "  at:       2030-01-01T00:00:00+00:00 (virtual)\n  pending:  nothing"
        ),
    ),
    (
        BrokenInvariantError("1 of 3 fails", ("seed 2: no",)),
        {"summary": "1 of 3 fails", "failures": ("seed 2: no",)},
        "1 of 3 fails\n\nseed 2: no",
    ),
    (
        BrokenInvariantError("7 of 9 fail", tuple("abcdefg")),
        {"failures": tuple("abcdefg")},
        "7 of 9 fail\n\na\n\nb\n\nc\n\nd\n\ne\n\n... and 2 more: see `failures`",
    ),
]

WITH_FIELDS = {type(error) for error, _, _ in EXAMPLES}


def test_all_lists_the_whole_tree_in_order() -> None:
    assert sorted(cls.__name__ for cls in CLASSES) == errors.__all__


def test_every_error_has_the_one_base() -> None:
    assert [] == [cls for cls in CLASSES if not issubclass(cls, PartyroomError)]


def test_every_error_says_when_it_is_raised() -> None:
    assert [] == [cls for cls in CLASSES if not inspect.cleandoc(cls.__doc__ or "")]


def test_every_error_with_fields_is_shown_here() -> None:
    assert {cls for cls in CLASSES if "__init__" in vars(cls)} == WITH_FIELDS


def test_an_error_without_fields_is_its_message_also_after_pickling() -> None:
    for cls in set(CLASSES) - WITH_FIELDS:
        copy: Exception = pickle.loads(pickle.dumps(cls("what happened")))
        assert (cls, "what happened") == (type(copy), str(copy))


@pytest.mark.parametrize(("error", "fields", "text"), EXAMPLES)
def test_an_error_tells_its_facts_after_pickling_as_well(
    error: PartyroomError, fields: dict[str, object], text: str
) -> None:
    assert fields == {name: getattr(error, name) for name in fields}
    assert text == str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(error), vars(error), text) == (type(copy), vars(copy), str(copy))
