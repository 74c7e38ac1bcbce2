"""Metrics: what is known has a sample, what is not has none."""

from prometheus_client.parser import text_string_to_metric_families

from replicator.observe.metrics import FlowMetrics

FIGURE = {
    "task": "orders", "source": "a", "destination": "b", "lag_messages": 7, "lag_seconds": None, "copied_total": 12, "parked": 1,
    "skipped_total": {"loop": 3, "filtered": 0}, "queues_by_state": {"running": 4}, "rate_per_second": 2.5,
    "latency_ms": {"p50": 40.0, "p99": None}, "error": "",
}
WORKER = {"assignments": 3, "counters": {"own_tags_kept_total": 5, "unverifiable_total": 1, "doubts_total": 2, "settling_rounds_total": 4}}
FLOW = {"task": "orders", "source": "a", "destination": "b"}


def samples(metrics: FlowMetrics) -> dict[str, list[tuple[dict, float]]]:
    found: dict[str, list[tuple[dict, float]]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_figures_become_samples():
    metrics = FlowMetrics()
    metrics.update([FIGURE], {"w-1": WORKER})
    found = samples(metrics)
    assert found["replicator_store_up"] == [({}, 1)]
    assert found["replicator_worker_assignments"] == [({"worker": "w-1"}, 3)]
    assert found["replicator_lag_messages"] == [(FLOW, 7)]
    assert found["replicator_copied_messages_total"] == [(FLOW, 12)]
    assert ({**FLOW, "reason": "loop"}, 3) in found["replicator_skipped_messages_total"]
    assert found["replicator_state_queues"] == [({**FLOW, "state": "running"}, 4)]
    assert found["replicator_latency_seconds"] == [({**FLOW, "quantile": "0.5"}, 0.04)]


def test_an_unknown_figure_has_no_sample():
    metrics = FlowMetrics()
    metrics.update([FIGURE], {"w-1": WORKER})
    assert "replicator_lag_seconds" not in samples(metrics)


def test_a_lost_store_takes_its_old_figures_along():
    metrics = FlowMetrics()
    metrics.update([FIGURE], {"w-1": WORKER})
    metrics.store_lost()
    assert samples(metrics) == {"replicator_store_up": [({}, 0)]}


def test_what_a_worker_counts_becomes_counters():
    metrics = FlowMetrics()
    metrics.update([FIGURE], {"w-1": WORKER, "old": {"assignments": 0}})
    found = samples(metrics)
    names = ("own_tags_kept_messages", "unverifiable_positions", "doubts", "settling_rounds")
    assert [found[f"replicator_{name}_total"] for name in names] == [[({"worker": "w-1"}, value)] for value in (5, 1, 2, 4)]
