"""What a move would meet: blockers first, what each group would see again, what has not been copied yet. Only reads.

The side that is *left* is the one whose progress counts; the *target* is where consumers go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from replicator.coordinator.connections import Link
from replicator.coordinator.failover.origins import OriginPlan, ReturnPlan, is_second_group
from replicator.coordinator.failover.restoring import Lost
from replicator.coordinator.progress.planning import REFUSE, Asked, GroupPlan, seen_again_in
from replicator.coordinator.progress.scene import Scene
from replicator.coordinator.stops import STOPPED
from replicator.core.errors import ReplicatorError
from replicator.core.failover import FAILBACK, Options
from replicator.core.subscriptions import Carried
from replicator.store.failover_rows import Sighting
from replicator.store.port import Assignment

BLOCKS, WARNS = "blocks", "warns"
SYNC_AGE_INTERVALS_MAX = 3
"""Progress read longer ago than so many intervals is said to be old."""


@dataclass(frozen=True, slots=True)
class Move:
    """``left`` is a failover's failed cluster; a failback leaves the cluster that consumers had been moved to."""

    task: str
    kind: str
    failed: str
    destination: str
    options: Options

    @property
    def left(self) -> str:
        return self.destination if self.kind == FAILBACK else self.failed

    @property
    def target(self) -> str:
        return self.failed if self.kind == FAILBACK else self.destination


@dataclass(frozen=True, slots=True)
class Blocker:
    """``blocks``: the move is refused unless forced. ``warns``: it costs something, and says what."""

    name: str
    severity: str
    text: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Uncopied:
    """Messages of the side that is left that are not on the target. None: not known."""

    messages: int | None
    age_seconds: float | None
    as_of: str
    queues: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Assessment:
    move: Move
    blockers: list[Blocker]
    chosen: list[tuple[Asked, list[GroupPlan]]]
    uncopied: Uncopied
    origins: list[OriginPlan] = field(default_factory=list)
    returns: list[ReturnPlan] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    steps: Sequence[str] = ()

    @property
    def plans(self) -> list[GroupPlan]:
        return [plan for _, plans in self.chosen for plan in plans]

    @property
    def blocking(self) -> list[Blocker]:
        return [one for one in self.blockers if one.severity == BLOCKS]

    def to_json(self) -> dict[str, Any]:
        move = self.move
        return {
            "kind": move.kind, "task": move.task, "failed": move.failed, "destination": move.destination,
            "from": move.left, "to": move.target,
            "blockers": [{**asdict(one), "groups": list(one.groups)} for one in self.blockers],
            "steps": list(self.steps),
            "groups": [plan.to_json() for plan in self.plans],
            "seen_again": seen_again_in(self.plans),
            "not_copied": {**asdict(self.uncopied), "queues": list(self.uncopied.queues)},
            "by_origin": [one.to_json() for one in self.origins],
            "returning": [one.to_json() for one in self.returns],
            "lost": {"messages": sum(one.count for one in self.lost), "queues": [one.to_json() for one in self.lost]},
        }  # fmt: skip


async def uncopied(assignments: Sequence[Assignment], source: Link | None, left: str, target: str, topic: str | None) -> Uncopied:
    """By the source itself where it answers, else by what the workers saw last."""
    flow = [one for one in assignments if (one.source, one.destination) == (left, target) and topic in (None, one.source_queue.topic)]
    counts: list[tuple[Assignment, int | None]] = []
    for one in flow:
        counts.append((one, one.lag_messages if source is None else await _behind(one, source)))
    known = [count for _, count in counts if count is not None]
    as_of = datetime.now(UTC) if source is not None else min((one.observed_at for one in flow if one.observed_at), default=None)
    ages = [one.lag_seconds for one in flow if one.lag_seconds is not None]
    rows = tuple(
        {"topic": one.source_queue.topic, "broker": one.source_queue.broker_name, "queue": one.source_queue.queue_id,
         "messages": count, "state": one.state}
        for one, count in counts if count != 0
    )  # fmt: skip
    return Uncopied(
        sum(known) if len(known) == len(counts) and flow else None, max(ages, default=None), as_of.isoformat() if as_of else "", rows
    )


async def _behind(one: Assignment, source: Link) -> int | None:
    try:
        bounds = await source.ask(source.connector.offset_range(one.source_queue))
    except ReplicatorError:
        return one.lag_messages
    return max(0, bounds.max_offset - max(one.examined_through, bounds.min_offset))


def find_blockers(
    move: Move,
    scene: Scene,
    chosen: Sequence[tuple[Asked, list[GroupPlan]]],
    waiting: Uncopied,
    sightings: Mapping[str, Sighting],
    flow: Sequence[Assignment],
    retries: Mapping[str, int],
) -> list[Blocker]:
    """``retries``: {group: messages it failed on that wait on the side left}, as far as that side answers."""
    found = [*_members(move, scene, chosen), *_refused(move, chosen), *_flow(move, flow)]
    sighting = sightings.get(move.left)
    if scene.source is None:
        found.append(_last_read(move, scene, sighting))
    found += _pending(move, sighting)
    if retries and not scene.task.retry:
        text = f"{sum(retries.values())} messages wait on {move.left} for a retry, and stay there without retry: true"
        found.append(Blocker("pending-retry", WARNS, text, tuple(sorted(retries))))
    if waiting.messages is None:
        found.append(Blocker("not-copied", WARNS, f"how many messages of {move.left} are not on {move.target} is not known"))
    elif waiting.messages:
        age = f", the oldest {waiting.age_seconds:.0f} s old" if waiting.age_seconds is not None else ""
        found.append(Blocker("not-copied", WARNS, f"{waiting.messages} messages of {move.left} are not on {move.target} yet{age}"))
    return found


