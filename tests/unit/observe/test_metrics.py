"""Metrics: what is known has a sample, what is not has none."""

from prometheus_client.parser import text_string_to_metric_families

from replicator.observe.metrics import FlowMetrics, WorkerMetrics

FIGURE = {
    "task": "orders", "source": "a", "destination": "b", "lag_messages": 7, "lag_seconds": None, "copied_total": 12, "parked": 1,
    "skipped_total": {"loop": 3, "filtered": 0}, "queues_by_state": {"running": 4}, "rate_per_second": 2.5, "paused": False,
    "uncopied_age_seconds": 1.5, "retention_headroom_seconds": 3600.0, "error": "",
}
FLOW = {"task": "orders", "source": "a", "destination": "b"}
COUNTS = {
    "doubts_total": 2, "settling_rounds_total": 4, "settling_seconds_total": 9.5, "barriers_total": 3, "barriers_failed_total": 1,
    "history_stops_total": 6, "leases_lost_total": 7, "own_tags_kept_total": 5, "unverifiable_total": 8,
}
WORKER = {
    "assignments": 3,
    "lease_age_seconds": 0.5,
    "flows": [{**FLOW, **COUNTS, "latency": {"sum_seconds": 2.5, "buckets": [["0.1", 1], ["+Inf", 3]]}}],
}
LEADING = {"lease_held": True, "progress": {"orders": {"sync_age_seconds": 4.0, "groups_refused": 2, "groups_split": 1}}}


def samples(text: bytes) -> dict[str, list[tuple[dict, float]]]:
    found: dict[str, list[tuple[dict, float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def filled() -> FlowMetrics:
    metrics = FlowMetrics()
    metrics.update([FIGURE], {"w-1": WORKER}, LEADING)
    return metrics


def test_figures_become_samples():
    found = samples(filled().render())
    assert found["replicator_store_up"] == [({}, 1)]
    assert found["replicator_worker_assignments"] == [({"worker": "w-1"}, 3)]
    assert found["replicator_lag_messages"] == [(FLOW, 7)]
    assert found["replicator_uncopied_age_seconds"] == [(FLOW, 1.5)]
    assert found["replicator_paused_flow"] == [(FLOW, 0)]
    assert found["replicator_copied_messages_total"] == [(FLOW, 12)]
    assert ({**FLOW, "reason": "loop"}, 3) in found["replicator_skipped_messages_total"]
    assert found["replicator_state_queues"] == [({**FLOW, "state": "running"}, 4)]


def test_an_unknown_figure_has_no_sample():
    assert "replicator_lag_seconds" not in samples(filled().render())


def test_a_lost_store_takes_its_old_figures_along():
    metrics = filled()
    metrics.store_lost()
    found = samples(metrics.render())
    assert found.keys() == {"replicator_store_up", "replicator_build_info"}
    assert found["replicator_store_up"] == [({}, 0)]


def test_what_a_worker_counts_becomes_counters_of_each_flow():
    found = samples(filled().render())
    names = (
        "doubts", "settling_rounds", "settling_seconds", "barriers", "barriers_failed", "history_stops", "leases_lost",
        "own_tags_kept_messages", "unverifiable_positions",
    )
    assert [found[f"replicator_{name}_total"] for name in names] == [[({"worker": "w-1", **FLOW}, count)] for count in COUNTS.values()]


def test_latency_is_a_histogram():
    found = samples(filled().render())
    labels = {"worker": "w-1", **FLOW}
    assert found["replicator_latency_seconds_bucket"] == [({**labels, "le": "0.1"}, 1), ({**labels, "le": "+Inf"}, 3)]
    assert found["replicator_latency_seconds_sum"] == [(labels, 2.5)]
    assert found["replicator_latency_seconds_count"] == [(labels, 3)]


def test_only_the_holder_of_the_lease_tells_of_groups():
    metrics = FlowMetrics()
    metrics.update([], {}, {"lease_held": False, "progress": {}})
    found = samples(metrics.render())
    assert found["replicator_coordinator_lease_held"] == [({}, 0)]
    assert "replicator_group_sync_age_seconds" not in found
    led = samples(filled().render())
    assert led["replicator_coordinator_lease_held"] == [({}, 1)]
    assert led["replicator_group_sync_age_seconds"] == [({"task": "orders"}, 4)]
    assert led["replicator_refused_groups"] == [({"task": "orders"}, 2)]
    assert led["replicator_split_groups"] == [({"task": "orders"}, 1)]


def test_a_worker_shows_of_itself_what_a_coordinator_shows_of_it():
    own, through = samples(WorkerMetrics("w-1").render(WORKER)), samples(filled().render())
    assert {name: through[name] for name in own} == own
    assert "replicator_doubts_total" in own


def test_a_worker_of_an_earlier_release_is_shown_as_far_as_it_tells():
    metrics = FlowMetrics()
    metrics.update([], {"old": {"assignments": 2, "counters": {"doubts_total": 1}}}, {})
    assert samples(metrics.render())["replicator_worker_assignments"] == [({"worker": "old"}, 2)]
