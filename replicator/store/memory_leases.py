"""Leases, workers and the sharing of assignments in the memory store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from replicator.store.limits import COORDINATOR_LEASE, STICKY_STATES, WORKER_GONE_SECONDS
from replicator.store.memory_tables import StoredAssignment, Tables
from replicator.store.port import FORMER_LEASE_MARK, Assignment, Flow, TopicPair
from replicator.store.sharing_port import Released, Share, Staff


class MemoryWatch:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def changed(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.event.wait()
        except TimeoutError:
            return
        finally:
            self.event.clear()


class MemoryLeases:
    _clock: Callable[[], float]
    _up_since: float
    _watches: WeakValueDictionary[int, MemoryWatch]
    """In the order in which they were made: simulations repeat exactly."""
    _watches_made: count[int]

    def _read(self) -> Tables:
        raise NotImplementedError

    def _at(self, seconds: float) -> datetime:
        raise NotImplementedError

    def _flow_of(self, stored: StoredAssignment) -> tuple[TopicPair, Flow | None]:
        raise NotImplementedError

    def _complete(self, stored: StoredAssignment) -> Assignment | None:
        raise NotImplementedError

    def _token(self, holder: str) -> int | None:
        """Of the lease ``coordinator``, where ``holder`` has it."""
        tables = self._read()
        held = tables.leases.get(COORDINATOR_LEASE)
        if held is None or held[0] != holder or held[1] <= self._clock():
            return None
        return tables.lease_tokens[COORDINATOR_LEASE]

    def watch(self) -> MemoryWatch:
        made = MemoryWatch()
        self._watches[next(self._watches_made)] = made
        return made

    def _announce(self) -> None:
        for watch in self._watches.values():
            watch.event.set()

    def _is_expired(self, lease_until: float, lease_seconds: float) -> bool:
        now = self._clock()
        return lease_until <= now and self._up_since + lease_seconds <= now

    def _is_wanted(self, stored: StoredAssignment) -> bool:
        pair, flow = self._flow_of(stored)
        return flow is not None and not flow.paused and not pair.paused and pair.state == "active"

    def _lives(self, worker: str) -> bool:
        info, seen_at = self._read().workers.get(worker, ({"left": True}, 0.0))
        return "left" not in info and seen_at > self._clock() - WORKER_GONE_SECONDS

    def _may_take(self, stored: StoredAssignment, holder: str, lease_seconds: float) -> bool:
        worker, tables, now = stored.row.worker, self._read(), self._clock()
        _, decides_until = tables.leases.get(COORDINATOR_LEASE, ("", now))
        if worker == holder or decides_until <= now:
            return True
        _, seen_at = tables.workers.get(worker, ({}, float("-inf")))
        return worker != "" and seen_at <= now - max(lease_seconds, WORKER_GONE_SECONDS)

    async def acquire(self, holder: str, lease_seconds: float, limit: int) -> Sequence[Assignment]:
        taken: list[Assignment] = []
        for stored in self._read().assignments.values():
            if len(taken) >= limit:
                break
            if not self._is_wanted(stored) or not self._may_take(stored, holder, lease_seconds):
                continue
            if stored.lease_until is not None and not self._is_expired(stored.lease_until, lease_seconds):
                continue
            before = stored.row
            state = before.state if before.state in STICKY_STATES else "starting"
            former = () if before.clean or not before.holder else (f"{before.holder}{FORMER_LEASE_MARK}{before.token}",)
            senders = (*before.senders, *former)
            stored.row = replace(before, token=before.token + 1, holder=holder, clean=False, state=state, senders=senders)
            stored.lease_until, stored.revoked = self._clock() + lease_seconds, False
            row = self._complete(stored)
            assert row is not None
            taken.append(replace(row, holder=before.holder, clean=before.clean))
        return taken

    async def renew(self, holder: str, lease_seconds: float) -> Mapping[int, int]:
        held = {}
        for assignment_id, stored in self._read().assignments.items():
            if stored.row.holder == holder and stored.lease_until is not None:
                stored.lease_until = self._clock() + lease_seconds
                held[assignment_id] = stored.row.token
        return held

    def _held(self, assignment_id: int, token: int) -> StoredAssignment | None:
        stored = self._read().assignments.get(assignment_id)
        return stored if stored is not None and stored.row.token == token and stored.lease_until is not None else None

    async def release(self, assignment_id: int, token: int, *, clean: bool) -> bool:
        return bool(await self.release_all([Released(assignment_id, token, clean)]))

    async def release_all(self, released: Sequence[Released]) -> set[int]:
        self._read()
        given = set()
        for assignment_id, token, clean in released:
            stored = self._held(assignment_id, token)
            if stored is not None:
                stored.row, stored.lease_until = replace(stored.row, clean=clean), None
                given.add(assignment_id)
        self._announce()
        return given

    async def leased_count(self, task: str) -> int:
        tables, now = self._read(), self._clock()
        living = [stored for stored in tables.assignments.values() if stored.lease_until is not None and stored.lease_until > now]
        return sum(tables.pairs[stored.row.pair_id].last_task == task for stored in living)

    async def revoked(self, holder: str) -> Sequence[int]:
        found = []
        for assignment_id, stored in self._read().assignments.items():
            if stored.row.holder != holder or stored.lease_until is None:
                continue
            is_moved = stored.row.worker != holder and self._lives(stored.row.worker)
            if stored.revoked or is_moved or not self._is_wanted(stored):
                found.append(assignment_id)
        return found

    async def staff(self) -> Staff:
        tables = self._read()
        known = [name for name, (info, _) in sorted(tables.workers.items()) if "left" not in info]
        near = {name: str(tables.workers[name][0].get("near", "")) for name in known if self._lives(name)}
        wanted = [stored for stored in tables.assignments.values() if self._is_wanted(stored)]
        is_settled = self._up_since + WORKER_GONE_SECONDS <= self._clock()
        return Staff(near, frozenset(known) - near.keys(), is_settled, sum(stored.row.worker not in near for stored in wanted))

    async def shares(self) -> Sequence[Share]:
        found, now = [], self._clock()
        for assignment_id, stored in self._read().assignments.items():
            _, flow = self._flow_of(stored)
            if flow is not None and self._is_wanted(stored):
                is_held = stored.lease_until is not None and stored.lease_until > now
                holder = stored.row.holder if is_held else ""
                found.append(Share(assignment_id, flow.destination, stored.row.worker, holder, stored.rate_per_second))
        return found

    async def place(self, coordinator: str, placed: Mapping[int, str]) -> bool:
        if self._token(coordinator) is None:
            return False
        for assignment_id, worker in placed.items():
            stored = self._read().assignments.get(assignment_id)
            if stored is not None:
                stored.row = replace(stored.row, worker=worker)
        if placed:
            self._announce()
        return True

    async def worker_seen(self, holder: str, info: dict[str, Any]) -> None:
        workers = self._read().workers
        is_new = holder not in workers
        workers[holder] = (deepcopy(info), self._clock())
        if is_new:
            self._announce()

    async def worker_left(self, holder: str) -> None:
        workers = self._read().workers
        if holder in workers:
            info, seen_at = workers[holder]
            workers[holder] = ({**info, "left": True}, seen_at)
        self._announce()

    async def workers(self, within_seconds: float) -> Sequence[tuple[str, dict[str, Any], datetime]]:
        since = self._clock() - within_seconds
        rows = sorted(self._read().workers.items())
        return [(name, deepcopy(info), self._at(seen)) for name, (info, seen) in rows if seen >= since and "left" not in info]

    async def hold_coordinator(self, holder: str, lease_seconds: float) -> bool:
        leases = self._read().leases
        held = leases.get(COORDINATOR_LEASE)
        if held is not None and held[0] != holder and held[1] != float("-inf") and not self._is_expired(held[1], lease_seconds):
            return False
        if held is None or held[0] != holder:
            self._read().lease_tokens[COORDINATOR_LEASE] += 1
        leases[COORDINATOR_LEASE] = (holder, self._clock() + lease_seconds)
        return True

    async def drop_coordinator(self, holder: str) -> None:
        leases = self._read().leases
        if leases.get(COORDINATOR_LEASE, ("", 0.0))[0] == holder:
            leases[COORDINATOR_LEASE] = (holder, float("-inf"))
        self._announce()

    async def tell_as_coordinator(self, holder: str, detail: dict[str, Any]) -> bool:
        if self._token(holder) is None:
            return False
        self._read().lease_details[COORDINATOR_LEASE] = deepcopy(detail)
        return True

    async def told_by_coordinator(self) -> tuple[str, dict[str, Any]]:
        tables = self._read()
        holder, until = tables.leases.get(COORDINATOR_LEASE, ("", 0.0))
        if until <= self._clock():
            return "", {}
        return holder, deepcopy(tables.lease_details.get(COORDINATOR_LEASE, {}))
