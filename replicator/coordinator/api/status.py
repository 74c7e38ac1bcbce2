"""How every task stands."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from replicator.coordinator.api.context import Given

router = APIRouter(tags=["status"])


@router.get("/status")
async def status(given: Given, task: str | None = None) -> Any:
    return await given.coordinator.status(task)
