"""``offsets translate``: one exact answer of the offset map."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli.client import Client, named
from replicator.cli.output import Format, Output, show


def translate(
    task: str,
    source: Annotated[str, typer.Option("--source", help="Cluster the message was read from.")],
    destination: Annotated[str, typer.Option("--destination", help="Cluster it was copied to.")],
    topic: Annotated[str, typer.Option("--topic", help="Its topic on the source.")],
    queue: Annotated[str, typer.Option("--queue", help="[BROKER/]Q on the source.")],
    offset: Annotated[int, typer.Option("--offset", min=0, help="Its offset there.")],
    output: Output = Format.TABLE,
) -> None:
    """Where a message stands on the other side.

    Example: replicator offsets translate orders --source hangzhou --destination shanghai --topic pay --queue 3 --offset 1500

    A message without a copy is answered with the reason and the offset of the first copy after it.
    """
    values = {"source": source, "destination": destination, "topic": topic, "queue": queue, "offset": offset}
    answer = Client().get(f"/tasks/{named(task)}/offsets/translate", **values)
    show([answer] if output is Format.TABLE else answer, output)


def register(app: typer.Typer) -> None:
    offsets = typer.Typer(help="Offsets of one side in terms of the other.", no_args_is_help=True)
    offsets.command("translate")(translate)
    app.add_typer(offsets, name="offsets")
