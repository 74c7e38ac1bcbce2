"""The flows of one worker with their connectors and fences: opened when first needed, kept until its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from replicator.config import task_from_spec
from replicator.core.connector import Connector
from replicator.core.errors import NotConnected, ReplicatorError
from replicator.core.task import Cluster, lock_group
from replicator.store.port import Assignment, ClusterRow, TaskRow
from replicator.worker.clock import boot_seconds
from replicator.worker.fence import SourceFence
from replicator.worker.flow import FlowContext, Rate
from replicator.worker.limits import WARM_SECONDS_MAX

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Flows:
    """``connect`` makes an unopened connector for a declared cluster; ``holder`` is the name under which source queues are locked."""

    def __init__(self, connect: Callable[[Cluster], Connector], holder: str) -> None:
        self._connect = connect
        self._holder = holder
        self._clusters: Mapping[str, ClusterRow] = {}
        self._tasks: Mapping[str, TaskRow] = {}
        self._connectors: dict[str, Connector] = {}
        self._flows: dict[str, FlowContext] = {}
        self._fences: dict[tuple[str, str], SourceFence] = {}
        self._fence_tasks: list[asyncio.Task[None]] = []
        self._attempts: dict[str, asyncio.Task[Any]] = {}

    @property
    def are_declared(self) -> bool:
        return bool(self._clusters)

    def declare(self, clusters: Sequence[ClusterRow], tasks: Sequence[TaskRow]) -> dict[str, FlowContext]:
        """What the store says now. Returns the flows of edited tasks, by id, as they are from now on."""
        self._clusters = {row.name: row for row in clusters}
        self._tasks = {row.name: row for row in tasks}
        edited = {}
        for flow_id, flow in self._flows.items():
            row = self._tasks.get(flow.task.name)
            if row is not None and row.generation != flow.generation:
                task = task_from_spec(row.name, row.spec)
                rate = Rate(task.messages_per_second_max, task.bytes_per_second_max)
                edited[flow_id] = replace(flow, task=task, generation=row.generation, rate=rate)
        self._flows |= edited
        return edited

    async def warm(self) -> None:
        """Begins to connect to every cluster; returns when all have answered, after ``WARM_SECONDS_MAX`` at the latest."""
        opening = [asyncio.create_task(self._connector(row), name=f"open {row.name}") for row in self._clusters.values()]
        if opening:
            _, late = await asyncio.wait(opening, timeout=WARM_SECONDS_MAX)
            for task in late:
                task.cancel()
            for result in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(result, ReplicatorError):
                    log.info("not within reach yet", error=str(result))
                elif isinstance(result, Exception):
                    log.error("opening failed", error=repr(result))

    async def of(self, assignment: Assignment) -> FlowContext:
        """The assignment's flow, with both clusters connected. Raises ``ReplicatorError`` where it cannot be opened now."""
        known = self._flows.get(assignment.flow_id)
        return known if known is not None else await self._together(f"flow {assignment.flow_id}", lambda: self._make(assignment))

    def connector(self, cluster: str) -> Connector | None:
        """Where one is open."""
        return self._connectors.get(cluster)

    def lease_renewed(self, started_at: float) -> None:
        for fence in self._fences.values():
            fence.lease_renewed(started_at)

    def figures(self) -> list[dict[str, Any]]:
        return [flow.figures() for flow in self._flows.values()]

    async def close(self) -> None:
        tasks = [*self._attempts.values(), *self._fence_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connector in self._connectors.values():
            try:
                await connector.close()
            except ReplicatorError as error:
                log.warning("closing", cluster=connector.cluster, error=str(error))

    async def _together(self, name: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Those who want the same at the same time share one attempt and its outcome: hundreds of queues of a cluster that is away
        wait for one timeout, not for one each. Whoever gives up leaves it to the others."""
        task = self._attempts.get(name)
        if task is None:
            task = self._attempts[name] = asyncio.create_task(attempt(), name=name)
            task.add_done_callback(lambda _: self._attempts.pop(name, None))
        result: T = await asyncio.shield(task)
        return result

    async def _make(self, assignment: Assignment) -> FlowContext:
        source_row, destination_row = self._row(assignment.source), self._row(assignment.destination)
        source, destination = await self._connector(source_row), await self._connector(destination_row)
        described = await destination.describe()
        task_row = self._tasks.get(assignment.task)
        if task_row is None:
            raise NotConnected(f"task {assignment.task} is not known yet")
        task = task_from_spec(task_row.name, task_row.spec)
        flow = self._flows[assignment.flow_id] = FlowContext(
            task, task_row.generation, source, destination, source_row, destination_row,
            {row.cluster_id: row for row in self._clusters.values() if row.cluster_id},
            self._fence(source, source_row.name, lock_group(destination_row.cluster_id or "")),
            {}, Rate(task.messages_per_second_max, task.bytes_per_second_max),
            described.append_bytes_max, described.append_records_max, described.properties_bytes_max, described.record_overhead_bytes,
        )
        return flow

    def _row(self, cluster: str) -> ClusterRow:
        row = self._clusters.get(cluster)
        if row is None:
            raise NotConnected(f"cluster {cluster} is not known yet")
        return row

    def _fence(self, source: Connector, source_name: str, group: str) -> SourceFence:
        fence = self._fences.get((source_name, group))
        if fence is None:
            fence = self._fences[(source_name, group)] = SourceFence(source, group, self._holder)
            fence.lease_renewed(boot_seconds())
            self._fence_tasks.append(asyncio.create_task(fence.run(), name=f"fence {source_name}"))
        return fence

    async def _connector(self, row: ClusterRow) -> Connector:
        known = self._connectors.get(row.name)
        return known if known is not None else await self._together(row.name, lambda: self._open(row))

    async def _open(self, row: ClusterRow) -> Connector:
        connector = self._connect(Cluster(row.name, row.connector, row.settings, row.region))
        try:
            await connector.open()
        except BaseException:
            await connector.close()
            raise
        self._connectors[row.name] = connector
        return connector
