"""What users declare: ``check``, ``apply``, ``get``, ``delete``, ``schema``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import files, local
from replicator.cli.client import Client, named
from replicator.cli.output import Format, Output, show
from replicator.cli.running import Files, Lost, MoreFiles
from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    from replicator.config import Declarations


class Kind(StrEnum):
    CLUSTERS = "clusters"
    TASKS = "tasks"
    WORKERS = "workers"
    ASSIGNMENTS = "assignments"


class DeclaredKind(StrEnum):
    CLUSTERS = "clusters"
    TASKS = "tasks"


def _wanted(file: list[Path] | None, more: list[Path] | None) -> list[Path]:
    found = [*(file or []), *(more or [])]
    if not found:
        raise InvalidInput("no file given", hint="-f FILE")
    return found


def _load(paths: Sequence[Path], client: Client | None) -> Declarations:
    """What is wrong with the files by themselves is told before the coordinator is asked for the clusters it knows."""
    files.load(paths, None)
    known = [str(row["name"]) for row in client.get("/clusters")] if client is not None else []
    return files.load(paths, known)


def check(
    file: Files = None,
    more: MoreFiles = None,
    offline: Annotated[bool, typer.Option("--offline", help="Validate the files only.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Validates the files, then reaches every cluster they name. Only reads.

    Asks the coordinator and each worker where REPLICATOR_URL is set, else from this machine. Example: replicator check -f orders.yaml
    """
    paths = _wanted(file, more)
    client = Client() if os.environ.get("REPLICATOR_URL") and not offline else None
    loaded = _load(paths, client)
    if offline:
        counts = {"clusters": len(loaded.clusters), "tasks": len(loaded.tasks)}
        show({"valid": True, **counts}, output)
        return
    answer = client.post("/check", {"documents": files.documents(paths)}) if client is not None else local.check(loaded)
    show(answer, output)
    local.raise_for_problems(answer)


def apply(
    file: Files = None,
    more: MoreFiles = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, change nothing.")] = False,
    lost: Lost = None,
    output: Output = Format.TABLE,
) -> None:
    """Declares the clusters and tasks of the files. Deletes nothing. Example: replicator apply -f orders.yaml --dry-run"""
    paths = _wanted(file, more)
    client = Client()
    _load(paths, client)
    show(client.post("/apply", {"documents": files.documents(paths), "dry_run": dry_run, "lost": lost or []}), output)


def get(
    kind: Kind,
    name: Annotated[str | None, typer.Argument()] = None,
    output: Output = Format.TABLE,
) -> None:
    """Lists objects, or shows one. Example: replicator get tasks orders -o yaml"""
    client = Client()
    answer = client.get(f"/{kind}" if name is None else f"/{kind}/{named(name)}")
    show(answer, output, empty=f"no {kind}")


def delete(
    kind: DeclaredKind,
    name: str,
    force: Annotated[bool, typer.Option("--force", help="Also where a cluster cannot be reached.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Drop positions and the offset map too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Stops and removes a task or a cluster; what was copied stays. Example: replicator delete tasks orders"""
    answer = Client().delete(f"/{kind}/{named(name)}", force=force, purge=purge)
    if answer is None and output is Format.TABLE:
        print(f"deleted {kind.removesuffix('s')} {name}")
    else:
        show(answer, output)


def schema(
    openapi: Annotated[bool, typer.Option("--openapi", help="The REST API instead of the files.")] = False,
) -> None:
    """The JSON Schema of the files. Example: replicator schema > replicator.schema.json"""
    if openapi:
        # The web framework: loaded only where it is needed.
        from replicator.coordinator.api.app import describe

        print(json.dumps(describe(), indent=2, ensure_ascii=False))
        return
    from replicator import config

    print(json.dumps(config.json_schema(), indent=2, ensure_ascii=False))


def register(app: typer.Typer) -> None:
    for command in (check, apply, get, delete, schema):
        app.command()(command)
