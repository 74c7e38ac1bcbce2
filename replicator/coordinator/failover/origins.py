"""Groups that consume what was born on their own cluster: how another cluster's consumers take a failed one's messages over.

Two ways, both prepared: the group of the surviving side changes its filter and goes back as far as the other's progress needs, or a
second group consumes nothing but the failed side's messages, from exactly where that side's group stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replicator.coordinator.progress.knowledge import Known
from replicator.coordinator.progress.planning import Asked, GroupPlan, Planner
from replicator.coordinator.progress.scene import Scene
from replicator.core.record import MessageQueue
from replicator.core.subscriptions import TAG, Carried, Subscription
from replicator.core.task import ReplicationTask

ORIGIN_TEMPLATE = "{origin}"


@dataclass(frozen=True, slots=True)
class OriginPlan:
    """``offsets``: of the second group. ``widened``: where the group itself would start with the wider filter, and, as a bound, how
    many messages it would see again."""

    group: str
    topic: str
    second_group: str
    second_expression: str
    wider_expression: str
    offsets: Mapping[MessageQueue, int]
    widened: Mapping[MessageQueue, tuple[int, int]]
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "group": self.group, "topic": self.topic, "problem": self.problem,
            "second_group": {
                "group": self.second_group, "expression": self.second_expression, "expression_type": "SQL92",
                "queues": [{"broker": q.broker_name, "queue": q.queue_id, "to": to} for q, to in sorted(self.offsets.items())],
            },
            "wider_filter": {
                "group": self.group, "expression": self.wider_expression, "expression_type": "SQL92",
                "queues": [
                    {"broker": q.broker_name, "queue": q.queue_id, "to": to, "seen_again_max": count}
                    for q, (to, count) in sorted(self.widened.items())
                ],
            },
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReturnPlan:
    """Where a group goes on at home: behind what its second group processed while home was away."""

    group: str
    second_group: str
    plan: GroupPlan

    def to_json(self) -> dict[str, Any]:
        return {"group": self.group, "second_group": self.second_group, **self.plan.to_json()}


def second_group_name(group: str, left: str) -> str:
    return f"{group}-of-{left}"


def origin_key(task: ReplicationTask) -> str | None:
    """The tag that names the origin on every copy; None where no rule sets one always."""
    for rule in task.tags:
        if rule.value == ORIGIN_TEMPLATE and not (rule.when_topic or rule.when_property_name):
            return rule.key
    return None


def expressions(task: ReplicationTask, left: str, target: str, consumed: Subscription | None) -> tuple[str, str] | None:
    """(of a second group, the wider one), for consumers on ``target``; None without an origin tag.

    ``origin <> 'x'`` alone is not true for a message without the property, which is what one born here is: hence IS NULL."""
    key = origin_key(task)
    if key is None:
        return None
    others = sorted(set(task.clusters) - {left, target})
    wider = " AND ".join(f"{key} <> '{name}'" for name in others)
    wide = f"{key} IS NULL OR {f'({wider})' if len(others) > 1 else wider}" if others else f"{key} IS NULL OR {key} = '{left}'"
    second = f"{key} = '{left}'"
    tags = _tags(consumed)
    if tags:
        # A consumer has one expression: its tags become a part of the SQL one.
        listed = ", ".join(f"'{tag}'" for tag in tags)
        return f"{second} AND TAGS IN ({listed})", f"({wide}) AND TAGS IN ({listed})"
    return second, wide


def _tags(consumed: Subscription | None) -> list[str]:
    if consumed is None or consumed.kind != TAG or consumed.expression.strip() in ("", "*"):
        return []
    return [tag.strip() for tag in consumed.expression.split("||") if tag.strip()]


async def origin_plans(scene: Scene, topic: str | None = None) -> list[OriginPlan]:
    """Of every group that is local because of where messages were born. Two-way tasks only: elsewhere all copies come from one side."""
    direction = scene.planner.direction
    if not direction.is_two_way:
        return []
    copies = scene.sync.planner(direction, scene.assignments, scene.source, scene.written, copies_only=True)
    found = []
    for group in scene.groups:
        asked = scene.asked(group)
        if is_second_group(group, direction.task):
            continue
        for name in sorted({queue.topic for queue in asked.offsets} & scene.planner.routes.topics.keys()):
            means = scene.planner.meaning_of(asked, name)
            if topic in (None, name) and means.carried is Carried.LOCAL and not _is_broadcast(asked, direction.owning, name):
                found.append(await _plan(scene, copies, asked, name))
    return found


def is_second_group(group: str, task: ReplicationTask) -> bool:
    return any(group.endswith(second_group_name("", cluster)) for cluster in task.clusters)


async def return_plans(scene: Scene, topic: str | None = None) -> list[ReturnPlan]:
    """Of every group whose second group has progress on the side that is left."""
    direction = scene.planner.direction
    if not direction.is_two_way:
        return []
    trusted = scene.sync.planner(direction, scene.assignments, scene.source, scene.written, trusted=True)
    found = []
    for second in scene.groups:
        group = second.removesuffix(second_group_name("", direction.written))
        offsets = scene.seen.of(direction.owning, second)
        if group == second or not offsets:
            continue
        home = scene.asked(group)
        asked = Asked(group, Known(kinds=dict(home.known.kinds)), offsets, home.current)
        if any(home.current):
            asked.active = await scene.active(home)
        for name in sorted({queue.topic for queue in offsets} & trusted.routes.topics.keys()):
            if topic in (None, name):
                found.append(ReturnPlan(group, second, await trusted.plan(asked, name)))
    return found


async def _plan(scene: Scene, copies: Planner, asked: Asked, topic: str) -> OriginPlan:
    direction = scene.planner.direction
    second = second_group_name(asked.group, direction.owning)
    consumed = asked.known.subscriptions.get((direction.owning, topic))
    texts = expressions(direction.task, direction.owning, direction.written, consumed)
    there = scene.planner.routes.topics[topic]
    # Not what is known of the group itself: what was written for that proves nothing for this one.
    as_second = Asked(second, Known(kinds=dict(asked.known.kinds)), asked.offsets, scene.seen.of(direction.written, second))
    plan = await copies.plan(as_second, topic)
    problem = _problem(plan)
    if texts is None:
        problem = "the task has no tag that names the origin of every message, so no filter can tell them apart"
    second_text, wider_text = texts or ("", "")
    offsets = {one.queue: one.to for one in plan.queues if one.to is not None}
    widened = {
        queue: (min(to, current), max(0, current - to))
        for queue, to in offsets.items() if (current := asked.current.get(queue)) is not None
    }  # fmt: skip
    return OriginPlan(asked.group, there, second, second_text, wider_text, offsets, widened, problem)


def _problem(plan: GroupPlan) -> str:
    return next((one.reason for one in plan.queues if one.to is None), "")


def _is_broadcast(asked: Asked, cluster: str, topic: str) -> bool:
    one = asked.known.subscriptions.get((cluster, topic))
    return one is not None and one.is_broadcast
