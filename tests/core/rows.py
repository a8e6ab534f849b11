"""What tests of ranges share: a store that is a plain dict, and ranges to ask it for."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from partyroom._core.keys import contains
from partyroom.types import KeyRange

Values = dict[str, bytes | None]
Rows = list[tuple[str, bytes]]


def rows_of(state: Mapping[str, bytes], keys: KeyRange) -> Rows:
    return sorted(((key, data) for key, data in state.items() if contains(keys, key)), reverse=keys.reverse)


def over(state: Mapping[str, bytes], values: Mapping[str, bytes | None], *, clear: bool = False) -> dict[str, bytes]:
    merged = {**({} if clear else state), **values}
    return {key: data for key, data in merged.items() if data is not None}


letters = "abcdefgh"
positions = st.sampled_from(letters)
bytes_or_none = st.none() | st.binary(max_size=2)


@st.composite
def ranges(draw: st.DrawFn) -> KeyRange:
    start = draw(st.sampled_from(["", *letters]))
    end = draw(
        st.none() | st.sampled_from([letter for letter in letters if letter > start]) if start < "h" else st.none()
    )
    return KeyRange(start, end, draw(st.booleans()))
