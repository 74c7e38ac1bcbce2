"""The coordinator: what people and programs ask of it, and the loop that makes the world follow what they declared.

Every operation returns JSON-ready values and raises errors of ``core.errors``: ``InvalidInput`` (a name or value is wrong),
``Missing``, ``Unsafe`` (refused for safety), ``NotConnected`` (a cluster is away), ``StoreUnavailable``.

    apply    [{"kind": cluster|task, "name", "result": created|changed|unchanged|not-in-files, "topics_to_create": [{"cluster",
             "topic"}], "messages_to_copy": n|null, "queues": n, "warnings": [...]}], all or nothing
    check    {"asked_from", "clusters": [...], "tasks": [...], "workers": [{"worker", "answered", "clusters"}], "problems": [text, ...]};
             only reads
    get      a list of objects, or one object where a name is given
    delete   {"kind", "name", "result": deleted|purged, "left": [text, ...] of a task}
    set_paused, resume  {"task", "paused": bool, "count": n, ...}; after a history stop with "given_up" for each queue
    status   {"observed_at", "tasks": [{"name", "state", "flows": [...]}]}
    events   [{"at", "kind", "message", "detail"}], oldest first
    parked_list  [{"id", "source", "destination", "source_queue", "source_offset", "reason", "size_bytes", "state"}]
    groups_list  {"groups": [{"group", "topic", "kind", "owner", "carried", "reason", "source_offsets", "destination_offsets", …}]}
    groups_plan  {"groups": [{"group", "kind", "owner", "topic", "queues": [{"source_broker", "source_queue", "from",
             "destination_broker", "destination_queue", "to", "action", "seen_again", "exact", "reason"}]}], "seen_again"}
    groups_sync  the plan as it was carried out, with "moved", "refused" and "failed" (queues)
    groups_reset {"group", "queues": [{"queue", "from", "to", "now", "refused"}], "done"}
    failover_plan {"from", "to", "blockers": [{"name", "severity", "text", "groups"}], "groups", "seen_again", "not_copied", "steps", …}
    failover_run, failover_abort  {"id", "kind", "state", "reason", "steps": [{"name", "state", "detail"}], …}
    failover_status  {"moves": [as of run]}, oldest first
    parked_retry, parked_discard  [{"id", "result", "detail"}]; ids None: all that are parked now
    translate  {"status", "source_broker", "source_queue", "destination_topic", "destination_broker", "destination_queue",
             "destination_offset", "reason"}
    rebuild, rebuild_progress  {"task", "state": running|done|failed, "error", "now", "records_read", "copies_found", "seconds",
             "flows": [{"source", "destination", "error"}], "queues": [{"assignment_id", "copies", "runs", "duplicates", "epochs",
             "without_copy", "examined_through", "seconds", …}]}

Any number of coordinators answer; only the holder of the lease reconciles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from replicator.coordinator import apply, check, operations, parked, stops, translating
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connect, Connections
from replicator.coordinator.failover.assessing import Move
from replicator.coordinator.failover.commands import FailoverCommands
from replicator.coordinator.failover.reverse import Reverse
from replicator.coordinator.failover.runner import FailoverRunner
from replicator.coordinator.headroom import Headroom
from replicator.coordinator.progress.commands import Ask, GroupCommands, Place
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.coordinator.rebuilding import Rebuilds
from replicator.coordinator.reconcile import COORDINATOR_LEASE_SECONDS, Reconciler
from replicator.coordinator.sharing import Sharer
from replicator.coordinator.status import render_status
from replicator.core.task import Cluster, ReplicationTask
from replicator.store.port import Store, StoreUnavailable

log = structlog.get_logger(__name__)


class Coordinator:
    """``connect`` makes an unopened connector for a declared cluster; ``instance`` is unique to this process and start."""

    def __init__(self, store: Store, connect: Connect, instance: str) -> None:
        self.instance = instance
        self._store = store
        self._connections = Connections(connect)
        self._reconciler = Reconciler(store, self._connections, instance)
        self._sharer = Sharer(store, instance, COORDINATOR_LEASE_SECONDS)
        self._headroom = Headroom(store, self._connections)
        self._atlas = Atlas(store)
        self._progress = ProgressLoop(store, self._connections, self._atlas, instance)
        self._groups = GroupCommands(store, self._connections, self._progress)
        reverse = Reverse(store, self._connections, self.apply, lambda name: self.delete("tasks", name, force=True))
        self._runner = FailoverRunner(store, self._connections, self._atlas, self._progress, reverse, instance)
        self._failover = FailoverCommands(store, self._connections, self._atlas, self._progress, self._runner)
        self._rebuilds = Rebuilds(store, self._connections)
        self._applying = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Reconciles, shares and syncs progress until ``stop`` is set, then gives its lease back and closes the connectors."""
        try:
            await asyncio.gather(
                self._reconciler.run(stop), self._sharer.run(stop), self._progress.run(stop), self._runner.run(stop)
            )
        finally:
            await self._rebuilds.close()
            try:
                await self._store.drop_coordinator(self.instance)
            except StoreUnavailable as error:
                log.warning("lease not given back", error=str(error), hint="the next coordinator waits until it has run out")
            await self._headroom.close()
            await self._connections.close()

    async def close(self) -> None:
        """For who uses a coordinator without ``run``."""
        await self._reconciler.close()
        await self._rebuilds.close()
        await self._headroom.close()
        await self._connections.close()

    async def reconcile_once(self) -> None:
        """One whole round with fresh eyes, under the lease, which is given back after it: for tests and one-shot use."""
        await self._reconciler.round_to_end()

    async def apply(
        self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask], dry_run: bool = False, lost: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        async with self._applying:
            plan = await apply.make_plan(self._store, self._connections, clusters, tasks, lost)
            if not dry_run:
                await apply.carry_out(self._store, self._connections, plan)
                self._reconciler.wake()
            return plan.rendered()

    async def check(self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask]) -> dict[str, Any]:
        return await check.check(self._store, self._connections, clusters, tasks, self.instance)

    async def get(self, kind: str, name: str | None = None) -> Any:
        return await operations.get(self._store, kind, name)

    async def delete(self, kind: str, name: str, force: bool = False, purge: bool = False) -> dict[str, Any]:
        return await operations.delete(self._store, self._connections, kind, name, force=force, purge=purge)

    async def set_paused(
        self, task: str, paused: bool, topic: str | None = None, source: str | None = None, destination: str | None = None
    ) -> dict[str, Any]:
        return await operations.set_paused(self._store, operations.Scope(task, topic, source, destination), paused)

    async def resume(
        self,
        task: str,
        topic: str | None = None,
        source: str | None = None,
        destination: str | None = None,
        accept_loss: bool = False,
        from_offset: int | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        scope = operations.Scope(task, topic, source, destination)
        return await stops.resume(
            self._store, self._connections, self._atlas, scope, accept_loss=accept_loss, from_offset=from_offset, dry_run=dry_run
        )

    async def status(self, task: str | None = None) -> dict[str, Any]:
        return await render_status(self._store, await self.figures(), await self._reconciler.troubles_now(), task)

    async def figures(self) -> list[dict[str, Any]]:
        """Of every flow, as the store has them, with what only the sources know."""
        return await self._headroom.add_to(await self._store.flow_figures())

    async def leading(self) -> dict[str, Any]:
        """Whether this coordinator holds the lease, and what only its holder knows: {"lease_held", "progress": {task: {...}}}."""
        return {"lease_held": self._progress.holds_lease, "progress": self._progress.figures()}

    async def events(self, task: str) -> list[dict[str, Any]]:
        return await operations.events(self._store, task)

    async def parked_list(self, task: str) -> list[dict[str, Any]]:
        return await parked.listing(self._store, task)

    async def parked_retry(self, task: str, ids: Sequence[int] | None) -> list[dict[str, Any]]:
        return await parked.retry(self._store, self._connections, task, ids)

    async def parked_discard(self, task: str, ids: Sequence[int] | None) -> list[dict[str, Any]]:
        return await parked.discard(self._store, task, ids)

    async def translate(self, task: str, source: str, destination: str, topic: str, queue: str, offset: int) -> dict[str, Any]:
        scope = operations.Scope(task, topic, source, destination)
        return await translating.translate(self._store, self._atlas, scope, queue, offset)

    async def rebuild(
        self, task: str, topic: str | None, source: str | None, destination: str | None, cluster_ids: Mapping[str, str]
    ) -> dict[str, Any]:
        return await self._rebuilds.start(operations.Scope(task, topic, source, destination), cluster_ids)

    async def rebuild_progress(self, task: str) -> dict[str, Any]:
        return self._rebuilds.progress(task)

    async def groups_list(self, ask: Ask) -> dict[str, Any]:
        return await self._groups.listing(ask)

    async def groups_plan(self, ask: Ask, back: bool = False, running: bool = False) -> dict[str, Any]:
        return await self._groups.plan(ask, back=back, running=running)

    async def groups_sync(
        self, ask: Ask, seen_again: int | None = None, back: bool = False, running: bool = False
    ) -> dict[str, Any]:
        return await self._groups.sync(ask, seen_again=seen_again, back=back, running=running)

    async def groups_reset(self, ask: Ask, place: Place, dry_run: bool = False) -> dict[str, Any]:
        return await self._groups.reset(ask, place, dry_run=dry_run)

    async def failover_plan(self, move: Move) -> dict[str, Any]:
        return await self._failover.plan(move)

    async def failover_run(self, move: Move) -> dict[str, Any]:
        return await self._failover.run(move)

    async def failover_status(self, task: str, kind: str | None = None) -> dict[str, Any]:
        return await self._failover.status(task, kind)

    async def failover_abort(self, task: str, kind: str) -> dict[str, Any]:
        return await self._failover.abort(task, kind)
