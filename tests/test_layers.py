"""The house, drawn, and held by a test: an import points to a row above, never to its own row or one below.

A package is one house of the row; its own files may see each other, but never in a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "partyroom"

ROWS = (
    # words
    ("errors",),
    ("recurrence",),
    ("types",),
    # contracts, and the loop's own wake-up
    ("observer", "protocols", "statistics", "_log", "_native"),
    # decisions, sans-I/O
    ("_core",),
    # what counts the work in flight, and what is counted: timers, threads, messages for a client who waits
    ("_work",),
    ("_timers", "_workers", "_inbox"),
    # effects: siblings that never see each other
    (
        *("clock", "codec", "backends", "connections"),
        *("_alarm_loop", "_committer", "_room_clock", "_room_state", "_scheduling"),
    ),
    # what every room is given
    ("_services",),
    ("_background", "_handlers", "_ringing", "_room_alarms", "_room_listing", "_sealing", "_watching"),
    ("_calls", "_room_storage"),
    ("_room_context",),
    # one awake room: its claim, its start and its sleep; and in between one event at a time
    ("_room_life",),
    ("_room_runner",),
    # what is told of them, what they wait for, what they run in
    ("_due_alarms", "_figures", "_idle_rooms", "_run_tasks"),
    # who is awake: routing, eviction, close
    ("_engine",),
    # what a host holds: the handles, and the runtime that gives them
    ("_handles",),
    ("runtime",),
    # the face
    ("__init__",),
    # adapters: what a host mounts, what a test author uses
    ("asgi", "blocking", "otel", "testing"),
    # what a person types
    ("_cli",),
    ("__main__",),
    # programs of their own, which use the public face only
    ("examples",),
)
RANK = {house: rank for rank, row in enumerate(ROWS) for house in row}

ONLY = {
    "_core": {"errors", "types", "recurrence", "protocols"},
    "backends": {"errors", "types", "protocols", "_native"},
    "examples": {"__init__", "backends", "asgi", "blocking", "testing"},
}
"""Houses that see less than their row allows."""

BY_NAME = {
    "__init__": "what makes rooms run, of ours: its stub names it, so that the drawing has it",
    "_native": "the loop that runs",
    "recurrence": "an optional package, and the zones that only calendars need",
    "_core": "types of the standard library that few rooms store, and what tells how alike two words are",
    "codec": "types of the standard library that few rooms store",
    "_cli": "an author's own modules",
    "testing": "the loop that a test runs on",
    "blocking": "the loop that is run for a host that has none",
}
"""Houses that look modules up while they run, and what for; but for the face, never one of ours, which would hide a circle."""

LONERS = {"examples"}
"""Packages whose files do not see each other."""

EFFECTS = {
    *("anyio", "asyncio", "trio", "threading", "concurrent", "multiprocessing", "logging"),
    *("time", "random", "secrets", "uuid", "os", "io", "pathlib", "socket", "sqlite3", "subprocess", "signal"),
}
"""What the deciding house must never import: loops, threads, time, chance, and the world."""

MODULES = {
    ".".join(("partyroom", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def house(module: str) -> str:
    """Give the part of the package that a dotted name of ours belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports(path: Path) -> list[str]:
    """Give what a file imports, wherever in it the import stands; a submodule under its own name."""
    found: list[str] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.append(submodule if submodule in MODULES else str(node.module))
    return found


@cache
def own_imports(module: str) -> set[str]:
    # The face loads some names late: its stub names them all.
    stub = MODULES[module].with_suffix(".pyi")
    paths = [MODULES[module], *([stub] if stub.exists() else [])]
    return {name for path in paths for name in imports(path) if name.split(".")[0] == "partyroom"}


def inner_nodes(path: Path) -> Iterator[ast.AST]:
    """Give every node that stands inside a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (inner for inner in ast.walk(node) if inner is not node)


CORE = [module for module in MODULES if house(module) == "_core"]


def test_every_file_has_a_place_in_the_house() -> None:
    without = {module for module in MODULES if house(module) not in RANK}
    assert set() == without, "give them a row in ROWS"


def test_imports_point_to_rows_above() -> None:
    wrong = {
        (module, name)
        for module in MODULES
        for name in own_imports(module)
        if RANK[house(name)] >= RANK[house(module)] and (house(name) != house(module) or house(module) in LONERS)
    }
    assert set() == wrong


def test_a_house_that_is_kept_apart_sees_only_what_it_may() -> None:
    wrong = {
        (module, name)
        for module in MODULES
        if house(module) in ONLY
        for name in own_imports(module)
        if house(name) not in ONLY[house(module)] | {house(module)}
    }
    assert set() == wrong


def test_imports_name_modules_that_exist() -> None:
    assert set() == {name for module in MODULES for name in own_imports(module)} - set(MODULES)


def test_no_import_stands_inside_a_function() -> None:
    wrong = {
        f"{path}:{node.lineno}"
        for path in MODULES.values()
        for node in inner_nodes(path)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert set() == wrong


def test_no_import_is_for_type_checkers_only() -> None:
    assert [] == [path for path in MODULES.values() if "TYPE_CHECKING" in path.read_text(encoding="utf-8")]


def test_modules_are_imported_by_name_only_for_a_reason() -> None:
    by_name = {
        house(name) for name in MODULES if any("importlib" == found.split(".")[0] for found in imports(MODULES[name]))
    }
    assert by_name <= set(BY_NAME)


def test_there_is_no_circle() -> None:
    waiting = {module: own_imports(module) - {module} for module in MODULES}
    while ready := {module for module, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}
    assert {} == waiting


def test_the_core_imports_nothing_that_has_effects() -> None:
    found = {(module, name.split(".")[0]) for module in CORE for name in imports(MODULES[module])}
    assert set() == {(module, name) for module, name in found if name in EFFECTS}


def test_the_core_never_waits() -> None:
    waits = ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await
    found = {(module, node) for module in CORE for node in ast.walk(tree(MODULES[module]))}
    assert set() == {module for module, node in found if isinstance(node, waits)}
