"""Moving consumers to another cluster and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from fastapi import APIRouter

from replicator.coordinator.api.answers import MoveObject, MovePlan, Moves, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Body, Text
from replicator.coordinator.api.roles import OPERATE, READ
from replicator.coordinator.failover.assessing import Move
from replicator.core.failover import Options

router = APIRouter(prefix="/tasks/{task}", tags=["failover"])


class Kind(StrEnum):
    FAILOVER = "failover"
    FAILBACK = "failback"


class MoveBody(Body):
    """``rehearse``: everything but what clients would notice. ``fence_source``: the side that is left stops serving the groups, and
    its topics stop taking messages. ``force``: in spite of blockers, without the groups they concern. ``restore``: at a failback, what
    the failed cluster has lost goes back to it."""

    failed: Text
    destination: Text
    topic: Text | None = None
    group: Text | None = None
    rehearse: bool = False
    fence_source: bool = False
    force: bool = False
    restore: bool = False

    def move(self, task: str, kind: Kind) -> Move:
        options = Options(self.rehearse, self.fence_source, self.force, self.topic, self.group, self.restore)
        return Move(task, kind.value, self.failed, self.destination, options)


@router.get("/{kind}/plan", dependencies=[READ], responses=answer(MovePlan))
async def plan(
    task: Text, kind: Kind, given: Given, failed: Text, destination: Text, topic: Text | None = None, group: Text | None = None,
    fence_source: bool = False, restore: bool = False,
) -> Any:  # fmt: skip
    move = Move(task, kind.value, failed, destination, Options(topic=topic, group=group, fence_source=fence_source, restore=restore))
    return await given.coordinator.failover_plan(move)


@router.post("/{kind}/run", dependencies=[OPERATE], responses=answer(MoveObject))
async def run(task: Text, kind: Kind, given: Given, body: MoveBody) -> Any:
    return await given.coordinator.failover_run(body.move(task, kind))


@router.get("/{kind}/status", dependencies=[READ], responses=answer(Moves))
async def status(task: Text, kind: Kind, given: Given) -> Any:
    return await given.coordinator.failover_status(task, kind.value)


@router.post("/{kind}/abort", dependencies=[OPERATE], responses=answer(MoveObject))
async def abort(task: Text, kind: Kind, given: Given) -> Any:
    return await given.coordinator.failover_abort(task, kind.value)
