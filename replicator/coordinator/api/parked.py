"""Messages the destination refused: looking at them, sending them again, giving them up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from replicator.coordinator.api.answers import ParkedObject, ParkedResult, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import LISTED_MAX, Body, Number, Text
from replicator.coordinator.api.roles import OPERATE, READ
from replicator.core.errors import InvalidInput

router = APIRouter(prefix="/tasks/{task}/parked", tags=["parked"])


class ChosenBody(Body):
    """``ids`` as listed, or ``all`` that are parked: one of the two, so that forgetting to name them never means all."""

    ids: list[Number] | None = Field(default=None, max_length=LISTED_MAX)
    all: bool = False

    def chosen(self) -> list[int] | None:
        """None: all."""
        if bool(self.ids) == self.all:
            raise InvalidInput("name the parked messages in ids, or say all: true", hint="GET /tasks/{task}/parked lists their ids")
        return self.ids or None


@router.get("", dependencies=[READ], responses=answer(list[ParkedObject]))
async def listing(task: Text, given: Given) -> Any:
    return await given.coordinator.parked_list(task)


@router.post("/retry", dependencies=[OPERATE], responses=answer(list[ParkedResult]))
async def retry(task: Text, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_retry(task, body.chosen())


@router.post("/discard", dependencies=[OPERATE], responses=answer(list[ParkedResult]))
async def discard(task: Text, given: Given, body: ChosenBody) -> Any:
    return await given.coordinator.parked_discard(task, body.chosen())
