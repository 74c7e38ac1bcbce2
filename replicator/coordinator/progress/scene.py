"""Both sides of a task as a person's command finds them: offsets read now, or, of a cluster that is away, as last seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.progress.knowledge import GroupKey, Known, known_of
from replicator.coordinator.progress.planning import Asked, GroupPlan, Planner
from replicator.coordinator.progress.retries import not_copied
from replicator.coordinator.progress.routes import Direction, pair_of, topics_of
from replicator.coordinator.progress.task_sync import GroupOffsets, Seen, TaskSync
from replicator.coordinator.progress.writing import keeper
from replicator.core.errors import OUT_OF_REACH, Missing, NotConnected
from replicator.core.ownership import settle
from replicator.core.record import MessageQueue
from replicator.core.subscriptions import BROADCAST_SUFFIX
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Store


@dataclass(slots=True)
class Scene:
    """``source``: of the side whose progress counts; None while it is away, and then its offsets are as last seen."""

    sync: TaskSync
    planner: Planner
    seen: Seen
    source: Link | None
    written: Link
    known: Mapping[GroupKey, Known]
    groups: list[str]
    assignments: list[Assignment]
    only: str | None = None
    """The one group that was asked for."""
    late: Mapping[str, str] = field(default_factory=dict)
    """Groups whose offsets on the source may not be carried over now, and why."""
    _resets_exactly: dict[str, bool] | None = None

    @property
    def task(self) -> ReplicationTask:
        return self.planner.direction.task

    @property
    def pair(self) -> tuple[str, str]:
        return self.seen.pair

    @property
    def broadcasts(self) -> list[tuple[str, str]]:
        """(group, topic) of broadcast groups that the source's brokers know of: they note what members pulled, for themselves."""
        groups = self.seen.offsets[self.planner.direction.owning] or {}
        return sorted(
            (name.removesuffix(BROADCAST_SUFFIX), topic)
            for name, offsets in groups.items() if name.endswith(BROADCAST_SUFFIX)
            if self.only in (None, name.removesuffix(BROADCAST_SUFFIX))
            for topic in {queue.topic for queue in offsets} & self.planner.routes.topics.keys()
        )  # fmt: skip

    def asked(self, group: str, *, may_go_back: bool = False) -> Asked:
        direction = self.planner.direction
        known = self.known.get((group, self.pair)) or Known()
        offsets, current = self.seen.of(direction.owning, group), self.seen.of(direction.written, group)
        return Asked(group, known, offsets, current, late=self.late.get(group, ""), may_go_back=may_go_back)

    def settled(self, group: str, owner: str) -> Known:
        """``owner`` is the side that counts, by a person's word; what both sides show now is where movement begins."""
        known = self.known.get((group, self.pair)) or Known()
        offsets = {name: {str(queue): offset for queue, offset in self.seen.of(name, group).items()} for name in self.pair}
        known.ownership = settle(known.ownership, owner, offsets)
        return known

    async def plans(self, *, back: bool, topic: str | None = None, running: bool = False) -> list[tuple[Asked, list[GroupPlan]]]:
        """Of every group, as far as it has progress on the owning side."""
        chosen = []
        for group in self.groups:
            asked = self.asked(group, may_go_back=back)
            if self.source is not None:
                asked.members_owning = (await self.sync.members(asked.known, self.source, group)).count
            plans = await self._plan(asked, topic)
            if any(plan.moves for plan in plans):
                asked.active = await self.active(asked)
                if asked.active:
                    asked.running, asked.resets_exactly = running, await self._resets()
                    plans = await self._plan(asked, topic)
            chosen.append((asked, plans))
        return chosen

    async def _resets(self) -> Mapping[str, bool]:
        if self._resets_exactly is None:
            brokers = {queue.broker_name for queues in self.planner.routes.feeds.values() for queue in queues}
            ask = keeper(self.written).can_reset_exactly
            self._resets_exactly = {name: await self.written.ask(ask(name)) for name in sorted(brokers)}
        return self._resets_exactly

    async def _plan(self, asked: Asked, topic: str | None) -> list[GroupPlan]:
        return [plan for plan in await self.sync.plan_group(self.planner, asked) if topic in (None, plan.topic)]

    async def active(self, asked: Asked) -> str:
        """Why the group may not be written on the written side, or empty."""
        name = self.planner.direction.written
        found = await self.sync.members(asked.known, self.written, asked.group)
        if found.count:
            return f"it has {found.count} members on {name}"
        side = asked.known.ownership.sides.get(name)
        if side is not None and side.reached and (side.raised or side.moved_ago is not None):
            return f"it moves on {name}"
        return ""


async def look(
    store: Store,
    connections: Connections,
    sync: TaskSync,
    direction: tuple[str, str],
    group: str | None = None,
    *,
    source_may_be_away: bool = False,
) -> Scene:
    """``direction``: (side whose progress counts, side to be written). Raises ``Missing``, ``NotConnected``."""
    owning, written_name = direction
    known = await declared.load(store)
    task = known.tasks.get(sync.name)
    if task is None:
        raise Missing(f"task {sync.name} does not exist")
    if not {(owning, written_name), (written_name, owning)} & set(task.flows):
        raise Missing(f"task {sync.name} copies nothing between {owning} and {written_name}")
    pair = pair_of(owning, written_name)
    assignments = list(await store.assignments(task=sync.name))
    written = await connections.get(known.cluster(written_name), at_once=True)
    source = await _source(connections, known, owning, may_be_away=source_may_be_away)
    for link in (source, written):
        if link is not None:
            keeper(link)
    links = {owning: source, written_name: written}
    topics = topics_of(pair, assignments)
    seen = await sync.read(pair, topics, links)
    stored = sync.known or known_of(await store.group_states(sync.name))
    if seen.offsets[owning] is None and source_may_be_away:
        source = links[owning] = None
        seen = Seen(pair, {**seen.offsets, owning: last_seen(stored, pair, owning, assignments)})
    for name, offsets in seen.offsets.items():
        if offsets is None:
            raise NotConnected(f"the progress on cluster {name} cannot be read now")
    groups = [one for one in sync.groups_in(task, seen) if group in (None, one)]
    late = (await not_copied(store, task, links, groups)).get(owning, {})
    planner = sync.planner(Direction(task, owning, written_name), assignments, source, written)
    scene = Scene(sync, planner, seen, source, written, stored, groups, assignments, group, late)
    if group is not None and not groups and not scene.broadcasts:
        raise Missing(f"group {group} has no progress in topics of task {sync.name}, or is not selected by it")
    return scene


async def _source(connections: Connections, known: declared.Declared, name: str, *, may_be_away: bool) -> Link | None:
    try:
        return await connections.get(known.cluster(name), at_once=True)
    except OUT_OF_REACH:
        if may_be_away:
            return None
        raise


def last_seen(
    stored: Mapping[GroupKey, Known], pair: tuple[str, str], cluster: str, assignments: Sequence[Assignment]
) -> GroupOffsets:
    """Offsets on a cluster as of the last time it was read."""
    queues = {
        str(queue): queue for one in assignments if {one.source, one.destination} == set(pair)
        for name, queue in ((one.source, one.source_queue), (one.destination, one.destination_queue)) if name == cluster
    }  # fmt: skip
    found: dict[str, dict[MessageQueue, int]] = {}
    for (group, where), known in stored.items():
        side = known.ownership.sides.get(cluster)
        if where == pair and side is not None:
            offsets = {queues[name]: offset for name, offset in side.offsets.items() if name in queues}
            if offsets:
                found[group] = offsets
    return found
