"""The two services as processes of their own. They meet in Postgres only, and neither loads what only the other needs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

import replicator
from replicator.cli.options import ServiceOptions, new_instance
from replicator.cli.process import PART_STOP_SECONDS_MAX, WORKER_STOP_SECONDS_MAX, end_part, run_to_end, stop_on_signals
from replicator.core.errors import ReplicatorError
from replicator.registry import connect
from replicator.store.port import StoreUnavailable
from replicator.store.postgres import PostgresStore

log = structlog.get_logger(__name__)

OPEN_RETRY_SECONDS = 1.0
BACKLOG_MAX = 128

UntilStopped = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Parts:
    name: str
    work: UntilStopped
    answer: UntilStopped | None
    """None: it does not listen."""
    stop_seconds_max: float


Make = Callable[[ServiceOptions, PostgresStore, str, socket.socket | None], _Parts]


def run_coordinator(options: ServiceOptions) -> None:
    """Returns after SIGTERM or SIGINT; raises the error that ended it otherwise."""
    _run(options, _coordinator)


def run_worker(options: ServiceOptions) -> None:
    """As ``run_coordinator``."""
    _run(options, _worker)


def _coordinator(options: ServiceOptions, store: PostgresStore, instance: str, listener: socket.socket | None) -> _Parts:
    from replicator.coordinator.api.app import create_app, serve
    from replicator.coordinator.service import Coordinator

    coordinator = Coordinator(store, partial(connect, instance=instance), instance)
    app = create_app(coordinator, store, options.token)

    async def answer(stop: asyncio.Event) -> None:
        await serve(app, options.host, options.port, stop, listener, options.tls)

    return _Parts("coordinator", coordinator.run, answer, PART_STOP_SECONDS_MAX)


def _worker(options: ServiceOptions, store: PostgresStore, instance: str, listener: socket.socket | None) -> _Parts:
    from replicator.worker.endpoints import create_worker_app, serve_worker
    from replicator.worker.supervisor import Worker

    worker = Worker(store, partial(connect, instance=instance), instance, options.near)
    files = (options.tls.cert, options.tls.key) if options.tls is not None else None
    answer = partial(serve_worker, create_worker_app(worker, options.token), listener, files) if listener is not None else None
    return _Parts("worker", worker.run, answer, WORKER_STOP_SECONDS_MAX)


def _listen(host: str, port: int) -> socket.socket:
    """Bound, so that a taken port is told before anything else starts."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG_MAX)
    except OSError as error:
        raise ReplicatorError(f"cannot listen on {host}:{port}: {error.strerror}", hint="another address: --listen HOST:PORT") from error
    listener.setblocking(False)
    return listener


def _run(options: ServiceOptions, make: Make) -> None:
    listener = _listen(options.host, options.port) if options.host else None
    try:
        run_to_end(_Service(options, make, listener).run())
    finally:
        if listener is not None:
            listener.close()


class _Service:
    def __init__(self, options: ServiceOptions, make: Make, listener: socket.socket | None) -> None:
        self._options = options
        self._make = make
        self._listener = listener
        self._stop = asyncio.Event()
        self._instance = new_instance()

    async def run(self) -> None:
        stop_on_signals(self._stop)
        store = PostgresStore(self._options.database_url)
        try:
            await self._serve(store)
        finally:
            await store.close()
        log.info("stopped", instance=self._instance)

    async def _serve(self, store: PostgresStore) -> None:
        parts = self._make(self._options, store, self._instance, self._listener)
        work_stop, answer_stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            # Answering from the start: who asks whether it lives must not take a database that is away for a dead process.
            answering = None if parts.answer is None else group.create_task(_until(parts.answer, answer_stop), name="endpoints")
            log.info("started", service=parts.name, instance=self._instance, version=replicator.__version__, near=self._options.near)
            working = group.create_task(_work(store, parts.work, work_stop), name=parts.name)
            await self._stop.wait()
            log.info("stopping", instance=self._instance)
            work_stop.set()
            await end_part(working, parts.stop_seconds_max)
            answer_stop.set()
            if answering is not None:
                await end_part(answering, PART_STOP_SECONDS_MAX)


async def _until(what: UntilStopped, stop: asyncio.Event) -> None:
    await what(stop)


async def _work(store: PostgresStore, work: UntilStopped, stop: asyncio.Event) -> None:
    """Waits for the database; raises what is wrong with its schema."""
    failing = ""
    while not stop.is_set():
        try:
            await store.open()
            await work(stop)
            return
        except StoreUnavailable as error:
            if str(error) != failing:
                log.warning("waiting for the database", error=str(error))
            failing = str(error)
        try:
            async with asyncio.timeout(OPEN_RETRY_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
