"""The layers, and that no task is started whose result nobody holds."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.tidy.test_tree import ROOT, product_files, relative

LINT_SECONDS_MAX = 120
STARTERS = ("create_task", "ensure_future")


def dropped_tasks(source: str) -> list[int]:
    """Lines that start a task and keep no reference: the loop holds tasks weakly, one may vanish with its error."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in STARTERS
        and ast.unparse(node.value.func.value) not in {"group", "self._group"}
    ]


@pytest.mark.parametrize("source", ["asyncio.create_task(work())", "loop.create_task(work())", "asyncio.ensure_future(work())"])
def test_a_dropped_task_is_found(source):
    assert dropped_tasks(source) == [1]


@pytest.mark.parametrize(
    "source", ["task = asyncio.create_task(work())", "group.create_task(work())", "tasks.add(asyncio.create_task(work()))"]
)
def test_a_task_that_is_held_passes(source):
    assert dropped_tasks(source) == []


def test_no_task_is_dropped():
    assert {relative(path): lines for path in product_files() if (lines := dropped_tasks(path.read_text()))} == {}


def test_imports_follow_the_layers():
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LINT_SECONDS_MAX)
    assert result.returncode == 0, result.stdout + result.stderr
