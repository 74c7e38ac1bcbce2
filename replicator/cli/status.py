"""``status``: the table a person looks at first."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from replicator.cli.client import Client
from replicator.cli.output import Format, cell, console, new_table, show, table
from replicator.core.errors import ReplicatorError

WATCH_SECONDS = 1.0
_COLUMNS = ("TASK", "FLOW", "STATE", "LAG", "LAG S", "RATE/S", "COPIED", "SKIPPED", "PARKED", "P50/P99 MS", "ERROR")
_COLORS = {
    "running": "green", "starting": "cyan", "paused": "yellow", "waiting-for-worker": "yellow", "unreachable": "red",
    "blocked": "red", "stopped-history-change": "red", "failed": "red",
}


def ask(client: Client, task: str | None, queues: bool) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/status", task=task)
    if queues:
        rows = client.get("/assignments")
        answer["queues"] = [row for row in rows if task is None or row.get("task") == task]
    return answer


def show_once(client: Client, task: str | None, queues: bool, output: Format) -> None:
    answer = ask(client, task, queues)
    if output is Format.TABLE:
        console().print(render(answer))
    else:
        show(answer, output)


def watch(client: Client, task: str | None, queues: bool) -> None:
    """Until Ctrl-C. A coordinator that is away is said above the last table, which is not thrown away."""
    screen = console()
    answer = ask(client, task, queues)
    with Live(render(answer), console=screen, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                answer = ask(client, task, queues)
                live.update(render(answer), refresh=True)
            except ReplicatorError as error:
                live.update(Group(Text(str(error), style="red"), render(answer)), refresh=True)


def render(answer: dict[str, Any]) -> Group:
    flows = new_table()
    for column in _COLUMNS:
        flows.add_column(column, justify="left" if column in {"TASK", "FLOW", "STATE", "ERROR"} else "right", overflow="fold")
    for task in answer["tasks"]:
        for flow in task["flows"]:
            flows.add_row(*_flow_row(task["name"], flow))
    empty = [] if answer["tasks"] else [Text("no tasks")]
    queues = [table([_queue_row(row) for row in answer["queues"]], title="queues")] if answer.get("queues") else []
    return Group(Text(f"observed {answer.get('observed_at', '-')}", style="dim"), *empty, *([flows] if answer["tasks"] else []), *queues)


def _flow_row(task: str, flow: dict[str, Any]) -> list[str | Text]:
    latency = flow.get("latency_ms") or {}
    return [
        task,
        f"{flow['source']} -> {flow['destination']}",
        Text(flow["state"], style=_COLORS.get(flow["state"], "")),
        _count(flow.get("lag_messages")),
        cell(flow.get("lag_seconds")),
        cell(flow.get("rate_per_second")),
        _count(flow.get("copied_total")),
        _count(sum((flow.get("skipped_total") or {}).values())),
        _count(flow.get("parked")),
        f"{cell(latency.get('p50'))}/{cell(latency.get('p99'))}",
        Text(cell(flow.get("error"))),
    ]


def _queue_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "flow": f"{row.get('source')} -> {row.get('destination')}",
        "source": _queue_name(row.get("source_queue")),
        "destination": _queue_name(row.get("destination_queue")),
        **{key: row.get(key) for key in ("state", "lag_messages", "holder", "error")},
    }


def _queue_name(queue: Any) -> str:
    return "/".join(str(part) for part in queue.values()) if isinstance(queue, dict) else cell(queue)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else cell(value)
