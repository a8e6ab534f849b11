"""What stands in an alarm's row beside its room, name and due time: all of its policy, as bytes.

Owns the form of those bytes: one line of JSON, then, after a line feed, the
payload as the codec made it. A row without a line feed has no payload.

Promises that what was encoded is decoded equal, that the usual records (an id
and perhaps a payload, or those of a recurrence that goes on) are made and read
in a microsecond or two, and that fields which a newer version wrote are carried
along unread.

Must never be read by a backend, and must never decide anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from partyroom._core.instants import length, length_micros
from partyroom._core.recurrence import decode_recurrence, encode_recurrence
from partyroom.errors import DecodeError, MissingExtraError
from partyroom.recurrence import Recurrence
from partyroom.types import RetryPolicy

__all__ = ["AlarmRecord", "usual_record"]

LINE_FEED: Final = b"\n"
"""What ends the header; JSON writes none of its own."""

# The usual record is exactly {"id":"<16 hex>"}, so that it need not be parsed.
USUAL_START: Final = b'{"id":"'
USUAL_END: Final = b'"}'
ID_AT: Final = slice(7, 23)
END_AT: Final = slice(23, 25)
LENGTH: Final = 25

ID: Final = re.compile("[0-9a-f]{16}")
CHANGING: Final = re.compile(rb'\{"id":"([0-9a-f]{16})"(?:,"last":([0-9]{1,18}))?,')
"""How a header begins that goes on with what many have in common: what changes with every ring of a recurrence."""

NOTHING: Final[Mapping[str, Any]] = {}


class AlarmRecord(NamedTuple):
    """The policy and the history of one alarm. Instants and lengths are whole microseconds."""

    id: str
    """16 hexadecimal digits: the ring's name, the same over all its retries."""
    payload: bytes | None = None
    """As the codec made it; ``None`` for none."""
    last: int | None = None
    """When its handler last returned or, if there is an error, raised; ``None`` if it has not rung, or nobody wrote it."""
    recurrence: Recurrence | None = None
    """How it goes on after this ring; ``None`` for an alarm that rings once."""
    spread: int = 0
    """The longest random delay of a ring."""
    retry: RetryPolicy | None = None
    """When this alarm is retried; ``None`` for what the room says."""
    scheduled: int | None = None
    """The time it was set for, where the row's due time is another one: that of a retry, or after a random delay."""
    retry_count: int = 0
    """How often this ring has failed; of one that failed for good, all of its attempts."""
    error: str | None = None
    """What the handler raised when it last rang; ``None`` if it returned."""
    failed: bool = False
    """Whether it has failed for good, and is kept to be looked at."""
    paused: int | None = None
    """The due time it had before it was paused; ``None`` for one that is not."""
    missed: int = 0
    """How many occurrences before this one were skipped."""
    extra: Mapping[str, Any] = NOTHING
    """Fields that a newer version wrote."""

    @property
    def outcome(self) -> Literal["success", "error"] | None:
        """How it went when it last rang; ``None`` if it has not rung, or nobody wrote how."""
        if self.error is not None:
            return "error"
        return None if self.last is None else "success"

    def encode(self) -> bytes:
        """Give the bytes for a row."""
        is_usual = self[FATE] == USUAL_FATE and ID.fullmatch(self.id)
        return _joined(self._usual_header() if is_usual else self.header(), self.payload)

    def _usual_header(self) -> bytes:
        """Give the header of an alarm that has nothing to say but what it was set with, and when it last rang."""
        policy = _encode_policy(self.recurrence, self.spread, self.retry)
        if self.last is None:
            return b'{"id":"%b"%b' % (self.id.encode(), policy)
        return b'{"id":"%b","last":%d%b' % (self.id.encode(), self.last, policy)

    def header(self) -> bytes:
        """Give the bytes of all but the payload, whatever there is to say."""
        fields = dict(self.extra)
        fields["id"] = self.id
        for name in PLAIN:
            value = getattr(self, name)
            if value != DEFAULTS[name]:
                fields[name] = value
        if self.recurrence is not None:
            fields["recurrence"] = encode_recurrence(self.recurrence)
        if self.retry is not None:
            fields["retry"] = _encode_retry(self.retry)
        return json.dumps(fields, separators=(",", ":")).encode()

    @staticmethod
    @lru_cache(maxsize=8)
    def decode(data: bytes) -> AlarmRecord:
        """Give the record of a row; raise :class:`DecodeError` for bytes that are none.

        Raises :class:`MissingExtraError` for an alarm set with a ``Cron``, where that extra is not installed. The last
        ones are remembered: an alarm that rings is looked at before and after its handler.
        """
        if _is_usual(data):
            return AlarmRecord(data[ID_AT].decode(), None if len(data) == LENGTH else data[LENGTH + 1 :])
        header, line_feed, payload = data.partition(LINE_FEED)
        try:
            return _decode(header, payload if line_feed else None)
        except MissingExtraError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"no record of an alarm: {header[:200]!r}"
            raise DecodeError(message) from error


