"""The automatic sync of all tasks: each in its own interval, only while this coordinator holds the lease."""

from __future__ import annotations

import asyncio
import time

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
        self._store = store
        self._connections = connections
        self._maps = maps
        self._instance = instance
        self._began: dict[str, float] = {}
        self._failing: dict[str, str] = {}

    def of(self, task: str) -> TaskSync:
        if task not in self.tasks:
            self.tasks[task] = TaskSync(self._store, self._connections, self._maps, self._instance, task)
        return self.tasks[task]

    async def hold(self) -> bool:
        """Takes or keeps the lease. Without it nothing that we know of groups counts any more."""
        if await self._store.hold_coordinator(self._instance, LEASE_SECONDS):
            return True
        for one in self.tasks.values():
            one.forget()
        self._began.clear()
        return False

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._turn()
            try:
                await asyncio.wait_for(stop.wait(), TURN_SECONDS)
            except TimeoutError:
                continue

    async def _turn(self) -> None:
        try:
            if not await self.hold():
                return
            known = await declared.load(self._store)
        except ReplicatorError as error:
            self._tell("", str(error))
            return
        self._tell("", "")
        for name in self.tasks.keys() - known.tasks.keys():
            del self.tasks[name]
            self._began.pop(name, None)
        now = time.monotonic()
        due = [task for task in known.tasks.values() if now - self._began.get(task.name, 0.0) >= task.progress.interval_seconds]
        await asyncio.gather(*(self._round(task, known) for task in due))

    async def _round(self, task: ReplicationTask, known: Declared) -> None:
        """Never raises but for a cancel."""
        now = time.monotonic()
        began = self._began.get(task.name)
        follows = began is not None and now - began <= (1 + INTERVALS_MISSED_MAX) * task.progress.interval_seconds
        self._began[task.name] = now
        one = self.of(task.name)
        try:
            async with one.lock:
                await one.round(task, known, follows=follows)
            self._tell(task.name, "")
        except ReplicatorError as error:
            self._tell(task.name, str(error))
            one.forget()
        except Exception:
            # A bug of ours: loud, and the other tasks go on.
            log.exception("progress not synced", task=task.name)
            one.forget()

    def _tell(self, task: str, error: str) -> None:
        if error and error != self._failing.get(task):
            log.warning("progress waits", task=task, error=error)
        self._failing[task] = error
