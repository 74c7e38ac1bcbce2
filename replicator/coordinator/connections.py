"""One opened connector for each cluster, opened again with back-off; and what its topics look like now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from replicator.core.connector import Connector
from replicator.core.errors import NotConnected, ReplicatorError
from replicator.core.record import TopicDescription
from replicator.core.task import Cluster

log = structlog.get_logger(__name__)

Connect = Callable[[Cluster], Connector]
Answer = TypeVar("Answer")

OPEN_SECONDS_MAX = 10.0
CLOSE_SECONDS_MAX = 2.0
CALL_SECONDS_MAX = 20.0
"""For one question to a cluster, whatever a connector thinks of it."""
BACKOFF_SECONDS_FIRST = 1.0
BACKOFF_SECONDS_MAX = 4.0
"""A cluster that is back must be found well within 10 s."""
CALLS_AT_ONCE_MAX = 8
TOPICS_FRESH_SECONDS = 2.0
DESCRIPTION_FRESH_SECONDS = 4.5
"""With a round every 3 s, new queues are found in less than 8 s, and a known topic is asked for at every second round only."""


@dataclass(slots=True)
class _Memo:
    at: float
    value: TopicDescription | None


@dataclass(slots=True)
class Link:
    """A cluster with its opened connector. Questions go through here, at most ``CALLS_AT_ONCE_MAX`` at a time."""

    cluster: Cluster
    connector: Connector
    limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE_MAX))
    _topics: tuple[float, tuple[str, ...]] | None = None
    _described: dict[str, _Memo] = field(default_factory=dict)

    async def topics(self) -> tuple[str, ...]:
        now = time.monotonic()
        if self._topics is None or now - self._topics[0] > TOPICS_FRESH_SECONDS:
            self._topics = now, tuple(await self.ask(self.connector.list_topics()))
        return self._topics[1]

    async def describe(self, topic: str) -> TopicDescription | None:
        memo = self._described.get(topic)
        if memo is None or time.monotonic() - memo.at > DESCRIPTION_FRESH_SECONDS:
            memo = _Memo(time.monotonic(), await self.ask(self.connector.describe_topic(topic)))
            if memo.value is None:
                self._described.pop(topic, None)
            else:
                self._described[topic] = memo
        return memo.value

    def forget(self, topic: str | None = None) -> None:
        """The next question about it (None: about anything) goes to the cluster."""
        self._topics = None
        if topic is None:
            self._described.clear()
        else:
            self._described.pop(topic, None)


    async def ask(self, asked: Awaitable[Answer]) -> Answer:
        async with self.limit:
            return await in_time(asked, self.cluster.name)


async def in_time(asked: Awaitable[Answer], cluster: str, seconds: float = CALL_SECONDS_MAX) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except TimeoutError as error:
        raise NotConnected(f"cluster {cluster} did not answer within {seconds:g} s") from error


@dataclass(slots=True)
class _Slot:
    """What is known of reaching one cluster."""

    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    link: Link | None = None
    error: ReplicatorError | None = None
    next_try_at: float = 0.0
    backoff_seconds: float = BACKOFF_SECONDS_FIRST


class Connections:
    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._slots: dict[str, _Slot] = {}

    async def get(self, cluster: Cluster, *, at_once: bool = False) -> Link:
        """The cluster as it is declared now. While it is away the last error is raised again without asking, until the back-off
        has passed; ``at_once`` asks in any case (somebody is waiting for the answer)."""
        slot = self._slots.setdefault(cluster.name, _Slot())
        async with slot.opening:
            if slot.link is not None and slot.link.cluster == cluster:
                return slot.link
            if slot.error is not None and not at_once and time.monotonic() < slot.next_try_at:
                raise slot.error
            await self._close_link(slot)
            try:
                slot.link = await self._open(cluster)
            except ReplicatorError as error:
                slot.error = error
                slot.next_try_at = time.monotonic() + slot.backoff_seconds
                slot.backoff_seconds = min(slot.backoff_seconds * 2, BACKOFF_SECONDS_MAX)
                raise
            slot.error, slot.backoff_seconds = None, BACKOFF_SECONDS_FIRST
            return slot.link

    @asynccontextmanager
    async def probe(self, cluster: Cluster) -> AsyncIterator[Link]:
        """A cluster as somebody wants to declare it: the link in use where that is the same, else one for this block only."""
        slot = self._slots.get(cluster.name)
        if slot is not None and slot.link is not None and slot.link.cluster == cluster:
            yield slot.link
            return
        link = await self._open(cluster)
        try:
            yield link
        finally:
            await _close(link)

    async def lost(self, link: Link) -> None:
        """``link`` answered ``NotConnected``: the next ``get`` opens a new one."""
        slot = self._slots.get(link.cluster.name)
        if slot is not None and slot.link is link:
            await self._close_link(slot)

    async def drop(self, name: str) -> None:
        """The cluster is no longer declared."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            await self._close_link(slot)

    async def close(self) -> None:
        links = [slot.link for slot in self._slots.values() if slot.link is not None]
        self._slots.clear()
        await asyncio.gather(*(_close(link) for link in links))

    def forget_answers(self) -> None:
        for slot in self._slots.values():
            if slot.link is not None:
                slot.link.forget()

    async def _open(self, cluster: Cluster) -> Link:
        connector = self._connect(cluster)
        try:
            await in_time(connector.open(), cluster.name, OPEN_SECONDS_MAX)
        except BaseException:
            await _close(Link(cluster, connector))
            raise
        return Link(cluster, connector)

    async def _close_link(self, slot: _Slot) -> None:
        if slot.link is not None:
            link, slot.link = slot.link, None
            await _close(link)


async def _close(link: Link) -> None:
    try:
        await in_time(link.connector.close(), link.cluster.name, CLOSE_SECONDS_MAX)
    except ReplicatorError as error:
        log.warning("connector did not close", cluster=link.cluster.name, error=str(error))
