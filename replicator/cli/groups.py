"""``groups``: consumer progress of both sides, what carrying it over would do, doing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from replicator.cli.client import Client, named
from replicator.cli.operating import is_terminal
from replicator.cli.output import Format, Output, show
from replicator.core.errors import InvalidInput, ReplicatorError, Unsafe

Source = Annotated[str, typer.Option("--source", help="The cluster whose progress counts.")]
Destination = Annotated[str, typer.Option("--destination", help="The cluster it is written to.")]
Group = Annotated[str | None, typer.Option("--group", help="Only this consumer group.")]
Back = Annotated[bool, typer.Option("--back", help="Also where that sets a group back.")]
Running = Annotated[bool, typer.Option("--running", help="Also where it has members, if its broker can set it exactly (5.2 and later).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, after the preview.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="The preview only.")]


def listing(task: str, source: Source, destination: Destination, group: Group = None, output: Output = Format.TABLE) -> None:
    """Progress of both sides. Example: replicator groups list orders --source hangzhou --destination shanghai"""
    answer = Client().get(f"/tasks/{named(task)}/groups", source=source, destination=destination, group=group)
    show(answer if output is not Format.TABLE else answer["groups"], output, empty="no groups")


def plan(
    task: str, source: Source, destination: Destination, group: Group = None, back: Back = False, running: Running = False,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """What sync would do. Example: replicator groups plan orders --source hangzhou --destination shanghai -o json"""
    _show_plan(_plan(Client(), task, source, destination, group, back, running), output)


def sync(
    task: str,
    source: Source,
    destination: Destination,
    group: Group = None,
    back: Back = False,
    running: Running = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Carries progress over now. Example: replicator groups sync orders --source hangzhou --destination shanghai --group pay

    The preview comes first; what was found to be worse than it when it is carried out is refused.
    """
    client = Client()
    preview = _plan(client, task, source, destination, group, back, running)
    if dry_run:
        _show_plan(preview, output)
        return
    if output is Format.TABLE:
        _show_plan(preview, output)
    _ask(yes, f"Write it to {destination}?")
    body = {
        "source": source, "destination": destination, "group": group, "seen_again": preview["seen_again"], "back": back,
        "running": running,
    }  # fmt: skip
    answer = client.post(f"/tasks/{named(task)}/groups/sync", body)
    if output is Format.TABLE:
        print(f"moved: {answer['moved']} queues, refused: {answer['refused']}, failed: {answer['failed']}")
    else:
        show(answer, output)
    if answer["failed"]:
        failed = [text for one in answer["groups"] for text in one["failed"]]
        raise ReplicatorError(f"{answer['failed']} queues were not written: {failed[0]}")
    if answer["refused"] and not answer["moved"]:
        raise Unsafe("nothing was written: everything was refused", hint="groups plan shows the reasons")


def reset(
    task: str,
    source: Source,
    destination: Destination,
    group: Annotated[str, typer.Option("--group", help="The consumer group.")],
    topic: Annotated[str | None, typer.Option("--topic", help="Topic of the destination.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="[BROKER/]N")] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0, help="Offset of the destination's queues.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="ISO 8601 with a time zone: the first message stored then.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Sets a stopped group on the destination, by offset or time; by translation it is: groups sync --back.

    Example: replicator groups reset orders --source hangzhou --destination shanghai --group pay --time 2026-11-21T00:00:00Z
    """
    broker, number = _queue(queue)
    client, path = Client(), f"/tasks/{named(task)}/groups/reset"
    body = {
        "source": source, "destination": destination, "group": group, "topic": topic, "broker": broker, "queue": number,
        "offset": offset, "time": time,
    }  # fmt: skip
    preview = client.post(path, {**body, "dry_run": True})
    if dry_run or output is Format.TABLE:
        show(preview if output is not Format.TABLE else preview["queues"], output)
    if dry_run:
        return
    _ask(yes, f"Set {group} on {destination} so?")
    answer = client.post(path, body)
    if output is not Format.TABLE:
        show(answer, output)
    if answer["failed"]:
        refused = [one["refused"] for one in answer["queues"] if one["refused"]]
        raise ReplicatorError(f"{answer['failed']} queues were not written: {refused[0]}")
    if output is Format.TABLE:
        print(f"reset: {len(answer['queues'])} queues of {group} on {destination}")


def _plan(client: Client, task: str, source: str, destination: str, group: str | None, back: bool, running: bool) -> Any:
    path = f"/tasks/{named(task)}/groups/plan"
    return client.get(path, source=source, destination=destination, group=group, back=back or None, running=running or None)


def _show_plan(answer: Mapping[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        show(answer, output)
        return
    rows = [
        {**{key: one[key] for key in ("group", "owner", "topic")}, **queue} for one in answer["groups"] for queue in one["queues"]
    ]
    show(rows, output, empty="no groups")
    print(f"seen again in all: {answer['seen_again']}")
    if answer.get("waiting_for_retry") is None:
        print("how many messages wait for a retry is not known")
    for group, count in sorted((answer.get("waiting_for_retry") or {}).items()):
        carried = "" if answer.get("retries_carried") else ", and are not carried (retry: false)"
        print(f"{count} messages of group {group} wait for a retry{carried}")


def _ask(yes: bool, question: str) -> None:
    if not yes and is_terminal() and not typer.confirm(question):
        raise Unsafe("nothing was changed", hint="--dry-run shows the preview only")


def _queue(text: str | None) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    broker, _, number = text.rpartition("/")
    if not number.isdecimal():
        raise InvalidInput(f"--queue {text!r} is not [BROKER/]N")
    return broker or None, int(number)


def register(app: typer.Typer) -> None:
    groups = typer.Typer(help="Consumer progress of both sides.", no_args_is_help=True)
    groups.command("list")(listing)
    groups.command("plan")(plan)
    groups.command("sync")(sync)
    groups.command("reset")(reset)
    app.add_typer(groups, name="groups")
    app.command("quick-sync", help="The same as groups sync.")(sync)
