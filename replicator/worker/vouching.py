"""Which connections a former holder may have used. A dead one: all of its. A living one says it exactly.

A worker has one connection to a broker for all of its queues, and opens another when it had to reset one. So who takes over a queue
from a worker that lives cannot wait until none of its connections is left: the worker tells, with its sign of life, which ones the
lease it lost had used, and that it has reset them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replicator.core.errors import NotConnected
from replicator.store.limits import WORKER_GONE_SECONDS
from replicator.store.port import FORMER_LEASE_MARK, Store

TOLD_MAX = 2000
"""Lost leases a worker tells of; older ones are forgotten, and their successors wait for the worker's end."""


class Vouching:
    def __init__(self, store: Store, instance: str) -> None:
        self._store = store
        self._instance = instance
        self._lost: dict[int, tuple[int, tuple[str, ...]]] = {}

    def lost(self, assignment_id: int, token: int, senders: Sequence[str]) -> None:
        """A lease ended without proof that nothing is under way; ``senders`` are reset and will not send again."""
        _, before = self._lost.pop(assignment_id, (0, ()))
        exact = (sender for sender in senders if FORMER_LEASE_MARK not in sender)  # Successors know of the other leases themselves.
        self._lost[assignment_id] = token, tuple(sorted({*before, *exact}))
        while len(self._lost) > TOLD_MAX:
            self._lost.pop(next(iter(self._lost)))

    def told(self) -> dict[str, Any]:
        return {str(assignment_id): [token, *senders] for assignment_id, (token, senders) in self._lost.items()}

    async def exact(self, assignment_id: int, senders: Sequence[str]) -> tuple[str, ...]:
        """``senders`` of an assignment with exact identities in place of former leases, as far as their holders live.
        Raises ``NotConnected`` while a living one has not let go yet, and ``StoreUnavailable``."""
        former = [_lease_of(sender) for sender in senders if FORMER_LEASE_MARK in sender]
        found = {sender for sender in senders if FORMER_LEASE_MARK not in sender}
        living: Mapping[str, Mapping[str, Any]] = {}
        if any(holder != self._instance for holder, _ in former):
            living = {holder: info for holder, info, _ in await self._store.workers(WORKER_GONE_SECONDS)}
        for holder, token in former:
            if holder == self._instance:
                found.update(self._lost.get(assignment_id, (0, ()))[1])
            elif holder not in living:
                found.add(holder)
            else:
                told = living[holder].get("lost", {}).get(str(assignment_id))
                if told is None or told[0] < token:
                    raise NotConnected(f"the worker {holder}, which held it before, lives and has not let go of it yet")
                found.update(told[1:])
        return tuple(sorted(found))


def _lease_of(sender: str) -> tuple[str, int]:
    holder, _, token = sender.rpartition(FORMER_LEASE_MARK)
    return holder, int(token)
