"""Documents: their schema, checking them, applying them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from replicator import config
from replicator.coordinator.api.context import Given, Services

router = APIRouter(tags=["declarations"])


class CheckBody(BaseModel):
    """``documents``: the YAML documents as JSON values."""

    model_config = ConfigDict(extra="forbid")
    documents: list[dict[str, Any]]


class ApplyBody(CheckBody):
    """``lost``: names of clusters that are gone and are declared without being reached."""

    dry_run: bool = False
    lost: list[str] = Field(default_factory=list)


async def _loaded(given: Services, documents: list[dict[str, Any]]) -> Any:
    """Tasks may name clusters that were declared before."""
    known = [row.name for row in await given.store.clusters()]
    return config.load_documents(documents, known)


@router.post("/apply")
async def apply(body: ApplyBody, given: Given) -> Any:
    loaded = await _loaded(given, body.documents)
    return await given.coordinator.apply(loaded.clusters, loaded.tasks, body.dry_run, body.lost)


@router.post("/check")
async def check(body: CheckBody, given: Given) -> Any:
    """Reaches every cluster named; only reads."""
    loaded = await _loaded(given, body.documents)
    return await given.coordinator.check(loaded.clusters, loaded.tasks)


@router.get("/schema")
async def schema() -> Any:
    return config.json_schema()
