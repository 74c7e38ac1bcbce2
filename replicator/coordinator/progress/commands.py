"""What people ask of the progress of groups: ``groups list``, ``plan``, ``sync`` and ``reset``. See ``coordinator.service``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.progress.knowledge import GroupKey, Known, known_of
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.coordinator.progress.planning import REFUSE, Asked, GroupPlan, Planner, QueuePlan, seen_again_in
from replicator.coordinator.progress.retries import not_copied, waiting_counts
from replicator.coordinator.progress.routes import Direction, topics_of
from replicator.coordinator.progress.task_sync import Seen, TaskSync
from replicator.coordinator.progress.writing import Wish, Written, keeper
from replicator.core.errors import InvalidInput, Missing, NotConnected, Unsafe
from replicator.core.ownership import settle
from replicator.core.record import MessageQueue
from replicator.core.subscriptions import BROADCAST_SUFFIX, Carried
from replicator.store.port import Store

WRITES_SHOWN_MAX = 1000
BROADCAST_REASON = "a broadcast group: its members keep their own offsets, which nobody can set"


@dataclass(frozen=True, slots=True)
class Ask:
    """Which groups. ``source``: whose progress counts; ``destination``: where it is written. ``group`` None: all of the task."""

    task: str
    source: str
    destination: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reset leads: an offset of one topic or queue of the destination, or the first message stored at a time."""

    offset: int | None = None
    timestamp_ms: int | None = None
    topic: str | None = None
    broker: str | None = None
    queue_id: int | None = None


@dataclass(slots=True)
class _Scene:
    sync: TaskSync
    planner: Planner
    seen: Seen
    source: Link
    written: Link
    known: Mapping[GroupKey, Known]
    groups: list[str]
    only: str | None
    """The one group that was asked for."""
    late: Mapping[str, str]
    """Groups whose offsets on the source may not be carried over now, and why."""

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
        return Asked(group, known, offsets, current, may_go_back=may_go_back)


