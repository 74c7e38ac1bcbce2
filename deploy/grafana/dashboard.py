"""The Grafana dashboard, made from this list of panels: ``python -m deploy.grafana.dashboard`` writes the JSON beside it.

Figures of flows and workers are shown by every coordinator and by the worker itself: each expression takes the max over them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("global-replicator.json")
WIDTH, HEIGHT = 24, 8
FLOW = 'task=~"$task",source=~"$source",destination=~"$destination"'
BY_FLOW = "task, source, destination"
NAME = "{{task}} {{source}} → {{destination}}"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    what: str
    targets: Sequence[tuple[str, str]]
    """(expression, legend)"""
    unit: str = "short"
    width: int = 12
    kind: str = "timeseries"
    red_from: float | None = None
    is_stacked: bool = False


def of_flow(metric: str, how: str = "max") -> str:
    return f"{how} by ({BY_FLOW}) ({metric}{{{FLOW}}})"


def rate_of_worker(metric: str, *labels: str) -> str:
    """Per flow, of a counter that each worker begins anew."""
    inner = ", ".join(("worker", "task", "source", "destination", *labels))
    outer = ", ".join(("task", "source", "destination", *labels))
    return f"sum by ({outer}) (max by ({inner}) (rate({metric}{{{FLOW}}}[$__rate_interval])))"


def quantile(share: float) -> str:
    buckets = (
        f"sum by (le, {BY_FLOW}) (max by (le, worker, {BY_FLOW}) (rate(replicator_latency_seconds_bucket{{{FLOW}}}[$__rate_interval])))"
    )
    return f"histogram_quantile({share}, {buckets})"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is it well?",
        (
            Panel("Database", "1 while coordinators reach it", [("max(replicator_store_up)", "up")], width=4, kind="stat"),
            Panel(
                "Leading",
                "1 while a coordinator reconciles and syncs",
                [("max(replicator_coordinator_lease_held)", "held")],
                width=4,
                kind="stat",
            ),
            Panel(
                "Workers",
                "that gave a sign of life",
                [("count(max by (worker) (replicator_worker_assignments))", "workers")],
                width=4,
                kind="stat",
            ),
            Panel(
                "Oldest message not copied",
                "worst flow",
                [(f"max({of_flow('replicator_uncopied_age_seconds')})", "age")],
                "s",
                4,
                "stat",
                60,
            ),
            Panel(
                "Parked messages", "wait for a person", [(f"sum({of_flow('replicator_parked_messages')})", "parked")], "short", 4, "stat", 1
            ),
            Panel(
                "Queues not copying",
                "in any state but running, starting or paused",
                [
                    (
                        f'sum(max by (state, {BY_FLOW}) (replicator_state_queues{{{FLOW},state!~"running|starting|paused"}})) or vector(0)',
                        "queues",
                    )
                ],
                "short",
                4,
                "stat",
                1,
            ),
        ),
    ),
    (
        "Copying",
        (
            Panel(
                "Age of the oldest message not copied",
                "what a loss of the source now would cost",
                [(of_flow("replicator_uncopied_age_seconds"), NAME)],
                "s",
                red_from=60,
            ),
            Panel("Messages not copied", "", [(of_flow("replicator_lag_messages"), NAME)]),
            Panel(
                "Copied",
                "messages a second",
                [(f"max by ({BY_FLOW}) (rate(replicator_copied_messages_total{{{FLOW}}}[$__rate_interval]))", NAME)],
                "cps",
            ),
            Panel(
                "Skipped",
                "messages a second, by reason",
                [
                    (
                        f"max by (reason, {BY_FLOW}) (rate(replicator_skipped_messages_total{{{FLOW}}}[$__rate_interval])) > 0",
                        NAME + " {{reason}}",
                    )
                ],
                "cps",
            ),
            Panel(
                "Latency",
                "from stored on the source to stored on the destination",
                [(quantile(0.5), NAME + " p50"), (quantile(0.99), NAME + " p99")],
                "s",
            ),
            Panel(
                "Retention headroom",
                "until the source deletes what is not copied",
                [(of_flow("replicator_retention_headroom_seconds", "min"), NAME)],
                "s",
            ),
        ),
    ),
    (
        "Queues and workers",
        (
            Panel(
                "Queues by state",
                "",
                [(f"sum by (state) (max by (state, {BY_FLOW}) (replicator_state_queues{{{FLOW}}}))", "{{state}}")],
                is_stacked=True,
            ),
            Panel("Assignments of each worker", "", [("max by (worker) (replicator_worker_assignments)", "{{worker}}")], is_stacked=True),
            Panel(
                "Age of leases",
                "since a worker last renewed; 5 s is where others may take over",
                [("max by (worker) (replicator_lease_age_seconds)", "{{worker}}")],
                "s",
                red_from=5,
            ),
            Panel(
                "Leases lost",
                "assignments a second taken from a worker that copied them",
                [(rate_of_worker("replicator_leases_lost_total"), NAME)],
                "cps",
            ),
        ),
    ),
    (
        "Doubt",
        (
            Panel(
                "Doubts and history stops",
                "a second",
                [
                    (rate_of_worker("replicator_doubts_total"), NAME + " doubts"),
                    (rate_of_worker("replicator_history_stops_total"), NAME + " history stops"),
                    (rate_of_worker("replicator_unverifiable_positions_total"), NAME + " unverifiable"),
                ],
                "cps",
            ),
            Panel(
                "Settling",
                "share of time",
                [
                    (rate_of_worker("replicator_settling_seconds_total"), NAME),
                    (rate_of_worker("replicator_settling_rounds_total"), NAME + " rounds a second"),
                ],
            ),
            Panel(
                "Barriers",
                "a second",
                [
                    (rate_of_worker("replicator_barriers_total"), NAME + " seen"),
                    (rate_of_worker("replicator_barriers_failed_total"), NAME + " failed"),
                ],
                "cps",
            ),
            Panel(
                "Own tags kept",
                "messages a second whose producer had set a tag's property",
                [(rate_of_worker("replicator_own_tags_kept_messages_total"), NAME)],
                "cps",
            ),
        ),
    ),
    (
        "Consumer progress",
        (
            Panel(
                "Age of the last sync",
                "",
                [('max by (task) (replicator_group_sync_age_seconds{task=~"$task"})', "{{task}}")],
                "s",
                red_from=300,
            ),
            Panel(
                "Groups that wait for a person",
                "",
                [
                    ('max by (task) (replicator_split_groups{task=~"$task"})', "{{task}} split"),
                    ('max by (task) (replicator_refused_groups{task=~"$task"})', "{{task}} refused"),
                ],
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    return {
        "uid": "global-replicator",
        "title": "Global Replicator",
        "tags": ["replicator", "rocketmq"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                *(_variable(label) for label in ("task", "source", "destination")),
            ]
        },
        "panels": list(_panels()),
    }


def _variable(label: str) -> dict[str, Any]:
    query = f"label_values(replicator_copied_messages_total, {label})"
    return {
        "name": label,
        "type": "query",
        "label": label.capitalize(),
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterable[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }
        y, x = y + 1, 0
        for panel in panels:
            height = HEIGHT // 2 if panel.kind == "stat" else HEIGHT
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
            x += panel.width
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *([{"color": "red", "value": panel.red_from}] if panel.red_from is not None else [])]
    custom = {"stacking": {"mode": "normal" if panel.is_stacked else "none"}, "fillOpacity": 30 if panel.is_stacked else 0}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
            | ({"custom": custom} if panel.kind == "timeseries" else {}),
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.targets)
        ],
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
