"""Prometheus metrics, made of the last figures of the store and of what workers tell. A figure that is not known has no sample.

Every coordinator shows the same figures of flows and workers, and a worker shows its own once more: whoever sums takes the
``max`` over ``instance`` first. Labels are tasks, clusters and workers, never topics, queues or groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import replicator

FLOW_LABELS = ("task", "source", "destination")
WORKER_LABELS = ("worker", *FLOW_LABELS)
_GAUGES = (
    ("lag_messages", "replicator_lag_messages", "Source messages not yet decided upon."),
    ("lag_seconds", "replicator_lag_seconds", "Age of the oldest source message not yet decided upon."),
    (
        "uncopied_age_seconds",
        "replicator_uncopied_age_seconds",
        "No message that is not yet decided upon is older; it grows while nobody reports.",
    ),
    ("parked", "replicator_parked_messages", "Messages the destination refused, waiting for a person."),
    ("rate_per_second", "replicator_copy_rate_messages_per_second", "Messages copied a second."),
    ("retention_headroom_seconds", "replicator_retention_headroom_seconds", "Time until the source deletes what is not yet copied."),
    ("paused", "replicator_paused_flow", "1 while a person has paused the flow."),
)
_COUNTERS = (
    ("doubts_total", "replicator_doubts_total", "Starts with an append, or a former writer, whose outcome was not known."),
    ("settling_rounds_total", "replicator_settling_rounds_total", "Rounds in which doubt about a destination broker was settled."),
    ("settling_seconds_total", "replicator_settling_seconds_total", "Time spent settling doubt."),
    ("barriers_total", "replicator_barriers_total", "Barriers written to a destination broker and seen there."),
    ("barriers_failed_total", "replicator_barriers_failed_total", "Barriers that could not be written or seen."),
    ("history_stops_total", "replicator_history_stops_total", "Stops because a source queue is not the one that was copied from."),
    ("leases_lost_total", "replicator_leases_lost_total", "Assignments taken away from the worker while it copied them."),
    ("own_tags_kept_total", "replicator_own_tags_kept_messages_total", "Messages whose producer had set a property of a tag's name."),
    ("unverifiable_total", "replicator_unverifiable_positions_total", "Starts with nothing left to compare the source with."),
)
"""Counted by each worker since it began."""
_PROGRESS = (
    ("sync_age_seconds", "replicator_group_sync_age_seconds", "Since both sides of the task's groups were last read and compared."),
    ("groups_refused", "replicator_refused_groups", "Groups of which progress is due but is not written; groups plan says why."),
    ("groups_split", "replicator_split_groups", "Groups seen to move on both sides: a person has to say which counts."),
)


class FlowMetrics(Collector):
    """Of a coordinator. Hand it figures with ``update``; ``render`` gives the text Prometheus reads."""

    def __init__(self) -> None:
        self._figures: Sequence[Mapping[str, Any]] = ()
        self._workers: Mapping[str, Mapping[str, Any]] = {}
        self._leading: Mapping[str, Any] = {}
        self._store_up = False
        self._registry = _registry_of(self)

    def update(
        self,
        figures: Sequence[Mapping[str, Any]],
        workers: Mapping[str, Mapping[str, Any]],
        leading: Mapping[str, Any] | None = None,
        *,
        store_up: bool = True,
    ) -> None:
        """``workers``: what each living worker tells of itself. ``leading``: whether this coordinator holds the lease, and what only
        its holder knows (``Coordinator.leading``); a worker has none of it."""
        self._figures, self._workers, self._leading, self._store_up = figures, workers, leading or {}, store_up

    def store_lost(self) -> None:
        """Old figures are not shown as if they were new."""
        self._figures, self._workers, self._leading, self._store_up = (), {}, {}, False

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _build_info()
        yield GaugeMetricFamily("replicator_store_up", "1 while the database can be reached.", value=float(self._store_up))
        yield from self._of_leading()
        yield from _of_workers(self._workers)
        yield from self._of_flows()

    def _of_leading(self) -> Iterator[Metric]:
        if "lease_held" in self._leading:
            text = "1 while this coordinator is the one that reconciles and syncs progress."
            yield GaugeMetricFamily("replicator_coordinator_lease_held", text, value=float(self._leading["lease_held"]))
        for key, name, text in _PROGRESS:
            gauge = GaugeMetricFamily(name, text, labels=("task",))
            for task, progress in self._leading.get("progress", {}).items():
                if progress.get(key) is not None:
                    gauge.add_metric([task], progress[key])
            yield gauge

    def _of_flows(self) -> Iterator[Metric]:
        for key, name, text in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=FLOW_LABELS)
            for figure in self._figures:
                if figure.get(key) is not None:
                    gauge.add_metric(_labels(figure), figure[key])
            yield gauge
        copied = CounterMetricFamily("replicator_copied_messages_total", "Messages copied.", labels=FLOW_LABELS)
        by_reason = (*FLOW_LABELS, "reason")
        skipped = CounterMetricFamily("replicator_skipped_messages_total", "Messages not copied, by reason.", labels=by_reason)
        queues = GaugeMetricFamily("replicator_state_queues", "Source queues in each state.", labels=(*FLOW_LABELS, "state"))
        for figure in self._figures:
            labels = _labels(figure)
            copied.add_metric(labels, figure.get("copied_total", 0))
            for reason, count in figure.get("skipped_total", {}).items():
                skipped.add_metric([*labels, reason], count)
            for state, count in figure.get("queues_by_state", {}).items():
                queues.add_metric([*labels, state], count)
        yield from (copied, skipped, queues)


class WorkerMetrics(Collector):
    """Of one worker, about itself: also there while the database is away."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._figures: Mapping[str, Any] = {}
        self._registry = _registry_of(self)

    def render(self, figures: Mapping[str, Any]) -> bytes:
        """``figures``: ``Worker.figures()``."""
        self._figures = figures
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _build_info()
        yield from _of_workers({self._worker: self._figures})


def _of_workers(workers: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    held = GaugeMetricFamily("replicator_worker_assignments", "Assignments held by each living worker.", labels=("worker",))
    age_text = "Since the worker's leases were last renewed, as it told."
    age = GaugeMetricFamily("replicator_lease_age_seconds", age_text, labels=("worker",))
    for worker, info in workers.items():
        held.add_metric([worker], int(info.get("assignments", 0)))
        if "lease_age_seconds" in info:
            age.add_metric([worker], info["lease_age_seconds"])
    yield from (held, age)
    flows = [([worker, *_labels(flow)], flow) for worker, info in workers.items() for flow in info.get("flows", ())]
    for key, name, text in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=WORKER_LABELS)
        for labels, flow in flows:
            if key in flow:
                counter.add_metric(labels, flow[key])
        yield counter
    text = "From stored on the source to known stored on the destination, of every message copied."
    latency = HistogramMetricFamily("replicator_latency_seconds", text, labels=WORKER_LABELS)
    for labels, flow in flows:
        if "latency" in flow:
            latency.add_metric(labels, [(str(bound), count) for bound, count in flow["latency"]["buckets"]], flow["latency"]["sum_seconds"])
    yield latency


def _build_info() -> Metric:
    info = GaugeMetricFamily("replicator_build_info", "1; the release of this process.", labels=("version",))
    info.add_metric([replicator.__version__], 1)
    return info


def _registry_of(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def _labels(figure: Mapping[str, Any]) -> list[str]:
    return [str(figure[name]) for name in FLOW_LABELS]
