"""Carries open moves out, in the coordinator that holds the lease, and goes on with those that another one left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections
from replicator.coordinator.failover.assessing import Move
from replicator.coordinator.failover.reverse import Reverse
from replicator.coordinator.failover.steps import Steps, Waits
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.core.errors import ReplicatorError, Unsafe
from replicator.core.failover import (
    ABORTING,
    FAILBACK,
    FAILOVER,
    FENCE,
    Course,
    Options,
    aborting,
    finished,
    next_step,
    noted,
    undone,
    waits,
)
from replicator.core.failover import started as begun
from replicator.store.failover_rows import FailoverRow
from replicator.store.port import Store

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.5
WAIT_SECONDS = 1.0
"""Between two looks at what a step waits for."""


class FailoverRunner:
    def __init__(
        self, store: Store, connections: Connections, atlas: Atlas, loop: ProgressLoop, reverse: Reverse, instance: str
    ) -> None:
        self._store = store
        self._atlas = atlas
        self._connections = connections
        self._loop = loop
        self._reverse = reverse
        self._instance = instance
        self._running: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. A step that is cancelled half-way is begun again by whoever holds the lease next."""
        try:
            while not stop.is_set():
                self._woken.clear()
                await self._turn()
                waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(self._woken.wait())]
                await asyncio.wait(waiting, timeout=TURN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for one in waiting:
                    one.cancel()
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _turn(self) -> None:
        try:
            rows = await self._store.failovers(open_only=True)
            if not rows or not await self._loop.hold():
                return
        except ReplicatorError as error:
            log.warning("failovers wait", error=str(error))
            return
        for row in rows:
            if row.failover_id not in self._running:
                self._running[row.failover_id] = asyncio.create_task(self._guarded(row.failover_id), name=f"failover {row.failover_id}")

    async def _guarded(self, failover_id: int) -> None:
        try:
            await self.carry_on(failover_id)
        except ReplicatorError as error:
            log.warning("failover waits", failover=failover_id, error=str(error))
            await asyncio.sleep(WAIT_SECONDS)
        except Exception:
            # A bug of ours: loud, and tried again; what was done is in the course.
            log.exception("failover failed", failover=failover_id)
            await asyncio.sleep(WAIT_SECONDS)
        finally:
            self._running.pop(failover_id, None)

    async def carry_on(self, failover_id: int) -> None:
        """Step by step, until the course has ended or the lease is gone. Raises what the store raises."""
        while (row := await self._read(failover_id)).is_open:
            course = Course.from_json(row.course)
            if row.abort_asked and course.state != ABORTING:
                await self._save(row, aborting(course, "a person asked for it"))
                continue
            step = next_step(course)
            if step is None:
                raise ReplicatorError(f"move {failover_id} is open and has nothing left to do")
            if course.state == ABORTING:
                await self._undo(row, course, step.name)
            else:
                await self._carry_out(row, course, step.name)

    async def _carry_out(self, row: FailoverRow, course: Course, name: str) -> None:
        kept = begun(course, name)
        await self._save(row, kept)

        async def note(notes: Mapping[str, Any]) -> None:
            nonlocal kept
            kept = noted(kept, name, notes)
            await self._save(row, kept)

        steps = await self._steps(row, course)
        try:
            detail = await steps.carry_out(name, note)
        except Waits as wait:
            await self._save(row, waits(kept, name, str(wait)))
            await asyncio.sleep(WAIT_SECONDS)
            return
        except ReplicatorError as error:
            # What a cluster cannot do now it may do later; a person who does not want to wait aborts.
            await self._save(row, waits(kept, name, str(error)))
            await asyncio.sleep(WAIT_SECONDS)
            return
        await self._save(row, finished(kept, name, detail))

    async def _undo(self, row: FailoverRow, course: Course, name: str) -> None:
        steps = await self._steps(row, course)
        try:
            detail = await steps.undo(name) if not steps.move.options.rehearse else "nothing was changed"
        except ReplicatorError as error:
            await self._save(row, replace(course, reason=f"putting {name} back: {error}"))
            await asyncio.sleep(WAIT_SECONDS)
            return
        await self._save(row, undone(course, name, detail))

    async def _steps(self, row: FailoverRow, course: Course) -> Steps:
        move = move_of(row)
        notes = {step.name: step.notes for step in course.steps}
        if row.kind == FAILBACK:
            notes["failover"] = await self._fence_before(row)
        return Steps(self._store, self._connections, self._atlas, self._loop, self._reverse, move, f"{row.kind} {row.failover_id}", notes)

    async def _fence_before(self, row: FailoverRow) -> Mapping[str, Any]:
        """What the last failover in this direction closed and nobody opened since."""
        for one in reversed(await self._store.failovers(row.task)):
            if (one.kind, one.failed, one.destination) == (FAILOVER, row.failed, row.destination) and one.failover_id < row.failover_id:
                step = Course.from_json(one.course).step(FENCE)
                return step.notes if step is not None and step.state == "done" else {}
        return {}

    async def _read(self, failover_id: int) -> FailoverRow:
        found = next((one for one in await self._store.failovers(open_only=True) if one.failover_id == failover_id), None)
        return found if found is not None else FailoverRow("", "", "", "", {}, {}, is_open=False)

    async def _save(self, row: FailoverRow, course: Course) -> None:
        before = Course.from_json(row.course)
        saved = replace(row, course=course.to_json(), is_open=course.is_open)
        if not await self._store.save_failover(self._instance, saved):
            raise Unsafe("another coordinator holds the lease: it goes on with the move")
        if (before.state, before.reason) != (course.state, course.reason) or not course.is_open:
            log.info(row.kind, task=row.task, failover=row.failover_id, state=course.state, reason=course.reason)
        if not course.is_open:
            text = f"{row.kind} {row.failover_id} ({row.failed}, {row.destination}): {course.state}"
            steps = {step.name: step.detail for step in course.steps}
            await self._store.record_event(row.task, f"{row.kind}-{course.state}", text, {"steps": steps, "options": row.options})


def move_of(row: FailoverRow) -> Move:
    return Move(row.task, row.kind, row.failed, row.destination, Options(**row.options))
