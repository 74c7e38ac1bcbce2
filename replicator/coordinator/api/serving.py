"""Listening, and serving the API inside this process, with TLS where it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from replicator.coordinator.api.tls import Certificate, TlsFiles
from replicator.core.errors import ReplicatorError

GRACE_SECONDS = 1
BACKLOG_MAX = 128
HEADER_BYTES_MAX = 32 * 1024
CONNECTIONS_MAX = 500
KEEP_ALIVE_SECONDS = 15


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


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    listener: socket.socket | None = None,
    tls: TlsFiles | None = None,
) -> None:
    """Until ``stop`` is set; requests under way get ``GRACE_SECONDS``. ``listener``: one bound before with ``listen``.
    ``tls``: its files are read again when they change."""
    certificate = Certificate(tls) if tls is not None else None
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    config.ssl = certificate.context if certificate is not None else None
    server = _Server(config)
    with listener or listen(host, port) as sock:
        serving = asyncio.create_task(server.serve([sock]), name="uvicorn")
        stopping = asyncio.create_task(stop.wait(), name="api stop")
        watching = asyncio.create_task(certificate.watch(), name="api certificate") if certificate is not None else None
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            stopping.cancel()
            if watching is not None:
                watching.cancel()
            await serving
