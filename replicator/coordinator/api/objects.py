"""Clusters, tasks, workers and assignments: looking at them, and deleting what was declared."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from replicator.coordinator.api.context import Given

router = APIRouter(tags=["objects"])

Kind = Literal["clusters", "tasks", "workers", "assignments"]
DeclaredKind = Literal["clusters", "tasks"]


@router.get("/{kind}")
async def listing(kind: Kind, given: Given) -> Any:
    return await given.coordinator.get(kind, None)


@router.get("/{kind}/{name}")
async def one(kind: Kind, name: str, given: Given) -> Any:
    return await given.coordinator.get(kind, name)


@router.delete("/{kind}/{name}")
async def delete(kind: DeclaredKind, name: str, given: Given, force: bool = False, purge: bool = False) -> Any:
    return await given.coordinator.delete(kind, name, force, purge)
