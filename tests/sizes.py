"""How much is tried: little by default, and as much as the promises name where a run asks for what takes minutes.

Such a run is ``python -m pytest -m slow``: it takes the sizes that are marked, and explores far more examples.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest

THOROUGH = "thorough"
"""The profile of hypothesis in a run of what takes minutes."""


def sizes(name: str, small: Any, *stated: Any) -> pytest.MarkDecorator:
    """Run a test at a small size, and at the stated ones where they are asked for."""
    return pytest.mark.parametrize(name, [small, *(pytest.param(each, marks=pytest.mark.slow) for each in stated)])


def examples(few: int, many: int, **options: Any) -> hypothesis.settings:
    """Explore a few examples, and many where they are asked for."""
    thorough = hypothesis.settings.get_current_profile_name() == THOROUGH
    return hypothesis.settings(max_examples=many if thorough else few, **options)
