"""Prometheus metrics, made of the last figures of the store. A figure that is not known has no sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FLOW_LABELS = ("task", "source", "destination")
_GAUGES = (
    ("lag_messages", "replicator_lag_messages", "Source messages not yet decided upon."),
    ("lag_seconds", "replicator_lag_seconds", "Age of the oldest source message not yet decided upon."),
    ("parked", "replicator_parked_messages", "Messages the destination refused, waiting for a person."),
    ("rate_per_second", "replicator_copy_rate_messages_per_second", "Messages copied a second."),
    ("retention_headroom_seconds", "replicator_retention_headroom_seconds", "Time until the source deletes what is not yet copied."),
)
_COUNTERS = (
    ("own_tags_kept_total", "replicator_own_tags_kept_messages_total", "Messages whose producer had set a property of a tag's name."),
    ("unverifiable_total", "replicator_unverifiable_positions_total", "Restarts with nothing left to compare the source with."),
    ("doubts_total", "replicator_doubts_total", "Restarts with an append whose outcome was not known."),
    ("settling_rounds_total", "replicator_settling_rounds_total", "Rounds in which doubt about a destination broker was settled."),
)
"""Counted by each worker since it began."""
_QUANTILES = (("p50", "0.5"), ("p99", "0.99"))


class FlowMetrics(Collector):
    """Hand it figures with ``update``; ``render`` gives the text Prometheus reads."""

    def __init__(self) -> None:
        self._figures: Sequence[Mapping[str, Any]] = ()
        self._workers: Mapping[str, Mapping[str, Any]] = {}
        self._store_up = False
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def update(
        self, figures: Sequence[Mapping[str, Any]], workers: Mapping[str, Mapping[str, Any]], *, store_up: bool = True
    ) -> None:
        """``workers``: what each living worker tells of itself."""
        self._figures, self._workers, self._store_up = figures, workers, store_up

    def store_lost(self) -> None:
        """Old figures are not shown as if they were new."""
        self._figures, self._workers, self._store_up = (), {}, False

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("replicator_store_up", "1 while the database can be reached.", value=float(self._store_up))
        yield from self._of_workers()
        yield from self._of_flows()

    def _of_workers(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("replicator_worker_assignments", "Assignments held by each living worker.", labels=("worker",))
        for worker, info in self._workers.items():
            held.add_metric([worker], int(info.get("assignments", 0)))
        yield held
        for key, name, text in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=("worker",))
            for worker, info in self._workers.items():
                if key in info.get("counters", {}):
                    counter.add_metric([worker], info["counters"][key])
            yield counter

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
        latency = GaugeMetricFamily("replicator_latency_seconds", "From stored there to stored here.", labels=(*FLOW_LABELS, "quantile"))
        for figure in self._figures:
            labels = _labels(figure)
            copied.add_metric(labels, figure.get("copied_total", 0))
            for reason, count in figure.get("skipped_total", {}).items():
                skipped.add_metric([*labels, reason], count)
            for state, count in figure.get("queues_by_state", {}).items():
                queues.add_metric([*labels, state], count)
            for key, quantile in _QUANTILES:
                milliseconds = figure.get("latency_ms", {}).get(key)
                if milliseconds is not None:
                    latency.add_metric([*labels, quantile], milliseconds / 1000)
        yield from (copied, skipped, queues, latency)


def _labels(figure: Mapping[str, Any]) -> list[str]:
    return [str(figure[name]) for name in FLOW_LABELS]
