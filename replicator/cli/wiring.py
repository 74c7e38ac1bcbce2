"""Everything in one process: Postgres, store, coordinator, worker and API, started and stopped in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_exponential

import replicator
from replicator.cli import files
from replicator.cli.options import RunOptions, new_instance
from replicator.cli.process import PART_STOP_SECONDS_MAX, WORKER_STOP_SECONDS_MAX, end_part, run_to_end, stop_on_signals
from replicator.coordinator.api.app import create_app, listen, serve
from replicator.coordinator.api.context import Readiness
from replicator.coordinator.service import Coordinator
from replicator.core.errors import NotConnected
from replicator.registry import connect
from replicator.store import migrating
from replicator.store.embedded import EmbeddedPostgres, PostgresFailed
from replicator.store.port import StoreUnavailable
from replicator.store.postgres import PostgresStore
from replicator.worker.supervisor import Worker

log = structlog.get_logger(__name__)

APPLY_SECONDS_MAX = 300.0
"""A cluster that cannot be reached for so long after the start ends ``run``: somebody should look."""
APPLY_WAIT_SECONDS_MAX = 10.0
POSTGRES_RESTART_SECONDS = 2.0


def run(options: RunOptions) -> None:
    """Returns after SIGTERM or SIGINT; raises the error that ended it otherwise. ``options`` and files have been judged."""
    listener = listen(options.host, options.port)
    try:
        run_to_end(_Process(options, listener).run())
    finally:
        listener.close()


class _Process:
    def __init__(self, options: RunOptions, listener: socket.socket) -> None:
        self._options = options
        self._listener = listener
        self._stop = asyncio.Event()
        self._instance = new_instance()
        self._postgres: EmbeddedPostgres | None = None
        self._readiness = Readiness(applied=not options.files)

    async def run(self) -> None:
        stop_on_signals(self._stop)
        async with AsyncExitStack() as stack:
            store = await self._unless_stopped(self._open_store(stack))
            if store is not None:
                await self._serve_until_stopped(store)
        log.info("stopped", instance=self._instance)

    async def _unless_stopped(self, work: Awaitable[PostgresStore]) -> PostgresStore | None:
        """None when the stop came first: the work is cancelled then, and has cleaned up."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            return None
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _open_store(self, stack: AsyncExitStack) -> PostgresStore:
        url = self._options.database_url
        if not url:
            log.info("starting Postgres", data_dir=str(self._options.data_dir))
            self._postgres = await stack.enter_async_context(EmbeddedPostgres(self._options.data_dir))
            url = self._postgres.url
        await migrating.upgrade(url)
        store = PostgresStore(url)
        stack.push_async_callback(store.close)
        await store.open()
        return store

    async def _serve_until_stopped(self, store: PostgresStore) -> None:
        options = self._options
        connector = partial(connect, instance=self._instance)
        coordinator = Coordinator(store, connector, self._instance)
        worker = Worker(store, connector, self._instance)
        app = create_app(coordinator, store, options.token, self._readiness)
        stops = [asyncio.Event() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            # In the order they are stopped: the worker lets go of its queues while all it needs is still there.
            parts = [
                group.create_task(worker.run(stops[0]), name="worker"),
                group.create_task(serve(app, options.host, options.port, stops[1], self._listener, options.tls), name="api"),
                group.create_task(coordinator.run(stops[2]), name="coordinator"),
            ]
            helpers = [group.create_task(self._apply_files(store, coordinator), name="apply")]
            if self._postgres is not None:
                helpers.append(group.create_task(self._keep_running(self._postgres), name="postgres"))
            log.info("started", instance=self._instance, listen=f"{options.host}:{options.port}", version=replicator.__version__)
            await self._stop.wait()
            log.info("stopping", instance=self._instance)
            helpers[0].cancel()
            for part, stop, seconds in zip(
                parts, stops, (WORKER_STOP_SECONDS_MAX, PART_STOP_SECONDS_MAX, PART_STOP_SECONDS_MAX), strict=True
            ):
                stop.set()
                await end_part(part, seconds)
            for helper in helpers:
                helper.cancel()

    async def _apply_files(self, store: PostgresStore, coordinator: Coordinator) -> None:
        if not self._options.files:
            return
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((NotConnected, StoreUnavailable)),
            wait=wait_exponential(multiplier=0.5, max=APPLY_WAIT_SECONDS_MAX),
            stop=stop_after_delay(APPLY_SECONDS_MAX),
            before_sleep=self._say_waiting,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                loaded = files.load(self._options.files, [row.name for row in await store.clusters()])
                result = await coordinator.apply(loaded.clusters, loaded.tasks, False, self._options.lost)
        for one in result:
            log.info("applied", **one)
        self._readiness.applied = True
        log.info("ready")

    def _say_waiting(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._readiness.waiting_for = f"applying the files: {error}"
        wait_seconds = round(state.next_action.sleep, 1) if state.next_action else 0.0
        log.warning("the files are not applied yet", error=str(error), attempt=state.attempt_number, next_in_seconds=wait_seconds)

    async def _keep_running(self, postgres: EmbeddedPostgres) -> None:
        """Nobody else starts the server again when it dies; meanwhile the store says it is unavailable."""
        while True:
            code = await postgres.wait()
            log.error("Postgres ended by itself, starting it again", code=code)
            try:
                await postgres.start()
            except PostgresFailed as error:
                log.error("Postgres does not start", error=str(error), next_in_seconds=POSTGRES_RESTART_SECONDS)
                await asyncio.sleep(POSTGRES_RESTART_SECONDS)


async def upgrade_database(url: str, data_dir: Path) -> None:
    """``db upgrade``: of the database named, else of the embedded one in ``data_dir``."""
    if url:
        await migrating.upgrade(url)
        return
    async with EmbeddedPostgres(data_dir) as postgres:
        await migrating.upgrade(postgres.url)
