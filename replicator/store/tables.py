"""The tables, as SQLAlchemy sees them. ``migrations/`` makes them; a test proves that the two agree.

What changes every second stands apart from what does not: ``progress`` (saved by the holder), the lease columns of
``assignments`` (renewed), and the append-only ``runs`` and ``holes``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

_EMPTY = text("''")
_EMPTY_OBJECT = text("'{}'::jsonb")
_FALSE = text("false")
_TRUE = text("true")
_ZERO = text("0")
_NOW = text("now()")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=_EMPTY)


def _big(name: str, default: int = 0) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text(f"'{default}'") if default < 0 else text(str(default)))


def _flag(name: str, *, default: bool = False) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=_TRUE if default else _FALSE)


def _assignment_key() -> Column[int]:
    return Column(
        "assignment_id", BigInteger, ForeignKey("assignments.assignment_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


def _place_key() -> tuple[Column[int], ...]:
    """Where a stretch of source offsets begins, in which epoch of which assignment."""
    epoch = Column("epoch", Integer, primary_key=True, autoincrement=False)
    return _assignment_key(), epoch, Column("source_start", BigInteger, primary_key=True, autoincrement=False)


meta = Table(
    "meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="meta_one_row"), primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False),
    Column("oldest_code", Integer, nullable=False),
)
"""``oldest_code``: the lowest schema revision whose code may work on this schema; raised by contract revisions only."""

clusters = Table(
    "clusters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("connector", Text, nullable=False),
    _text("region"),
    Column("settings", JSONB, nullable=False),
    Column("cluster_id", Text, unique=True),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSONB, nullable=False),
    Column("generation", Integer, nullable=False),
    _flag("deleted"),
)

flows = Table(
    "flows",
    metadata,
    Column("flow_id", Text, primary_key=True),
    Column("task", Text, ForeignKey("tasks.name"), nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    _flag("paused"),
    _flag("deleted"),
    Index("flows_living", "task", "source", "destination", unique=True, postgresql_where=text("NOT deleted")),
)
"""Rows of deleted flows stay: their ids stand in stamps for ever and must not be given out again."""

queue_maps = Table(
    "queue_maps",
    metadata,
    Column("map_id", BigInteger, primary_key=True),
    Column("cluster_a", Text, nullable=False),
    Column("topic_a", Text, nullable=False),
    Column("cluster_b", Text, nullable=False),
    Column("topic_b", Text, nullable=False),
    UniqueConstraint("cluster_a", "topic_a", "cluster_b", "topic_b", name="queue_maps_topics"),
)
"""One for two topics whatever the direction: side a is the lower (cluster id, topic)."""

queue_map_entries = Table(
    "queue_map_entries",
    metadata,
    Column("map_id", BigInteger, ForeignKey("queue_maps.map_id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("cluster_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("topic", Text, nullable=False),
    Column("broker_name", Text, nullable=False),
    Column("queue_id", Integer, nullable=False),
    UniqueConstraint("map_id", "cluster_id", "topic", "broker_name", "queue_id", name="queue_map_entries_queue"),
)

pairs = Table(
    "pairs",
    metadata,
    Column("pair_id", BigInteger, primary_key=True),
    Column("source_cluster_id", Text, nullable=False),
    Column("source_topic", Text, nullable=False),
    Column("destination_cluster_id", Text, nullable=False),
    Column("destination_topic", Text, nullable=False),
    Column("map_id", BigInteger, ForeignKey("queue_maps.map_id"), nullable=False),
    Column("flow_id", Text, ForeignKey("flows.flow_id")),
    Column("last_task", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    _text("reason"),
    _flag("paused"),
    UniqueConstraint("source_cluster_id", "source_topic", "destination_cluster_id", "destination_topic", name="pairs_claim"),
    Index("pairs_flow", "flow_id"),
    Index("pairs_map", "map_id"),
)

assignments = Table(
    "assignments",
    metadata,
    Column("assignment_id", BigInteger, primary_key=True),
    Column("pair_id", BigInteger, ForeignKey("pairs.pair_id", ondelete="CASCADE"), nullable=False),
    Column("source_topic", Text, nullable=False),
    Column("source_broker", Text, nullable=False),
    Column("source_queue", Integer, nullable=False),
    Column("destination_topic", Text, nullable=False),
    Column("destination_broker", Text, nullable=False),
    Column("destination_queue", Integer, nullable=False),
    Column("start_offset", BigInteger, nullable=False),
    _big("token"),
    _text("holder"),
    _text("worker"),
    Column("lease_until", DateTime(timezone=True)),
    _flag("clean", default=True),
    _flag("revoked"),
    Column("senders", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    UniqueConstraint("pair_id", "source_topic", "source_broker", "source_queue", name="assignments_source_queue"),
    Index("assignments_held", "holder", postgresql_where=text("lease_until IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)
"""``lease_until`` is null where nobody holds the lease; a past time is a holder who did not renew.
``worker``: who is to hold it, as the coordinator decided; empty before that.
``revoked``: the task was deleted under the holder, who must let go even if the pair has a new flow by now."""

progress = Table(
    "progress",
    metadata,
    _assignment_key(),
    _flag("has_checkpoint"),
    Column("epoch", Integer, nullable=False, server_default=text("1")),
    _big("examined_through"),
    _big("confirmed_source_offset", -1),
    _big("confirmed_destination_offset", -1),
    Column("identity_offset", BigInteger),
    Column("identity_store_timestamp_ms", BigInteger),
    Column("identity_commit_log_offset", BigInteger),
    Column("identity_body_crc", BigInteger),
    _big("scanned_through"),
    Column("seen", JSONB, nullable=False, server_default=_EMPTY_OBJECT),
    _flag("in_flight"),
    _big("copied_total"),
    Column("skipped_total", JSONB, nullable=False, server_default=_EMPTY_OBJECT),
    Column("state", Text, nullable=False, server_default=text("'starting'")),
    _text("error"),
    Column("lag_messages", BigInteger),
    Column("lag_seconds", Double),
    Column("rate_per_second", Double),
    Column("latency_p50_ms", Double),
    Column("latency_p99_ms", Double),
    Column("observed_at", DateTime(timezone=True)),
    Column("to_relearn", JSONB),
    _big("map_version"),
    _big("map_rewritten"),
    postgresql_with={"fillfactor": "60"},
)
"""``map_version`` grows with every change of the assignment's map; ``map_rewritten``: the version of the last change that touched
anything before the last row of ``runs`` or of ``holes``."""

epochs = Table(
    "epochs",
    metadata,
    _assignment_key(),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("divergence_offset", BigInteger, nullable=False),
    Column("start_offset", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)
"""Of the second epoch and later ones: the first has nothing to differ from."""

restorations = Table(
    "restorations",
    metadata,
    *_place_key(),
    Column("length", BigInteger, nullable=False),
)
"""Source offsets below the epoch's divergence that it sends back to a destination which has lost them."""

