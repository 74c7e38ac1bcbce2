"""What each step of a move does. Every one is idempotent: begun again after a kill it finds what it did before.

A step returns what it did, in a line for people, or raises ``Waits`` for what has to happen elsewhere first. What a step is about to
change is noted in the course before it changes it, so that an abort knows what to put back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.failover.assessing import Move
from replicator.coordinator.failover.origins import OriginPlan, ReturnPlan, origin_plans, return_plans
from replicator.coordinator.failover.restoring import find_lost, restore, unsettled
from replicator.coordinator.failover.reverse import Reverse
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.coordinator.progress.planning import REFUSE, Asked, GroupPlan, seen_again_in
from replicator.coordinator.progress.scene import Scene, look
from replicator.coordinator.progress.writing import Wish, Written, keeper, make_group, set_consumable
from replicator.core.connector import ClosesTopics
from replicator.core.errors import OUT_OF_REACH, NotConnected, ReplicatorError
from replicator.core.failover import CATCH_UP, FAILBACK, FENCE, MARK, OPEN, OWNER, PROGRESS, RESTORE, REVERSE
from replicator.core.groups import GroupSettings
from replicator.core.record import MessageQueue
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Store

PRODUCERS_NOTICE_SECONDS = 31.0
"""Official producers look at the route every 30 s, and brokers take messages for a closed topic until then."""
NAMES_SHOWN_MAX = 5

Note = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Saves notes of the step that is under way."""


class Waits(Exception):
    """Something outside has to happen first; the step is begun again a little later."""


