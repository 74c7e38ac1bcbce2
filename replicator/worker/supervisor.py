"""One worker process: takes assignments, runs a copier for each, saves all of them once a second, lets go in order.

The store may be away: copiers go on as long as the source grants their locks; new leases, saves and hand-overs wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import structlog

from replicator.core.connector import Connector
from replicator.core.errors import Fenced, NotConnected, ReplicatorError
from replicator.core.task import Cluster, position_group
from replicator.store.port import Assignment, Store, StoreUnavailable
from replicator.store.sharing_port import Released
from replicator.worker.checking import Checks
from replicator.worker.clock import boot_seconds
from replicator.worker.copier import Copier
from replicator.worker.flow import FlowContext
from replicator.worker.flows import Flows
from replicator.worker.journal import Journal
from replicator.worker.limits import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_SECONDS_MAX,
    BLOCKED_RETRY_SECONDS,
    CHECK_INTERVAL_SECONDS,
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
    rated_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
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


class Taken(NamedTuple):
    """Leased, and not running yet."""

    assignment: Assignment
    starting: asyncio.Task[None]


class Worker:
    """``connect`` makes an unopened connector for a declared cluster. ``instance`` is unique to this process and start.
    ``near``: the cluster beside which it runs, empty for none in particular."""

    def __init__(self, store: Store, connect: Callable[[Cluster], Connector], instance: str, near: str = "") -> None:
        self.instance = instance
        self.near = near
        self._known_at = float("-inf")
        self._store = store
        self._flows = Flows(connect, instance)
        self._checks = Checks(store, connect, instance)
        self._running: dict[int, Running] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._vouching = Vouching(store, instance)
        self._saving = asyncio.Lock()
        self._watch = store.watch()
        self._taken: dict[int, Taken] = {}
        self._nobodys: dict[int, int] = {}
        """{assignment: token} held in our name at the last renewal, and not known here."""
        self._departing: dict[int, Running] = {}
        """Ended cleanly, and not released yet."""
        self._departure = asyncio.Lock()
        self._renewed_at = boot_seconds()

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
            await asyncio.gather(stopped, *loops, return_exceptions=True)
            await self._flows.close()

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
            group.create_task(self._every(CHECK_INTERVAL_SECONDS, self._checks.round), name="checks")

    async def _until_known(self) -> None:
        """Connections first: a worker that can begin at once leaves the queues it takes over without one for a shorter time."""
        while not self._flows.are_declared:
            try:
                await self._refresh_declarations()
                break
            except StoreUnavailable as error:
                log.warning("waiting", error=str(error))
                await asyncio.sleep(LEASE_RENEW_SECONDS)
        await self._flows.warm()

    async def _lease_round(self) -> None:
        """Nothing else is done here: on a machine that is short of time, this is what must not wait."""
        started_at = boot_seconds()
        running_before, taken_before = list(self._running.items()), list(self._taken.items())  # What begins meanwhile may be missing.
        held, _ = await asyncio.gather(
            self._store.renew(self.instance, LEASE_SECONDS), self._store.worker_seen(self.instance, self.info())
        )
        self._renewed_at = started_at
        self._known_at = started_at
        self._flows.lease_renewed(started_at)
        for assignment_id, running in running_before:
            if held.get(assignment_id) != running.copier.journal.token:
                running.cancel()
        for assignment_id, taken in taken_before:
            if held.get(assignment_id) != taken.assignment.token and self._taken.get(assignment_id) is taken:
                self._give_up(assignment_id)
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
            elif (given_up := self._give_up(assignment_id)) is not None:
                await self._store.release_all([given_up])
        for assignment in await self._store.acquire(self.instance, LEASE_SECONDS, LEASES_PER_ROUND_MAX):
            self._give_up(assignment.assignment_id)
            self._taken[assignment.assignment_id] = Taken(assignment, self._begin(self._start(assignment)))

    def _give_up(self, assignment_id: int) -> Released | None:
        """A lease with which nothing was begun: of it nothing can be in flight. None where there is no such lease."""
        taken = self._taken.pop(assignment_id, None)
        if taken is None:
            return None
        taken.starting.cancel()
        self._vouching.lost(assignment_id, taken.assignment.token, ())
        return Released(assignment_id, taken.assignment.token, taken.assignment.clean)

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
            "flows": self._flows.figures(),
        }

    def _forget(self, assignment_id: int) -> None:
        running = self._running.pop(assignment_id, None)
        if running is not None and running.relearning is not None:
            running.relearning.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._begun)
        return task

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("leases", error=repr(error))

    async def _refresh_declarations(self) -> None:
        edited = self._flows.declare(await self._store.clusters(), await self._store.tasks())
        for running in self._running.values():
            if (flow := edited.get(running.copier.assignment.flow_id)) is not None:
                running.copier.set_flow(flow)

    async def _start(self, assignment: Assignment) -> None:
        """Opens what the assignment needs, for as long as it takes, then runs its copier to its end."""
        assignment_id = assignment.assignment_id
        while assignment_id in self._departing:  # Its release came round before we heard that it was done.
            try:
                await self._depart()
            except StoreUnavailable:
                await asyncio.sleep(LEASE_RENEW_SECONDS)
        if assignment_id not in self._running:
            copier = Copier(assignment, await self._open(assignment), self._store, self._save_one, self._vouching.exact)
            task = asyncio.create_task(self._run_copier(copier), name=str(copier))
            self._running[assignment_id] = Running(copier, task, copied_when_rated=copier.journal.checkpoint.copied_total)
        self._taken.pop(assignment_id)

    async def _open(self, assignment: Assignment) -> FlowContext:
        """What it cannot open is shown with the assignment, and tried again."""
        shown, backoff = "", BACKOFF_FIRST_SECONDS
        while True:
            try:
                return await self._flows.of(assignment)
            except NotConnected as error:
                state, text, wait = "unreachable", str(error), backoff
            except ReplicatorError as error:
                state, text, wait = "blocked", str(error), BLOCKED_RETRY_SECONDS
            except Exception as error:  # A bug of ours.
                log.exception("opening failed", assignment=f"{assignment.source}: {assignment.source_queue}")
                state, text, wait = "failed", f"{type(error).__name__}: {error}", FAILED_RETRY_SECONDS
            if text != shown:
                log.warning("cannot start", assignment=f"{assignment.source}: {assignment.source_queue}", error=text)
            await self._show_unopened(assignment, state, text)
            await asyncio.sleep(wait)
            shown, backoff = text, min(backoff * 2, BACKOFF_SECONDS_MAX)

    async def _show_unopened(self, assignment: Assignment, state: str, error: str) -> None:
        """Why an assignment cannot even begin. Its lease stays: who is to try is the coordinator's choice."""
        progress = Journal(assignment).snapshot(in_flight=not assignment.clean)
        try:
            await self._store.save_progress([replace(progress, state=state, error=error)])
        except StoreUnavailable:
            return  # Shown with the next attempt.

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
        unused = self._store.release_all([given_up for i in list(self._taken) if (given_up := self._give_up(i)) is not None])
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
        now = asyncio.get_running_loop().time()
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
            now = asyncio.get_running_loop().time()
            progresses = []
            for running in due:
                progress = running.copier.progress()
                latencies = sorted(running.copier.appender.latencies_ms)
                running.copier.appender.latencies_ms.clear()
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
            connector = self._flows.connector(source)
            if connector is not None:
                await connector.publish_position(group, positions)


def _percentiles(latencies: list[float]) -> tuple[float, float] | None:
    """p50 and p99, None without samples or where skewed clocks make them negative."""
    if not latencies:
        return None
    p50, p99 = latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)]
    return (p50, p99) if p50 >= 0 and p99 >= 0 else None
