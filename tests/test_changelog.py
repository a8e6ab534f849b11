"""The changelog: kept in one form, the newest on top."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

RELEASES = [
    tuple(map(int, found))
    for found in re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d{2}-\d{2}$", TEXT, re.MULTILINE)
]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Storage format"}


def headings(level: str) -> list[str]:
    return re.findall(rf"^{level} (.+)$", TEXT, re.MULTILINE)


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert isinstance(project["version"], str)
    return project["version"]


def test_it_has_one_title() -> None:
    assert ["Changelog"] == headings("#")


def test_what_is_not_released_stands_on_top() -> None:
    assert "[Unreleased]" == headings("##")[0]


def test_every_other_heading_is_a_release_with_its_day() -> None:
    assert len(RELEASES) == len(headings("##")) - 1


def test_releases_stand_from_new_to_old() -> None:
    assert all(newer > older for newer, older in pairwise(RELEASES))


def test_no_release_is_newer_than_the_project() -> None:
    assert max(RELEASES, default=(0, 0, 0)) <= tuple(map(int, version().split(".")))


def test_changes_are_sorted_by_the_usual_kinds() -> None:
    assert set(headings("###")) <= KINDS


def test_every_heading_is_followed_by_a_change() -> None:
    assert [] == re.findall(r"^### .+\n++(?!- )", TEXT, re.MULTILINE)
