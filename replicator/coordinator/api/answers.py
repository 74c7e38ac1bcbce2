"""What answers look like: published with the API, and judged against real answers by the tests. Keys are added freely.

Routes hand over the coordinator's values as they are; these models describe them: ``responses=answer(StatusAnswer)``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

Count = int | None


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457), in the words of the command line."""

    type: str
    title: str
    status: int
    exit_code: int = Field(description="With which a command would end.")
    hint: str = Field(default="", description="What a person can do.")


class Queue(BaseModel):
    topic: str
    broker_name: str
    queue_id: int


class ClusterTopic(BaseModel):
    cluster: str
    topic: str


class Applied(BaseModel):
    kind: Literal["cluster", "task"]
    name: str
    result: Literal["created", "changed", "unchanged", "not-in-files"]
    topics_to_create: list[ClusterTopic]
    messages_to_copy: Count
    queues: Count
    warnings: list[str]


class CheckedBroker(BaseModel):
    broker_name: str
    address: str
    version: str
    sql92: bool | None


class CheckedCluster(BaseModel):
    name: str
    connector: str
    region: str
    reachable: bool
    cluster_id: str | None
    distance_ms: float | None
    brokers: list[CheckedBroker]
    warnings: list[str]


class CheckedTask(BaseModel):
    name: str
    topics: list[str]
    missing_topics: list[ClusterTopic]
    topics_to_create: list[ClusterTopic]
    queues: int
    messages_to_copy: Count


class ReachedCluster(BaseModel):
    name: str
    reachable: bool
    distance_ms: float | None
    problem: str


class CheckedWorker(BaseModel):
    worker: str
    answered: bool
    clusters: list[ReachedCluster]


class Checked(BaseModel):
    asked_from: str
    workers: list[CheckedWorker]
    clusters: list[CheckedCluster]
    tasks: list[CheckedTask]
    problems: list[str]


class ClusterObject(BaseModel):
    name: str
    connector: str
    region: str
    cluster_id: str | None
    settings: dict[str, Any] = Field(description="Secrets as references only.")


class TaskObject(BaseModel):
    name: str
    generation: int
    spec: dict[str, Any]


class WorkerObject(BaseModel):
    name: str
    seen_at: datetime


class AssignmentObject(BaseModel):
    name: str
    assignment_id: int
    task: str
    source: str
    destination: str
    source_queue: Queue
    destination_queue: Queue
    state: str
    error: str
    start_offset: int
    epoch: Count
    examined_through: Count
    confirmed_source_offset: Count
    confirmed_destination_offset: Count
    copied_total: int
    lag_messages: Count
    lag_seconds: float | None
    holder: str
    worker: str = Field(default="", description="Chosen for it.")
    near: str = ""
    weight: float | None = None
    observed_at: datetime | None


class Deleted(BaseModel):
    kind: Literal["cluster", "task"]
    name: str
    result: Literal["deleted", "purged"]
    left: list[str] = Field(default=[], description="What had to stay on the clusters, and why.")


class WayOut(BaseModel):
    assignment_id: int
    source: str
    destination: str
    source_queue: Queue
    position: int
    min_offset: int
    max_offset: int
    go_on_at: int
    given_up: int
    given_up_from: Count
    given_up_to: Count


class Paused(BaseModel):
    task: str
    paused: bool
    concerned: Literal["topics", "flows"]
    count: int


class Resumed(BaseModel):
    task: str
    paused: bool = False
    concerned: Literal["topics", "flows"] | None = None
    count: int = 0
    dry_run: bool = False
    given_up_total: int = 0
    queues: list[WayOut]


class Latency(BaseModel):
    p50: float | None
    p99: float | None


class FlowStatus(BaseModel):
    source: str
    destination: str
    state: str
    queues_by_state: dict[str, int]
    lag_messages: Count
    lag_seconds: float | None
    copied_total: int
    skipped_total: dict[str, int]
    parked: int
    rate_per_second: float | None
    latency_ms: Latency
    retention_headroom_seconds: float | None
    error: str


class TaskStatus(BaseModel):
    name: str
    mode: str
    state: str
    flows: list[FlowStatus]


class Status(BaseModel):
    observed_at: datetime
    tasks: list[TaskStatus]


class EventObject(BaseModel):
    at: datetime
    kind: str
    message: str
    detail: dict[str, Any]


class ParkedObject(BaseModel):
    id: int
    source: str
    destination: str
    source_queue: Queue
    source_offset: int
    reason: str
    size_bytes: int
    state: str


