"""What people ask of the progress of groups: ``groups list``, ``plan``, ``sync`` and ``reset``. See ``coordinator.service``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.coordinator.connections import Connections
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.coordinator.progress.planning import REFUSE, Asked, GroupPlan, QueuePlan, seen_again_in
from replicator.coordinator.progress.retries import waiting_counts
from replicator.coordinator.progress.scene import Scene, look
from replicator.coordinator.progress.task_sync import TaskSync
from replicator.coordinator.progress.writing import Wish, Written
from replicator.core.errors import InvalidInput, Missing, Unsafe
from replicator.core.ownership import settle
from replicator.core.record import MessageQueue
from replicator.core.subscriptions import Carried
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

    async def plan(self, ask: Ask, *, back: bool = False, running: bool = False) -> dict[str, Any]:
        scene = await self._look(ask)
        chosen = await scene.plans(back=back, running=running)
        plans = [plan for _, found in chosen for plan in found]
        plans += [_broadcast_plan(scene, group, topic) for group, topic in scene.broadcasts]
        return {
            "groups": [plan.to_json() for plan in plans],
            "seen_again": seen_again_in(plans),
            "waiting_for_retry": None if scene.source is None else await waiting_counts(scene.source, scene.groups),
            "retries_carried": scene.planner.direction.task.retry,
        }

    async def sync(self, ask: Ask, *, seen_again: int | None, back: bool, running: bool = False) -> dict[str, Any]:
        """``seen_again``: what the preview said; more than that is refused. ``back``: also where that sets a group back. ``running``:
        also where it is active, if its broker can set it exactly."""
        await self._require_lease()
        sync = self._loop.of(ask.task)
        async with sync.lock:
            await sync.load()
            scene = await self._look(ask)
            chosen = await scene.plans(back=back, running=running)
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
                written = await sync.write(scene.task, ask.source, scene.source, scene.written, moving, why="by hand")
                text = f"progress of {len(moving)} groups was carried from {ask.source} to {ask.destination}"
                await self._store.record_event(ask.task, "groups-synced", text, {"groups": [asked.group for asked, _ in moving]})
        return {**_outcome(plans, written), "seen_again": count}

    async def _settle_splits(self, scene: Scene, groups: Sequence[Asked]) -> None:
        """Of groups that need no write: a person has said whose progress counts all the same."""
        settled = {}
        for asked in groups:
            if asked.known.ownership.split and not await scene.active(asked):
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
            active = await scene.active(asked)
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
        self, sync: TaskSync, scene: Scene, asked: Asked, offsets: Mapping[MessageQueue, int]
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

    async def _look(self, ask: Ask) -> Scene:
        return await look(self._store, self._connections, self._loop.of(ask.task), (ask.source, ask.destination), ask.group)


def _broadcast_plan(scene: Scene, group: str, topic: str) -> GroupPlan:
    feeds = scene.planner.routes.feeds[scene.planner.routes.topics[topic]]
    queues = tuple(
        QueuePlan(queue, tuple((one, None) for one in owning), None, None, REFUSE, None, False, BROADCAST_REASON)
        for queue, owning in feeds.items() if any(one.topic == topic for one in owning)
    )  # fmt: skip
    return GroupPlan(group, "broadcast", None, topic, queues)


async def _places(scene: Scene, place: Place) -> dict[MessageQueue, int]:
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
