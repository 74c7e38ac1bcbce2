"""Working with running tasks: ``pause``, ``resume``, ``status``, ``events``, ``parked``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from replicator.cli import status as table_of_status
from replicator.cli.client import Client, named
from replicator.cli.output import Format, Output, show
from replicator.core.errors import InvalidInput, Unsafe

Topic = Annotated[str | None, typer.Option("--topic", help="Only this source topic.")]
Source = Annotated[str | None, typer.Option("--source", help="Only flows from this cluster.")]
Destination = Annotated[str | None, typer.Option("--destination", help="Only flows to this cluster.")]
Ids = Annotated[list[int] | None, typer.Argument(help="As listed.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of the task.")]


def _chosen(topic: str | None, source: str | None, destination: str | None) -> dict[str, Any]:
    if (source is None) != (destination is None):
        raise InvalidInput("--source and --destination name a flow together: give both or none")
    return {"topic": topic, "source": source, "destination": destination}


def _ids(ids: list[int] | None, everything: bool) -> dict[str, Any]:
    """Forgetting to name them must not mean all of them."""
    if bool(ids) == everything:
        raise InvalidInput("name the parked messages, or give --all", hint="replicator parked list TASK shows their ids")
    return {"all": True} if everything else {"ids": ids}


def pause(task: str, topic: Topic = None, source: Source = None, destination: Destination = None) -> None:
    """Stops copying for now; positions are kept. Example: replicator pause orders --topic pay-in"""
    answer = Client().post(f"/tasks/{named(task)}/pause", _chosen(topic, source, destination))
    show({"paused": task} if answer is None else answer, Format.TABLE)


def resume(
    task: str,
    topic: Topic = None,
    source: Source = None,
    destination: Destination = None,
    accept_loss: Annotated[bool, typer.Option("--accept-loss", help="After a history stop: go on without what is gone.")] = False,
    from_offset: Annotated[int | None, typer.Option("--from-offset", min=0, help="After a history stop: read on from here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be given up, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, after showing what is given up.")] = False,
) -> None:
    """Goes on after a pause, or after a history stop. Example: replicator resume orders --accept-loss

    What a way out of a history stop gives up is shown before anything is done.
    """
    if accept_loss and from_offset is not None:
        raise InvalidInput("--accept-loss and --from-offset exclude each other")
    client, path = Client(), f"/tasks/{named(task)}/resume"
    body = {**_chosen(topic, source, destination), "accept_loss": accept_loss, "from_offset": from_offset}
    if dry_run or accept_loss or from_offset is not None:
        preview = client.post(path, {**body, "dry_run": True})
        _show_given_up(preview)
        if dry_run:
            return
        if preview["given_up_total"] and not yes and is_terminal() and not typer.confirm("Go on without them?"):
            raise Unsafe("nothing was changed", hint="--dry-run shows what would be given up")
    answer = client.post(path, body)
    show({"resumed": task} if answer is None else answer, Format.TABLE)


def is_terminal() -> bool:
    """Somebody is there to be asked."""
    return sys.stdin.isatty()


def _show_given_up(preview: dict[str, Any]) -> None:
    """Where each stopped queue would go on, and which offsets would never be copied."""
    for queue in preview["queues"]:
        lost = f"offsets {queue['given_up_from']} to {queue['given_up_to']} ({queue['given_up']})" if queue["given_up"] else "nothing"
        print(f"{queue['source']} -> {queue['destination']}, assignment {queue['assignment_id']}, "
              f"queue {'/'.join(map(str, queue['source_queue'].values()))}: goes on at {queue['go_on_at']}, gives up {lost}")
    print(f"given up in all: {preview['given_up_total']} offsets of {len(preview['queues'])} queues")


def status(
    task: Annotated[str | None, typer.Argument()] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking, once a second, until Ctrl-C.")] = False,
    queues: Annotated[bool, typer.Option("--queues", help="Each source queue too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """How every flow stands. Example: replicator status --watch"""
    client = Client()
    if not watch:
        table_of_status.show_once(client, task, queues, output)
        return
    if output is not Format.TABLE:
        raise InvalidInput("--watch shows a table only", hint="leave out -o")
    try:
        table_of_status.watch(client, task, queues)
    except KeyboardInterrupt:
        sys.exit(0)


def events(task: str, output: Output = Format.TABLE) -> None:
    """What changed, when and why. Example: replicator events orders"""
    show(Client().get(f"/tasks/{named(task)}/events"), output, empty="no events")


def parked_list(task: str, output: Output = Format.TABLE) -> None:
    """Messages the destination refused. Example: replicator parked list orders"""
    show(Client().get(f"/tasks/{named(task)}/parked"), output, empty="nothing is parked")


def parked_retry(task: str, ids: Ids = None, everything: All = False, output: Output = Format.TABLE) -> None:
    """Sends them again. Example: replicator parked retry orders 17 18"""
    show(Client().post(f"/tasks/{named(task)}/parked/retry", _ids(ids, everything)), output, empty="nothing is parked")


def parked_discard(task: str, ids: Ids = None, everything: All = False, output: Output = Format.TABLE) -> None:
    """Gives them up. Example: replicator parked discard orders 17"""
    show(Client().post(f"/tasks/{named(task)}/parked/discard", _ids(ids, everything)), output, empty="nothing is parked")


def register(app: typer.Typer) -> None:
    for command in (pause, resume, status, events):
        app.command()(command)
    parked = typer.Typer(help="Messages the destination refused.", no_args_is_help=True)
    parked.command("list")(parked_list)
    parked.command("retry")(parked_retry)
    parked.command("discard")(parked_discard)
    app.add_typer(parked, name="parked")
