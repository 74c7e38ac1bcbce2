"""Two memory clusters whose groups keep progress, a task between them, and copies that land where a worker would put them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest_asyncio

from connectors.memory import MemoryCluster, MemoryConnector, factory
from replicator.coordinator import declared
from replicator.coordinator.progress.commands import Ask
from replicator.coordinator.service import Coordinator
from replicator.core.connector import ConnectorContext
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten
from replicator.core.task import Cluster, ProgressSpec
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, Hole, Progress, Run
from tests.unit.coordinator.conftest import INSTANCE, World, one_way, two_way

MANUAL = ProgressSpec(sync="manual")


@dataclass
class Groups:
    """What the brokers of one cluster know of groups. ``calls``: {method: times asked}."""

    settings: dict[str, GroupSettings] = field(default_factory=dict)
    offsets: dict[str, dict] = field(default_factory=lambda: defaultdict(dict))
    members: dict[str, GroupMembers] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    writes: list[tuple[str, dict]] = field(default_factory=list)
    away: Exception | None = None
    resets_exactly: bool = True


class GroupedConnector(MemoryConnector):
    groups: Groups

    def _asked(self, name):
        self.groups.calls[name] += 1
        if self.groups.away is not None:
            raise self.groups.away

    async def group_offsets(self, topics):
        self._asked("group_offsets")
        found = {group: {q: o for q, o in offsets.items() if q.topic in topics} for group, offsets in self.groups.offsets.items()}
        return {group: offsets for group, offsets in found.items() if offsets}

    async def consumer_offset(self, group, queue):
        self._asked("consumer_offset")
        return self.groups.offsets.get(group, {}).get(queue)

    async def group_settings(self):
        self._asked("group_settings")
        return dict(self.groups.settings)

    async def create_groups(self, settings):
        self._asked("create_groups")
        for one in settings:
            self.groups.settings.setdefault(one.group, one)
        return {}

    async def set_groups_consumable(self, groups, consumable):
        for group in groups:
            self.groups.settings[group] = replace(self.groups.settings[group], consumable=consumable)

    async def group_members(self, group):
        self._asked("group_members")
        return self.groups.members.get(group, GroupMembers())

    async def can_reset_exactly(self, broker_name):
        return self.groups.resets_exactly

    async def write_offsets(self, group, offsets, *, running):
        self._asked("write_offsets")
        assert group in self.groups.settings, "the group has to exist"
        assert running == bool(self.groups.members.get(group, GroupMembers()).count)
        before = dict(self.groups.offsets[group])
        self.groups.offsets[group].update(offsets)
        self.groups.writes.append((group, dict(offsets)))
        return [OffsetWritten(queue, before.get(queue), offset, "reset" if running else "commit") for queue, offset in offsets.items()]


@dataclass
class GroupWorld(World):
    groups: dict[str, Groups] = field(default_factory=dict)

    def plan_of(self, answer, group):
        (found,) = [one for one in answer["groups"] if one["group"] == group]
        return found["queues"]

    async def copy(self, source: str, destination: str, topic: str = "orders") -> None:
        """Everything not copied yet lands in the destination, and the map says where."""
        rows = await self.assigned(source, destination, topic)
        leased = {one.assignment_id: one for one in await self.store.acquire("worker-1", 60.0, 1000)}
        tokens = self.tokens
        tokens.update({assignment_id: one.token for assignment_id, one in leased.items()})
        items = []
        for row in rows:
            begin = row.examined_through
            end = len(self.memory[source].records(row.source_queue))
            there = len(self.memory[destination].records(row.destination_queue))
            if end > begin:
                self.memory[destination].produce_many(row.destination_queue, [b"copy"] * (end - begin))
            runs = [Run(1, begin, there, end - begin)] if end > begin else []
            checkpoint = Checkpoint(1, end, end - 1, there + end - begin - 1, None, there + end - begin)
            items.append(Progress(row.assignment_id, tokens[row.assignment_id], checkpoint, runs=runs))
        assert await self.store.save_progress(items) == set()

    async def skip(self, source: str, destination: str, topic: str = "orders") -> None:
        """Everything there is a copy of the other side's: examined, and nothing copied back."""
        items = []
        for row in await self.assigned(source, destination, topic):
            end = len(self.memory[source].records(row.source_queue))
            there = len(self.memory[destination].records(row.destination_queue))
            holes = [Hole(1, row.start_offset, end - row.start_offset, "loop")]
            checkpoint = Checkpoint(1, end, scanned_through=there)
            items.append(Progress(row.assignment_id, self.tokens[row.assignment_id], checkpoint, holes=holes))
        assert await self.store.save_progress(items) == set()

    tokens: dict[int, int] = field(default_factory=dict)

    def commit(self, cluster: str, group: str, offset: int, topic: str = "orders", number: int = 0) -> None:
        self.groups[cluster].settings.setdefault(group, GroupSettings(group, {"retryMaxTimes": 3}))
        self.groups[cluster].offsets[group][self.memory[cluster].queues(topic)[number]] = offset

    def stands(self, cluster: str, group: str, topic: str = "orders", number: int = 0) -> int | None:
        return self.groups[cluster].offsets.get(group, {}).get(self.memory[cluster].queues(topic)[number])

    async def interval(self, times: int = 1, task: str = "t", *, follows: bool = True) -> None:
        """What the loop does each interval."""
        loop = self.coordinator._progress
        assert await loop.hold()
        known = await declared.load(self.store)
        for _ in range(times):
            await loop.of(task).round(known.tasks[task], known, follows=follows)

    async def plan(self, group: str | None = None, source: str = "hz", destination: str = "sh", **more):
        return await self.coordinator.groups_plan(Ask("t", source, destination, group), **more)

    async def sync(self, group: str | None = None, source: str = "hz", destination: str = "sh", **more):
        return await self.coordinator.groups_sync(Ask("t", source, destination, group), **more)


async def make(progress: ProgressSpec = MANUAL, *, queues: int = 1, both_ways: bool = False, count: int = 10) -> GroupWorld:
    memory = {"hz": MemoryCluster.create("hz", ("hz-a",)), "sh": MemoryCluster.create("sh", ("sh-a",))}
    groups = {name: Groups() for name in memory}

    def connect(cluster: Cluster):
        settings = factory.settings_model(**cluster.settings)
        made = GroupedConnector(settings, ConnectorContext(cluster.name, INSTANCE))
        made.groups = groups[cluster.name]
        return made

    store = MemoryStore()
    world = GroupWorld(store, Coordinator(store, connect, INSTANCE), memory, groups)
    memory["hz"].add_topic("orders", {"hz-a": queues})
    world.fill("hz", "orders", count)
    task = two_way("t", "hz", "sh", progress=progress) if both_ways else one_way("t", "hz", "sh", progress=progress)
    await world.apply(task)
    await world.rounds()
    await world.copy("hz", "sh")
    return world


@pytest_asyncio.fixture
async def manual() -> AsyncIterator[GroupWorld]:
    world = await make()
    yield world
    await leave(world)


@pytest_asyncio.fixture
async def automatic() -> AsyncIterator[GroupWorld]:
    world = await make(ProgressSpec())
    yield world
    await leave(world)


async def leave(world: GroupWorld) -> None:
    await world.coordinator.close()
    for name in world.memory:
        MemoryCluster.forget(name)
