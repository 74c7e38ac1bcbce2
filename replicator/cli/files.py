"""The files a person gives: read once for their documents, and once by ``config`` for what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from replicator.config import Declarations


def load(files: Sequence[Path], known_clusters: Sequence[str] | None) -> Declarations:
    """Clusters and tasks of the files. ``known_clusters``: those declared elsewhere; with None, names are not judged yet.
    Raises ``InvalidInput`` with file and line."""
    from replicator import config  # Only commands that take files pay for loading it.

    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InvalidInput(f"no such file: {', '.join(missing)}")
    return config.load_files(files, known_clusters)


def documents(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The documents as JSON values, for the API. Call ``load`` before: it judges them."""
    from replicator.config.documents import read_file
    from replicator.config.problems import Problems

    problems = Problems()
    found = [document.value for file in files for document in read_file(file, problems)]
    problems.raise_if_any()
    return found
