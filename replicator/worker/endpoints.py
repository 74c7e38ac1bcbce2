"""What monitors ask a worker: alive, ready, and its numbers. It answers nothing else; people ask the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from replicator.observe.metrics import FlowMetrics
from replicator.worker.limits import LEASE_SECONDS
from replicator.worker.supervisor import Worker

GRACE_SECONDS = 1


def create_worker_app(worker: Worker, token: str | None = None) -> Starlette:
    """``token``: what has to be brought for the numbers; whether it lives and is ready, everybody may know."""
    metrics = FlowMetrics()

    def is_heard_of() -> bool:
        return worker.unheard_seconds() < LEASE_SECONDS

    async def healthz(_request: Request) -> Response:
        """200 while the process answers at all."""
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        """200 while the database knows of this worker; copying goes on without."""
        if is_heard_of():
            return JSONResponse({"status": "ok", "missing": []})
        missing = ["the database has not heard of this worker for one lease time"]
        return JSONResponse({"status": "not-ready", "missing": missing}, status_code=503)

    async def show_metrics(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if token is not None and not (scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())):
            return JSONResponse({"detail": "the token is missing or wrong"}, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        metrics.update((), {worker.instance: worker.info()}, store_up=is_heard_of())
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics)])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process handles its signals itself."""
        yield


async def serve_worker(app: Starlette, listener: socket.socket, tls: tuple[Path, Path] | None, stop: asyncio.Event) -> None:
    """Until ``stop`` is set. ``listener``: bound. ``tls``: certificate and key, read once."""
    options = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=tls[0] if tls else None, ssl_keyfile=tls[1] if tls else None,
    )  # fmt: skip
    server = _Server(options)
    serving = asyncio.create_task(server.serve([listener]), name="uvicorn")
    stopping = asyncio.create_task(stop.wait(), name="endpoints stop")
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await serving
