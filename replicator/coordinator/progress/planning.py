"""What would be written for a group: one judgement a queue, and nothing done.

The order of the checks is the order in which they are told: whose group it is, what its offsets mean, whether somebody is there
to be disturbed, and only then where it has to start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from replicator.coordinator.connections import Link
from replicator.coordinator.progress.knowledge import Known
from replicator.coordinator.progress.routes import Direction, Maps, Routes
from replicator.core.correspondence import OFFSET_MAX
from replicator.core.errors import ReplicatorError
from replicator.core.offset_map import ContradictoryMap
from replicator.core.progress import NoStart, Start, WrittenQueue
from replicator.core.record import MessageQueue, OffsetRange
from replicator.core.retry import is_waiting
from replicator.core.subscriptions import SYNCED, Carried, Meaning, Subscription, meaning

_EVERYTHING = Subscription()
"""What a group asks for of its own retry topic."""
_STOP_IT = "a broker of this version sets a running group by time only, never exactly: stop it first"
POP = "pop"
MOVE, KEEP, REFUSE = "move", "keep", "refuse"
Offsets = Mapping[MessageQueue, int]


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """``to``: where the group would start; None where that cannot be said. ``feeding``: owning queues with the group's offset."""

    queue: MessageQueue
    feeding: tuple[tuple[MessageQueue, int | None], ...]
    current: int | None
    to: int | None
    action: str
    seen_again: int | None
    exact: bool
    reason: str

    @property
    def goes_back(self) -> bool:
        return self.to is not None and self.current is not None and self.to < self.current


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One group in one topic of the owning side."""

    group: str
    kind: str
    owner: str | None
    topic: str
    queues: tuple[QueuePlan, ...]
    carried: Carried = Carried.SYNCED

    @property
    def moves(self) -> dict[MessageQueue, int]:
        return {one.queue: one.to for one in self.queues if one.action == MOVE and one.to is not None}

    def to_json(self) -> dict[str, Any]:
        rows = [row for one in self.queues for row in _rows(one)]
        return {"group": self.group, "kind": self.kind, "owner": self.owner, "topic": self.topic, "queues": rows}


@dataclass(slots=True)
class Asked:
    """What a plan of one group starts from."""

    group: str
    known: Known
    offsets: Offsets
    """On the owning side."""
    current: Offsets
    """On the written side."""
    active: str = ""
    """Why the written side may not be disturbed, or empty."""
    late: str = ""
    """Why the offsets may not be carried over now, or empty."""
    may_go_back: bool = False
    running: bool = False
    """A person says that it may be set although it is active, where that can be done exactly."""
    resets_exactly: Mapping[str, bool] = field(default_factory=dict)
    """{broker of the written side: whether it can set a running group}; asked only for an active one."""
    members_owning: int = 0
    """Who consumes on the owning side, where that was asked."""


@dataclass(slots=True)
class Planner:
    """For one direction, and short of life: bounds and maps are asked for once a queue, however many groups there are."""

    direction: Direction
    routes: Routes
    maps: Maps
    written: Link
    changed_properties: Collection[str] = ()
    copies_only: bool = False
    """For a group that consumes nothing but what came from the owning side: everything else holds no start, and its own filter is
    what makes that right."""
    trusted: bool = False
    """Whoever plans knows that the offsets mean what they say, whatever the subscriptions look like."""
    _queues: dict[MessageQueue, tuple[WrittenQueue, OffsetRange] | str] = field(default_factory=dict)

    def meaning_of(self, asked: Asked, topic: str) -> Meaning:
        """Of the group's offsets in ``topic`` of the owning side."""
        if self.copies_only or self.trusted:
            return SYNCED
        owning, written, known = self.direction.owning, self.direction.written, asked.known
        found = meaning(
            asked.group,
            self.direction.task.progress,
            is_two_way=self.direction.is_two_way,
            owning=_EVERYTHING if is_waiting(topic) else known.subscriptions.get((owning, topic)),
            written=_EVERYTHING if is_waiting(topic) else known.subscriptions.get((written, self.routes.topics[topic])),
            changed_properties=self.changed_properties,
        )
        disagreeing = sorted(known.disagreed & {owning, written})
        if found.carried is Carried.SYNCED and disagreeing:
            return Meaning(Carried.LOCAL, f"its members on {disagreeing[0]} subscribe differently")
        return found

    async def plan(self, asked: Asked, topic: str) -> GroupPlan:
        """For a group that is neither excluded nor one of the system's."""
        means = self.meaning_of(asked, topic)
        feeds = self.routes.feeds[self.routes.topics[topic]]
        queues = [
            await self._queue(asked, means, queue, owning) for queue, owning in feeds.items() if any(q.topic == topic for q in owning)
        ]
        ownership = asked.known.ownership
        kind = asked.known.kinds.get(self.direction.owning, "")
        return GroupPlan(asked.group, kind, "split" if ownership.split else ownership.owner, topic, tuple(queues), means.carried)

    async def _queue(self, asked: Asked, means: Meaning, queue: MessageQueue, owning: list[MessageQueue]) -> QueuePlan:
        feeding = tuple((one, asked.offsets.get(one)) for one in owning)
        current = asked.current.get(queue)
        is_retry = is_waiting(owning[0].topic)
        if is_retry:
            feeding = tuple(pair for pair in feeding if pair[1]) or feeding[:1]  # delay levels that were never used say nothing
        is_pop = asked.known.kinds.get(self.direction.owning) == POP
        bound = self.direction.task.progress.pop_bound if is_pop else 0
        start = await self._start(asked, queue, current, is_retry=is_retry, bound=bound)
        if is_pop and isinstance(start, Start):
            handed_out = sum(min(bound, offset or 0) for _, offset in feeding)
            start = replace(start, seen_again_max=start.seen_again_max + handed_out)
        to = start.offset if isinstance(start, Start) else None
        exact = isinstance(start, Start) and start.exact and not is_pop
        action, reason = _judge(asked, means, queue, start, current)
        if is_pop:
            reason += f"; it pops: its offset says what was handed out, so it goes back {bound} messages"
        seen_again = start.seen_again_max if isinstance(start, Start) else None
        return QueuePlan(queue, feeding, current, to, action, seen_again, exact, reason)

    async def _start(self, asked: Asked, queue: MessageQueue, current: int | None, *, is_retry: bool, bound: int) -> Start | NoStart:
        found = self._queues.get(queue)
        if found is None:
            found = self._queues[queue] = await self._look(queue)
        if isinstance(found, str):
            return NoStart(found)
        records, bounds = found
        proven = asked.known.proven(self.direction.written, queue, current)
        if not is_retry:
            offsets = {one: max(0, offset - bound) for one, offset in asked.offsets.items()} if bound else asked.offsets
            return records.start(bounds, offsets, passed_through=proven)
        # What the group itself took from its retry topic here was processed here: nobody else consumes it.
        start = records.start(bounds, asked.offsets, passed_through=max(proven, current or 0))
        if isinstance(start, Start):
            # Failed here, and carried to the owning side when that was its place: it may have been processed there.
            unknown = records.unknown_between(start.offset, bounds.max_offset)
            start = replace(start, seen_again_max=start.seen_again_max + unknown)
        return start

    async def _look(self, queue: MessageQueue) -> tuple[WrittenQueue, OffsetRange] | str:
        """Bounds after the maps: what was stored in between is taken for a record that nobody knows, never for the end."""
        direction = self.direction
        try:
            records = await self.maps.written_queue(
                direction.task.name, direction.written, queue, direction.owning, copies_only=self.copies_only
            )
            return records, await self.written.ask(self.written.connector.offset_range(queue))
        except ContradictoryMap as error:
            return f"the offset map contradicts itself: {error}"
        except ReplicatorError as error:
            return f"not known now: {error}"