runs = Table(
    "runs",
    metadata,
    *_place_key(),
    Column("destination_start", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Index("runs_destination", "assignment_id", "destination_start"),
    postgresql_with={"fillfactor": "90"},
)

holes = Table(
    "holes",
    metadata,
    *_place_key(),
    Column("length", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

duplicates = Table(
    "duplicates",
    metadata,
    _assignment_key(),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("source_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("destination_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
)

parked = Table(
    "parked",
    metadata,
    Column("parked_id", BigInteger, primary_key=True),
    Column("assignment_id", BigInteger, ForeignKey("assignments.assignment_id", ondelete="CASCADE"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'parked'")),
    UniqueConstraint("assignment_id", "epoch", "source_offset", name="parked_place"),
)

events = Table(
    "events",
    metadata,
    Column("event_id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("task", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Index("events_task", "task", "event_id"),
)

workers = Table(
    "workers",
    metadata,
    Column("holder", Text, primary_key=True),
    Column("info", JSONB, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("token", BigInteger, nullable=False, server_default=_ZERO),
    Column("detail", JSONB, nullable=False, server_default=_EMPTY_OBJECT),
)

group_states = Table(
    "group_states",
    metadata,
    Column("task", Text, primary_key=True),
    Column("consumer_group", Text, primary_key=True),
    Column("cluster_low", Text, primary_key=True),
    Column("cluster_high", Text, primary_key=True),
    Column("state", JSONB, nullable=False),
)

group_writes = Table(
    "group_writes",
    metadata,
    Column("write_id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("task", Text, nullable=False),
    Column("consumer_group", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("queues", JSONB, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False, server_default=_FALSE),
    Index("group_writes_group", "task", "consumer_group", "write_id"),
    Index("group_writes_at", "at"),
)

failovers = Table(
    "failovers",
    metadata,
    Column("failover_id", BigInteger, primary_key=True),
    Column("task", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("failed", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("options", JSONB, nullable=False),
    Column("course", JSONB, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("abort_asked", Boolean, nullable=False, server_default=_FALSE),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("failovers_open", "task", unique=True, postgresql_where=text("is_open")),
    Index("failovers_task", "task", "failover_id"),
)

cluster_sightings = Table(
    "cluster_sightings",
    metadata,
    Column("task", Text, primary_key=True),
    Column("cluster", Text, primary_key=True),
    Column("info", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

checks = Table(
    "checks",
    metadata,
    Column("check_id", BigInteger, primary_key=True),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("clusters", JSONB, nullable=False),
)

check_answers = Table(
    "check_answers",
    metadata,
    Column("check_id", BigInteger, ForeignKey("checks.check_id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("worker", Text, primary_key=True),
    Column("clusters", JSONB, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("token_hash", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    UniqueConstraint("token_hash", name="api_tokens_hash"),
)

api_changes = Table(
    "api_changes",
    metadata,
    Column("change_id", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("caller", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("route", Text, nullable=False),
    _text("object"),
    Column("request", JSONB, nullable=False),
    Column("status", Integer),
    Index("api_changes_at", "at"),
)
"""``status`` is null while the request is under way."""
