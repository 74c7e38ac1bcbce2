"""Messages the destination refused: looking at them, sending them again, giving them up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from replicator.coordinator.api.context import Given

router = APIRouter(prefix="/tasks/{task}/parked", tags=["parked"])


class ChosenBody(BaseModel):
    """``ids`` as listed; none means all of the task."""

    model_config = ConfigDict(extra="forbid")
    ids: list[int] = []


@router.get("")
async def listing(task: str, given: Given) -> Any:
    return await given.coordinator.parked_list(task)


@router.post("/retry")
async def retry(task: str, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_retry(task, body.ids)


@router.post("/discard")
async def discard(task: str, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_discard(task, body.ids)