@dataclass(slots=True)
class Steps:
    """Of one move. ``why``: what is stored as the reason of its writes, unique to it."""

    store: Store
    connections: Connections
    atlas: Atlas
    loop: ProgressLoop
    reverse: Reverse
    move: Move
    why: str
    notes: Mapping[str, Mapping[str, Any]]
    """{step: its notes} of this move, and under ``failover`` those of the fence that the failover before it put up."""

    async def carry_out(self, name: str, note: Note) -> str:
        done: dict[str, Callable[[Note], Awaitable[str]]] = {
            OPEN: self._open, REVERSE: self._reverse, RESTORE: self._restore, FENCE: self._fence, CATCH_UP: self._catch_up,
            MARK: self._mark, PROGRESS: self._progress, OWNER: self._owner,
        }  # fmt: skip
        return await done.get(name, self._close)(note)

    async def undo(self, name: str) -> str:
        if name == FENCE:
            return await self._lift(self.notes.get(FENCE, {}), self.move.left)
        if name == REVERSE:
            return await self.reverse.remove(await self._task(), self.move.left, self.move.target)
        return await self._own(self.move.left)

    # the side that is left

    async def _fence(self, note: Note) -> str:
        """Groups first: what they process after this is nothing that anybody would see again."""
        scene = await self._look()
        link = scene.source
        if link is None:
            return f"{self.move.left} cannot be reached: nothing to close there"
        groups = await self._consumable(link, scene)
        topics = await self._topics_to_close(link)
        text = f"groups closed: {len(groups)}, topics closed: {len(topics)}"
        if self.move.options.rehearse:
            return f"would be: {text}"
        before = self.notes.get(FENCE, {})
        await note({
            "groups": sorted({*before.get("groups", ()), *groups}), "topics": sorted({*before.get("topics", ()), *topics}),
            "at": before.get("at") or datetime.now(UTC).isoformat(),
        })  # fmt: skip
        await set_consumable(link, groups, False)
        for topic in topics:
            if isinstance(link.connector, ClosesTopics):
                await link.ask(link.connector.set_topic_writable(topic, False))
        return text

    async def _consumable(self, link: Link, scene: Scene) -> list[str]:
        settings = await link.ask(keeper(link).group_settings())
        return [group for group in scene.groups if group in settings and settings[group].consumable]

    async def _topics_to_close(self, link: Link) -> list[str]:
        """Those that no flow writes to: a closed topic would keep copies out as well. In a failback all of them, for its short time."""
        if not isinstance(link.connector, ClosesTopics):
            return []
        assignments = [one for one in await self.store.assignments() if one.task]
        left = self.move.left
        carried = {one.source_queue.topic for one in assignments if one.source == left and self._is_meant(one.source_queue.topic)}
        if self.move.kind == FAILBACK:
            carried &= {one.source_queue.topic for one in assignments if (one.source, one.destination) == (left, self.move.target)}
        else:
            carried -= {one.destination_queue.topic for one in assignments if one.destination == left}
        closed = []
        for topic in sorted(carried):
            there = await link.ask(link.connector.describe_topic(topic))
            if there is not None and there.writable:
                closed.append(topic)
        return closed

    async def _lift(self, fence: Mapping[str, Any], cluster: str, *, groups: bool = True, topics: bool = True) -> str:
        """Opens what a fence closed, and nothing else."""
        if not fence:
            return "nothing was closed"
        link = await self._link(cluster)
        opened = {"groups": list(fence.get("groups", ())) if groups else [], "topics": list(fence.get("topics", ())) if topics else []}
        await set_consumable(link, opened["groups"], True)
        for topic in opened["topics"]:
            if isinstance(link.connector, ClosesTopics):
                await link.ask(link.connector.set_topic_writable(topic, True))
        return f"groups opened: {len(opened['groups'])}, topics opened: {len(opened['topics'])}"

    async def _open(self, note: Note) -> str:
        """Copies have to get in before producers come back; the groups stay closed until their offsets are right."""
        if self.move.options.rehearse:
            return f"would be: topics opened: {len(self.notes.get('failover', {}).get('topics', ()))}"
        return await self._lift(self.notes.get("failover", {}), self.move.target, groups=False)

    async def _close(self, note: Note) -> str:
        """The end of a failback: everything is open again, and a reverse flow that nobody feeds any more is gone."""
        if self.move.options.rehearse:
            return "would open what is closed"
        there = await self._lift(self.notes.get("failover", {}), self.move.target)
        here = await self._lift(self.notes.get(FENCE, {}), self.move.left)
        text = f"{self.move.target}: {there}; {self.move.left}: {here}"
        task = await self._task()
        if task.mode == "one-way":
            name = self.reverse.name_of(task, self.move.left, self.move.target)
            if self.notes.get(FENCE):
                text += f"; {await self.reverse.remove(task, self.move.left, self.move.target)}"
            else:
                text += f"; task {name} still carries what producers send to {self.move.left}: delete it when they have stopped"
        return text

    # what has to be copied first

    async def _reverse(self, note: Note) -> str:
        if self.move.options.rehearse:
            return "would create the reverse flow"
        return await self.reverse.put(await self._task(), self.move.left, self.move.target)

    async def _restore(self, note: Note) -> str:
        """What the target has lost is on its way back; ``catch-up`` waits until it is there."""
        left, target = self.move.left, self.move.target
        doubtful = unsettled(await self.store.assignments(task=self.move.task), target, left, self.move.options.topic)
        if doubtful:
            raise Waits(f"what {target} has lost is not known yet: {doubtful[0].source_queue} is {doubtful[0].state}")
        if not self.move.options.rehearse:
            await self._flow(left, target)
        lost = await find_lost(self.store, self.connections, self.atlas, self.move.task, target, left, self.move.options.topic)
        text = f"{sum(one.count for one in lost)} messages of {len(lost)} queues that {target} has lost"
        if self.move.options.rehearse:
            return f"would send back {text}"
        waiting = next((one for one in lost if not one.is_examined), None)
        if waiting is not None:
            raise Waits(f"the reverse flow has not read {waiting.queue.destination_queue} of {left} up to there yet")
        for one in lost:
            await restore(self.store, one, self.why)
        return f"{text} go back to it, behind what it has taken since" if lost else f"{target} has lost nothing that is not back"

    async def _catch_up(self, note: Note) -> str:
        """Until everything that stood on the side left when this step began is on the target, or there is no asking."""
        left, target = self.move.left, self.move.target
        try:
            link = await self._link(left)
        except OUT_OF_REACH as error:
            if self.move.kind == FAILBACK:
                raise
            return f"{left} cannot be reached, what is not copied stays there: {error.message}"
        await self._producers_have_noticed()
        flow = await self._flow(left, target)
        ends = await self._ends(link, flow, note)
        behind = [one for one in flow if one.examined_through < ends.get(str(one.assignment_id), 0)]
        missing = sum(ends[str(one.assignment_id)] - one.examined_through for one in behind)
        if not missing:
            return f"everything of {left} up to {sum(ends.values())} offsets over {len(flow)} queues is on {target}"
        stopped = next((one for one in behind if one.state not in ("running", "starting", "waiting-for-worker")), None)
        text = f"{missing} messages of {left} are not on {target} yet"
        if stopped is not None:
            text += f"; {stopped.source_queue} is {stopped.state}{': ' if stopped.error else ''}{stopped.error}"
        if self.move.options.rehearse or (stopped is not None and self.move.options.force):
            return text
        raise Waits(text)

    async def _producers_have_noticed(self) -> None:
        fence = self.notes.get(FENCE, {})
        if fence.get("topics"):
            since = (datetime.now(UTC) - datetime.fromisoformat(fence["at"])).total_seconds()
            if since < PRODUCERS_NOTICE_SECONDS:
                raise Waits(f"producers notice the closed topics within {PRODUCERS_NOTICE_SECONDS - since:.0f} s")

    async def _flow(self, left: str, target: str) -> list[Assignment]:
        """Every queue of the flow that carries messages to the target, complete."""
        task = await self._task()
        owned = {self.move.task, self.reverse.name_of(task, left, target)}
        found = [
            one for one in await self.store.assignments()
            if one.task in owned and (one.source, one.destination) == (left, target) and self._is_meant(one.source_queue.topic)
        ]
        if (left, target) not in task.flows and not self.move.options.rehearse:
            missing = await self.reverse.missing(task, left, target, {one.source_queue.topic for one in found})
            if missing:
                raise Waits(f"the reverse flow of {', '.join(missing[:NAMES_SHOWN_MAX])} has not begun yet")
        return found

    async def _ends(self, link: Link, flow: Sequence[Assignment], note: Note) -> dict[str, int]:
        """As of the first time this step got here: with producers going on it would never end otherwise."""
        ends: dict[str, int] = dict(self.notes.get(CATCH_UP, {}).get("ends", {}))
        unknown = [one for one in flow if str(one.assignment_id) not in ends]
        for one in unknown:
            ends[str(one.assignment_id)] = (await link.ask(link.connector.offset_range(one.source_queue))).max_offset
        if unknown:
            await note({"ends": ends})
        return ends

    # the target

    async def _mark(self, note: Note) -> str:
        """Where the target's queues end now: what is born there from here on is what a reverse flow has to carry back."""
        task = await self._task()
        link = await self._link(self.move.target)
        group = self.reverse.mark_of(task, self.move.left, self.move.target)
        direction = self.move.left, self.move.target
        flow = [one for one in await self.store.assignments(task=task.name) if (one.source, one.destination) == direction]
        queues = sorted({one.destination_queue for one in flow if self._is_meant(one.source_queue.topic)})
        if self.move.options.rehearse:
            return f"would mark the ends of {len(queues)} queues"
        marked = set()
        if self.notes.get(MARK):
            # Begun before: a mark set again now would leave out what was born there in between.
            marked = {queue for queue in queues if await link.ask(link.connector.consumer_offset(group, queue)) is not None}
        await note({"group": group})
        await make_group(link, GroupSettings(group))
        ends = {queue: (await link.ask(link.connector.offset_range(queue))).max_offset for queue in queues if queue not in marked}
        written = await link.ask(keeper(link).write_offsets(group, ends, running=False)) if ends else []
        refused = [one for one in written if one.refused]
        if refused:
            raise Waits(f"group {group} could not be set at {refused[0].queue}: {refused[0].refused}")
        return f"the ends of {len(ends)} queues of {self.move.target} are marked by group {group}"

    async def _progress(self, note: Note) -> str:
        sync = self.loop.of(self.move.task)
        async with sync.lock:
            await sync.load()
            scene = await self._look()
            chosen = await scene.plans(back=self.move.kind == FAILBACK, topic=self.move.options.topic)
            is_back = self.move.kind == FAILBACK
            origins = [] if is_back else await origin_plans(scene, self.move.options.topic)
            returns = await return_plans(scene, self.move.options.topic) if is_back else []
            plans = [plan for _, found in chosen for plan in found]
            moving = await self._moving(chosen)
            if self.move.options.rehearse:
                prepared = f", and prepare {len(origins)} groups by origin" if origins else ""
                return f"would move {len(moving)} groups, {seen_again_in(plans)} messages seen again{prepared}"
            active = [asked.group for asked, _ in moving if asked.active]
            if active and not self.move.options.force:
                raise Waits(f"{_names(active)} active on {self.move.target}: stop the consumers there")
            able = [one for one in moving if not one[0].active]
            written = await sync.write(scene.task, self.move.left, scene.source, scene.written, able, why=self.why)
            written += await self._write_second_groups(scene, origins)
            written += await self._write_returns(scene, returns)
        return self._told(written, [*active, *_refused_in(chosen)], seen_again_in(plans))

    def _told(self, written: Sequence[Written], left_out: Sequence[str], seen_again: int) -> str:
        failed = [one for one in written if one.refused]
        if failed:
            raise Waits(f"{_names([one.group for one in failed])} could not be set: {next(iter(failed[0].refused.values()))}")
        out = f"; left out: {_names(left_out)}" if left_out else ""
        return f"{len(written)} groups go on at {self.move.target}, {seen_again} messages are seen again{out}"

    async def _moving(self, chosen: Sequence[tuple[Asked, list[GroupPlan]]]) -> list[tuple[Asked, list[GroupPlan]]]:
        """Without those that this move has set before it was interrupted: their consumers may be back already."""
        writes = await self.store.group_writes(self.move.task, limit=max(1000, 4 * len(chosen)))
        complete = {
            one.group for one in writes
            if one.why == self.why and one.done and not any(queue.refused for queue in one.queues)
        }  # fmt: skip
        moving = [one for one in chosen if one[0].group not in complete]
        return [one for one in moving if one[0].active or any(plan.moves for plan in one[1])]

    async def _write_second_groups(self, scene: Scene, origins: Sequence[OriginPlan]) -> list[Written]:
        """Nobody consumes with them yet; where somebody does, they were prepared before, and are left alone."""
        link, wishes = scene.written, []
        offsets: dict[str, dict[MessageQueue, int]] = {}
        settings = await link.ask(keeper(link).group_settings())
        for one in origins:
            if not one.problem and one.offsets:
                offsets.setdefault(one.second_group, {}).update(one.offsets)
                base = settings.get(one.group)
                if one.second_group not in settings and base is not None:
                    await make_group(link, replace(base, group=one.second_group, consumable=True))
        for group, wanted in offsets.items():
            if not (await link.ask(keeper(link).group_members(group))).count:
                wishes.append(Wish(group, wanted, {}, self.why))
        return await scene.sync.carry_out(scene.task, self.move.left, scene.source, link, wishes)

    async def _write_returns(self, scene: Scene, returns: Sequence[ReturnPlan]) -> list[Written]:
        offsets: dict[str, dict[MessageQueue, int]] = {}
        current: dict[str, dict[MessageQueue, int]] = {}
        for one in returns:
            if one.plan.moves:
                offsets.setdefault(one.group, {}).update(one.plan.moves)
                known = {queue.queue: queue.current for queue in one.plan.queues if queue.current is not None}
                current.setdefault(one.group, {}).update(known)
        wishes = [Wish(group, wanted, current[group], self.why) for group, wanted in offsets.items()]
        return await scene.sync.carry_out(scene.task, self.move.left, scene.source, scene.written, wishes)

    async def _owner(self, note: Note) -> str:
        return f"would own: {self.move.target}" if self.move.options.rehearse else await self._own(self.move.target)

    async def _own(self, owner: str) -> str:
        """A person has said whose progress counts from here on."""
        sync = self.loop.of(self.move.task)
        async with sync.lock:
            await sync.load()
            scene = await self._look()
            changed = {}
            for group in scene.groups:
                sync.known[group, scene.pair] = changed[group, scene.pair] = scene.settled(group, owner)
            await sync.save(changed)
        return f"{owner} owns the progress of {len(changed)} groups"

    # common

    def _is_meant(self, topic: str) -> bool:
        return self.move.options.topic in (None, topic)

    async def _look(self) -> Scene:
        move = self.move
        away = move.kind != FAILBACK
        return await look(
            self.store, self.connections, self.loop.of(move.task), (move.left, move.target), move.options.group, source_may_be_away=away
        )

    async def _task(self) -> ReplicationTask:
        known = await declared.load(self.store)
        if self.move.task not in known.tasks:
            raise ReplicatorError(f"task {self.move.task} was deleted")
        return known.tasks[self.move.task]

    async def _link(self, name: str) -> Link:
        known = await declared.load(self.store)
        link = await self.connections.get(known.cluster(name), at_once=True)
        try:
            await link.ask(link.connector.list_topics())
        except NotConnected:
            await self.connections.lost(link)
            raise
        return link


def _refused_in(chosen: Sequence[tuple[Asked, list[GroupPlan]]]) -> list[str]:
    return [
        asked.group for asked, plans in chosen
        if not asked.active and any(one.action == REFUSE for plan in plans for one in plan.queues)
    ]  # fmt: skip


def _names(groups: Sequence[str]) -> str:
    shown = ", ".join(groups[:NAMES_SHOWN_MAX])
    more = f" and {len(groups) - NAMES_SHOWN_MAX} more" if len(groups) > NAMES_SHOWN_MAX else ""
    return f"{'groups' if len(groups) != 1 else 'group'} {shown}{more}"