def find_losses(move: Move, lost: Sequence[Lost], doubtful: Sequence[Assignment], relays: Sequence[str]) -> list[Blocker]:
    """What a failback has to say of messages that the cluster it leads to has lost. ``doubtful``: queues of it that nobody has looked at
    since. ``relays``: tasks that would carry on what comes back."""
    found = []
    wanted = move.options.restore
    if doubtful:
        text = f"what {move.target} has lost is not known: {len(doubtful)} of its queues are {doubtful[0].state}"
        if doubtful[0].state == STOPPED:
            text += f"; resume {move.task} --accept-loss goes on where they differ"
        found.append(Blocker("loss-not-known", BLOCKS if wanted else WARNS, text))
    count = sum(one.count for one in lost)
    if count and wanted:
        text = f"{count} messages go back to {move.target} behind newer ones; a group that processed them there before sees them again"
        found.append(Blocker("restored", WARNS, text))
    elif count:
        text = f"{count} messages that {move.target} has lost are on {move.left} only: who goes back does not get them without --restore"
        found.append(Blocker("lost-messages", WARNS, text))
    if count and wanted and relays:
        text = f"what {move.target} lost would be carried on again, or come again from elsewhere: {', '.join(relays)} relay"
        found.append(Blocker("restored-is-relayed", BLOCKS, text))
    return found


def _members(move: Move, scene: Scene, chosen: Sequence[tuple[Asked, list[GroupPlan]]]) -> list[Blocker]:
    """At a failback, groups that consume their own side's messages go on consuming there."""
    found = []
    live = tuple(
        asked.group for asked, plans in chosen
        if asked.members_owning
        and (move.kind != FAILBACK or is_second_group(asked.group, scene.task) or any(p.carried is Carried.SYNCED for p in plans))
    )  # fmt: skip
    if live:
        found.append(Blocker("members-on-the-side-left", BLOCKS, f"{len(live)} groups still consume on {move.left}: stop them", live))
    active = tuple(asked.group for asked, _ in chosen if asked.active)
    if active:
        text = f"{len(active)} groups are active on {move.target}, and a running group is not set: stop them there"
        found.append(Blocker("active-on-the-target", BLOCKS, text, active))
    return found


def _refused(move: Move, chosen: Sequence[tuple[Asked, list[GroupPlan]]]) -> list[Blocker]:
    reasons: dict[str, list[str]] = {}
    inexact = []
    for asked, plans in chosen:
        queues = [one for plan in plans for one in plan.queues]
        if not asked.active:
            for one in queues:
                if one.action == REFUSE:
                    reasons.setdefault(one.reason, []).append(asked.group)
        if any(not one.exact and one.action != REFUSE for one in queues):
            inexact.append(asked.group)
    found = [
        Blocker("refused", BLOCKS, f"{len(set(groups))} groups cannot be moved: {reason}", tuple(sorted(set(groups))))
        for reason, groups in sorted(reasons.items())
    ]
    if inexact:
        text = f"for {len(inexact)} groups the number seen again is an upper bound"
        found.append(Blocker("inexact", WARNS, text, tuple(inexact)))
    return found


def _flow(move: Move, flow: Sequence[Assignment]) -> list[Blocker]:
    stopped = [one for one in flow if one.state in ("stopped-history-change", "blocked", "failed")]
    if not stopped:
        return []
    text = f"{len(stopped)} queues from {move.left} to {move.target} do not go on: {stopped[0].state}: {stopped[0].error}"
    return [Blocker("stopped-queues", WARNS, text)]


def _last_read(move: Move, scene: Scene, sighting: Sighting | None) -> Blocker:
    interval = scene.task.progress.interval_seconds
    if sighting is None:
        return Blocker("progress-age", BLOCKS, f"{move.left} cannot be reached, and its progress was never read")
    age = (datetime.now(UTC) - sighting.at).total_seconds()
    text = (
        f"{move.left} cannot be reached: its progress is as last read {age:.0f} s ago ({sighting.at.isoformat(timespec='seconds')}), "
        f"every {interval} s while it answered; what groups processed after that is seen again"
    )
    return Blocker("progress-age", WARNS, text)


def _pending(move: Move, sighting: Sighting | None) -> list[Blocker]:
    words = {
        "delayed": "delayed messages, messages in retry among them, wait for their time", "timed": "timed messages wait for their time",
        "half": "transactions are not decided",
    }  # fmt: skip
    counts: Mapping[str, int] = sighting.info.get("pending", {}) if sighting is not None else {}
    return [
        Blocker(f"pending-{kind}", WARNS, f"{count} {words.get(kind, kind)} on {move.left} (at most, all topics), and are copied after it")
        for kind, count in counts.items() if count
    ]  # fmt: skip
