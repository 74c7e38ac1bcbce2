"""``rebuild``: begun by one call, watched by another; it goes on whether anybody watches or not."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from replicator.coordinator.api.answers import RebuildState, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Text
from replicator.coordinator.api.roles import OPERATE, READ
from replicator.coordinator.api.tasks import PauseBody

router = APIRouter(prefix="/tasks", tags=["tasks"])


class RebuildBody(PauseBody):
    """``cluster_ids``: {name: lasting id} of clusters that are gone, where the copies leave a choice."""

    cluster_ids: dict[Text, Text] = Field(default_factory=dict)


@router.post("/{task}/rebuild", status_code=202, dependencies=[OPERATE], responses=answer(RebuildState, 202))
async def rebuild(task: Text, given: Given, body: RebuildBody | None = None) -> Any:
    body = body or RebuildBody()
    return await given.coordinator.rebuild(task, body.topic, body.source, body.destination, body.cluster_ids)


@router.get("/{task}/rebuild", dependencies=[READ], responses=answer(RebuildState))
async def progress(task: Text, given: Given) -> Any:
    """Of the last one that this coordinator was asked for."""
    return await given.coordinator.rebuild_progress(task)
