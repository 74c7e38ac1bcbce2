"""``rebuild``: begins it, shows how far it is, prints what came of it."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from replicator.cli.client import Client, named
from replicator.cli.operating import Destination, Source, Topic
from replicator.cli.output import Format, Output, show
from replicator.core.errors import InvalidInput, ReplicatorError

POLL_SECONDS = 0.5
LINE_SECONDS = 5.0
"""Between two lines that say how far it is."""
_COLUMNS = (
    "assignment_id", "source", "destination", "copies", "runs", "epochs", "duplicates", "without_copy", "examined_through", "seconds",
)  # fmt: skip


def rebuild(
    task: str,
    topic: Topic = None,
    source: Source = None,
    destination: Destination = None,
    cluster_id: Annotated[
        list[str] | None,
        typer.Option("--cluster-id", metavar="NAME=ID", help="Lasting id of a cluster that is gone, where the copies leave a choice."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Makes map and checkpoints anew from the destination's log alone. Example: replicator rebuild orders

    Each topic is paused while its queues are read. Works while a source cluster is gone.
    """
    if (source is None) != (destination is None):
        raise InvalidInput("--source and --destination name a flow together: give both or none")
    client, path = Client(), f"/tasks/{named(task)}/rebuild"
    body = {"topic": topic, "source": source, "destination": destination, "cluster_ids": _ids(cluster_id or [])}
    answer = _watch(client, path, client.post(path, body))
    if output is Format.TABLE:
        show([{name: queue[name] for name in _COLUMNS} for queue in answer["queues"]], output, empty="no queue of the task is known")
        print(f"{answer['copies_found']} copies among {answer['records_read']} records, {answer['seconds']:.1f} s")
    else:
        show(answer, output)
    for flow in answer["flows"]:
        if flow["error"]:
            print(f"{flow['source']} to {flow['destination']}: {flow['error']}", file=sys.stderr)
    if answer["state"] != "done":
        raise ReplicatorError(f"task {task} was not rebuilt: {answer['error']}")


def _ids(given: list[str]) -> dict[str, str]:
    ids = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise InvalidInput(f"--cluster-id {text!r} is not NAME=ID")
        ids[name] = value
    return ids


def _watch(client: Client, path: str, answer: dict[str, Any]) -> dict[str, Any]:
    told_at = time.monotonic()
    while answer["state"] == "running":
        if time.monotonic() - told_at >= LINE_SECONDS:
            told_at = time.monotonic()
            said = f"{answer['seconds']:.0f} s: {answer['records_read']} records, {answer['copies_found']} copies, {answer['now']}"
            print(said, file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
        answer = client.get(path)
    return answer


def register(app: typer.Typer) -> None:
    app.command()(rebuild)
