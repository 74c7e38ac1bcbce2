"""``status``: the figures of the store and what the coordinator itself met, in the words people see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from replicator.coordinator.troubles import Trouble, Troubles
from replicator.core.errors import Missing
from replicator.core.task import STATES
from replicator.store.port import Store

NO_QUEUES = "starting"


async def render_status(
    store: Store, all_figures: Iterable[Mapping[str, Any]], troubles: Troubles, task: str | None
) -> dict[str, Any]:
    modes = {row.name: str(row.spec.get("mode", "")) for row in await store.tasks()}
    names = list(modes)
    if task is not None:
        if task not in names:
            raise Missing(f"task {task} does not exist")
        names = [task]
    flows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for figures in all_figures:
        if figures["task"] in flows:
            key = (figures["task"], figures["source"], figures["destination"])
            flows[figures["task"]].append(_flow(figures, troubles.of(key), troubles.waiting(key)))
    tasks = [
        {"name": name, "mode": modes[name], "state": worst(flow["state"] for flow in flows[name]), "flows": flows[name]}
        for name in names
    ]
    return {"observed_at": datetime.now(UTC).isoformat(timespec="milliseconds"), "tasks": tasks}


def worst(states: Iterable[str]) -> str:
    return max(states, key=STATES.index, default=NO_QUEUES)


def _flow(figures: Mapping[str, Any], troubles: list[Trouble], waiting: str) -> dict[str, Any]:
    queues: dict[str, int] = figures["queues_by_state"]
    # A worker that copies is better proof of a way than our own question, which met another broker or another network.
    shown = [one for one in troubles if one.state != "unreachable" or not queues.get("running")]
    # A paused flow is paused even while it has no queue yet, or its topic waits to begin; but not while a worker still copies.
    is_paused = figures["paused"] and not queues.get("running")
    states = [*queues, *(one.state for one in shown), *(["paused"] if is_paused else [])] or [NO_QUEUES]
    state = worst(states)
    reasons = [one.reason for one in sorted(troubles, key=lambda one: STATES.index(one.state), reverse=True)]
    worst_trouble = next((one.reason for one in shown if one.state == state and state not in queues), "")
    is_complete = not shown
    return {
        "source": figures["source"],
        "destination": figures["destination"],
        "state": state,
        "queues_by_state": dict(queues),
        "lag_messages": figures["lag_messages"] if is_complete else None,
        "lag_seconds": figures["lag_seconds"] if is_complete else None,
        "copied_total": figures["copied_total"],
        "skipped_total": dict(figures["skipped_total"]),
        "parked": figures["parked"],
        "rate_per_second": figures["rate_per_second"],
        "latency_ms": dict(figures["latency_ms"]),
        "retention_headroom_seconds": figures["retention_headroom_seconds"],
        "error": worst_trouble or figures["error"] or next(iter(reasons), "") or waiting,
    }
