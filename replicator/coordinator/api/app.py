"""The REST API as one ASGI application. ``serving.py`` serves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import compile_path

import replicator
from replicator.coordinator.access import Callers
from replicator.coordinator.api import (
    declarations,
    failover,
    groups,
    health,
    objects,
    offsets,
    parked,
    problems,
    rebuild,
    status,
    tasks,
    tokens,
)
from replicator.coordinator.api.answers import Problem
from replicator.coordinator.api.context import PREFIX, Operations, Readiness, Services
from replicator.coordinator.api.guard import OPEN_PATHS, Guard
from replicator.coordinator.api.limits import Limits
from replicator.coordinator.api.roles import role_of, without_role
from replicator.coordinator.api.serving import listen, serve
from replicator.store.port import Store

__all__ = ["create_app", "describe", "listen", "serve"]

_ROUTERS = (
    declarations.router, status.router, parked.router, offsets.router, groups.router, failover.router, tasks.router, rebuild.router,
    tokens.router, objects.router,
)  # fmt: skip
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_EVERYWHERE = {
    400: "the request is not valid", 401: "the token is missing or wrong", 403: "the role of the token does not allow it",
    429: "too many requests of this token", 431: "too many headers", 500: "failed while running",
    503: "a cluster or the database is away, or too many requests are under way", 504: "not done in time",
}  # fmt: skip


def create_app(
    coordinator: Operations,
    store: Store,
    token: str | None = None,
    readiness: Readiness | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """``token``: of the environment, an administrator's; None: who brings none is one, which is for loopback only. Whatever token is
    brought has to be a good one."""
    app = _bare_app()
    callers = Callers(store, token)
    app.state.services = Services(coordinator, store, callers, readiness or Readiness())
    app.add_middleware(Guard, callers=callers, store=store, limits=limits or Limits())
    return app


def api_routes() -> Iterator[tuple[str, APIRoute]]:
    """Every route of ours with its path. The application's own list does not have them: it holds the routers."""
    for prefix, router in (("", health.router), *((PREFIX, one) for one in _ROUTERS)):
        for route in router.routes:
            assert isinstance(route, APIRoute), f"{route} is no route that can say its role"
            yield prefix + route.path_format, route


def describe() -> dict[str, Any]:
    """The OpenAPI description, without anything running."""
    return _bare_app().openapi()


def _bare_app() -> FastAPI:
    app = FastAPI(title="Global Replicator", version=replicator.__version__)
    problems.install(app)
    app.include_router(health.router)
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX)
    forgotten = without_role(api_routes(), OPEN_PATHS)
    assert not forgotten, f"routes without a role: {', '.join(forgotten)}"
    app.state.allowed = _allowed
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


_METHODS = tuple((compile_path(path)[0], frozenset(route.methods or ())) for path, route in api_routes())


def _allowed(path: str) -> set[str]:
    """Methods that an address takes: a route by itself knows its own only."""
    return {method for pattern, methods in _METHODS if pattern.match(path) for method in methods}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """As FastAPI describes it, with the problems each route may answer and the role it needs."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, routes=app.routes, description="Copies messages between independent RocketMQ clusters."
        )
        for path, route in api_routes():
            for method in route.methods or ():
                _complete(schema["paths"][path][method.lower()], route)
        schemas = schema["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    responses = operation["responses"]
    # FastAPI's own answer to a request that is not valid; ours is 400.
    responses.pop("422", None)
    role, methods = role_of(route), route.methods or set()
    told: dict[int, str] = {429: _EVERYWHERE[429]} if role is None else dict(_EVERYWHERE)
    if role is not None:
        operation["x-role"] = role.value
    if route.dependant.path_params or route.dependant.query_params:
        told[404] = "what the request names does not exist"
    if methods & {"POST", "DELETE"}:
        told[409] = "refused for safety"
    if "POST" in methods:
        told[413] = "the request is too large"
    for status_code, description in sorted(told.items()):
        content = {problems.MEDIA_TYPE: {"schema": _PROBLEM}}
        responses.setdefault(str(status_code), {"description": description, "content": content})
