"""How much is tried: little by default, and as much as the promises name where a run asks for what takes minutes.

Such a run is ``python -m pytest -m slow``: it takes the sizes that are marked, and explores far more examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import hypothesis
import pytest

T = TypeVar("T")

THOROUGH = "thorough"
"""The profile of hypothesis in a run of what takes minutes."""


def sizes(name: str, small: Any, *stated: Any) -> pytest.MarkDecorator:
    """Run a test at a small size, and at the stated ones where they are asked for."""
    return pytest.mark.parametrize(name, [small, *(pytest.param(each, marks=pytest.mark.slow) for each in stated)])


def is_thorough() -> bool:
    """Say whether this is a run of what takes minutes."""
    return hypothesis.settings.get_current_profile_name() == THOROUGH


def in_turn(number: int, *ways: T) -> Sequence[T]:
    """Give one of some ways that hardly matter, the next number the next one; and all of them where they are asked for."""
    return ways if is_thorough() else (ways[number % len(ways)],)


def examples(few: int, many: int, **options: Any) -> hypothesis.settings:
    """Explore a few examples, and many where they are asked for."""
    return hypothesis.settings(max_examples=many if is_thorough() else few, **options)
