"""How many entries are read at a time."""

from __future__ import annotations

import pytest

from partyroom._core.page_size import FIRST, LARGEST, PAGE_BYTES, PageSize


def sizes(*lengths: int, wanted: int | None = None) -> list[int]:
    """Give the sizes of pages, one after the other, each of which brings values of one length."""
    size = PageSize(wanted)
    found = [size.entries]
    for length in lengths:
        size.learn([("key", b"x" * length)] * size.entries)
        found.append(size.entries)
    return found


def test_pages_of_small_values_grow_to_the_largest() -> None:
    assert [FIRST, 256, LARGEST, LARGEST] == sizes(1, 1, 1)


def test_pages_of_large_values_shrink_to_what_fits() -> None:
    assert [FIRST, 4, 4, 1, 1] == sizes(PAGE_BYTES // 4, PAGE_BYTES // 4, PAGE_BYTES, 3 * PAGE_BYTES)


def test_they_grow_again_when_values_do_not() -> None:
    assert [FIRST, 1, 4, 16] == sizes(PAGE_BYTES, 1, 1)


def test_the_first_page_is_no_larger_than_what_is_wanted() -> None:
    assert [1, 4] == sizes(10, wanted=1)
    assert [FIRST] == sizes(wanted=1000)


@pytest.mark.parametrize("rows", [[], [("key", None)], [("key", b"")]])
def test_a_page_that_brings_no_bytes_is_followed_by_a_larger_one(rows: list[tuple[str, bytes | None]]) -> None:
    size = PageSize(1)
    size.learn(rows)
    assert 4 == size.entries
