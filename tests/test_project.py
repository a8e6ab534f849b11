"""The project as a whole: what lies in its folder, what its import costs, and what its tests keep away from."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]

TOP_LEVEL = {
    *("pyproject.toml", "partyroom", "tests", "benchmarks"),
    *("CHANGELOG.md", "README.md", "LICENSE", ".gitignore", ".ci"),
}

SOURCES = sorted(path for folder in ("partyroom", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))

WAITS_OR_PRETENDS = re.compile(
    r"^\s*(?:import|from) (?:time|mock|unittest)\b"  # the clock is given, nothing is faked
    r"|^\s*import random\b"  # chance comes from hypothesis, or from a Random with a seed
    # An hour is a wait that a test is about, and ends.
    r"|\b(?:anyio|asyncio|trio|time)\.sleep\((?!0\)|3600\))",
    re.MULTILINE,
)


def ignored(name: str) -> bool:
    """Say whether git ignores something of that name at the top level."""
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return any(fnmatch(name, pattern.strip("/")) for pattern in patterns if pattern and not pattern.startswith("#"))


def test_the_top_level_holds_only_what_belongs_there() -> None:
    assert set() == {path.name for path in ROOT.iterdir() if path.name != ".git" and not ignored(path.name)} - TOP_LEVEL


IMPORTS = """
import sys
engine = {"anyio.abc", "logging", "partyroom.codec", "partyroom.runtime"}
from partyroom import Alarm, Room
print(*sorted(sys.modules.keys() & engine))
from partyroom import Runtime
print(*sorted(sys.modules.keys() & engine))
print(*sorted(sys.modules.keys() & {"asyncio", "trio", "sqlite3", "partyroom.testing", "partyroom.backends.file"}))
"""


def test_importing_the_library_loads_words_until_the_engine_is_named_and_then_no_loop_no_database_no_kit() -> None:
    # Without coverage's variables: it would load a database into the new interpreter by itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    answer = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert ("", ["", "anyio.abc logging partyroom.codec partyroom.runtime", ""]) == (
        answer.stderr,
        answer.stdout.splitlines(),
    )


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "partyroom" / "py.typed").is_file()


def test_no_test_sleeps_or_pretends() -> None:
    found = [(path, WAITS_OR_PRETENDS.findall(path.read_text(encoding="utf-8"))) for path in TESTS]
    assert [] == [(path, lines) for path, lines in found if lines]


LOGS = {"debug", "info", "warning", "error", "exception", "critical"}


def test_every_record_of_the_log_says_its_room_and_event() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES if path.is_relative_to(ROOT / "partyroom")}
    calls = [
        (path.name, call.lineno, {each.arg: each.value for each in call.keywords}.get("extra"))
        for path, text in texts.items()
        if "log" in text.lower() and any(f".{level}(" in text for level in LOGS)
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LOGS
        if ast.unparse(call.func.value).rpartition(".")[2] in {"LOG", "log", "_log"}
    ]
    assert [] == [(name, line) for name, line, extra in calls if "about(" not in ast.unparse(extra or ast.Constant(""))]
    assert len(calls) > 10


def test_what_has_no_body_and_so_is_left_out_of_coverage_is_a_protocols_method() -> None:
    found = list[tuple[str, int]]()
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        protocols = [node for node in classes if any("Protocol" in ast.unparse(base) for base in node.bases)]
        allowed = [member for protocol in protocols for member in protocol.body]
        bodiless = [node for node in nodes if any(map(is_ellipsis, ast.iter_child_nodes(node)))]
        found += [(path.name, getattr(node, "lineno", 0)) for node in bodiless if node not in allowed]
    assert [] == found


def is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node) == "..."


def test_no_comment_leaves_a_line_out_of_coverage() -> None:
    assert [] == [path for path in SOURCES if "pragma: " + "no" in path.read_text(encoding="utf-8")]
