"""Consumer progress of both sides: looking at it, what carrying it over would do, doing it, resetting it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from replicator.coordinator.api.context import Given
from replicator.coordinator.progress.commands import Ask, Place

router = APIRouter(prefix="/tasks/{task}/groups", tags=["groups"])


class SyncBody(BaseModel):
    """``seen_again``: what the preview said; more is refused. ``back``: also where that sets a group back. ``running``: also where it
    has members, if its broker can set it exactly."""

    model_config = ConfigDict(extra="forbid")
    source: str
    destination: str
    group: str | None = None
    seen_again: int | None = Field(default=None, ge=0)
    back: bool = False
    running: bool = False


class ResetBody(BaseModel):
    """To ``offset`` of ``topic`` on the destination, or to the first message stored there at ``time``."""

    model_config = ConfigDict(extra="forbid")
    source: str
    destination: str
    group: str
    topic: str | None = None
    broker: str | None = None
    queue: int | None = Field(default=None, ge=0)
    offset: int | None = Field(default=None, ge=0)
    time: AwareDatetime | None = None
    dry_run: bool = False

    def place(self) -> Place:
        timestamp_ms = None if self.time is None else int(self.time.timestamp() * 1000)
        return Place(self.offset, timestamp_ms, self.topic, self.broker, self.queue)


@router.get("")
async def listing(task: str, given: Given, source: str, destination: str, group: str | None = None) -> Any:
    return await given.coordinator.groups_list(Ask(task, source, destination, group))


@router.get("/plan")
async def plan(
    task: str, given: Given, source: str, destination: str, group: str | None = None, back: bool = False, running: bool = False
) -> Any:
    return await given.coordinator.groups_plan(Ask(task, source, destination, group), back, running)


@router.post("/sync")
async def sync(task: str, given: Given, body: SyncBody) -> Any:
    ask = Ask(task, body.source, body.destination, body.group)
    return await given.coordinator.groups_sync(ask, body.seen_again, body.back, body.running)


@router.post("/reset")
async def reset(task: str, given: Given, body: ResetBody) -> Any:
    return await given.coordinator.groups_reset(Ask(task, body.source, body.destination, body.group), body.place(), body.dry_run)
