"""Which ranges of keys are known whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.keys import contains
from partyroom._core.known_ranges import NOTHING, Bounds, covers, first_gap, first_part, joined
from partyroom.types import KeyRange
from tests.core.rows import letters, ranges


@given(st.lists(ranges(), max_size=6))
def test_a_key_is_known_if_it_is_in_one_of_the_ranges_told(told: list[KeyRange]) -> None:
    known: Bounds = NOTHING
    for keys in told:
        known = joined(known, keys)
    assert [any(contains(keys, key) for keys in told) for key in letters] == [covers(known, key) for key in letters]
    assert sorted(set(known)) == list(known)


@given(st.lists(ranges(), max_size=4), ranges())
def test_a_range_is_parts_and_gaps_that_meet_in_its_order(told: list[KeyRange], keys: KeyRange) -> None:
    known: Bounds = NOTHING
    for other in told:
        known = joined(known, other)
    walked: list[str] = []
    left: KeyRange | None = keys
    while left is not None:
        gap = first_gap(known, left)
        part = first_part(known, left) if gap is None else gap
        inside = [key for key in letters if contains(part, key)]
        assert {gap is None} >= {covers(known, key) for key in inside}
        walked += reversed(inside) if keys.reverse else inside
        assert keys.reverse == part.reverse
        if keys.reverse:
            left = None if part.start == keys.start else KeyRange(keys.start, part.start, reverse=True)
        else:
            left = None if part.end == keys.end else KeyRange(part.end or "", keys.end)
    assert sorted((key for key in letters if contains(keys, key)), reverse=keys.reverse) == walked
