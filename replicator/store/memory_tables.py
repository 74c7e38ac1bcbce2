"""The memory store's tables."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from replicator.core.record import MessageQueue
from replicator.store.access_rows import ApiChange, ApiToken
from replicator.store.failover_rows import FailoverRow, Sighting
from replicator.store.group_rows import GroupState, GroupWrite
from replicator.store.memory_map import OffsetTable
from replicator.store.port import Assignment, ClusterRow, Event, Flow, Parked, TaskRow, TopicPair

TopicKey = tuple[str, str]


@dataclass(slots=True)
class StoredPair:
    row: TopicPair
    last_task: str


@dataclass(slots=True)
class StoredAssignment:
    row: Assignment
    lease_until: float | None = None
    revoked: bool = False
    rate_per_second: float | None = None
    latency_ms: tuple[float, float] | None = None
    observed: float | None = None


@dataclass(slots=True)
class StoredParked:
    assignment_id: int
    epoch: int
    row: Parked


@dataclass(slots=True)
class StoredCheck:
    asked_at: float
    clusters: list[ClusterRow]
    answers: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(slots=True)
class Tables:
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    clusters: dict[str, ClusterRow] = field(default_factory=dict)
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    flow_ids: set[str] = field(default_factory=set)
    pairs: dict[int, StoredPair] = field(default_factory=dict)
    maps: dict[tuple[TopicKey, TopicKey], dict[str, list[MessageQueue]]] = field(default_factory=dict)
    assignments: dict[int, StoredAssignment] = field(default_factory=dict)
    offsets: dict[int, OffsetTable] = field(default_factory=lambda: defaultdict(OffsetTable))
    parked: dict[int, StoredParked] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    workers: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    lease_tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lease_details: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[int, StoredCheck] = field(default_factory=dict)
    group_states: dict[tuple[str, str, tuple[str, str]], GroupState] = field(default_factory=dict)
    group_writes: dict[int, GroupWrite] = field(default_factory=dict)
    failovers: dict[int, FailoverRow] = field(default_factory=dict)
    sightings: dict[tuple[str, str], Sighting] = field(default_factory=dict)
    api_tokens: dict[str, tuple[ApiToken, str]] = field(default_factory=dict)
    api_changes: dict[int, ApiChange] = field(default_factory=dict)
    last_id: int = 0
