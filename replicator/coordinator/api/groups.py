"""Consumer progress of both sides: looking at it, what carrying it over would do, doing it, resetting it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, Field

from replicator.coordinator.api.answers import GroupReset, Groups, GroupsPlan, GroupsSynced, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Body, Number, Text
from replicator.coordinator.api.roles import OPERATE, READ
from replicator.coordinator.progress.commands import Ask, Place

router = APIRouter(prefix="/tasks/{task}/groups", tags=["groups"])


class SyncBody(Body):
    """``seen_again``: what the preview said; more is refused. ``back``: also where that sets a group back. ``running``: also where it
    has members, if its broker can set it exactly."""

    source: Text
    destination: Text
    group: Text | None = None
    seen_again: Number | None = None
    back: bool = False
    running: bool = False


class ResetBody(Body):
    """To ``offset`` of ``topic`` on the destination, or to the first message stored there at ``time``."""

    source: Text
    destination: Text
    group: Text
    topic: Text | None = None
    broker: Text | None = None
    queue: Number | None = None
    offset: Number | None = None
    time: AwareDatetime | None = Field(default=None, strict=False)
    dry_run: bool = False

    def place(self) -> Place:
        timestamp_ms = None if self.time is None else int(self.time.timestamp() * 1000)
        return Place(self.offset, timestamp_ms, self.topic, self.broker, self.queue)


@router.get("", dependencies=[READ], responses=answer(Groups))
async def listing(task: Text, given: Given, source: Text, destination: Text, group: Text | None = None) -> Any:
    return await given.coordinator.groups_list(Ask(task, source, destination, group))


@router.get("/plan", dependencies=[READ], responses=answer(GroupsPlan))
async def plan(
    task: Text, given: Given, source: Text, destination: Text, group: Text | None = None, back: bool = False, running: bool = False
) -> Any:
    return await given.coordinator.groups_plan(Ask(task, source, destination, group), back, running)


@router.post("/sync", dependencies=[OPERATE], responses=answer(GroupsSynced))
async def sync(task: Text, given: Given, body: SyncBody) -> Any:
    ask = Ask(task, body.source, body.destination, body.group)
    return await given.coordinator.groups_sync(ask, body.seen_again, body.back, body.running)


@router.post("/reset", dependencies=[OPERATE], responses=answer(GroupReset))
async def reset(task: Text, given: Given, body: ResetBody) -> Any:
    return await given.coordinator.groups_reset(Ask(task, body.source, body.destination, body.group), body.place(), body.dry_run)
