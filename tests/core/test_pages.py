"""The answer to a listing, page by page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partyroom._core.pages import Page, behind, merge
from partyroom.types import KeyRange
from tests.core.rows import Rows, Values, bytes_or_none, over, positions, ranges, rows_of

ALL = KeyRange()


@given(
    st.dictionaries(positions, st.binary(max_size=2)),
    st.dictionaries(positions, bytes_or_none),
    ranges(),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_writes_laid_over_pages_give_what_writes_laid_over_the_whole_would(
    state: dict[str, bytes], layer: Values, keys: KeyRange, below: int, limit: int
) -> None:
    """G16, G17."""
    found: Rows = []
    left: KeyRange | None = keys
    while left is not None:
        rows = rows_of(state, left)
        page = Page(rows[:below], behind(left, rows[below - 1][0]) if len(rows) > below else None)
        page = merge(left, page, layer, limit)
        assert len(page.rows) <= limit
        found += page.rows
        assert left != page.rest
        left = page.rest
    assert rows_of(over(state, layer), keys) == found


def test_after_a_deletion_of_all_a_page_is_what_was_written_since() -> None:
    assert Page([("a", b"1")], KeyRange("a\0")) == merge(ALL, Page((), None), {"b": b"2", "a": b"1", "c": None}, 1)


def test_a_page_that_no_write_touches_stays_as_it_is() -> None:
    page = Page([("a", b"1")], KeyRange("b"))
    assert page is merge(ALL, page, {"b": b"2"}, 1)
