"""Who changed what: each request that may change something is noted before it is carried out, and its end afterwards.

Of a request only what its route declares is kept, in short. A document is kept as its kind and name: its content may hold what
somebody wrote into the wrong field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, get_args

import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Scope

from replicator.coordinator.access import Caller
from replicator.coordinator.api.context import PREFIX
from replicator.observe.hiding import without_passwords
from replicator.store.access_rows import ApiChange
from replicator.store.port import Store, StoreUnavailable

log = structlog.get_logger(__name__)

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
TEXT_LENGTH_MAX = 200
LIST_LENGTH_MAX = 50


class Note:
    """Of one request. ``begin`` raises ``StoreUnavailable``: what cannot be noted is not done."""

    def __init__(self, store: Store, caller: Caller, method: str) -> None:
        self.caller = caller
        self._store = store
        self._method = method
        self._change_id: int | None = None
        self._is_done = method in READING_METHODS

    async def begin(self, request: Request) -> None:
        if self._is_done or self._change_id is not None:
            return
        route: APIRoute = request.scope["route"]
        summary = summary_of(route, request.query_params, await request.body())
        self._change_id = await self._store.begin_api_change(self._change(request.scope, summary))

    async def end(self, scope: Scope, status: int) -> None:
        """Also of what was refused before it came to its route."""
        if self._is_done:
            return
        self._is_done = True
        try:
            if self._change_id is None:
                self._change_id = await self._store.begin_api_change(self._change(scope, {}))
            await self._store.finish_api_change(self._change_id, status)
        except StoreUnavailable as error:
            log.warning("end of a change not noted", caller=self.caller.name, path=scope["path"], status=status, error=str(error))

    def _change(self, scope: Scope, summary: dict[str, Any]) -> ApiChange:
        route = scope.get("route")
        named = "/".join(str(one) for one in scope.get("path_params", {}).values())
        path = route.path if isinstance(route, APIRoute) else scope["path"].removeprefix(PREFIX)
        return ApiChange(self.caller.name, self.caller.role.value, _text(self._method), _text(path), _text(named), summary)


def summary_of(route: APIRoute, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """What was asked for, of the names the route declares."""
    declared = {one.alias for one in route.dependant.query_params}
    found: dict[str, Any] = {name: _short(value) for name, value in query.items() if name in declared}
    try:
        content = json.loads(body) if body else {}
    except ValueError:
        return found
    fields = _body_fields(route)
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "documents" and name in fields:
                found[name] = _documents(value)
            elif name in fields and value is not None:
                found[name] = _short(value)
    return found


def _body_fields(route: APIRoute) -> frozenset[str]:
    annotation = route.body_field.field_info.annotation if route.body_field is not None else None
    models = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]
    return frozenset(name for model in models for name in model.model_fields)


def _documents(value: Any) -> list[str]:
    names = []
    for one in value[:LIST_LENGTH_MAX] if isinstance(value, list) else ():
        metadata = one.get("metadata") if isinstance(one, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        kind = one.get("kind") if isinstance(one, dict) else None
        names.append(f"{_text(str(kind))}/{_text(str(name))}")
    return names


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_short(one) for one in value[:LIST_LENGTH_MAX]]
    return f"{len(value)} keys" if isinstance(value, dict) else value


def _text(value: str) -> str:
    """As Postgres can keep it: no zero byte, no half of a surrogate pair."""
    clean = value[:TEXT_LENGTH_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return without_passwords(clean)
