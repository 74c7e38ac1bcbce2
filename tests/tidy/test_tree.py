"""The tree judged by itself: banned calls, budgets, and nothing of one machine in files for everybody."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("replicator", "connectors")
FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70

ALLOWED_LONG_FILES: frozenset[str] = frozenset()
ALLOWED_LONG_FUNCTIONS: frozenset[str] = frozenset()
"""``path:function``. Short, and shorter with time."""

# Written in pieces, so that this file does not find itself.
_FOREIGN = re.compile(
    "|".join((
        r"pypi\." + "org", r"files\.python" + "hosted", r"npmjs\." + "(org|com)", r"repo1?\.maven\." + "(org|apache)",
        r"proxy\.golang\." + "org", r"(?<![\w.~}-])/(?:work|ro" + r"ot|tm" + r"p)/[\w.-]",
    ))
)
_TEXT_SUFFIXES = frozenset({
    "", ".py", ".md", ".toml", ".yaml", ".yml", ".json", ".sql", ".java", ".in", ".txt", ".cfg", ".ini", ".sh", ".xml", ".mako",
})


def product_files() -> list[Path]:
    return sorted(path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def banned(path: str, name: str, call: ast.Call) -> str:
    """Why this call may not stand there, or nothing."""
    if name == "time.time":
        return "time.time() jumps: time.monotonic() for durations, a clock handed in for moments"
    if name.endswith("get_event_loop"):
        return "asyncio.get_running_loop() instead"
    if name == "print" and not path.startswith("replicator/cli/"):
        return "a log line instead; only the command line prints"
    limited = call.args or any(keyword.arg == "maxsize" for keyword in call.keywords)
    if name.split("[")[0] in {"asyncio.Queue", "Queue"} and not limited:
        return "a queue without maxsize grows without end"
    return ""


def findings(source: str, path: str) -> list[str]:
    return [
        f"{path}:{call.lineno}: {name}: {why}" for name, call in calls(ast.parse(source)) if (why := banned(path, name, call))
    ]


@pytest.mark.parametrize(
    "source", ["import time\ntime.time()", "asyncio.get_event_loop()", "print(1)", "asyncio.Queue()", "asyncio.Queue[int]()"]
)
def test_the_rules_find_what_they_ban(source):
    assert len(findings(source, "replicator/core/x.py")) == 1


@pytest.mark.parametrize("source", ["time.monotonic()", "asyncio.get_running_loop()", "asyncio.Queue(maxsize=3)", "asyncio.Queue[int](3)"])
def test_the_rules_let_the_rest_pass(source):
    assert findings(source, "replicator/core/x.py") == []


def test_no_banned_calls():
    assert [line for path in product_files() for line in findings(path.read_text(), relative(path))] == []


def test_files_stay_within_their_budget():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in product_files()}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX and path not in ALLOWED_LONG_FILES} == {}


def test_functions_stay_within_their_budget():
    lengths = {
        f"{relative(path)}:{function.name}": lines_without_docstring(function)
        for path in product_files()
        for function in functions(ast.parse(path.read_text()))
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX and name not in ALLOWED_LONG_FUNCTIONS} == {}


def test_the_allow_lists_hold_nothing_that_needs_no_leave():
    existing = {relative(path): path.read_text() for path in product_files()}
    assert {path for path in ALLOWED_LONG_FILES if len(existing.get(path, "").splitlines()) <= FILE_LINES_MAX} == set()


def committed_files() -> list[Path]:
    """What git tracks or would: the working tree without what is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix in _TEXT_SUFFIXES]


def test_no_machine_and_no_registry_is_named():
    found = []
    for path in committed_files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if _FOREIGN.search(line):
                found.append(f"{relative(path)}:{number}: {line.strip()[:120]}")
    assert found == []
