"""Who copies what: follows workers that come and go at once, and loads that change with patience.

Runs in the holder of the lease ``coordinator`` only, which the store checks in each choice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from replicator.core.errors import ReplicatorError
from replicator.core.placement import Placeable, place, weight_of
from replicator.store.port import Store
from replicator.store.sharing_port import Share, Staff

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.5
TURN_PAUSE_SECONDS = 0.05
"""Changes of one moment are followed together."""
REBALANCE_SECONDS = 30.0
"""How often the shares are looked at without a worker coming or going."""
SAMPLE_SECONDS = 5.0
RETURN_SECONDS = 15.0
"""A worker that had fallen silent gets a share again when it has been heard of for so long: one short of time would come and go, and
each time take others' time too."""
RATE_MEMORY = 0.8
"""How much of what a rate was before stays in its mean with each sample: half a minute's mean, about."""


class Sharer:
    """``clock``: seconds, as ``time.monotonic``."""

    def __init__(self, store: Store, instance: str, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._instance = instance
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._watch = store.watch()
        self._near: Mapping[str, str] = {}
        self._weighed_at = self._sampled_at = float("-inf")
        self._rates: dict[int, float] = {}
        self._returns_at: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        failing = ""
        while not stop.is_set():
            try:
                await self.turn()
                failing = ""
            except ReplicatorError as error:
                if str(error) != failing:
                    log.warning("sharing waits", error=str(error))
                failing = str(error)
            except Exception:
                # A bug of ours: loud, and workers go on with what they have.
                log.exception("sharing failed")
            await self._pause(stop)

    async def _pause(self, stop: asyncio.Event) -> None:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._watch.changed(TURN_SECONDS))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.sleep(TURN_PAUSE_SECONDS)

    async def turn(self) -> None:
        """One look; chooses where something is to choose."""
        if not await self._store.hold_coordinator(self._instance, self._lease_seconds):
            self._near, self._weighed_at, self._sampled_at = {}, float("-inf"), float("-inf")
            self._rates.clear()
            return
        now = self._clock()
        staff = self._without_unsteady(await self._store.staff(), now)
        is_due = now - self._weighed_at >= REBALANCE_SECONDS
        wants_sample = now - self._sampled_at >= SAMPLE_SECONDS
        wants_choice = bool(is_due or staff.strays or staff.near != self._near)
        if not staff.near or not (wants_choice or wants_sample):
            return
        shares = await self._store.shares()
        if wants_sample:
            self._sample(shares)
            self._sampled_at = now
        if not wants_choice:
            return
        if is_due:
            self._weighed_at = now
        chosen = self._choose(staff, shares)
        if not await self._store.place(self._instance, chosen):
            return
        self._near = staff.near if staff.is_settled else {}
        if chosen:
            log.info("shared", assignments=len(shares), chosen=len(chosen), workers=len(staff.near))

    def _without_unsteady(self, staff: Staff, now: float) -> Staff:
        """Those that were silent not long ago count as silent still, unless there is nobody else."""
        if staff.is_settled:
            self._returns_at |= dict.fromkeys(staff.silent, now + RETURN_SECONDS)
        self._returns_at = {name: at for name, at in self._returns_at.items() if at > now}
        steady = {name: near for name, near in staff.near.items() if name not in self._returns_at}
        if not steady or len(steady) == len(staff.near):
            return staff
        return replace(staff, near=steady, silent=staff.silent | (staff.near.keys() - steady.keys()))

    def _sample(self, shares: Sequence[Share]) -> None:
        """A mean over some time: what drains a backlog for a moment is no reason to move."""
        rates = {}
        for share in shares:
            known = self._rates.get(share.assignment_id)
            now = share.rate_per_second if share.rate_per_second is not None else known
            if now is not None:
                rates[share.assignment_id] = now if known is None else RATE_MEMORY * known + (1 - RATE_MEMORY) * now
        self._rates = rates

    def _choose(self, staff: Staff, shares: Sequence[Share]) -> dict[int, str]:
        """{assignment: worker} of those for which another than before is chosen."""
        queues = []
        for share in shares:
            # One chosen that never came leaves it where it is.
            worker = share.chosen if share.chosen in staff.near else share.holder
            if not staff.is_settled and worker not in staff.near and staff.silent & {share.chosen, share.holder}:
                continue  # The database was away, and nobody could tell of himself.
            weight = weight_of(self._rates.get(share.assignment_id, share.rate_per_second))
            queues.append(Placeable(share.assignment_id, share.destination, weight, worker))
        placed = place(queues, staff.near)
        before = {share.assignment_id: share.chosen for share in shares}
        return {assignment_id: worker for assignment_id, worker in placed.items() if before[assignment_id] != worker}
