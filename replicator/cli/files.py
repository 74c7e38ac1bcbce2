"""The files a person gives: read once for their documents, and once by ``config`` for what is wrong with them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from replicator import config
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
    found: list[dict[str, Any]] = []
    for file in files:
        with file.open(encoding="utf-8") as text:
            found += [_json_value(document) for document in yaml.safe_load_all(text) if document is not None]
    return found


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_json_value(one) for one in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value
