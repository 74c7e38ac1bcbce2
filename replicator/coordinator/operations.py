"""Looking at what is declared and running, deleting it, pausing it, reading its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replicator.coordinator import declared, leaving
from replicator.coordinator.connections import Connections
from replicator.coordinator.starting import STARTED
from replicator.core.errors import OUT_OF_REACH, InvalidInput, Missing, Unsafe
from replicator.core.placement import weight_of
from replicator.core.record import MessageQueue
from replicator.store.port import Assignment, ClusterRow, Store
from replicator.store.sharing_port import Share

KINDS = ("clusters", "tasks", "workers", "assignments")
WORKER_SEEN_SECONDS = 30.0
EVENTS_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a task is meant; left out: all of it. Source and destination name a flow together."""

    task: str
    topic: str | None = None
    source: str | None = None
    destination: str | None = None

    @property
    def flow(self) -> tuple[str, str] | None:
        return (self.source, self.destination) if self.source is not None and self.destination is not None else None

    def holds(self, assignment: Assignment) -> bool:
        return (
            self.topic in (None, assignment.source_queue.topic)
            and self.source in (None, assignment.source)
            and self.destination in (None, assignment.destination)
        )

    def __str__(self) -> str:
        flow = f", {self.source} to {self.destination}" if self.flow else ""
        return f"task {self.task}{flow}{f', topic {self.topic}' if self.topic else ''}"


async def get(store: Store, kind: str, name: str | None) -> Any:
    if kind == "clusters":
        rows = [_cluster(row) for row in await store.clusters()]
    elif kind == "tasks":
        rows = [{"name": row.name, "generation": row.generation, "spec": row.spec} for row in await store.tasks()]
    elif kind == "workers":
        seen = await store.workers(WORKER_SEEN_SECONDS)
        rows = _workers(seen, await store.shares())
    elif kind == "assignments":
        near = {holder: str(info.get("near", "")) for holder, info, _ in await store.workers(WORKER_SEEN_SECONDS)}
        rows = [_assignment(one) | {"near": near.get(one.holder, "")} for one in await store.assignments()]
    else:
        raise InvalidInput(f"there are no {kind}", hint=f"one of: {', '.join(KINDS)}")
    if name is None:
        return rows
    found = next((row for row in rows if row["name"] == name), None)
    if found is None:
        raise Missing(f"{kind.removesuffix('s')} {name} does not exist")
    return found


async def delete(
    store: Store, connections: Connections, kind: str, name: str, *, force: bool, purge: bool
) -> dict[str, Any]:
    if kind == "clusters":
        if not await store.delete_cluster(name):
            raise Missing(f"cluster {name} does not exist")
        await connections.drop(name)
        return {"kind": "cluster", "name": name, "result": "deleted"}
    if kind != "tasks":
        raise InvalidInput(f"{kind} cannot be deleted", hint="one of: clusters, tasks")
    known = await declared.load(store)
    is_living = name in known.tasks
    left: list[str] = []
    if not is_living and not purge:
        raise Missing(f"task {name} does not exist")
    if is_living:
        if not force:
            await _require_reach(connections, known, name)
        owned = await leaving.belongings(store, name)
        await store.delete_task(name)
        await store.record_event(name, "deleted", f"task {name} was deleted; positions and the offset map stay")
        left = await leaving.clear(store, connections, known, owned)
    if purge:
        await store.purge_task(name)
        await store.record_event(name, "purged", f"positions and the offset map of task {name} were dropped")
    return {"kind": "task", "name": name, "result": "purged" if purge else "deleted", "left": left}


async def _require_reach(connections: Connections, known: declared.Declared, name: str) -> None:
    for cluster in known.tasks[name].clusters:
        try:
            link = await connections.get(known.cluster(cluster), at_once=True)
            await link.ask(link.connector.describe())
        except OUT_OF_REACH as error:
            raise Unsafe(
                f"task {name}: cluster {cluster} cannot be reached, so what the task left there would stay: {error.message}",
                hint="--force deletes the task all the same",
            ) from error