class GroupCommands:
    def __init__(self, store: Store, connections: Connections, loop: ProgressLoop) -> None:
        self._store = store
        self._connections = connections
        self._loop = loop

    async def listing(self, ask: Ask) -> dict[str, Any]:
        scene = await self._look(ask)
        last = {
            (one.group, one.cluster): one
            for one in await self._store.group_writes(ask.task, ask.group, limit=WRITES_SHOWN_MAX)
        }
        rows: list[dict[str, Any]] = [
            {"group": group, "topic": topic, "kind": "broadcast", "owner": None, "carried": Carried.LOCAL.value, "reason": BROADCAST_REASON,
             "source_offsets": {}, "destination_offsets": {}, "last_write": None}
            for group, topic in scene.broadcasts
        ]  # fmt: skip
        for group in scene.groups:
            asked = scene.asked(group)
            for topic, there in scene.planner.routes.topics.items():
                own = {queue: offset for queue, offset in asked.offsets.items() if queue.topic == topic}
                other = {queue: offset for queue, offset in asked.current.items() if queue.topic == there}
                if not own and not other:
                    continue
                means, state = scene.planner.meaning_of(asked, topic), asked.known.ownership
                write = last.get((group, ask.destination))
                rows.append({
                    "group": group, "topic": topic, "kind": asked.known.kinds.get(ask.source, ""),
                    "owner": "split" if state.split else state.owner,
                    "carried": means.carried.value, "reason": means.reason,
                    "source_offsets": _offsets_json(own), "destination_offsets": _offsets_json(other),
                    "last_write": None if write is None else {
                        "at": write.at.isoformat() if write.at else None, "why": write.why, "done": write.done,
                        "refused": sorted({one.refused for one in write.queues if one.refused}),
                    },
                })  # fmt: skip
        return {"groups": rows}

    async def plan(self, ask: Ask, *, back: bool = False) -> dict[str, Any]:
        scene = await self._look(ask)
        chosen = await self._plans(scene, back=back)
        plans = [plan for _, found in chosen for plan in found]
        plans += [_broadcast_plan(scene, group, topic) for group, topic in scene.broadcasts]
        return {
            "groups": [plan.to_json() for plan in plans],
            "seen_again": seen_again_in(plans),
            "waiting_for_retry": await waiting_counts(scene.source, scene.groups),
            "retries_carried": scene.planner.direction.task.retry,
        }

    async def sync(self, ask: Ask, *, seen_again: int | None, back: bool) -> dict[str, Any]:
        """``seen_again``: what the preview said; more than that is refused. ``back``: also where that sets a group back."""
        await self._require_lease()
        sync = self._loop.of(ask.task)
        async with sync.lock:
            await sync.load()
            scene = await self._look(ask)
            chosen = await self._plans(scene, back=back)
            plans = [plan for _, found in chosen for plan in found]
            count = seen_again_in(plans)
            if seen_again is not None and count > seen_again:
                raise Unsafe(
                    f"{count} messages would be seen again, not {seen_again} as in the preview", hint="look at groups plan again"
                )
            moving = [(asked, found) for asked, found in chosen if any(plan.moves for plan in found)]
            for asked, _ in moving:
                asked.known.ownership = settle(asked.known.ownership, ask.source)
            await self._settle_splits(scene, [asked for asked, found in chosen if not any(plan.moves for plan in found)])
            written: list[Written] = []
            if moving:
                task = scene.planner.direction.task
                written = await sync.write(task, scene.pair, scene.source, scene.written, moving, why="by hand")
                text = f"progress of {len(moving)} groups was carried from {ask.source} to {ask.destination}"
                await self._store.record_event(ask.task, "groups-synced", text, {"groups": [asked.group for asked, _ in moving]})
        return {**_outcome(plans, written), "seen_again": count}

    async def _settle_splits(self, scene: _Scene, groups: Sequence[Asked]) -> None:
        """Of groups that need no write: a person has said whose progress counts all the same."""
        settled = {}
        for asked in groups:
            if asked.known.ownership.split and not await self._active(scene, asked):
                asked.known.ownership = settle(asked.known.ownership, scene.planner.direction.owning)
                settled[asked.group, scene.pair] = asked.known
        await scene.sync.save(settled)

    async def reset(self, ask: Ask, place: Place, *, dry_run: bool) -> dict[str, Any]:
        if ask.group is None:
            raise InvalidInput("name the group to reset")
        if (place.offset is None) == (place.timestamp_ms is None):
            raise InvalidInput("a reset leads to an offset or to a time: give one of the two")
        if place.offset is not None and place.topic is None:
            raise InvalidInput("an offset is one of a topic: name it")
        if not dry_run:
            await self._require_lease()
        sync = self._loop.of(ask.task)
        async with sync.lock:
            if not dry_run:
                await sync.load()
            scene = await self._look(ask)
            asked = scene.asked(ask.group)
            active = await self._active(scene, asked)
            if active:
                raise Unsafe(f"group {ask.group}: {active}")
            offsets = await _places(scene, place)
            rows = [{"queue": str(queue), "from": asked.current.get(queue), "to": offset} for queue, offset in offsets.items()]
            if dry_run:
                return {"group": ask.group, "queues": rows, "done": False}
            (result,) = await self._reset(sync, scene, asked, offsets)
        for row, queue in zip(rows, offsets, strict=True):
            row["now"] = result.offsets.get(queue)
            row["refused"] = result.refused.get(queue) or result.refused.get(None, "")
        return {"group": ask.group, "queues": rows, "done": True, "failed": len(result.refused)}

    async def _reset(
        self, sync: TaskSync, scene: _Scene, asked: Asked, offsets: Mapping[MessageQueue, int]
    ) -> list[Written]:
        """A person's word proves nothing about what was processed: it counts for the group's place, not as a start of ours."""
        direction = scene.planner.direction
        name = direction.written
        for queue in offsets:
            asked.known.written.get(name, {}).pop(str(queue), None)
        asked.known.ownership = settle(asked.known.ownership, name)
        current = {queue: asked.current[queue] for queue in offsets if queue in asked.current}
        results = await sync.carry_out(
            direction.task, "", scene.source, scene.written, [Wish(asked.group, offsets, current, "reset by hand")]
        )
        sync.known[asked.group, scene.pair] = asked.known
        await sync.save({(asked.group, scene.pair): asked.known})
        await self._store.record_event(direction.task.name, "group-reset", f"group {asked.group} was reset on {name}", {
            "offsets": {str(queue): offset for queue, offset in offsets.items()},
        })  # fmt: skip
        return results

    async def _require_lease(self) -> None:
        if not await self._loop.hold():
            raise Unsafe("another coordinator holds the lease, and only that one writes progress", hint="ask that one")

    async def _look(self, ask: Ask) -> _Scene:
        known = await declared.load(self._store)
        task = known.tasks.get(ask.task)
        if task is None:
            raise Missing(f"task {ask.task} does not exist")
        if not {(ask.source, ask.destination), (ask.destination, ask.source)} & set(task.flows):
            raise Missing(f"task {ask.task} copies nothing between {ask.source} and {ask.destination}")
        sync = self._loop.of(ask.task)
        direction = Direction(task, ask.source, ask.destination)
        assignments = await self._store.assignments(task=ask.task)
        source = await self._connections.get(known.cluster(ask.source), at_once=True)
        written = await self._connections.get(known.cluster(ask.destination), at_once=True)
        for link in (source, written):
            keeper(link)
        links: dict[str, Link | None] = {ask.source: source, ask.destination: written}
        seen = await sync.read(direction.pair, topics_of(direction.pair, assignments), links)
        for name, offsets in seen.offsets.items():
            if offsets is None:
                raise NotConnected(f"the progress on cluster {name} cannot be read now")
        groups = sync.groups_in(task, seen)
        if ask.group is not None:
            groups = [group for group in groups if group == ask.group]
        late = (await not_copied(self._store, task, links, groups)).get(ask.source, {})
        stored = sync.known or known_of(await self._store.group_states(ask.task))
        planner = sync.planner(direction, assignments, source, written)
        scene = _Scene(sync, planner, seen, source, written, stored, groups, ask.group, late)
        if ask.group is not None and not groups and not scene.broadcasts:
            raise Missing(f"group {ask.group} has no progress in topics of task {ask.task}, or is not selected by it")
        return scene

    async def _plans(self, scene: _Scene, *, back: bool) -> list[tuple[Asked, list[GroupPlan]]]:
        chosen = []
        for group in scene.groups:
            asked = scene.asked(group, may_go_back=back)
            await scene.sync.members(asked.known, scene.source, group)
            plans = await scene.sync.plan_group(scene.planner, asked)
            if any(plan.moves for plan in plans):
                asked.active = await self._active(scene, asked) or scene.late.get(group, "")
                if asked.active:
                    plans = await scene.sync.plan_group(scene.planner, asked)
            chosen.append((asked, plans))
        return chosen

    async def _active(self, scene: _Scene, asked: Asked) -> str:
        """Why the group may not be written on the destination, or empty."""
        name = scene.planner.direction.written
        found = await scene.sync.members(asked.known, scene.written, asked.group)
        if found.count:
            return f"it has {found.count} members on {name}"
        side = asked.known.ownership.sides.get(name)
        if side is not None and side.reached and (side.raised or side.moved_ago is not None):
            return f"it moves on {name}"
        return ""


