"""What the REST API and the CLI can ask: apply, check, get, delete, pause, resume, status, events, parked.

Results are JSON-ready; errors are those of ``core.errors``. Any number of coordinators may serve; the reconcile loop runs in
the holder of the lease only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from replicator.config import task_from_spec
from replicator.coordinator import apply as applying
from replicator.coordinator.clusters import Clusters
from replicator.coordinator.parked import retry_parked
from replicator.coordinator.reconcile import Reconciler, cluster_of
from replicator.coordinator.status import now_text, task_status
from replicator.core.connector import Connector
from replicator.core.errors import InvalidInput, Missing, NotConnected, ReplicatorError, Unsafe
from replicator.core.task import Cluster, ReplicationTask
from replicator.store.port import Assignment, Store, TaskRow

WORKER_SEEN_SECONDS = 15.0
EPOCH_WAIT_SECONDS = 10.0
EPOCH_POLL_SECONDS = 0.2
HISTORY_STOP = "stopped-history-change"


class Coordinator:
    """``connect`` makes an unopened connector for a declared cluster; ``instance`` is unique to this process and start."""

    def __init__(self, store: Store, connect: Callable[[Cluster], Connector], instance: str) -> None:
        self._store = store
        self._clusters = Clusters(connect)
        self._reconciler = Reconciler(store, self._clusters, instance)
        self._applying = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Reconciles until ``stop`` is set; closes what it opened."""
        try:
            await self._reconciler.run(stop)
        finally:
            await self._clusters.close()

    async def close(self) -> None:
        await self._clusters.close()

    # Declarations

    async def apply(self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask], dry_run: bool = False) -> list[dict[str, Any]]:
        """Nothing is written unless all of it may be. ``result``: created, changed or unchanged."""
        async with self._applying:
            plan = await applying.plan_apply(self._store, self._clusters, clusters, tasks)
            if dry_run:
                return await applying.dry_run(self._store, plan, clusters)
            return await applying.write(self._store, plan, clusters)

    async def check(self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask]) -> dict[str, Any]:
        """Only reads. ``errors`` is empty where an apply would be accepted."""
        reports = [await applying.check_cluster(self._clusters, cluster) for cluster in clusters]
        errors = [f"cluster {report['cluster']}: {report['error']}" for report in reports if report["error"]]
        shown: list[dict[str, Any]] = []
        if not errors:
            try:
                plan = await applying.plan_apply(self._store, self._clusters, clusters, tasks)
                shown = [{"task": task.name, **await applying.preview_task(plan, task)} for task in tasks]
            except ReplicatorError as error:
                errors.append(str(error))
        return {"clusters": reports, "tasks": shown, "errors": errors}

    async def get(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """``kind``: clusters, tasks, workers, assignments. Raises ``Missing`` for a name that is not there."""
        rows = await self._listed(kind)
        if name is None:
            return rows
        found = [row for row in rows if row["name"] == name]
        if not found:
            raise Missing(f"no {kind.removesuffix('s')} is named {name}")
        return found

    async def _listed(self, kind: str) -> list[dict[str, Any]]:
        if kind == "clusters":
            return [asdict(row) for row in await self._store.clusters()]
        if kind == "tasks":
            return [{"name": row.name, "generation": row.generation, "spec": row.spec} for row in await self._store.tasks()]
        if kind == "workers":
            return [
                {"name": holder, "seen_at": seen_at.isoformat(), **info}
                for holder, info, seen_at in await self._store.workers(WORKER_SEEN_SECONDS)
            ]
        if kind == "assignments":
            return [_assignment_json(row) for row in await self._store.assignments()]
        raise InvalidInput(f"there is no kind {kind}", hint="clusters, tasks, workers or assignments")

    async def delete(self, kind: str, name: str, force: bool = False, purge: bool = False) -> dict[str, Any]:
        """Copied data, positions and maps stay as a tombstone unless ``purge``."""
        if kind == "clusters":
            if not await self._store.delete_cluster(name):
                raise Missing(f"no cluster is named {name}")
        elif kind == "tasks":
            task = await self._task(name)
            if not force:
                await self._check_reachable(task_from_spec(task.name, task.spec))
            await self._store.delete_task(name)
            if purge:
                await self._store.purge_task(name)
        else:
            raise InvalidInput(f"{kind} cannot be deleted", hint="clusters or tasks")
        return {"kind": kind, "name": name, "result": "deleted"}

    async def _check_reachable(self, task: ReplicationTask) -> None:
        rows = {row.name: row for row in await self._store.clusters()}
        for name in task.clusters:
            try:
                await self._clusters.get(cluster_of(rows[name]))
            except NotConnected as error:
                raise Unsafe(f"task {task.name}: {error.message}", hint="--force deletes it all the same") from error

    # Running tasks

    async def set_paused(
        self, task: str, paused: bool, topic: str | None = None, source: str | None = None, destination: str | None = None
    ) -> dict[str, Any]:
        await self._task(task)
        flow = await self._flow_of(task, source, destination)
        changed = await self._store.set_paused(task, paused, topic=topic, flow=flow)
        if not changed:
            raise Missing(f"task {task} has no {'topic ' + topic if topic else 'flow'} of that kind")
        await self._store.record_event(task, "paused" if paused else "resumed", _scope_text(topic, flow))
        return {"task": task, "paused": paused, "changed": changed}

    async def resume(
        self, task: str, topic: str | None = None, source: str | None = None, destination: str | None = None,
        accept_loss: bool = False, from_offset: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Ends a pause. ``accept_loss`` / ``from_offset``: the way out of a history stop, in a new epoch."""
        if accept_loss and from_offset is not None:
            raise InvalidInput("give either --accept-loss or --from-offset")
        if not accept_loss and from_offset is None:
            return await self.set_paused(task, False, topic, source, destination)
        await self._task(task)
        flow = await self._flow_of(task, source, destination)
        stopped = [a for a in await self._store.assignments(task=task) if a.state == HISTORY_STOP and _concerns(a, topic, flow)]
        if not stopped:
            raise Missing(f"task {task} has no assignment stopped by a history change there")
        await self._store.set_paused(task, True, topic=topic, flow=flow)
        try:
            given_up = [await self._new_epoch(assignment, from_offset) for assignment in stopped]
        finally:
            await self._store.set_paused(task, False, topic=topic, flow=flow)
        return {"task": task, "paused": False, "changed": len(stopped), "given_up": given_up}

    async def _new_epoch(self, assignment: Assignment, from_offset: int | None) -> dict[str, Any]:
        rows = {row.name: row for row in await self._store.clusters()}
        connector = await self._clusters.get(cluster_of(rows[assignment.source]))
        bounds = await connector.offset_range(assignment.source_queue)
        start = bounds.min_offset if from_offset is None else from_offset
        if not bounds.min_offset <= start <= bounds.max_offset:
            raise InvalidInput(f"queue {assignment.source_queue} has offsets {bounds.min_offset} to {bounds.max_offset}, not {start}")
        checkpoint = assignment.checkpoint
        position = checkpoint.examined_through if checkpoint else assignment.start_offset
        deadline = asyncio.get_running_loop().time() + EPOCH_WAIT_SECONDS
        while True:
            try:
                epoch = (checkpoint.epoch if checkpoint else 1) + 1
                await self._store.set_epoch(assignment.assignment_id, epoch, start, "accepted by a person")
                break
            except Unsafe:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(EPOCH_POLL_SECONDS)  # its worker is letting go of it
        return {"queue": str(assignment.source_queue), "from": position, "to": start, "given_up": max(0, start - position)}

    async def status(self, task: str | None = None) -> dict[str, Any]:
        rows = [row for row in await self._store.tasks() if task in (None, row.name)]
        if task is not None and not rows:
            raise Missing(f"no task is named {task}")
        figures = await self._store.flow_figures()
        return {
            "observed_at": now_text(),
            "tasks": [task_status(row.name, str(row.spec.get("mode", "")), [f for f in figures if f["task"] == row.name]) for row in rows],
        }

    async def events(self, task: str) -> list[dict[str, Any]]:
        await self._task(task)
        return [
            {"at": event.at.isoformat(), "kind": event.kind, "message": event.message, "detail": event.detail}
            for event in await self._store.events(task)
        ]

    # Parked records

    async def parked_list(self, task: str) -> list[dict[str, Any]]:
        await self._task(task)
        return [
            {
                "id": parked.parked_id, "state": parked.state, "source": assignment.source, "destination": assignment.destination,
                "queue": str(assignment.source_queue), "source_offset": parked.source_offset, "size_bytes": parked.size_bytes,
                "reason": parked.reason,
            }
            for assignment, parked in await self._store.parked(task)
        ]

    async def parked_retry(self, task: str, ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Each as a new, unmapped message; one that is refused again stays parked."""
        await self._task(task)
        rows = {row.name: row for row in await self._store.clusters()}
        results = []
        for assignment, parked in await self._store.parked(task):
            if parked.state != "parked" or (ids is not None and parked.parked_id not in ids):
                continue
            source = await self._clusters.get(cluster_of(rows[assignment.source]))
            destination = await self._clusters.get(cluster_of(rows[assignment.destination]))
            outcome = await retry_parked(source, destination, assignment, parked.source_offset)
            if not outcome:
                await self._store.set_parked_state(parked.parked_id, "retried")
            results.append({"id": parked.parked_id, "result": outcome or "sent"})
        return results

    async def parked_discard(self, task: str, ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        await self._task(task)
        results = []
        for _, parked in await self._store.parked(task):
            if parked.state == "parked" and (ids is None or parked.parked_id in ids):
                await self._store.set_parked_state(parked.parked_id, "discarded")
                results.append({"id": parked.parked_id, "result": "discarded"})
        return results

    async def _task(self, name: str) -> TaskRow:
        for row in await self._store.tasks():
            if row.name == name:
                return row
        raise Missing(f"no task is named {name}")

    async def _flow_of(self, task: str, source: str | None, destination: str | None) -> tuple[str, str] | None:
        if source is None and destination is None:
            return None
        if source is None or destination is None:
            raise InvalidInput("--source and --destination go together")
        if not any((flow.source, flow.destination) == (source, destination) for flow in await self._store.flows() if flow.task == task):
            raise Missing(f"task {task} has no flow {source} -> {destination}")
        return source, destination


def _concerns(assignment: Assignment, topic: str | None, flow: tuple[str, str] | None) -> bool:
    return topic in (None, assignment.source_queue.topic) and flow in (None, (assignment.source, assignment.destination))


def _scope_text(topic: str | None, flow: tuple[str, str] | None) -> str:
    parts = [f"topic {topic}" if topic else "", f"{flow[0]} -> {flow[1]}" if flow else ""]
    return ", ".join(part for part in parts if part) or "whole task"


def _assignment_json(row: Assignment) -> dict[str, Any]:
    checkpoint = row.checkpoint
    return {
        "name": str(row.assignment_id), "task": row.task, "source": row.source, "destination": row.destination,
        "source_queue": str(row.source_queue), "destination_queue": str(row.destination_queue), "state": row.state,
        "holder": row.holder, "token": row.token, "error": row.error or None, "lag_messages": row.lag_messages,
        "lag_seconds": row.lag_seconds, "examined_through": checkpoint.examined_through if checkpoint else None,
        "epoch": checkpoint.epoch if checkpoint else 1,
    }
