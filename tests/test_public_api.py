"""Everything public: it exists, says what it does, tells where it is from, and can be read at run time."""

from __future__ import annotations

import ast
import inspect
import typing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import partyroom
from tests.test_layers import MODULES, house

# Examples are programs, and no part of the face.
PUBLIC = [
    module
    for name in MODULES
    if not any(part.startswith("_") for part in name.split(".")) and house(name) != "examples"
    for module in [import_module(name)]
]
EXPORTING = [module for module in PUBLIC if hasattr(module, "__all__")]


def defines_something(module: ModuleType) -> bool:
    return any(getattr(value, "__module__", None) == module.__name__ for value in vars(module).values())


def exports(module: ModuleType) -> list[tuple[str, Any]]:
    """Give the classes and functions that a module exports, by their full names."""
    values = [(name, getattr(module, name)) for name in module.__all__ if hasattr(module, name)]
    return [
        (f"{value.__module__}.{name}", value)
        for name, value in values
        if inspect.isclass(value) or inspect.isroutine(value)
    ]


def plain(member: Any) -> Any:
    """Give the function behind a method, a property or a static method."""
    return getattr(member, "__func__", None) or getattr(member, "fget", None) or getattr(member, "func", None) or member


def members(cls: type) -> dict[str, Any]:
    """Give the public methods and properties that a class defines, as plain functions."""
    functions = {name: plain(member) for name, member in vars(cls).items() if not name.startswith("_")}
    return {name: function for name, function in functions.items() if inspect.isfunction(function)}


NAMES = dict(sorted((item for module in EXPORTING for item in exports(module)), key=lambda item: item[0]))
CLASSES = {name: value for name, value in NAMES.items() if inspect.isclass(value)}


def test_a_public_module_says_what_it_exports() -> None:
    assert [] == [each for each in PUBLIC if defines_something(each) and not hasattr(each, "__all__")]


def test_what_is_exported_exists_and_stands_once() -> None:
    for module in EXPORTING:
        assert set() == {name for name in module.__all__ if not hasattr(module, name)}, module
        assert len(set(module.__all__)) == len(module.__all__), module


def test_the_face_gives_what_its_stub_promises() -> None:
    stub = ast.parse(Path(partyroom.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    promised = {
        alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(partyroom.__all__) == set(promised)
    for name, home in promised.items():
        assert getattr(import_module(str(home)), name) is getattr(partyroom, name)


def test_the_face_lists_all_of_it_and_nothing_else_is_there() -> None:
    assert set(partyroom.__all__) <= set(dir(partyroom))
    with pytest.raises(AttributeError, match="module 'partyroom' has no attribute 'Rooom'"):
        partyroom.Rooom  # type: ignore[attr-defined]  # noqa: B018


def test_a_public_name_says_what_it_does() -> None:
    assert [] == [name for name, value in NAMES.items() if not inspect.getdoc(value)]


def test_a_public_name_tells_a_public_module_as_its_home() -> None:
    homes = {value.__module__ for value in NAMES.values()}
    assert set() == {home for home in homes if any(part.startswith("_") for part in home.split("."))}


def test_the_annotations_of_a_public_name_can_be_read_at_run_time() -> None:
    for value in NAMES.values():
        # A class's own: what a framework's base class says is not ours.
        assert isinstance(inspect.get_annotations(value, eval_str=True), dict)


def test_the_annotations_of_public_methods_can_be_read_at_run_time() -> None:
    for cls in CLASSES.values():
        for function in members(cls).values():
            assert isinstance(typing.get_type_hints(function), dict)


def test_every_public_method_says_what_it_does() -> None:
    silent = [
        f"{home}.{name}"
        for home, cls in CLASSES.items()
        for name in members(cls)
        if not inspect.getdoc(getattr(cls, name))
    ]
    assert [] == silent
