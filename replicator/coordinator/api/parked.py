"""Messages the destination refused: looking at them, sending them again, giving them up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from replicator.coordinator.api.context import Given
from replicator.core.errors import InvalidInput

router = APIRouter(prefix="/tasks/{task}/parked", tags=["parked"])


class ChosenBody(BaseModel):
    """``ids`` as listed, or ``all`` that are parked: one of the two, so that forgetting to name them never means all."""

    model_config = ConfigDict(extra="forbid")
    ids: list[int] | None = None
    all: bool = False

    def chosen(self) -> list[int] | None:
        """None: all."""
        if bool(self.ids) == self.all:
            raise InvalidInput("name the parked messages in ids, or say all: true", hint="GET /tasks/{task}/parked lists their ids")
        return self.ids or None


@router.get("")
async def listing(task: str, given: Given) -> Any:
    return await given.coordinator.parked_list(task)


@router.post("/retry")
async def retry(task: str, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_retry(task, body.chosen())


@router.post("/discard")
async def discard(task: str, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_discard(task, body.chosen())