class ParkedResult(BaseModel):
    id: int
    result: str
    detail: str


class Translated(BaseModel):
    status: Literal["copied", "skipped", "not-yet", "expired", "pruned", "unknown-epoch"]
    source_broker: str
    source_queue: int
    destination_topic: str
    destination_broker: str
    destination_queue: int
    destination_offset: Count
    reason: str


class LastWrite(BaseModel):
    at: datetime | None
    why: str
    done: bool
    refused: list[str]


class GroupObject(BaseModel):
    group: str
    topic: str
    kind: str
    owner: str | None
    carried: str
    reason: str
    source_offsets: dict[str, int]
    destination_offsets: dict[str, int]
    last_write: LastWrite | None


class Groups(BaseModel):
    groups: list[GroupObject]


class PlannedQueue(BaseModel):
    source_broker: str
    source_queue: int
    start: Count = Field(alias="from")
    destination_broker: str
    destination_queue: int
    to: Count
    action: str
    seen_again: Count
    exact: bool
    reason: str


class PlannedGroup(BaseModel):
    group: str
    kind: str
    owner: str | None
    topic: str
    queues: list[PlannedQueue]
    failed: list[str] = []


class GroupsPlan(BaseModel):
    groups: list[PlannedGroup]
    seen_again: int
    waiting_for_retry: dict[str, int] | None = Field(default=None, description="By group; null where nobody says.")
    retries_carried: bool = False


class MoveBlocker(BaseModel):
    name: str
    severity: Literal["blocks", "warns"]
    text: str
    groups: list[str]


class UncopiedQueue(BaseModel):
    topic: str
    broker: str
    queue: int
    messages: Count
    state: str


class NotCopied(BaseModel):
    messages: Count
    age_seconds: float | None
    as_of: str
    queues: list[UncopiedQueue]


class LostQueue(BaseModel):
    topic: str
    broker_name: str
    queue_id: int
    messages: int


class LostMessages(BaseModel):
    messages: int
    queues: list[LostQueue]


class MovePlan(BaseModel):
    kind: Literal["failover", "failback"]
    task: str
    failed: str
    destination: str
    left: str = Field(alias="from")
    target: str = Field(alias="to")
    blockers: list[MoveBlocker]
    steps: list[str]
    groups: list[PlannedGroup]
    seen_again: int
    not_copied: NotCopied
    by_origin: list[dict[str, Any]]
    returning: list[dict[str, Any]]
    lost: LostMessages


class MoveStep(BaseModel):
    name: str
    state: Literal["pending", "running", "done", "undone"]
    detail: str


class MoveObject(BaseModel):
    id: int
    kind: Literal["failover", "failback"]
    task: str
    failed: str
    destination: str
    state: Literal["running", "waiting", "aborting", "done", "aborted", "failed"]
    reason: str
    abort_asked: bool
    options: dict[str, Any]
    steps: list[MoveStep]
    began_at: datetime | None
    updated_at: datetime | None
    plan: dict[str, Any] | None = None


class Moves(BaseModel):
    moves: list[MoveObject]


class GroupsSynced(GroupsPlan):
    moved: int
    refused: int
    failed: int


class ResetQueue(BaseModel):
    queue: str
    start: Count = Field(alias="from")
    to: int
    now: Count = None
    refused: str = ""


class GroupReset(BaseModel):
    group: str
    queues: list[ResetQueue]
    done: bool
    failed: int = 0


class RebuildState(BaseModel):
    task: str
    state: str
    error: str
    now: str
    records_read: int
    copies_found: int
    seconds: float
    flows: list[dict[str, Any]]
    queues: list[dict[str, Any]]


class TokenObject(BaseModel):
    name: str
    role: str
    state: Literal["living", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Noted about once an hour.")
    revoked_at: datetime | None


class TokenMade(BaseModel):
    name: str
    role: str
    expires_in_days: Count
    token: str = Field(description="Told this once only.")


class TokenRevoked(BaseModel):
    name: str
    result: Literal["revoked"]


class ChangeObject(BaseModel):
    id: int
    at: datetime
    caller: str = Field(description="Name of a token; environment, database or local.")
    role: str
    method: str
    route: str
    object: str
    request: dict[str, Any]
    status: Count = Field(description="Null: under way, or nobody lived to see its end.")


class Alive(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ok", "not-ready"]
    missing: list[str]


def answer(model: Any, status: int = 200, **more: Any) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: a model, or a list of one."""
    return {status: {"model": model, "description": "done", **more}}