def _is_usual(data: bytes) -> bool:
    """Say whether these are the bytes of a usual record: set for the row's due time, once, and with no history."""
    return (
        data.startswith(USUAL_START)
        and data[END_AT] == USUAL_END
        and (len(data) == LENGTH or data[LENGTH : LENGTH + 1] == LINE_FEED)
        and data[ID_AT].isalnum()
    )


def usual_record(number: int, payload: bytes | None) -> bytes:
    """Give the bytes of the usual record at once: an id, by its 64 bits, and perhaps a payload."""
    return _joined(b'{"id":"%016x"}' % number, payload)


def _joined(header: bytes, payload: bytes | None) -> bytes:
    return header if payload is None else header + LINE_FEED + payload


FATE: Final = slice(6, None)
"""The fields that say what has happened to an alarm, but for when it last rang."""
USUAL_FATE: Final = AlarmRecord("")[FATE]
DEFAULTS: Final = AlarmRecord("")._asdict()

PLAIN: Final[Mapping[str, type]] = {
    "last": int,
    "scheduled": int,
    "retry_count": int,
    "error": str,
    "failed": bool,
    "paused": int,
    "missed": int,
    "spread": int,
}
"""Fields that JSON keeps as they are."""
KNOWN: Final = {"id", "recurrence", "retry", *PLAIN}


@lru_cache(maxsize=256)
def _encode_policy(recurrence: Recurrence | None, spread: int, retry: RetryPolicy | None) -> bytes:
    """Give the end of a header: what does not change from ring to ring, and is the same in many rooms."""
    header = AlarmRecord("", recurrence=recurrence, spread=spread, retry=retry).header()
    return header.removeprefix(b'{"id":""')


def _decode(header: bytes, payload: bytes | None) -> AlarmRecord:
    start = CHANGING.match(header)
    if start is None:
        return _decode_header(header)._replace(payload=payload)
    rest = _decode_header(b'{"id":"",' + header[start.end() :])
    return AlarmRecord(start[1].decode(), payload, rest.last if start[2] is None else int(start[2]), *rest[3:])


@lru_cache(maxsize=256)
def _decode_header(header: bytes) -> AlarmRecord:
    """Read a header, or one without what changes. The last ones are remembered, for many alarms have the same policy."""
    fields = json.loads(header)
    found = {name: _of_type(fields[name], kind) for name, kind in PLAIN.items() if name in fields}
    return AlarmRecord(
        _of_type(fields["id"], str),
        recurrence=decode_recurrence(_of_type(fields["recurrence"], dict)) if "recurrence" in fields else None,
        retry=_decode_retry(fields["retry"]) if "retry" in fields else None,
        extra={name: value for name, value in fields.items() if name not in KNOWN} or NOTHING,
        **found,
    )


def _of_type(value: Any, kind: type) -> Any:  # noqa: ANN401 - what JSON gave, now checked
    """Refuse what is not exactly of a type: ``True`` is no number here."""
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _encode_retry(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "max_retries": policy.max_retries,
        "first_delay": length_micros(policy.first_delay),
        "max_delay": length_micros(policy.max_delay),
        "jitter": policy.jitter,
    }


def _decode_retry(fields: dict[str, Any]) -> RetryPolicy:
    return RetryPolicy(
        max_retries=fields["max_retries"],
        first_delay=length(fields["first_delay"]),
        max_delay=length(fields["max_delay"]),
        jitter=fields["jitter"],
    )
