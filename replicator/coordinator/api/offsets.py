"""Where one message stands on the other side."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from replicator.coordinator.api.context import Given

router = APIRouter(prefix="/tasks/{task}/offsets", tags=["offsets"])

OFFSET_MAX = 2**63 - 1


@router.get("/translate")
async def translate(
    task: str,
    given: Given,
    source: str,
    destination: str,
    topic: str,
    queue: Annotated[str, Query(description="[BROKER/]Q of the source")],
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAX)],
) -> Any:
    """The answer for one source offset, exact or with the reason there is none."""
    return await given.coordinator.translate(task, source, destination, topic, queue, offset)
