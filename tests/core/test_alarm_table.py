"""Which alarm of a room is due first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.alarm_table import SPARE, AlarmTable
from partyroom.types import AlarmRow, RoomKey

ROOM = RoomKey("party", "a")

names = st.sampled_from(["", *"abcdefg"])
changes = st.dictionaries(names, st.none() | st.one_of(st.none(), st.integers(-2, 5)).map(lambda due: ("row", due)))


def row(name: str, due: int | None) -> AlarmRow:
    return AlarmRow(ROOM, name, due)


@given(st.dictionaries(names, st.none() | st.integers(0, 3)), st.lists(changes))
def test_it_is_the_one_that_sorting_all_of_them_would_give(
    stored: dict[str, int | None], steps: list[dict[str, tuple[str, int | None] | None]]
) -> None:
    table = AlarmTable(row(name, due) for name, due in stored.items())
    model = dict(stored)
    for step in [{}, *steps]:
        table.apply({name: None if change is None else row(name, change[1]) for name, change in step.items()})
        for name, change in step.items():
            model.pop(name, None)
            if change is not None:
                model[name] = change[1]
        due = sorted((when, name) for name, when in model.items() if when is not None)
        assert (row(due[0][1], due[0][0]) if due else None) == table.first()
        assert {name: row(name, when) for name, when in model.items()} == table.rows


def test_a_row_that_replaces_another_at_the_same_time_is_given() -> None:
    table = AlarmTable([row("a", 1)])
    newer = row("a", 1)._replace(data=b"newer")
    table.apply({"a": newer})
    assert newer is table.first()


def test_of_alarms_that_are_never_due_none_is_first_however_many_there_are() -> None:
    for number in range(10):
        table = AlarmTable(row(f"{each}", None) for each in range(number))
        assert table.first() is None
        table.apply({"due": row("due", 5)})
        assert row("due", 5) == table.first()
        table.apply({"due": row("due", None)})
        assert table.first() is None


def test_an_alarm_that_is_moved_again_and_again_costs_no_memory() -> None:
    table = AlarmTable(row(name, 0) for name in "abcdefg")
    for due in range(10_000):
        table.apply({"": row("", due)})
        assert table._order is not None
        assert len(table._order) <= 2 * 8 + SPARE


def test_many_alarms_come_out_in_their_order_each_after_a_glance() -> None:
    table = AlarmTable(row(f"{number}", (number * 7919) % 10_007) for number in range(10_000))
    found = []
    while (first := table.first()) is not None:
        found.append(first.due)
        table.apply({first.name: None})
    assert sorted((number * 7919) % 10_007 for number in range(10_000)) == found
