"""What ``status`` shows: figures of flows, gathered into tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from replicator.core.task import STATES

SKIP_REASONS = ("filtered", "loop", "refused", "expired", "history")


def worst(states: Sequence[str]) -> str:
    """The last in the order of ``core.task.STATES``; ``starting`` where there is nothing yet."""
    return max(states, key=lambda state: STATES.index(state) if state in STATES else len(STATES), default="starting")


def task_status(name: str, mode: str, flows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shown = [_flow(flow) for flow in flows]
    return {"name": name, "mode": mode, "state": worst([flow["state"] for flow in shown]), "flows": shown}


def _flow(figures: Mapping[str, Any]) -> dict[str, Any]:
    queues = dict(figures.get("queues_by_state") or {})
    skipped = figures.get("skipped_total") or {}
    latency = figures.get("latency_ms") or {}
    state = "paused" if figures.get("paused") else worst(list(queues))
    return {
        "source": figures["source"],
        "destination": figures["destination"],
        "state": state,
        "queues_by_state": queues,
        "lag_messages": figures.get("lag_messages"),
        "lag_seconds": figures.get("lag_seconds"),
        "copied_total": figures.get("copied_total", 0),
        "skipped_total": {reason: skipped.get(reason, 0) for reason in SKIP_REASONS},
        "parked": figures.get("parked", 0),
        "rate_per_second": figures.get("rate_per_second"),
        "latency_ms": {"p50": latency.get("p50"), "p99": latency.get("p99")},
        "retention_headroom_seconds": None,
        "error": figures.get("error") or None,
    }


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