def _broadcast_plan(scene: _Scene, group: str, topic: str) -> GroupPlan:
    feeds = scene.planner.routes.feeds[scene.planner.routes.topics[topic]]
    queues = tuple(
        QueuePlan(queue, tuple((one, None) for one in owning), None, None, REFUSE, None, False, BROADCAST_REASON)
        for queue, owning in feeds.items() if any(one.topic == topic for one in owning)
    )  # fmt: skip
    return GroupPlan(group, "broadcast", None, topic, queues)


async def _places(scene: _Scene, place: Place) -> dict[MessageQueue, int]:
    chosen = [
        queue
        for queues in scene.planner.routes.feeds.values()
        for queue in queues
        if place.topic in (None, queue.topic) and place.broker in (None, queue.broker_name) and place.queue_id in (None, queue.queue_id)
    ]
    if not chosen:
        raise Missing("no queue of the destination is meant")
    offsets = {}
    for queue in chosen:
        if place.timestamp_ms is not None:
            offsets[queue] = await scene.written.ask(scene.written.connector.offset_at(queue, place.timestamp_ms))
            continue
        bounds = await scene.written.ask(scene.written.connector.offset_range(queue))
        offset = place.offset if place.offset is not None else bounds.min_offset
        if not bounds.min_offset <= offset <= bounds.max_offset:
            raise InvalidInput(f"{queue} holds {bounds.min_offset} to {bounds.max_offset}, not {offset}")
        offsets[queue] = offset
    return offsets


def _outcome(plans: Sequence[GroupPlan], written: Sequence[Written]) -> dict[str, Any]:
    results = {one.group: one for one in written}
    groups = []
    moved = failed = 0
    for plan in plans:
        row = plan.to_json()
        result = results.get(plan.group)
        row["failed"] = []
        for queue in plan.moves:
            if result is not None and queue in result.offsets:
                moved += 1
            else:
                failed += 1
                reason = "" if result is None else result.refused.get(queue) or result.refused.get(None, "")
                row["failed"].append(f"{queue}: {reason}")
        groups.append(row)
    refused = sum(one.action == REFUSE for plan in plans for one in plan.queues)
    return {"groups": groups, "moved": moved, "refused": refused, "failed": failed}


def _offsets_json(offsets: Mapping[MessageQueue, int]) -> dict[str, int]:
    return {f"{queue.broker_name}/{queue.queue_id}": offset for queue, offset in sorted(offsets.items())}
