"""The temporary reverse flow of a one-way task: what was born at the destination while it served goes back to the source.

It is a task like any other, so that people see it, pause it and delete it like one. What came from the source does not go back, as
never anything does; what was born at the destination before the failover stays there, as the mark of the failover says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections
from replicator.core.errors import NotConnected, ReplicatorError
from replicator.core.task import Cluster, ProgressSpec, ReplicationTask, StartPoint
from replicator.store.port import Store

Apply = Callable[[Sequence[Cluster], Sequence[ReplicationTask]], Awaitable[Any]]
Delete = Callable[[str], Awaitable[Any]]
NAME_LENGTH_MAX = 40


class Reverse:
    def __init__(self, store: Store, connections: Connections, apply: Apply, delete: Delete) -> None:
        self._store = store
        self._connections = connections
        self._apply = apply
        self._delete = delete

    def name_of(self, task: ReplicationTask, left: str, target: str) -> str:
        tail = f"-back-{left}"
        return task.name[: NAME_LENGTH_MAX - len(tail)] + tail

    def mark_of(self, task: ReplicationTask, source: str, destination: str) -> str:
        """The group whose offsets on ``destination`` say where it ended when the failover from ``source`` began."""
        return f"replicator-failover-{task.name}-{source}"

    async def put(self, task: ReplicationTask, left: str, target: str) -> str:
        """Idempotent."""
        reverse = await self._task(task, left, target)
        if reverse.name in (await declared.load(self._store)).tasks:
            return f"task {reverse.name} is there already"
        await self._apply((), (reverse,))
        return f"task {reverse.name} carries what was born on {left} to {target}, from {reverse.start.kind.replace('_', ' ')} on"

    async def remove(self, task: ReplicationTask, left: str, target: str) -> str:
        """Its positions and its map stay, so that the next failback goes on from them."""
        name = self.name_of(task, left, target)
        if name not in (await declared.load(self._store)).tasks:
            return f"task {name} is gone"
        await self._delete(name)
        return f"task {name} was deleted"

    async def missing(self, task: ReplicationTask, left: str, target: str, begun: set[str]) -> list[str]:
        """Topics that the reverse flow has not begun with."""
        return sorted({there for _, there in await self._topics(task, target, left)} - begun)

    async def _topics(self, task: ReplicationTask, source: str, destination: str) -> list[tuple[str, str]]:
        """(source topic, destination topic) of the forward flow."""
        wanted = (task.name, source, destination)
        ids = {flow.flow_id for flow in await self._store.flows() if (flow.task, flow.source, flow.destination) == wanted}
        return sorted((pair.source_topic, pair.destination_topic) for pair in await self._store.pairs() if pair.flow_id in ids)

    async def _task(self, task: ReplicationTask, left: str, target: str) -> ReplicationTask:
        topics = await self._topics(task, target, left)
        if not topics:
            raise ReplicatorError(f"task {task.name} has copied no topic from {target} to {left}, so there is nothing to carry back")
        return ReplicationTask(
            name=self.name_of(task, left, target),
            mode="one-way",
            clusters=(left, target),
            include=tuple(there for _, there in topics),
            start=await self._start(task, left, target),
            rename={there: here for here, there in topics if here != there},
            tags=task.tags,
            messages_per_second_max=task.messages_per_second_max,
            bytes_per_second_max=task.bytes_per_second_max,
            progress=ProgressSpec(exclude=("*",), sync="manual"),
        )

    async def _start(self, task: ReplicationTask, left: str, target: str) -> StartPoint:
        """Without a mark, because no failover was run, everything that was born there counts."""
        group = self.mark_of(task, target, left)
        known = await declared.load(self._store)
        link = await self._connections.get(known.cluster(left), at_once=True)
        queues = [one.destination_queue for one in await self._store.assignments(task=task.name) if one.destination == left]
        for queue in queues:
            if await link.ask(link.connector.consumer_offset(group, queue)) is None:
                return StartPoint("earliest")
        if not queues:
            raise NotConnected(f"task {task.name} has no queue on {left} yet")
        return StartPoint("consumer_group", consumer_group=group)