async def require_scope(store: Store, scope: Scope, *, topics_may_be_unknown: bool = False) -> None:
    """``InvalidInput`` for half a flow, ``Missing`` for what is not there."""
    if (scope.source is None) != (scope.destination is None):
        raise InvalidInput("source and destination name a flow together: give both or none")
    if all(row.name != scope.task for row in await store.tasks()):
        raise Missing(f"task {scope.task} does not exist")
    flows = [flow for flow in await store.flows() if flow.task == scope.task and scope.flow in (None, (flow.source, flow.destination))]
    if not flows:
        raise Missing(f"{scope}: there is no such flow")
    if scope.topic is not None and not topics_may_be_unknown:
        ids = {flow.flow_id for flow in flows}
        if all(pair.flow_id not in ids or pair.source_topic != scope.topic for pair in await store.pairs()):
            raise Missing(f"{scope}: the topic is not copied")


async def set_paused(store: Store, scope: Scope, paused: bool) -> dict[str, Any]:
    await require_scope(store, scope)
    count = await store.set_paused(scope.task, paused, topic=scope.topic, flow=scope.flow)
    word = "paused" if paused else "resumed"
    await store.record_event(scope.task, word, f"{scope} {word}")
    return {"task": scope.task, "paused": paused, "concerned": "topics" if scope.topic else "flows", "count": count}


async def events(store: Store, task: str) -> list[dict[str, Any]]:
    """Also of a deleted task: why it went is worth knowing."""
    found = await store.events(task, limit=EVENTS_SHOWN_MAX)
    if not found and all(row.name != task for row in await store.tasks()):
        raise Missing(f"task {task} does not exist")
    return [
        {"at": one.at.isoformat(), "kind": one.kind, "message": one.message, "detail": {} if one.kind == STARTED else one.detail}
        for one in found
    ]


def queue_json(queue: MessageQueue) -> dict[str, Any]:
    return {"topic": queue.topic, "broker_name": queue.broker_name, "queue_id": queue.queue_id}


def _shown(info: dict[str, Any]) -> dict[str, Any]:
    """Without what only other workers want to know."""
    return {key: value for key, value in info.items() if key != "lost"}


def _workers(seen: Sequence[tuple[str, dict[str, Any], datetime]], shares: Sequence[Share]) -> list[dict[str, Any]]:
    weights: dict[str, float] = {}
    for share in shares:
        worker = share.chosen or share.holder
        weights[worker] = weights.get(worker, 0.0) + weight_of(share.rate_per_second)
    return [
        {"name": holder, "near": "", **_shown(info), "weight": weights.get(holder, 0.0), "seen_at": at.isoformat()}
        for holder, info, at in seen
    ]


def _cluster(row: ClusterRow) -> dict[str, Any]:
    return {
        "name": row.name, "connector": row.connector, "region": row.region, "cluster_id": row.cluster_id, "settings": row.settings,
    }  # fmt: skip


def _assignment(one: Assignment) -> dict[str, Any]:
    checkpoint = one.checkpoint
    return {
        "name": str(one.assignment_id),
        "assignment_id": one.assignment_id,
        "task": one.task,
        "source": one.source,
        "destination": one.destination,
        "source_queue": queue_json(one.source_queue),
        "destination_queue": queue_json(one.destination_queue),
        "state": one.state,
        "error": one.error,
        "start_offset": one.start_offset,
        "epoch": checkpoint.epoch if checkpoint else None,
        "examined_through": checkpoint.examined_through if checkpoint else None,
        "confirmed_source_offset": checkpoint.confirmed_source_offset if checkpoint else None,
        "confirmed_destination_offset": checkpoint.confirmed_destination_offset if checkpoint else None,
        "copied_total": checkpoint.copied_total if checkpoint else 0,
        "lag_messages": one.lag_messages,
        "lag_seconds": one.lag_seconds,
        "holder": one.holder,
        "worker": one.worker,
        "weight": weight_of(one.rate_per_second),
        "observed_at": one.observed_at.isoformat() if one.observed_at else None,
    }
