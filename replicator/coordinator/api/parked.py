"""Messages the destination refused: looking at them, sending them again, giving them up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from replicator.coordinator.api.context import Given, Services

router = APIRouter(prefix="/tasks/{task}/parked", tags=["parked"])


class ChosenBody(BaseModel):
    """``ids`` as listed; left out or null means all of the task."""

    model_config = ConfigDict(extra="forbid")
    ids: list[int] | None = None


@router.get("")
async def listing(task: str, given: Given) -> Any:
    return await given.coordinator.parked_list(task)


async def _chosen(task: str, given: Services, body: ChosenBody) -> list[int]:
    """All means those parked now: one that is parked meanwhile was not seen by who asked."""
    if body.ids is not None:
        return body.ids
    return [row["id"] for row in await given.coordinator.parked_list(task) if row["state"] == "parked"]


@router.post("/retry")
async def retry(task: str, given: Given, body: ChosenBody) -> Any:
    ids = await _chosen(task, given, body)
    return await given.coordinator.parked_retry(task, ids) if ids else []


@router.post("/discard")
async def discard(task: str, given: Given, body: ChosenBody) -> Any:
    ids = await _chosen(task, given, body)
    return await given.coordinator.parked_discard(task, ids) if ids else []
