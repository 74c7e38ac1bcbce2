"""Who may write: the exclusive right to a source queue, renewed each second, asked before each write's last system call.

The right is granted by the source broker (ability ``FencesSource``) or, where the connector has none, by the lease.
A frozen or sleeping holder wakes up without the right (``clock.py``).
"""

from __future__ import annotations

import asyncio

from replicator.core.connector import Connector, FencesSource
from replicator.core.errors import NotConnected, ReplicatorError
from replicator.core.record import MessageQueue
from replicator.worker.clock import boot_seconds
from replicator.worker.limits import FENCE_RENEW_SECONDS, FENCE_VALID_SECONDS, LEASE_SECONDS


class Permit:
    """Valid while its last confirmed renewal *started* less than V ago."""

    __slots__ = ("_changed", "lost", "problem", "renewed_at")

    def __init__(self) -> None:
        self.renewed_at = float("-inf")
        self.lost = False
        self.problem: ReplicatorError | None = None
        """Why the last renewal failed."""
        self._changed = asyncio.Event()

    def is_valid(self) -> bool:
        return not self.lost and boot_seconds() - self.renewed_at < FENCE_VALID_SECONDS

    def renew(self, started_at: float) -> None:
        self.renewed_at = started_at
        self.problem = None
        self._changed.set()

    def lose(self) -> None:
        self.lost = True
        self._changed.set()

    async def changed(self, timeout_seconds: float) -> None:
        """Waits for the next renewal or loss, at most ``timeout_seconds``."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return


class SourceFence:
    """The rights of one worker on the queues of one source cluster, under one lock group."""

    def __init__(self, connector: Connector, group: str, holder: str) -> None:
        self._connector = connector
        self._locks = connector if isinstance(connector, FencesSource) else None
        self._group = group
        self._holder = holder
        self._permits: dict[MessageQueue, Permit] = {}
        self._leased_at = float("-inf")

    def lease_renewed(self, started_at: float) -> None:
        """Tells a fence without source locks that the lease behind all of its permits was renewed."""
        self._leased_at = started_at
        if self._locks is None:
            for permit in self._permits.values():
                permit.renew(started_at)

    async def take(self, queue: MessageQueue, previous_holder: str, *, was_released: bool = False) -> Permit:
        """One attempt to become the only writer. ``previous_holder`` is unlocked first if it did not release the queue itself;
        where it did, and while our lease lives, a replica may stand in for a master that is away.
        Raises ``NotConnected`` while another client holds the lock (it expires at the broker within 60 s)."""
        permit = Permit()
        if self._locks is None:
            permit.renew(self._leased_at)
        else:
            if previous_holder and previous_holder != self._holder:
                await self._locks.unlock_queues(self._group, previous_holder, [queue])
            started_at = boot_seconds()
            any_replica = was_released and self._is_leased(started_at)
            if queue not in await self._locks.lock_queues(self._group, self._holder, [queue], any_replica=any_replica):
                raise NotConnected(
                    f"cluster {self._connector.cluster}: the lock of queue {queue} is held by another client of group {self._group}",
                    hint="it expires within 60 s of that client's last renewal",
                )
            permit.renew(started_at)
        self._permits[queue] = permit
        return permit

    def _is_leased(self, now: float) -> bool:
        return now - self._leased_at < LEASE_SECONDS

    async def give_up(self, queue: MessageQueue) -> None:
        """Releases the right; a broker that cannot be told lets the lock expire."""
        permit = self._permits.pop(queue, None)
        if permit is None:
            return
        permit.lose()
        if self._locks is not None:
            try:
                await self._locks.unlock_queues(self._group, self._holder, [queue])
            except ReplicatorError:
                return  # The lock expires by itself, and the next holder unlocks in our name.

    async def renew(self) -> None:
        """One round over all held queues. Raises what the connector raises; permits then simply age."""
        if self._locks is None or not self._permits:
            return
        queues = list(self._permits)
        started_at = boot_seconds()
        # What replicas grant, the master would not know: then the lease has to say that there is nobody else.
        any_replica = self._is_leased(started_at)
        held = await self._locks.lock_queues(self._group, self._holder, queues, any_replica=any_replica)
        for queue in queues:
            permit = self._permits.get(queue)
            if permit is None:
                continue
            if queue in held:
                permit.renew(started_at)
            else:
                permit.lose()
                del self._permits[queue]

    async def run(self) -> None:
        """Renews for ever; cancelled by its owner."""
        while True:
            try:
                await self.renew()
            except ReplicatorError as error:
                for permit in self._permits.values():
                    permit.problem = error
            await asyncio.sleep(FENCE_RENEW_SECONDS)
