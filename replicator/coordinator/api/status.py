"""How every task stands."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from replicator.coordinator.api.answers import Status, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Text
from replicator.coordinator.api.roles import READ

router = APIRouter(tags=["status"])


@router.get("/status", dependencies=[READ], responses=answer(Status))
async def status(given: Given, task: Text | None = None) -> Any:
    return await given.coordinator.status(task)
