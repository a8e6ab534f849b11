"""A whole backend over LMDB (``pip install partyroom[lmdb]``), to be read before you write your own.

Owns one file, which is one ordered map: a value lies under its room and key, an alarm under its room and name, and again
under its due time. Names are written in hexadecimal: that keeps their order, and leaves room for signs between them.

Promises what ``BackendContract`` asks for; tests/examples hold it to that. Must never be opened by two processes at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby, islice

import lmdb

from partyroom import AlarmCursor, AlarmRow, BackendFullError, Commit, KeyRange, RoomKey
from partyroom.backends.threaded import ThreadedBackend

VALUE, ALARM, DUE, OPENED = "v", "a", "d", "o"  # what a key begins with
END = "~"  # behind all names
STEM = 400  # LMDB takes keys of 511 bytes: longer ones are cut here, told apart by a hash, and put in order when read


def lmdb_backend(path: str, *, map_size: int = 2**30) -> ThreadedBackend:
    """Make a backend of one file, which grows up to ``map_size`` bytes (and on Windows has that size at once)."""
    return ThreadedBackend(_LmdbStore(path, map_size))


class _LmdbStore:
    def __init__(self, path: str, map_size: int) -> None:
        self.path, self.map_size = path, map_size

    def open(self) -> int:
        self.env = lmdb.open(self.path, map_size=self.map_size, subdir=False)
        with self.env.begin(write=True) as txn:
            _put(txn, OPENED, b"")  # a transaction that writes has a higher number than any before, in this file
            return txn.id()

    def close(self) -> None:
        self.env.close()

    def apply(self, commits: Sequence[Commit], /) -> None:
        try:
            with self.env.begin(write=True) as txn:
                for commit in commits:
                    self._apply(txn, commit)
        except lmdb.MapFullError as error:
            raise BackendFullError(f"{self.path}: the file has reached its map_size of {self.map_size}") from error

    def _apply(self, txn: lmdb.Transaction, commit: Commit) -> None:
        room = _place(*commit.room)
        if commit.clear:
            for key, _ in list(_items(txn, VALUE + room, VALUE + room + END)):
                _put(txn, key, None)
            for key, _ in list(_items(txn, ALARM + room, ALARM + room + END)):
                self._set_alarm(txn, key[1:], None)
        for key, value in commit.values.items():
            _put(txn, VALUE + room + _place(key), value)
        for name, row in commit.alarms.items():
            self._set_alarm(txn, room + _place(name), row)

    def _set_alarm(self, txn: lmdb.Transaction, place: str, row: AlarmRow | None) -> None:
        if old := _get(txn, ALARM + place):
            _put(txn, DUE + old[:16].decode() + place, None)
        _put(txn, ALARM + place, row and _stamp(row.due).encode() + row.data)
        if row:
            _put(txn, DUE + _stamp(row.due) + place, row.data)

    def read(self, room: RoomKey, keys: Collection[str], /) -> Mapping[str, bytes]:
        with self.env.begin() as txn:
            return {key: value for key in keys if (value := _get(txn, VALUE + _place(*room, key))) is not None}

    def scan(self, room: RoomKey, keys: KeyRange, limit: int, /) -> Sequence[tuple[str, bytes]]:
        with self.env.begin() as txn:
            found = _items(txn, *_range(VALUE + _place(*room), keys), reverse=keys.reverse)
            return [(_names(key)[2], value) for key, value in islice(found, limit)]

    def room_alarms(self, room: RoomKey, /) -> Sequence[AlarmRow]:
        place = ALARM + _place(*room)
        with self.env.begin() as txn:
            return [_row(value[:16].decode(), key, value[16:]) for key, value in _items(txn, place, place + END)]

    def due_alarms(self, before: int | None, after: AlarmCursor | None, limit: int, /) -> Sequence[AlarmRow]:
        low = "" if after is None else _stamp(after.due) + _place(*after.room, after.name) + END
        return self._by_due(DUE + low, DUE + _stamp(before), limit)

    def parked_alarms(self, party: str, after: tuple[str, str] | None, limit: int, /) -> Sequence[AlarmRow]:
        place = DUE + _stamp(None) + _place(party)
        return self._by_due(place + ("" if after is None else _place(*after) + END), place + END, limit)

    def _by_due(self, low: str, high: str, limit: int) -> Sequence[AlarmRow]:
        with self.env.begin() as txn:
            return [_row(key[1:17], key[16:], data) for key, data in islice(_items(txn, low, high), limit)]

    def rooms(self, party: str, ids: KeyRange, limit: int, /) -> Sequence[str]:
        with self.env.begin() as txn:
            both = [islice(self._ids(txn, table + _place(party), ids), limit) for table in (VALUE, ALARM)]
            return sorted({room_id for found in both for room_id in found}, reverse=ids.reverse)[:limit]

    def _ids(self, txn: lmdb.Transaction, place: str, ids: KeyRange) -> Iterator[str]:
        low, high = _range(place, ids)
        while found := next(_items(txn, low, high, reverse=ids.reverse), None):
            yield (room_id := _names(found[0])[1])  # and on to the next, whatever else this one holds
            low, high = (low, place + _place(room_id)) if ids.reverse else (place + _place(room_id) + END, high)


def _stamp(due: int | None) -> str:
    return END * 16 if due is None else f"{due + 2**63:016x}"


def _row(stamp: str, key: str, data: bytes) -> AlarmRow:
    party, room_id, name = _names(key)
    return AlarmRow(RoomKey(party, room_id), name, None if stamp == _stamp(None) else int(stamp, 16) - 2**63, data)


def _place(*names: str) -> str:
    return "".join(f"{name.encode().hex()}." for name in names)


def _names(key: str) -> list[str]:
    return [bytes.fromhex(name).decode() for name in key[1:-1].split(".")]


def _range(place: str, names: KeyRange) -> tuple[str, str]:
    return place + names.start.encode().hex(), place + (END if names.end is None else names.end.encode().hex())


def _get(txn: lmdb.Transaction, key: str) -> bytes | None:
    return next((value for _, value in _items(txn, key, key + END)), None)


def _put(txn: lmdb.Transaction, key: str, value: bytes | None) -> None:
    # The hash in hexadecimal as well: nothing that is stored may lie behind END.
    short = (key if len(key) <= STEM else key[:STEM] + sha256(key.encode()).hexdigest()).encode()
    txn.delete(short)
    if value is not None:
        txn.put(short, b"%b %b" % (key.encode(), value))


def _items(txn: lmdb.Transaction, low: str, high: str, *, reverse: bool = False) -> Iterator[tuple[str, bytes]]:
    cursor, start = txn.cursor(), high[:STEM] + END if reverse else low[:STEM]
    if not cursor.set_range(start.encode()) and not (reverse and cursor.last()):
        return
    for _, alike in groupby(cursor.iterprev() if reverse else cursor.iternext(), lambda entry: entry[0][:STEM]):
        for name, value in sorted((bytes(data).split(b" ", 1) for _, data in alike), reverse=reverse):
            if low <= (key := name.decode()) < high:
                yield key, value
            elif (key < low) is reverse:
                return
