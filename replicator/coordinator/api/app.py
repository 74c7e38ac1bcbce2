"""The REST API as one ASGI application, and serving it inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

import replicator
from replicator.coordinator.api import declarations, failover, groups, health, objects, offsets, parked, problems, rebuild, status, tasks
from replicator.coordinator.api.context import Operations, Readiness, Services
from replicator.coordinator.api.guard import Guard
from replicator.core.errors import ReplicatorError
from replicator.store.port import Store

PREFIX = "/api/v1"
GRACE_SECONDS = 1
BACKLOG_MAX = 128


def create_app(coordinator: Operations, store: Store, token: str | None = None, readiness: Readiness | None = None) -> FastAPI:
    """``token``: what callers must bring as bearer token, None on loopback."""
    app = FastAPI(title="Global Replicator", version=replicator.__version__)
    app.state.services = Services(coordinator, store, readiness or Readiness())
    problems.install(app)
    app.include_router(health.router)
    # Objects last: its /{kind} would take every other word.
    for router in (
        declarations.router, status.router, parked.router, offsets.router, groups.router, failover.router, tasks.router, rebuild.router,
        objects.router,
    ):  # fmt: skip
        app.include_router(router, prefix=PREFIX)
    app.add_middleware(Guard, token=token)
    return app


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process handles its signals itself, in an order uvicorn does not know."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Bound, so that a taken port is told before anything else starts."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ReplicatorError(f"cannot listen on {host}:{port}: {error}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG_MAX)
    except OSError as error:
        listener.close()
        raise ReplicatorError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="another address: --listen HOST:PORT"
        ) from error
    listener.setblocking(False)
    return listener


async def serve(app: FastAPI, host: str, port: int, stop: asyncio.Event, listener: socket.socket | None = None) -> None:
    """Until ``stop`` is set; requests under way get ``GRACE_SECONDS``. ``listener``: one bound before with ``listen``."""
    server = _Server(
        uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS
        )
    )
    with listener or listen(host, port) as sock:
        serving = asyncio.create_task(server.serve([sock]), name="uvicorn")
        stopping = asyncio.create_task(stop.wait(), name="api stop")
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            stopping.cancel()
            await serving
