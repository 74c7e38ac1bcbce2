"""The codec knows no socket, no clock, no event loop, and nothing of ours: bytes in, values out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from connectors.rocketmq import remoting

ALLOWED = {
    "__future__", "base64", "collections", "collections.abc", "dataclasses", "enum", "hmac", "json", "re", "struct",
    "typing", "zlib",
}  # fmt: skip
MODULES = sorted(Path(remoting.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_pure_parts_of_the_standard_library(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    foreign = {name for name in imported if not name.startswith("connectors.rocketmq.remoting.")} - ALLOWED
    assert not foreign


def test_there_are_modules_to_check() -> None:
    assert {"framing", "command", "message", "codes", "errors"} <= {path.stem for path in MODULES}
