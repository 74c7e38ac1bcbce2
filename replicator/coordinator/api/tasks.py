"""What can be done with a running task: pausing, resuming, reading its events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from replicator.coordinator.api.answers import EventObject, Paused, Resumed, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Body, Number, Text
from replicator.coordinator.api.roles import OPERATE, READ

router = APIRouter(prefix="/tasks", tags=["tasks"])


class PauseBody(Body):
    """Left out, it concerns the whole task."""

    topic: Text | None = None
    source: Text | None = None
    destination: Text | None = None


class ResumeBody(PauseBody):
    """``accept_loss`` or ``from_offset`` is the way out of a history stop; ``dry_run`` only says what it gives up."""

    accept_loss: bool = False
    from_offset: Number | None = None
    dry_run: bool = False


@router.post("/{task}/pause", dependencies=[OPERATE], responses=answer(Paused))
async def pause(task: Text, given: Given, body: PauseBody | None = None) -> Any:
    body = body or PauseBody()
    return await given.coordinator.set_paused(task, True, body.topic, body.source, body.destination)


@router.post("/{task}/resume", dependencies=[OPERATE], responses=answer(Resumed))
async def resume(task: Text, given: Given, body: ResumeBody | None = None) -> Any:
    body = body or ResumeBody()
    return await given.coordinator.resume(
        task, body.topic, body.source, body.destination, body.accept_loss, body.from_offset, body.dry_run
    )


@router.get("/{task}/events", dependencies=[READ], responses=answer(list[EventObject]))
async def events(task: Text, given: Given) -> Any:
    return await given.coordinator.events(task)
