"""The files a person gives: read once for their documents, and once by ``config`` for what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replicator import config
from replicator.config.documents import read_file
from replicator.config.problems import Problems
from replicator.core.errors import InvalidInput


def load(files: Sequence[Path], known_clusters: Sequence[str] | None) -> config.Declarations:
    """Clusters and tasks of the files. ``known_clusters``: those declared elsewhere; with None, names are not judged yet.
    Raises ``InvalidInput`` with file and line."""
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InvalidInput(f"no such file: {', '.join(missing)}")
    return config.load_files(files, known_clusters)


def documents(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The documents as JSON values, for the API. Call ``load`` before: it judges them."""
    problems = Problems()
    found = [document.value for file in files for document in read_file(file, problems)]
    problems.raise_if_any()
    return found
