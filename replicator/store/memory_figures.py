"""States and figures as Postgres computes them in SQL (``rows.EFFECTIVE_STATE``, ``inspection._FIGURES``), for the memory store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replicator.core.task import STATES
from replicator.store.limits import FIGURES_SECONDS_MAX, SKIP_REASONS, STICKY_STATES
from replicator.store.memory_tables import StoredAssignment
from replicator.store.port import Checkpoint, Flow, TopicPair


def effective_state(stored: StoredAssignment, pair: TopicPair, flow: Flow, now: float) -> str:
    if stored.row.state in STICKY_STATES:
        return stored.row.state
    if pair.state == "blocked":
        return "blocked"
    if stored.lease_until is not None and stored.lease_until > now:
        return stored.row.state
    return "paused" if flow.paused or pair.paused else "waiting-for-worker"


def flow_figures(
    flows: Sequence[Flow], pairs: Sequence[TopicPair], stored: Sequence[StoredAssignment], open_parked: Sequence[int], now: float
) -> list[dict[str, Any]]:
    return [_figures(flow, [pair for pair in pairs if pair.flow_id == flow.flow_id], stored, open_parked, now) for flow in flows]


def _figures(
    flow: Flow, pairs: Sequence[TopicPair], stored: Sequence[StoredAssignment], open_parked: Sequence[int], now: float
) -> dict[str, Any]:
    by_pair = {pair.pair_id: pair for pair in pairs}
    own = [one for one in stored if one.row.pair_id in by_pair]
    queues = [(effective_state(one, by_pair[one.row.pair_id], flow, now), one.row.error or by_pair[one.row.pair_id].reason) for one in own]
    peopled = {one.row.pair_id for one in own}
    empty = [("blocked", pair.reason) for pair in pairs if pair.state == "blocked" and pair.pair_id not in peopled]
    fresh = [one for one in own if one.observed is not None and one.observed > now - FIGURES_SECONDS_MAX]
    complete = len(fresh) == len(own) > 0 and not empty
    lags = [one.row.lag_messages for one in fresh if one.row.lag_messages is not None]
    ages = [one.row.lag_seconds for one in fresh if one.row.lag_seconds is not None and one.row.lag_messages is not None]
    uncopied = [
        one.row.lag_seconds + now - one.observed for one in own if one.row.lag_seconds is not None and one.observed is not None
    ]
    rates = [one.rate_per_second for one in fresh if one.rate_per_second is not None]
    latencies = [one.latency_ms for one in fresh if one.latency_ms is not None]
    checkpoints = [one.row.checkpoint or Checkpoint() for one in own]
    states = [state for state, _ in [*queues, *empty]]
    errors = sorted(((STATES.index(state), error) for state, error in [*queues, *empty] if error), reverse=True)
    ids = {one.row.assignment_id for one in own}
    return {
        "task": flow.task,
        "source": flow.source,
        "destination": flow.destination,
        "paused": flow.paused,
        "lag_messages": sum(lags) if complete and len(lags) == len(own) else None,
        "lag_seconds": max(ages) if complete and len(ages) == len(own) else None,
        "uncopied_age_seconds": max(uncopied) if len(uncopied) == len(own) > 0 and not empty else None,
        "source_brokers": sorted({one.row.source_queue.broker_name for one in own}),
        "copied_total": sum(checkpoint.copied_total for checkpoint in checkpoints),
        "parked": sum(1 for assignment_id in open_parked if assignment_id in ids),
        "rate_per_second": sum(rates) if rates else None,
        "error": errors[0][1] if errors else "",
        "queues_by_state": {state: states.count(state) for state in STATES if state in states},
        "skipped_total": {reason: sum(c.skipped_total.get(reason, 0) for c in checkpoints) for reason in SKIP_REASONS},
        "latency_ms": {
            "p50": max((p50 for p50, _ in latencies), default=None),
            "p99": max((p99 for _, p99 in latencies), default=None),
        },
    }
