"""What can be done with a running task: pausing, resuming, reading its events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from replicator.coordinator.api.context import Given

router = APIRouter(prefix="/tasks", tags=["tasks"])


class PauseBody(BaseModel):
    """Left out, it concerns the whole task."""

    model_config = ConfigDict(extra="forbid")
    topic: str | None = None
    source: str | None = None
    destination: str | None = None


class ResumeBody(PauseBody):
    """``accept_loss`` or ``from_offset`` is the way out of a history stop; ``dry_run`` only says what it gives up."""

    accept_loss: bool = False
    from_offset: int | None = Field(default=None, ge=0)
    dry_run: bool = False


@router.post("/{task}/pause")
async def pause(task: str, given: Given, body: PauseBody | None = None) -> Any:
    body = body or PauseBody()
    return await given.coordinator.set_paused(task, True, body.topic, body.source, body.destination)


@router.post("/{task}/resume")
async def resume(task: str, given: Given, body: ResumeBody | None = None) -> Any:
    body = body or ResumeBody()
    return await given.coordinator.resume(
        task, body.topic, body.source, body.destination, body.accept_loss, body.from_offset, body.dry_run
    )


@router.get("/{task}/events")
async def events(task: str, given: Given) -> Any:
    return await given.coordinator.events(task)
