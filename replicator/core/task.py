"""What a user declares, as plain frozen values: clusters, replication tasks and the flows they are made of.

``config.py`` makes these from YAML; the store keeps the YAML's canonical JSON; nobody else parses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["one-way", "two-way"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A messaging system as declared to us. ``settings`` is the validated ``spec.<connector>`` block as JSON values;
    secrets stand in it as references ({"env": …} / {"file": …}), never as values."""

    name: str
    connector: str
    settings: dict[str, Any]
    region: str = ""


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where a flow begins on topics that exist when it is created. ``kind``: latest, earliest, timestamp, consumer_group."""

    kind: Literal["latest", "earliest", "timestamp", "consumer_group"]
    timestamp_ms: int = 0
    consumer_group: str = ""


@dataclass(frozen=True, slots=True)
class TagRuleSpec:
    """One rule of ``spec.tags``; the first matching rule for a key wins."""

    key: str
    value: str
    when_topic: str = ""
    when_property_name: str = ""
    when_property_equals: str = ""


DEFAULT_TAGS = (TagRuleSpec("origin", "{origin}"),)


POP_BOUND_DEFAULT = 1_000


@dataclass(frozen=True, slots=True)
class ProgressSpec:
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    sync: Literal["automatic", "manual"] = "automatic"
    interval_seconds: int = 5
    pop_bound: int = POP_BOUND_DEFAULT
    """A group that pops goes back so many messages in each queue: its offset says what was handed out, not what was processed."""


@dataclass(frozen=True, slots=True)
class ReplicationTask:
    """The object of ``kind: ReplicationTask``. ``clusters`` holds source first, then destinations, where mode is one-way."""

    name: str
    mode: Mode
    clusters: tuple[str, ...]
    include: tuple[str, ...]
    start: StartPoint
    exclude: tuple[str, ...] = ()
    rename: dict[str, str] = field(default_factory=dict)
    create: bool = True
    tags: tuple[TagRuleSpec, ...] = DEFAULT_TAGS
    filter: str = ""
    relay: bool = False
    messages_per_second_max: int | None = None
    bytes_per_second_max: int | None = None
    retry: bool = False
    tune_source: bool = False
    on_refused: Literal["park", "stop"] = "park"
    on_history_change: Literal["stop", "continue"] = "stop"
    progress: ProgressSpec = ProgressSpec()

    @property
    def flows(self) -> tuple[tuple[str, str], ...]:
        """Ordered pairs (source, destination) this task is made of."""
        if self.mode == "one-way":
            return tuple((self.clusters[0], destination) for destination in self.clusters[1:])
        return tuple((a, b) for a in self.clusters for b in self.clusters if a != b)


def position_group(task: str, destination: str) -> str:
    """The consumer group under which a flow's read position is committed on its source, for the system's own tools."""
    return f"replicator-{task}-{destination}"


def lock_group(cluster_id: str) -> str:
    """Lock groups are named for the destination cluster's id: one writer for a source queue and a destination, whatever the task."""
    return f"replicator-lock-{cluster_id}"


# Fields of ReplicationTask that may change while it runs; a change of any other is refused (exit 4).
LIVE_FIELDS = frozenset({
    "include", "exclude", "filter", "tags", "messages_per_second_max", "bytes_per_second_max", "progress",
    "on_refused", "on_history_change", "create", "tune_source", "retry",
})

# States of an assignment; a flow's state is that of its worst queue, in this order from best to worst.
STATES = (
    "running", "starting", "paused", "waiting-for-worker", "unreachable", "blocked", "stopped-history-change", "failed",
)
