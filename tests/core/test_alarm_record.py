"""What stands beside an alarm comes back as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.alarm_record import AlarmRecord, usual_record
from partyroom._core.instants import HIGHEST, LOWEST
from partyroom.errors import DecodeError, MissingExtraError
from partyroom.recurrence import Cron, Every, Missed
from partyroom.types import RetryPolicy

ID = "00ff00ff00ff00ff"

missed: st.SearchStrategy[Missed] = st.sampled_from(["once", "each"])
graces = st.none() | st.timedeltas(timedelta())
recurrences = st.builds(
    Every,
    st.timedeltas(timedelta(microseconds=1)),
    anchor=st.none() | st.datetimes(timezones=st.just(UTC)),
    missed=missed,
    grace=graces,
) | st.builds(
    Cron,
    st.sampled_from(["0 9 * * mon", "*/5 * * * *", "0 0 29 2 *"]),
    tz=st.sampled_from(["UTC", "Europe/Oslo"]),
    missed=missed,
    grace=graces,
)
retries = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 100),
    first_delay=st.timedeltas(timedelta(microseconds=1)),
    max_delay=st.timedeltas(timedelta(microseconds=1)),
    jitter=st.floats(0, 10),
)
instants = st.none() | st.integers(LOWEST, HIGHEST)
records = st.builds(
    AlarmRecord,
    st.integers(0, 2**64 - 1).map("{:016x}".format),
    st.none() | st.binary(),
    last=instants,
    recurrence=st.none() | recurrences,
    spread=st.integers(0, 100),
    retry=st.none() | retries,
    scheduled=instants,
    retry_count=st.integers(0, 100),
    error=st.none() | st.text(),
    failed=st.booleans(),
    paused=instants,
    missed=st.integers(0, 100),
    extra=st.dictionaries(
        st.text(min_size=1).map("new_{}".format), st.integers() | st.text() | st.lists(st.booleans())
    ),
)
goings_on = records.map(lambda record: AlarmRecord(*record[:6]))
"""As nearly all that are not usual: set with a policy, and perhaps rung before."""


@given(records | goings_on)
def test_a_record_comes_back_equal(record: AlarmRecord) -> None:
    assert record == AlarmRecord.decode(record.encode())


@given(st.none() | st.binary())
def test_the_usual_record_is_its_id_and_its_payload(payload: bytes | None) -> None:
    record = AlarmRecord(ID, payload)
    assert b'{"id":"00ff00ff00ff00ff"}' + (b"" if payload is None else b"\n" + payload) == record.encode()
    assert record == AlarmRecord.decode(record.encode())
    assert record.encode() == usual_record(0x00FF00FF00FF00FF, payload)


def test_the_header_is_readable_json_without_what_is_as_usual() -> None:
    recurrence = Every(timedelta(hours=1), anchor=datetime(1970, 1, 2, tzinfo=UTC))
    record = AlarmRecord(
        ID, b"payload\nof two lines", scheduled=5, retry_count=1, error="ValueError: no", recurrence=recurrence
    )
    header, _, payload = record.encode().partition(b"\n")
    fields = {
        "id": ID,
        "scheduled": 5,
        "retry_count": 1,
        "error": "ValueError: no",
        "recurrence": {"every": 3_600_000_000, "anchor": 86_400_000_000},
    }
    assert fields == json.loads(header)
    assert b"payload\nof two lines" == payload


def test_a_record_of_before_last_outcomes_were_kept_is_read() -> None:
    data = b'{"retry_count":1,"error":"ValueError: no","id":"00ff00ff00ff00ff"}'
    old = AlarmRecord.decode(data)
    assert AlarmRecord(ID, retry_count=1, error="ValueError: no") == old
    assert ("error", None) == (old.outcome, old.last)
    never = AlarmRecord.decode(b'{"id":"00ff00ff00ff00ff","recurrence":{"every":5}}')
    assert (None, None) == (never.outcome, never.last)


def test_how_the_last_ring_went_is_told_by_its_error_and_its_time() -> None:
    assert "success" == AlarmRecord(ID, last=0).outcome
    assert "error" == AlarmRecord(ID, last=0, error="ValueError: no").outcome


def test_fields_of_a_newer_version_are_carried_along() -> None:
    record = AlarmRecord.decode(b'{"id":"00ff00ff00ff00ff","colour":"blue","missed":2}')
    assert {"colour": "blue"} == record.extra
    again = AlarmRecord.decode(record._replace(missed=0).encode())
    assert AlarmRecord(ID, extra={"colour": "blue"}) == again


@pytest.mark.parametrize("name", ['a"b', "", "short", "0123456789abcdef0", "ÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅ", '","missed":5,"":"x'])
def test_an_id_that_is_not_of_the_usual_form_comes_back_as_well(name: str) -> None:
    assert AlarmRecord(name) == AlarmRecord.decode(AlarmRecord(name).encode())


def test_a_header_that_only_begins_as_the_usual_one_is_parsed() -> None:
    assert AlarmRecord(ID) == AlarmRecord.decode(b'{"id":"00ff00ff00ff00ff"} ')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"payload",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b"{",
        b"\xff",
        b'{"id":"00ff00ff00ff00ff"}}',
        b"[" * 100_000,
    ],
)
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="no record of an alarm"):
        AlarmRecord.decode(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 5),
        ("scheduled", "noon"),
        ("scheduled", 1.5),
        ("retry_count", True),
        ("error", 5),
        ("failed", 1),
        ("paused", None),
        ("missed", []),
        ("spread", "1"),
        ("last", 0.5),
        ("recurrence", 5),
        ("recurrence", {}),
        ("recurrence", {"every": 0}),
        ("recurrence", {"every": 10**30}),
        ("recurrence", {"every": 5, "missed": "never"}),
        ("recurrence", {"every": 5, "anchor": 10**30}),
        ("recurrence", {"every": 5, "grace": "long"}),
        ("recurrence", {"cron": "* * * * *"}),
        ("recurrence", {"cron": "nonsense", "tz": "UTC"}),
        ("recurrence", {"cron": ["* * * * *"], "tz": "UTC"}),
        ("recurrence", {"cron": "* * * * *", "tz": "Nowhere/Land"}),
        ("retry", None),
        ("retry", {}),
        ("retry", {"max_retries": -1, "first_delay": 1, "max_delay": 1, "jitter": 0}),
        ("retry", {"max_retries": "many", "first_delay": 1, "max_delay": 1, "jitter": 0}),
    ],
)
def test_a_field_that_is_not_as_it_was_written_is_refused(field: str, value: Any) -> None:
    data = json.dumps({"id": ID} | {field: value}).encode()
    with pytest.raises(DecodeError):
        AlarmRecord.decode(data)


def test_a_schedule_whose_extra_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = AlarmRecord(ID, recurrence=Cron("17 4 * * *")).encode()  # which no other test decodes: it is not remembered
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(MissingExtraError, match=r"partyroom\[cron\]"):
        AlarmRecord.decode(data)
