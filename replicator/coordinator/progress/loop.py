"""The automatic sync of all tasks: each in its own interval, only while this coordinator holds the lease."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from replicator.coordinator import declared
from replicator.coordinator.connections import Connections
from replicator.coordinator.declared import Declared
from replicator.coordinator.progress.routes import Maps
from replicator.coordinator.progress.task_sync import LEASE_SECONDS, TaskSync
from replicator.core.errors import ReplicatorError
from replicator.core.task import ReplicationTask
from replicator.store.port import Store

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.5
INTERVALS_MISSED_MAX = 2
"""After a longer gap what changed meanwhile says nothing about who moved."""


class ProgressLoop:
    """``tasks``: the groups of each task as this coordinator knows them; commands of people use them too."""

    def __init__(self, store: Store, connections: Connections, maps: Maps, instance: str) -> None:
        self.tasks: dict[str, TaskSync] = {}
        self.holds_lease = False
        self._store = store
        self._connections = connections
        self._maps = maps
        self._instance = instance
        self._running: dict[str, asyncio.Task[None]] = {}
        self._began: dict[str, float] = {}
        self._failing: dict[str, str] = {}
        self._synced: dict[str, float] = {}

    def of(self, task: str) -> TaskSync:
        if task not in self.tasks:
            self.tasks[task] = TaskSync(self._store, self._connections, self._maps, self._instance, task)
        return self.tasks[task]

    async def hold(self) -> bool:
        """Takes or keeps the lease. Without it nothing that we know of groups counts any more."""
        self.holds_lease = await self._store.hold_coordinator(self._instance, LEASE_SECONDS)
        if self.holds_lease:
            return True
        await self._cancel()
        for one in self.tasks.values():
            one.forget()
        self._began.clear()
        self._synced.clear()
        return False

    def figures(self) -> dict[str, dict[str, Any]]:
        """Of each task that was synced since this coordinator got the lease, for metrics."""
        now = time.monotonic()
        return {
            name: {"sync_age_seconds": now - at, **self.tasks[name].figures()}
            for name, at in self._synced.items()
            if name in self.tasks
        }

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                await self._turn()
                try:
                    async with asyncio.timeout(TURN_SECONDS):
                        await stop.wait()
                except TimeoutError:
                    continue
        finally:
            await self._cancel()

    async def _cancel(self) -> None:
        """An intent without a result stays behind where a write was under way: what it came to shows in the offsets."""
        rounds = list(self._running.values())
        self._running.clear()
        for one in rounds:
            one.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)

    async def _turn(self) -> None:
        try:
            if not await self.hold():
                return
            known = await declared.load(self._store)
        except ReplicatorError as error:
            self.holds_lease = False
            self._tell("", str(error))
            return
        self._tell("", "")
        for name in self.tasks.keys() - known.tasks.keys():
            del self.tasks[name]
            self._began.pop(name, None)
            self._synced.pop(name, None)
        now = time.monotonic()
        for task in known.tasks.values():
            began = self._began.get(task.name)
            if task.name not in self._running and (began is None or now - began >= task.progress.interval_seconds):
                self._running[task.name] = asyncio.create_task(self._round(task, known), name=f"progress {task.name}")

    async def _round(self, task: ReplicationTask, known: Declared) -> None:
        """Never raises but for a cancel. A cluster that does not answer keeps no other task waiting."""
        now = time.monotonic()
        began = self._began.get(task.name)
        follows = began is not None and now - began <= (1 + INTERVALS_MISSED_MAX) * task.progress.interval_seconds
        self._began[task.name] = now
        one = self.of(task.name)
        try:
            async with one.lock:
                await one.round(task, known, follows=follows)
            if one.has_read_all:
                self._synced[task.name] = time.monotonic()
            self._tell(task.name, "")
        except ReplicatorError as error:
            self._tell(task.name, str(error))
            one.forget()
        except Exception:
            # A bug of ours: loud, and the other tasks go on.
            log.exception("progress not synced", task=task.name)
            one.forget()
        finally:
            self._running.pop(task.name, None)

    def _tell(self, task: str, error: str) -> None:
        if error and error != self._failing.get(task):
            log.warning("progress waits", task=task, error=error)
        self._failing[task] = error
