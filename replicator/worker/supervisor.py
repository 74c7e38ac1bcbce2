"""One worker process: takes assignments, runs a copier for each, saves all of them once a second, lets go in order.

The store may be away: copiers go on as long as the source grants their locks; new leases, saves and hand-overs wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from replicator.config import task_from_spec
from replicator.core.connector import Connector
from replicator.core.errors import Fenced, NotConnected, ReplicatorError
from replicator.core.task import Cluster, lock_group, position_group
from replicator.store.port import Assignment, ClusterRow, Progress, Store, StoreUnavailable, TaskRow
from replicator.store.sharing_port import Released
from replicator.worker.clock import boot_seconds
from replicator.worker.copier import Copier
from replicator.worker.fence import SourceFence
from replicator.worker.flow import FlowContext, Rate
from replicator.worker.limits import (
    FIGURES_INTERVAL_SECONDS,
    GOODBYE_SECONDS_MAX,
    LEASE_RENEW_SECONDS,
    LEASE_SECONDS,
    LEASES_PER_ROUND_MAX,
    PUBLISH_INTERVAL_SECONDS,
    RATE_SECONDS_MIN,
    SAVE_INTERVAL_SECONDS,
    SHARES_PAUSE_SECONDS,
    STOP_SECONDS_MAX,
    WARM_SECONDS_MAX,
)
from replicator.worker.recovery import CopyFinder
from replicator.worker.vouching import Vouching

log = structlog.get_logger(__name__)

FAILED_RETRY_SECONDS = 30.0
"""A copier that met a programming error is tried again after this, so that one bad record does not need a person at night."""


@dataclass(slots=True)
class Running:
    copier: Copier
    task: asyncio.Task[None]
    saved_at: float = 0.0
    copied_when_rated: int = 0
    rated_at: float = field(default_factory=time.monotonic)
    rate_per_second: float | None = None
    relearning: asyncio.Task[None] | None = None
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Once: a second time would break off what a copier does about its doubt at its end."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()

    def rate(self, copied: int, now: float) -> float | None:
        """Over no less than ``RATE_SECONDS_MIN``: what came within a moment says nothing about the next."""
        elapsed = now - self.rated_at
        if elapsed >= RATE_SECONDS_MIN:
            self.rate_per_second = (copied - self.copied_when_rated) / elapsed
            self.rated_at, self.copied_when_rated = now, copied
        return self.rate_per_second


class Worker:
    """``connect`` makes an unopened connector for a declared cluster. ``instance`` is unique to this process and start.
    ``near``: the cluster beside which it runs, empty for none in particular."""

    def __init__(self, store: Store, connect: Callable[[Cluster], Connector], instance: str, near: str = "") -> None:
        self.instance = instance
        self.near = near
        self._known_at = float("-inf")
        self._store = store
        self._connect = connect
        self._connectors: dict[str, Connector] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._flows: dict[str, FlowContext] = {}
        self._fences: dict[tuple[str, str], SourceFence] = {}
        self._fence_tasks: list[asyncio.Task[None]] = []
        self._running: dict[int, Running] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._vouching = Vouching(store, instance)
        self._saving = asyncio.Lock()
        self._watch = store.watch()
        self._taken: dict[int, Assignment] = {}
        """Leased, and not running yet."""
        self._nobodys: dict[int, int] = {}
        """{assignment: token} held in our name at the last renewal, and not known here."""
        self._departing: dict[int, Running] = {}
        """Ended cleanly, and not released yet."""
        self._departure = asyncio.Lock()
        self._renewed_at = boot_seconds()
        self._cluster_rows: dict[str, ClusterRow] = {}
        self._task_rows: dict[str, TaskRow] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; returns within ``STOP_SECONDS_MAX`` and two saves after that."""
        loops = [
            asyncio.create_task(self._lease(), name="leases"),
            asyncio.create_task(self._every(SAVE_INTERVAL_SECONDS, self._save_round), name="saves"),
            asyncio.create_task(self._every(PUBLISH_INTERVAL_SECONDS, self._publish_round), name="positions"),
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (stopped, loops[0], loops[2]):
                task.cancel()
            await asyncio.gather(self._say_goodbye(loops[0]), self._stop_all())
            loops[1].cancel()
            for task in self._fence_tasks:
                task.cancel()
            await asyncio.gather(stopped, *loops, *self._fence_tasks, return_exceptions=True)
            await self._close_connectors()

    async def _every(self, interval_seconds: float, action: Callable[[], Any]) -> None:
        """Runs ``action`` for ever; what can pass by itself is logged once when it begins and once when it ends."""
        failing = ""
        while True:
            try:
                await action()
                if failing:
                    log.info("recovered", loop=failing)
                failing = ""
            except ReplicatorError as error:
                if not failing:
                    log.warning("waiting", error=str(error))
                failing = type(error).__name__
            await asyncio.sleep(interval_seconds)

    async def _lease(self) -> None:
        """Makes itself known, then keeps what it holds and follows what the coordinator decides."""
        await self._until_known()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(LEASE_RENEW_SECONDS, self._lease_round), name="renewals")
            group.create_task(self._every(LEASE_RENEW_SECONDS, self._refresh_declarations), name="declarations")
            group.create_task(self._every(SHARES_PAUSE_SECONDS, self._share_round), name="shares")

    async def _until_known(self) -> None:
        """Connections first: a worker that can begin at once leaves the queues it takes over without one for a shorter time."""
        while not self._cluster_rows:
            try:
                await self._refresh_declarations()
                break
            except StoreUnavailable as error:
                log.warning("waiting", error=str(error))
                await asyncio.sleep(LEASE_RENEW_SECONDS)
        opening = [asyncio.create_task(self._connector(row), name=f"open {row.name}") for row in self._cluster_rows.values()]
        if opening:
            _, late = await asyncio.wait(opening, timeout=WARM_SECONDS_MAX)
            for task in late:
                task.cancel()
            for result in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(result, ReplicatorError):
                    log.info("not within reach yet", error=str(result))

    async def _lease_round(self) -> None:
        """Nothing else is done here: on a machine that is short of time, this is what must not wait."""
        started_at = boot_seconds()
        known = list(self._running.items())  # What begins meanwhile may be missing in the answer.
        held, _ = await asyncio.gather(
            self._store.renew(self.instance, LEASE_SECONDS), self._store.worker_seen(self.instance, self.info())
        )
        self._renewed_at = started_at
        self._known_at = started_at
        for fence in self._fences.values():
            fence.lease_renewed(started_at)
        for assignment_id, running in known:
            if held.get(assignment_id) != running.copier.journal.token:
                running.cancel()
        await self._give_back_unknown(held)

    async def _give_back_unknown(self, held: Mapping[int, int]) -> None:
        """Leases whose coming we never heard of. One that is new may be on its way to us: it has to stay unknown for a round."""
        unknown = {i: token for i, token in held.items() if i not in self._running and i not in self._taken}
        lasting = [Released(i, token, False) for i, token in unknown.items() if self._nobodys.get(i) == token]
        self._nobodys = unknown
        if lasting:
            for assignment_id, token, _ in lasting:
                self._vouching.lost(assignment_id, token, ())
            await self._store.release_all(lasting)

    async def _share_round(self) -> None:
        await self._watch.changed(LEASE_RENEW_SECONDS)
        for assignment_id in await self._store.revoked(self.instance):
            running = self._running.get(assignment_id)
            if running is not None and not running.copier.stopping:
                self._begin(self._let_go(assignment_id))
        for assignment in await self._store.acquire(self.instance, LEASE_SECONDS, LEASES_PER_ROUND_MAX):
            self._taken[assignment.assignment_id] = assignment
            self._begin(self._start(assignment))

    async def _say_goodbye(self, leasing: asyncio.Task[None]) -> None:
        """While queues end, others can be chosen for them. Not before the last sign of life is through."""
        try:
            async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                await asyncio.wait([leasing])
                await self._store.worker_left(self.instance)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("left without a word", error=str(error), hint="others wait until the leases have run out")

    def unheard_seconds(self) -> float:
        """For how long the store has not known that this worker is there."""
        return boot_seconds() - self._known_at

    def info(self) -> dict[str, Any]:
        """What it tells of itself."""
        return {"near": self.near, **self.figures(), "lost": self._vouching.told()}

    def figures(self) -> dict[str, Any]:
        """What this worker tells of itself, as JSON: ``observe.metrics`` shows it, here or in a coordinator."""
        return {
            "assignments": len(self._running),
            "lease_age_seconds": boot_seconds() - self._renewed_at,
            "flows": [flow.figures() for flow in self._flows.values()],
        }

    def _forget(self, assignment_id: int) -> None:
        running = self._running.pop(assignment_id, None)
        if running is not None and running.relearning is not None:
            running.relearning.cancel()

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("leases", error=repr(error))

    async def _refresh_declarations(self) -> None:
        self._cluster_rows = {row.name: row for row in await self._store.clusters()}
        self._task_rows = {row.name: row for row in await self._store.tasks()}
        for flow_id, flow in list(self._flows.items()):
            row = self._task_rows.get(flow.task.name)
            if row is None or row.generation == flow.generation:
                continue
            task = task_from_spec(row.name, row.spec)
            self._flows[flow_id] = edited = replace(
                flow, task=task, generation=row.generation, rate=Rate(task.messages_per_second_max, task.bytes_per_second_max)
            )
            for running in self._running.values():
                if running.copier.assignment.flow_id == flow_id:
                    running.copier.set_flow(edited)

    async def _start(self, assignment: Assignment) -> None:
        """Opens what the assignment needs, for as long as it takes, then runs its copier to its end."""
        assignment_id = assignment.assignment_id
        if assignment_id in self._departing:
            await self._depart()  # Its release came round before we heard that it was done.
        if assignment_id in self._running:
            self._taken.pop(assignment_id, None)
            return
        while True:
            try:
                flow = await self._flow(assignment)
                break
            except ReplicatorError as error:
                log.warning("cannot start", assignment=f"{assignment.source}: {assignment.source_queue}", error=str(error))
                try:
                    await self._report_unopened(assignment, error)
                    self._taken.pop(assignment_id, None)
                    return
                except StoreUnavailable:
                    await asyncio.sleep(LEASE_RENEW_SECONDS)
        copier = Copier(assignment, flow, self._store, self._save_one, self._vouching.exact)
        task = asyncio.create_task(self._run_copier(copier), name=str(copier))
        self._taken.pop(assignment_id, None)
        self._running[assignment_id] = Running(copier, task, copied_when_rated=copier.journal.checkpoint.copied_total)

    async def _report_unopened(self, assignment: Assignment, error: ReplicatorError) -> None:
        """Shows why an assignment cannot even begin, and gives it back to be tried again."""
        state = "unreachable" if isinstance(error, NotConnected) else "blocked"
        if assignment.checkpoint is not None:
            progress = Progress(assignment.assignment_id, assignment.token, assignment.checkpoint, senders=assignment.senders,
                                state=state, error=str(error))
            await self._store.save_progress([progress])
        await self._store.release(assignment.assignment_id, assignment.token, clean=assignment.clean)

    async def _run_copier(self, copier: Copier) -> None:
        assignment_id = copier.assignment.assignment_id
        try:
            while True:
                try:
                    await copier.run()
                    return
                except Fenced as error:
                    log.warning("fenced", assignment=str(copier), error=str(error))
                    return
                except Exception as error:  # A bug of ours: shown with its place, tried again, never silent.
                    log.exception("copier failed", assignment=str(copier))
                    copier.state, copier.error = "failed", f"{type(error).__name__}: {error}"
                    copier.journal.dirty = True
                    await asyncio.sleep(FAILED_RETRY_SECONDS)
        finally:
            if not copier.clean or not copier.stopping:
                # The next holder waits until the broker no longer lists our connection, whether or not something is under way on it.
                self._vouching.lost(assignment_id, copier.journal.token, await copier.abandon())
            await copier.flow.fence.give_up(copier.assignment.source_queue)

    async def _let_go(self, assignment_id: int) -> None:
        """Clean end of one assignment: what is in flight lands, the journal is saved, the lease returned."""
        running = self._running.get(assignment_id)
        if running is None:
            return
        running.copier.stop()
        await asyncio.wait([running.task], timeout=STOP_SECONDS_MAX)
        if not running.task.done():
            running.cancel()
            await asyncio.wait([running.task], timeout=1.0)
        running.copier.state = "waiting-for-worker"
        self._departing[assignment_id] = running
        await self._depart()

    async def _depart(self) -> None:
        """Saves and releases together what ended meanwhile: one hand-over of many queues is two transactions, not two for each."""
        async with self._departure:
            due = dict(self._departing)
            if not due:
                return
            await self._save(list(due.values()))
            await self._store.release_all([Released(i, one.copier.journal.token, one.copier.clean) for i, one in due.items()])
            for assignment_id, running in due.items():
                self._departing.pop(assignment_id, None)
                if self._running.get(assignment_id) is running:
                    self._forget(assignment_id)

    async def _stop_all(self) -> None:
        for task in list(self._starting):
            task.cancel()
        ending = [self._let_go(i) for i in list(self._running)]
        # Of what never began nothing can be in flight.
        unused = self._store.release_all([Released(i, one.token, one.clean) for i, one in self._taken.items()])
        results = await asyncio.gather(unused, *ending, return_exceptions=True)
        for result in results:
            if isinstance(result, StoreUnavailable):
                log.warning("stopped without saving", error=str(result), hint="the next start reads the destination's log instead")
            elif isinstance(result, BaseException):
                raise result

    async def _save_round(self) -> None:
        await self._depart()
        for assignment_id, running in list(self._running.items()):
            if running.task.done() and not running.copier.stopping:
                await self._settle_ended(assignment_id, running)
        now = time.monotonic()
        due = [r for r in self._running.values() if r.copier.journal.dirty or now - r.saved_at > FIGURES_INTERVAL_SECONDS]
        if due:
            await self._save(due)
        for running in self._running.values():
            copier = running.copier
            if copier.journal.to_relearn is not None and running.relearning is None and copier.state == "running":
                running.relearning = asyncio.create_task(self._relearn(running), name=f"relearn {copier}")

    async def _relearn(self, running: Running) -> None:
        """The store is back: what there was no room for is read from the destination's log, page by page, and saved."""
        copier, journal = running.copier, running.copier.journal
        try:
            while (known := journal.to_relearn) is not None and not copier.stopping:
                assignment, flow = copier.assignment, copier.flow
                put, source = flow.place_of_destination(assignment), flow.place_of_source(assignment)
                await CopyFinder(flow.destination, put, source, known.epoch).relearn(journal)
                if journal.to_relearn is None or not journal.has_room:
                    await self._save_one(copier)
        except ReplicatorError as error:
            log.info("learning again waits", assignment=str(copier), error=str(error))  # The next round of saves begins it anew.
        finally:
            running.relearning = None

    async def _settle_ended(self, assignment_id: int, running: Running) -> None:
        """A copier that ended by itself was fenced: nothing of it may be saved any more, and the lease, if it is still ours, goes back."""
        self._forget(assignment_id)
        running.copier.flow.counts.leases_lost_total += 1
        await self._store.release(assignment_id, running.copier.journal.token, clean=running.copier.clean)
        if not running.task.cancelled() and running.task.exception() is not None:
            log.error("copier ended", assignment=str(running.copier), error=repr(running.task.exception()))

    async def _save_one(self, copier: Copier) -> None:
        running = self._running.get(copier.assignment.assignment_id)
        if running is None:
            raise Fenced(f"{copier}: the lease is gone")
        await self._save([running])

    async def _save(self, due: Sequence[Running]) -> None:
        """Saves in one transaction; raises ``StoreUnavailable`` with everything kept for the next time."""
        async with self._saving:
            now = time.monotonic()
            progresses = []
            for running in due:
                progress = running.copier.progress()
                latencies = sorted(running.copier.latencies_ms)
                running.copier.latencies_ms.clear()
                progress.rate_per_second = running.rate(progress.checkpoint.copied_total, now)
                progress.latency_ms = _percentiles(latencies)
                progresses.append(progress)
            try:
                lost = await self._store.save_progress(progresses)
            except BaseException:
                for running, progress in zip(due, progresses, strict=True):
                    running.copier.journal.not_saved(progress)
                raise
            for running, progress in zip(due, progresses, strict=True):
                running.saved_at = now
                if progress.assignment_id in lost:
                    running.cancel()

    async def _publish_round(self) -> None:
        """Our position under our own group on each source, so that RocketMQ's own tools show the lag."""
        by_group: dict[tuple[str, str], dict[Any, int]] = {}
        for running in self._running.values():
            copier = running.copier
            if copier.stopping:
                continue  # Its task may be deleted, and the group with it.
            group = position_group(copier.flow.task.name, copier.flow.destination_row.name)
            by_group.setdefault((copier.flow.source_row.name, group), {})[copier.assignment.source_queue] = copier.journal.examined_through
        for (source, group), positions in by_group.items():
            connector = self._connectors.get(source)
            if connector is not None:
                await connector.publish_position(group, positions)

    async def _flow(self, assignment: Assignment) -> FlowContext:
        async with self._opening.setdefault(f"flow {assignment.flow_id}", asyncio.Lock()):
            return self._flows.get(assignment.flow_id) or await self._make_flow(assignment)

    async def _make_flow(self, assignment: Assignment) -> FlowContext:
        source_row, destination_row = self._row(assignment.source), self._row(assignment.destination)
        source, destination = await self._connector(source_row), await self._connector(destination_row)
        described = await destination.describe()
        task_row = self._task_rows.get(assignment.task)
        if task_row is None:
            raise NotConnected(f"task {assignment.task} is not known yet")
        task = task_from_spec(task_row.name, task_row.spec)
        flow = self._flows[assignment.flow_id] = FlowContext(
            task, task_row.generation, source, destination, source_row, destination_row,
            {row.cluster_id: row for row in self._cluster_rows.values() if row.cluster_id},
            self._fence(source, source_row.name, lock_group(destination_row.cluster_id or "")),
            {}, Rate(task.messages_per_second_max, task.bytes_per_second_max),
            described.append_bytes_max, described.append_records_max, described.properties_bytes_max, described.record_overhead_bytes,
        )
        return flow

    def _row(self, cluster: str) -> ClusterRow:
        row = self._cluster_rows.get(cluster)
        if row is None:
            raise NotConnected(f"cluster {cluster} is not known yet")
        return row

    def _fence(self, source: Connector, source_name: str, group: str) -> SourceFence:
        fence = self._fences.get((source_name, group))
        if fence is None:
            fence = self._fences[(source_name, group)] = SourceFence(source, group, self.instance)
            fence.lease_renewed(boot_seconds())
            self._fence_tasks.append(asyncio.create_task(fence.run(), name=f"fence {source_name}"))
        return fence

    async def _connector(self, row: ClusterRow) -> Connector:
        async with self._opening.setdefault(row.name, asyncio.Lock()):
            connector = self._connectors.get(row.name)
            if connector is None:
                connector = self._connect(Cluster(row.name, row.connector, row.settings, row.region))
                try:
                    await connector.open()
                except BaseException:
                    await connector.close()
                    raise
                self._connectors[row.name] = connector
            return connector

    async def _close_connectors(self) -> None:
        for connector in self._connectors.values():
            try:
                await connector.close()
            except ReplicatorError as error:
                log.warning("closing", cluster=connector.cluster, error=str(error))


def _percentiles(latencies: list[float]) -> tuple[float, float] | None:
    """p50 and p99, None without samples or where skewed clocks make them negative."""
    if not latencies:
        return None
    p50, p99 = latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)]
    return (p50, p99) if p50 >= 0 and p99 >= 0 else None
