"""Moving consumers to another cluster and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from replicator.coordinator.api.context import Given
from replicator.coordinator.failover.assessing import Move
from replicator.core.failover import Options

router = APIRouter(prefix="/tasks/{task}", tags=["failover"])


class Kind(StrEnum):
    FAILOVER = "failover"
    FAILBACK = "failback"


class MoveBody(BaseModel):
    """``rehearse``: everything but what clients would notice. ``fence_source``: the side that is left stops serving the groups, and
    its topics stop taking messages. ``force``: in spite of blockers, without the groups they concern."""

    model_config = ConfigDict(extra="forbid")
    failed: str
    destination: str
    topic: str | None = None
    group: str | None = None
    rehearse: bool = False
    fence_source: bool = False
    force: bool = False

    def move(self, task: str, kind: Kind) -> Move:
        options = Options(self.rehearse, self.fence_source, self.force, self.topic, self.group)
        return Move(task, kind.value, self.failed, self.destination, options)


@router.get("/{kind}/plan")
async def plan(
    task: str, kind: Kind, given: Given, failed: str, destination: str, topic: str | None = None, group: str | None = None,
    fence_source: bool = False,
) -> Any:  # fmt: skip
    move = Move(task, kind.value, failed, destination, Options(topic=topic, group=group, fence_source=fence_source))
    return await given.coordinator.failover_plan(move)


@router.post("/{kind}/run")
async def run(task: str, kind: Kind, given: Given, body: MoveBody) -> Any:
    return await given.coordinator.failover_run(body.move(task, kind))


@router.get("/{kind}/status")
async def status(task: str, kind: Kind, given: Given) -> Any:
    return await given.coordinator.failover_status(task, kind.value)


@router.post("/{kind}/abort")
async def abort(task: str, kind: Kind, given: Given) -> Any:
    return await given.coordinator.failover_abort(task, kind.value)
