"""Whose word counts for the right to write: the master's, or under a living lease also a replica's."""

from __future__ import annotations

import asyncio

import pytest

from connectors.memory import factory
from replicator.core.connector import ConnectorContext
from replicator.core.record import MessageQueue
from replicator.worker.clock import boot_seconds
from replicator.worker.fence import Permit, SourceFence
from replicator.worker.limits import LEASE_SECONDS

QUEUE = MessageQueue("orders", "a-0", 0)


@pytest.fixture
async def asked(monkeypatch):
    """A connector that grants every lock, and what it was asked."""
    connector = factory(factory.settings_model(cluster="fence"), ConnectorContext("fence", "unit"))
    asked: list[bool] = []

    async def lock_queues(group, holder, queues, *, any_replica=False):
        asked.append(any_replica)
        return set(queues)

    async def unlock_queues(group, holder, queues):
        return None

    monkeypatch.setattr(connector, "lock_queues", lock_queues)
    monkeypatch.setattr(connector, "unlock_queues", unlock_queues)
    connector.asked = asked
    yield connector
    await connector.close()


async def test_a_replica_counts_while_the_lease_lives(asked):
    fence = SourceFence(asked, "g", "me")
    fence.lease_renewed(boot_seconds())
    await fence.take(QUEUE, "", was_released=True)
    await fence.renew()
    fence.lease_renewed(boot_seconds() - LEASE_SECONDS)
    await fence.renew()
    assert asked.asked == [True, True, False]


async def test_taking_over_from_somebody_who_did_not_let_go_wants_the_master(asked):
    fence = SourceFence(asked, "g", "me")
    fence.lease_renewed(boot_seconds())
    await fence.take(QUEUE, "other")
    assert asked.asked == [False]


async def test_without_any_lease_only_the_master_counts(asked):
    fence = SourceFence(asked, "g", "me")
    await fence.take(QUEUE, "", was_released=True)
    assert asked.asked == [False]


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancel_that_comes_together_with_a_renewal_is_not_lost(turns):
    """``turns`` of the event loop lie between the two."""
    permit = Permit()

    async def follow():
        while True:
            await permit.changed(60.0)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    permit.renew(boot_seconds())
    for _ in range(turns):
        await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait([following], timeout=5.0)
    assert following.cancelled()
