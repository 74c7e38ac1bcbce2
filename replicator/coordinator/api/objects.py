"""Clusters, tasks, workers and assignments: looking at them, and deleting what was declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

from replicator.coordinator.api.answers import AssignmentObject, ClusterObject, Deleted, TaskObject, WorkerObject, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import Text
from replicator.coordinator.api.roles import ADMIN, READ

router = APIRouter(tags=["objects"])

_OBJECTS = {"clusters": ClusterObject, "tasks": TaskObject, "workers": WorkerObject, "assignments": AssignmentObject}
_DECLARED = ("clusters", "tasks")


def _listing(kind: str) -> Callable[..., Awaitable[Any]]:
    async def listing(given: Given) -> Any:
        return await given.coordinator.get(kind, None)

    return listing


def _one(kind: str) -> Callable[..., Awaitable[Any]]:
    async def one(name: Text, given: Given) -> Any:
        return await given.coordinator.get(kind, name)

    return one


def _delete(kind: str) -> Callable[..., Awaitable[Any]]:
    async def delete(name: Text, given: Given, force: bool = False, purge: bool = False) -> Any:
        return await given.coordinator.delete(kind, name, force, purge)

    return delete


# One route for each kind: a kind that does not exist is an address that does not exist.
for _kind, _model in _OBJECTS.items():
    _word = _kind.removesuffix("s")
    router.get(f"/{_kind}", name=f"list {_kind}", dependencies=[READ], responses=answer(list[_model]))(_listing(_kind))  # type: ignore[valid-type]
    router.get(f"/{_kind}/{{name}}", name=f"get {_word}", dependencies=[READ], responses=answer(_model))(_one(_kind))
for _kind in _DECLARED:
    router.delete(
        f"/{_kind}/{{name}}", name=f"delete {_kind.removesuffix('s')}", dependencies=[ADMIN], responses=answer(Deleted)
    )(_delete(_kind))
