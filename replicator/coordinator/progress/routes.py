"""Which queues of one side of a task go with which of the other, whichever way messages are copied between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from replicator.core.offset_map import OffsetMap
from replicator.core.progress import WrittenQueue
from replicator.core.record import MessageQueue
from replicator.core.retry import is_waiting
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment


class Maps(Protocol):
    """The exact maps, as loaded from the store; cached and brought up to date by who provides them."""

    async def written_queue(
        self, task: str, cluster: str, queue: MessageQueue, owning_cluster: str, *, copies_only: bool = False
    ) -> WrittenQueue:
        """Everything known of the records of ``queue`` on ``cluster``, judged by offsets on ``owning_cluster``. ``copies_only``:
        for a group that consumes only what came from there."""
        ...

    async def offset_map(self, assignment_id: int) -> OffsetMap: ...


@dataclass(frozen=True, slots=True)
class Direction:
    """Progress goes from ``owning`` to ``written``; messages may be copied either way, or both."""

    task: ReplicationTask
    owning: str
    written: str

    @property
    def pair(self) -> tuple[str, str]:
        return pair_of(self.owning, self.written)

    @property
    def is_two_way(self) -> bool:
        return {(self.owning, self.written), (self.written, self.owning)} <= set(self.task.flows)


@dataclass(slots=True)
class Routes:
    """Of one direction. ``topics``: {topic on the owning side: on the written side}; ``feeds``: {written queue: owning queues that
    go with it}, by written topic and ascending."""

    topics: dict[str, str] = field(default_factory=dict)
    feeds: dict[str, dict[MessageQueue, list[MessageQueue]]] = field(default_factory=dict)


def pair_of(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def pairs_of(task: ReplicationTask) -> list[tuple[str, str]]:
    return sorted({pair_of(*flow) for flow in task.flows})


def topics_of(pair: tuple[str, str], assignments: Iterable[Assignment]) -> dict[str, set[str]]:
    """{cluster: topics in which the progress of groups matters between the two}."""
    topics: dict[str, set[str]] = {name: set() for name in pair}
    for one in assignments:
        if {one.source, one.destination} == set(pair):
            topics[one.source].add(one.source_queue.topic)
            topics[one.destination].add(one.destination_queue.topic)
    return topics


def routes_of(direction: Direction, assignments: Iterable[Assignment]) -> Routes:
    found: set[tuple[MessageQueue, MessageQueue]] = set()
    for one in assignments:
        if (one.source, one.destination) == (direction.owning, direction.written):
            found.add((one.destination_queue, one.source_queue))
        elif (one.source, one.destination) == (direction.written, direction.owning) and not is_waiting(one.source_queue.topic):
            found.add((one.source_queue, one.destination_queue))
    routes = Routes()
    for written, owning in sorted(found):
        routes.topics[owning.topic] = written.topic
        routes.feeds.setdefault(written.topic, {}).setdefault(written, []).append(owning)
    return routes
