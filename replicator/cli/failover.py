"""``failover`` and ``failback``: the plan with its blockers, carrying it out, how it goes, ending it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from replicator.cli.client import Client, named
from replicator.cli.operating import is_terminal
from replicator.cli.output import Format, Output, show
from replicator.core.errors import ReplicatorError, Unsafe
from replicator.core.failover import ABORTED, DONE, ENDED, FAILBACK, FAILOVER

POLL_SECONDS = 0.3

Failed = Annotated[str, typer.Option("--failed", help="The cluster that consumers leave, or left, because it failed.")]
Destination = Annotated[str, typer.Option("--destination", help="The cluster they go on at, or went on at.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only this topic.")]
Group = Annotated[str | None, typer.Option("--group", help="Only this consumer group.")]
Rehearse = Annotated[bool, typer.Option("--rehearse", help="Everything but the writes that clients would notice.")]
Fence = Annotated[
    bool, typer.Option("--fence-source", help="For planned moves: close the groups, and topics no flow writes to, on the side left.")
]
Restore = Annotated[bool, typer.Option("--restore", help="Send back what the failed cluster has lost, behind what it has taken since.")]
Force = Annotated[bool, typer.Option("--force", help="In spite of blockers, without the groups they concern.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and return; status shows how it goes.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, after the plan.")]


def _path(task: str, kind: str, verb: str) -> str:
    return f"/tasks/{named(task)}/{kind}/{verb}"


def _show_plan(answer: Mapping[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        show(answer, output)
        return
    for one in answer["blockers"]:
        print(f"{one['severity'].upper()}: {one['text']}{': ' + ', '.join(one['groups']) if one['groups'] else ''}")
    rows = [
        {**{key: one[key] for key in ("group", "owner", "topic")}, **queue} for one in answer["groups"] for queue in one["queues"]
    ]
    show(rows, output, empty="no groups have progress there")
    for one in answer["by_origin"]:
        _show_origin(one)
    for one in answer["returning"]:
        places = ", ".join(f"{q['destination_broker']}/{q['destination_queue']} {q['action']} {q['to']}" for q in one["queues"])
        print(f"group {one['group']} goes on behind what {one['second_group']} processed: {places}")
    messages = answer["not_copied"]["messages"]
    print(f"not copied yet: {'unknown' if messages is None else messages}; seen again in all: {answer['seen_again']}")
    for one in answer["lost"]["queues"]:
        where = f"{one['broker_name']}/{one['queue_id']} of {one['topic']}"
        print(f"lost on {answer['to']}: {one['messages']} messages, whose copies are in {where}")
    print(f"steps: {', '.join(answer['steps'])}")


def _show_origin(one: Mapping[str, Any]) -> None:
    second, wider = one["second_group"], one["wider_filter"]
    print(f"group {one['group']} in {one['topic']} consumes by origin{': ' + one['problem'] if one['problem'] else ''}. Two ways:")
    print(f"  a second group {second['group']} with {second['expression']!r}, prepared by run")
    places = ", ".join(f"{q['broker']}/{q['queue']} at {q['to']}" for q in wider["queues"])
    seen = sum(queue["seen_again_max"] for queue in wider["queues"])
    print(f"  or change its own filter to {wider['expression']!r}, from {places or 'where it stands'} (at most {seen} seen again)")


def _commands(kind: str) -> typer.Typer:
    what = "Moves consumers to another cluster." if kind == FAILOVER else "Moves consumers back."
    app = typer.Typer(help=what, no_args_is_help=True)

    def plan(
        task: str, failed: Failed, destination: Destination, topic: Topic = None, group: Group = None, fence_source: Fence = False,
        restore: Restore = False, output: Output = Format.TABLE,
    ) -> None:  # fmt: skip
        options = {"fence_source": fence_source or None, "restore": restore or None}
        wanted = {"failed": failed, "destination": destination, "topic": topic, "group": group}
        _show_plan(Client().get(_path(task, kind, "plan"), **wanted, **options), output)

    def run(
        task: str, failed: Failed, destination: Destination, topic: Topic = None, group: Group = None, rehearse: Rehearse = False,
        fence_source: Fence = False, restore: Restore = False, force: Force = False, no_wait: NoWait = False, yes: Yes = False,
        output: Output = Format.TABLE,
    ) -> None:  # fmt: skip
        client = Client()
        wanted = {"failed": failed, "destination": destination, "topic": topic, "group": group}
        if not yes and is_terminal():
            options = {"fence_source": fence_source or None, "restore": restore or None}
            _ask(client.get(_path(task, kind, "plan"), **wanted, **options), kind)
        body = {**wanted, "rehearse": rehearse, "fence_source": fence_source, "restore": restore, "force": force}
        answer = client.post(_path(task, kind, "run"), body)
        if not no_wait:
            answer = {**answer, **_follow(client, task, kind, answer["id"], quiet=output is not Format.TABLE)}
        _show_end(answer, output)

    def status(task: str, output: Output = Format.TABLE) -> None:
        _show_moves(Client().get(_path(task, kind, "status"))["moves"], kind, output)

    def abort(task: str, no_wait: NoWait = False, output: Output = Format.TABLE) -> None:
        client = Client()
        answer = client.post(_path(task, kind, "abort"))
        if not no_wait:
            answer = _follow(client, task, kind, answer["id"], quiet=output is not Format.TABLE)
        _show_end(answer, output, wanted=ABORTED)

    plan.__doc__ = f"Blockers, what each group would see again, what is not copied. Example: replicator {kind} plan orders {_EXAMPLE}"
    run.__doc__ = f"Carries it out, step by step; safe to interrupt and to begin again. Example: replicator {kind} run orders {_EXAMPLE}"
    status.__doc__ = f"How moves of the task went, or go. Example: replicator {kind} status orders"
    abort.__doc__ = f"Ends a move that is under way, and opens again what it closed. Example: replicator {kind} abort orders"
    for command in (plan, run, status, abort):
        app.command()(command)
    return app


def _ask(plan: Mapping[str, Any], kind: str) -> None:
    _show_plan(plan, Format.TABLE)
    if not typer.confirm(f"Carry the {kind} out?"):
        raise Unsafe("nothing was changed", hint=f"{kind} plan shows the plan only")


def _show_moves(moves: Sequence[Mapping[str, Any]], kind: str, output: Format) -> None:
    if output is not Format.TABLE:
        show({"moves": moves}, output)
        return
    for move in moves:
        reason = f": {move['reason']}" if move["reason"] else ""
        print(f"{kind} {move['id']} of {move['task']}, {move['failed']}, {move['destination']}: {move['state']}{reason}")
        show(move["steps"], output)
    if not moves:
        print(f"no {kind} was ever begun")


_EXAMPLE = "--failed hangzhou --destination shanghai"


def _follow(client: Client, task: str, kind: str, move_id: int, *, quiet: bool) -> dict[str, Any]:
    """Until it has ended; a line for each thing that changes."""
    told: set[tuple[str, ...]] = set()
    while True:
        moves: list[dict[str, Any]] = client.get(_path(task, kind, "status"))["moves"]
        move = next((one for one in moves if one["id"] == move_id), None)
        if move is None:
            raise ReplicatorError(f"{kind} {move_id} is not listed any more")
        lines = [(one["name"], one["state"], one["detail"]) for one in move["steps"] if one["state"] in ("done", "undone")]
        if move["reason"]:
            lines.append((move["state"], "", move["reason"]))
        for line in lines:
            if line not in told and not quiet:
                print(f"{line[0]}: {line[2] or line[1]}", flush=True)
            told.add(line)
        if move["state"] in ENDED:
            return move
        time.sleep(POLL_SECONDS)


def _show_end(move: Mapping[str, Any], output: Format, *, wanted: str = DONE) -> None:
    if output is not Format.TABLE:
        show(move, output)
    else:
        print(f"{move['kind']} {move['id']}: {move['state']}")
    if move["state"] in ENDED and move["state"] != wanted:
        raise ReplicatorError(f"{move['kind']} {move['id']} ended {move['state']}: {move['reason']}")


def register(app: typer.Typer) -> None:
    app.add_typer(_commands(FAILOVER), name=FAILOVER)
    app.add_typer(_commands(FAILBACK), name=FAILBACK)
