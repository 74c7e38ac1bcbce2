"""Consumers behind 5.x proxies, which the brokers themselves do not list (a proxy in cluster mode keeps its clients to itself).

Proxies tell each other of their clients through a topic: one record for every heartbeat (gRPC clients: each 10 s) with the client,
its group and what it subscribes to, and one when it goes (HeartbeatSyncer, HeartbeatSyncerData; 5.3.3 asked). We read along.
A gRPC client pops, whatever it is called: its group's offset says what was handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.rocketmq.admin import describe_topic
from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered
from connectors.rocketmq.remoting import headers
from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.fastjson import loads
from connectors.rocketmq.source import PullReader
from replicator.core.errors import NotPermitted
from replicator.core.groups import GroupMembers, Subscription
from replicator.core.record import MessageQueue

HEARTBEAT_TOPIC = "DefaultHeartBeatSyncerTopic"
ALIVE_MS = 40_000
"""Without a heartbeat for so long a client is gone: three were missed, with some delay."""
LOOK_SECONDS = 2.0
LOOK_BACK_RECORDS_MAX = 5_000
"""Heartbeats older than the newest so many of a queue are not read."""
GRPC_CHANNEL = "GRPC_V2"

Read = Callable[[MessageQueue, int], PullReader]


@dataclass(slots=True)
class _Client:
    seen_ms: int
    """Store time of its last heartbeat."""
    subscriptions: tuple[Subscription, ...]
    broadcasting: bool


@dataclass(slots=True)
class ProxyMembers:
    """Raises ``Unreachable``, ``Answered``, ``ProtocolError``."""

    client: Client
    read: Read
    _groups: dict[str, dict[str, _Client]] = field(default_factory=dict)
    _pops: set[str] = field(default_factory=set)
    _positions: dict[MessageQueue, int] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _looked_at: float = float("-inf")
    _newest: tuple[int, float] = (0, 0.0)
    """Store time of the newest heartbeat, and our clock when it was read."""

    async def members(self, group: str) -> GroupMembers:
        """``kind`` is told of a group that was ever seen here, also while nobody is there."""
        async with self._looking:
            if asyncio.get_running_loop().time() - self._looked_at >= LOOK_SECONDS:
                try:
                    await self._look()
                except NotPermitted:
                    pass  # Not every account may read what proxies tell each other: then nobody is seen behind them.
                except Answered as error:
                    if not error.concerns_credentials:
                        raise
                self._looked_at = asyncio.get_running_loop().time()
        now_ms = self._newest[0] + (asyncio.get_running_loop().time() - self._newest[1]) * 1000
        alive = [one for one in self._groups.get(group, {}).values() if now_ms - one.seen_ms <= ALIVE_MS]
        kind = "pop" if group in self._pops else ""
        if not alive:
            return GroupMembers(kind=kind)
        subscriptions = alive[0].subscriptions
        agree = all(one.subscriptions == subscriptions for one in alive)
        return GroupMembers(len(alive), kind, any(one.broadcasting for one in alive), subscriptions, agree)

    async def _look(self) -> None:
        topic = await describe_topic(self.client, HEARTBEAT_TOPIC)
        for queue in topic.queues if topic is not None else ():
            end = headers.read_offset(await self._ask(queue, headers.max_offset(queue.topic, queue.queue_id)))
            begin = headers.read_offset(await self._ask(queue, headers.min_offset(queue.topic, queue.queue_id)))
            position = max(self._positions.get(queue, 0), begin, end - LOOK_BACK_RECORDS_MAX)
            while position < end:
                reader = self.read(queue, position)
                try:
                    batch = await reader.read()
                    for record in batch.records():
                        self._note(record.body, record.store_timestamp_ms)
                    reader.release(batch)
                finally:
                    await reader.close()
                if batch.next_offset <= position:
                    break
                position = batch.next_offset
            self._positions[queue] = min(position, end)
        for group, clients in self._groups.items():
            self._groups[group] = {name: one for name, one in clients.items() if self._newest[0] - one.seen_ms <= ALIVE_MS}

    async def _ask(self, queue: MessageQueue, command: RemotingCommand) -> RemotingCommand:
        return await self.client.ask(queue.broker_name, command, any_replica=True)

    def _note(self, body: bytes, store_ms: int) -> None:
        try:
            told = loads(body)
        except ProtocolError:
            return  # Written by a release we do not know: it says nothing to us.
        if not isinstance(told, dict):
            return
        group, name = str(told.get("group", "")), str(told.get("clientId", ""))
        if store_ms >= self._newest[0]:
            self._newest = store_ms, asyncio.get_running_loop().time()
        clients = self._groups.setdefault(group, {})
        if told.get("heartbeatType") == "UNREGISTER":
            clients.pop(name, None)
            return
        if GRPC_CHANNEL in str(told.get("channelData", "")):
            self._pops.add(group)
        clients[name] = _Client(store_ms, _subscriptions(told), told.get("messageModel") == "BROADCASTING")


def _subscriptions(told: Mapping[str, Any]) -> tuple[Subscription, ...]:
    found = [one for one in told.get("subscriptionDataSet") or () if isinstance(one, dict)]
    return tuple(
        sorted(
            (
                Subscription(str(one.get("topic", "")), str(one.get("subString") or "*"), str(one.get("expressionType") or "TAG"))
                for one in found
            ),
            key=lambda one: one.topic,
        )
    )