def _judge(asked: Asked, means: Meaning, queue: MessageQueue, start: Start | NoStart, current: int | None) -> tuple[str, str]:
    """What to do with one queue, and why."""
    if means.carried is not Carried.SYNCED:
        return KEEP, f"local: {means.reason}" if means.carried is Carried.LOCAL else means.reason
    if isinstance(start, NoStart):
        return REFUSE, start.reason
    if asked.late:
        return REFUSE, asked.late
    can_reset = asked.resets_exactly.get(queue.broker_name, False)
    if asked.active and not (asked.running and can_reset):
        return REFUSE, f"{asked.active}; {'--running sets it all the same, exactly' if can_reset else _STOP_IT}"
    gone = f"; {start.gone} unprocessed messages have expired there" if start.gone else ""
    if current == start.offset:
        return KEEP, f"it stands there already: {start.held_by}{gone}"
    if current is not None and start.offset < current and not asked.may_go_back:
        return REFUSE, f"it stands at {current} there, and is not set back unless that is asked for: {start.held_by}{gone}"
    return MOVE, f"{start.held_by}{gone}"


def _rows(one: QueuePlan) -> list[dict[str, Any]]:
    """One for each owning queue. What is seen again is counted once, with the first of them."""
    rows = []
    for place, (owning, offset) in enumerate(one.feeding):
        shared = f"; counted with queue {one.feeding[0][0].queue_id} of {one.feeding[0][0].broker_name}" if place else ""
        rows.append({
            "source_broker": owning.broker_name,
            "source_queue": owning.queue_id,
            "from": offset,
            "destination_broker": one.queue.broker_name,
            "destination_queue": one.queue.queue_id,
            "to": one.to,
            "action": one.action,
            "seen_again": 0 if place and one.seen_again is not None else one.seen_again,
            "exact": one.exact,
            "reason": one.reason + shared,
        })  # fmt: skip
    return rows


def seen_again_in(plans: Collection[GroupPlan]) -> int:
    """Over everything that would be moved."""
    return min(OFFSET_MAX, sum(one.seen_again or 0 for plan in plans for one in plan.queues if one.action == MOVE))
