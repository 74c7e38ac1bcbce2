from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from replicator import registry

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture(autouse=True)
def declared_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points as the project declares them, whatever is installed beside it."""
    groups = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    declared = EntryPoints(EntryPoint(name, value, group) for group, of in groups.items() for name, value in of.items())

    def entry_points(**wanted: Any) -> EntryPoints:
        return declared.select(**wanted)

    monkeypatch.setattr(registry, "entry_points", entry_points)
