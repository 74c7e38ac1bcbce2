"""Doubt about a destination broker, settled in this order: no old connection, settle time, barrier. The scan is the caller's.

After ``settle`` returns, everything that the named senders ever handed to the network towards this broker is either in its
log and readable, or will never be: their channels are gone at the broker itself where it can list them, requests it had
taken off the wire have had the settle time to run, and a record written after that is readable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from replicator.core.connector import Connector, ListsSenders, SendPermit
from replicator.core.errors import Fenced, NotConnected, Refused, ReplicatorError, Throttled
from replicator.worker.clock import boot_seconds
from replicator.worker.counters import SettleCounts
from replicator.worker.limits import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_SECONDS_MAX,
    BARRIER_TIMEOUT_SECONDS,
    CENSUS_INTERVAL_SECONDS,
    CENSUS_SECONDS_MAX,
    SETTLE_SECONDS,
)


class BrokerSettler:
    """Settles one destination broker for all assignments of a worker; those in doubt together share one round."""

    def __init__(self, connector: Connector, broker_name: str) -> None:
        self._connector = connector
        self._broker_name = broker_name
        self._one_at_a_time = asyncio.Lock()
        self._settled: dict[str, float] = {}
        """Sender or holder -> when the last round that covered it began."""
        self.counts = SettleCounts()

    async def settle(self, senders: Collection[str], permit: SendPermit) -> None:
        """``senders``: identities, or holders (every identity ``holder@…`` counts). They must be unable to start new writes.
        Waits as long as the broker does not answer (cancel to give up); raises ``Refused`` when a sender stays connected for
        longer than a broker keeps silent channels, ``NotConnected`` when the barrier could not be shown."""
        asked_at = boot_seconds()
        async with self._one_at_a_time:
            if all(self._settled.get(sender, float("-inf")) >= asked_at for sender in senders):
                return
            began_at = boot_seconds()
            try:
                await self._wait_until_gone(senders)
                await asyncio.sleep(SETTLE_SECONDS)
                await self._write_barrier(permit)
            finally:
                self.counts.seconds_total += boot_seconds() - began_at
            self.counts.rounds_total += 1
            for sender in senders:
                self._settled[sender] = began_at

    async def _write_barrier(self, permit: SendPermit) -> None:
        try:
            await self._connector.write_barrier(self._broker_name, permit, BARRIER_TIMEOUT_SECONDS)
        except Fenced as error:
            self.counts.barriers_failed_total += 1
            # The right aged while we waited; it is renewed or lost by its own loop, and doubt is settled anew.
            raise NotConnected(f"cluster {self._connector.cluster}, broker {self._broker_name}: {error.message}") from error
        except ReplicatorError:
            self.counts.barriers_failed_total += 1
            raise
        self.counts.barriers_total += 1

    async def _wait_until_gone(self, senders: Collection[str]) -> None:
        """Returns with the first answer of the broker in which none of the senders has a channel."""
        if not isinstance(self._connector, ListsSenders):
            await self._wait_for_answer()
            return
        deadline = boot_seconds() + CENSUS_SECONDS_MAX
        backoff = BACKOFF_FIRST_SECONDS
        while True:
            try:
                listed = await self._connector.sender_identities(self._broker_name)
            except (NotConnected, Throttled):
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)
                deadline = boot_seconds() + CENSUS_SECONDS_MAX
                continue
            if listed is None or not any(_is_of(identity, sender) for identity in listed for sender in senders):
                return
            if boot_seconds() > deadline:
                raise Refused(
                    f"cluster {self._connector.cluster}, broker {self._broker_name}: a former sender ({', '.join(sorted(senders))}) "
                    f"is still connected after {CENSUS_SECONDS_MAX:.0f} s",
                    hint="end that process, or the connection of whatever stands between",
                )
            await asyncio.sleep(CENSUS_INTERVAL_SECONDS)

    async def _wait_for_answer(self) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        while True:
            try:
                await self._connector.describe()
                return
            except (NotConnected, Throttled):
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)


def _is_of(identity: str, sender: str) -> bool:
    return identity == sender or identity.startswith(sender + "@")
