"""Where one message stands on the other side."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from replicator.coordinator.api.answers import Translated, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import OFFSET_MAX, Text
from replicator.coordinator.api.roles import READ

router = APIRouter(prefix="/tasks/{task}/offsets", tags=["offsets"])


@router.get("/translate", dependencies=[READ], responses=answer(Translated))
async def translate(
    task: Text,
    given: Given,
    source: Text,
    destination: Text,
    topic: Text,
    queue: Annotated[str, Query(description="[BROKER/]Q of the source")],
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAX)],
) -> Any:
    """The answer for one source offset, exact or with the reason there is none."""
    return await given.coordinator.translate(task, source, destination, topic, queue, offset)
