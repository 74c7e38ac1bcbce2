"""What a process loads before it does anything: half of a command's time was that."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("replicator.cli.main", {"httpx", "structlog", "pydantic", "sqlalchemy", "fastapi", "uvicorn", "replicator.config"}),
        ("replicator.cli.services", {"alembic", "httpx", "fastapi"}),
    ],
)
def test_what_is_needed_later_is_loaded_later(module: str, others: set[str]) -> None:
    asked = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert others & set(loaded) == set()
