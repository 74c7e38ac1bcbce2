"""Documents: their schema, checking them, applying them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field, field_validator

from replicator import config
from replicator.coordinator.api.answers import Applied, Checked, answer
from replicator.coordinator.api.context import Given, Services
from replicator.coordinator.api.fields import Body, is_storable
from replicator.coordinator.api.roles import ADMIN, READ

router = APIRouter(tags=["declarations"])


class CheckBody(Body):
    """``documents``: the YAML documents as JSON values."""

    documents: list[dict[str, Any]]

    @field_validator("documents")
    @classmethod
    def _are_storable(cls, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not is_storable(documents):
            raise ValueError("a text holds a zero byte or half of a surrogate pair")
        return documents


class ApplyBody(CheckBody):
    """``lost``: names of clusters that are gone and are declared without being reached."""

    dry_run: bool = False
    lost: list[str] = Field(default_factory=list)


async def _loaded(given: Services, documents: list[dict[str, Any]]) -> Any:
    """Tasks may name clusters that were declared before."""
    known = [row.name for row in await given.store.clusters()]
    return config.load_documents(documents, known)


@router.post("/apply", dependencies=[ADMIN], responses=answer(list[Applied]))
async def apply(body: ApplyBody, given: Given) -> Any:
    loaded = await _loaded(given, body.documents)
    return await given.coordinator.apply(loaded.clusters, loaded.tasks, body.dry_run, body.lost)


@router.post("/check", dependencies=[ADMIN], responses=answer(Checked))
async def check(body: CheckBody, given: Given) -> Any:
    """Reaches every cluster named; only reads."""
    loaded = await _loaded(given, body.documents)
    return await given.coordinator.check(loaded.clusters, loaded.tasks)


@router.get("/schema", dependencies=[READ], responses=answer(dict[str, Any]))
async def schema() -> Any:
    """The JSON Schema of a document."""
    return config.json_schema()
