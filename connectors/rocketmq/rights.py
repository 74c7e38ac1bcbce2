"""What an account may do with topics, asked by requests that are judged by its rights and then change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered
from connectors.rocketmq.client.sending import SENDER_GROUP
from connectors.rocketmq.names import BARRIER_TOPIC
from connectors.rocketmq.remoting import headers
from connectors.rocketmq.source import PULL_ANSWERS, READER_GROUP

NO_QUEUE = 2**31 - 1
"""No topic has it: an append to it is refused by every version, after the account's rights were looked at and before anything else."""
TOPICS_AT_ONCE_MAX = 32


async def missing_rights(client: Client, read: Collection[str], write: Collection[str]) -> Sequence[str]:
    """One text for each topic and broker that refuses, with its words. Whoever writes also reads and writes barriers.
    Raises ``Unreachable``, and ``Answered`` where the account itself is not accepted."""
    limit = asyncio.Semaphore(TOPICS_AT_ONCE_MAX)

    async def one(topic: str, what: str, ask: Callable[[Client, str, str], Awaitable[None]]) -> list[str]:
        async with limit:
            route = await client.route(topic)
            brokers = await client.brokers()
            names = {queue.broker_name for queue in route.queues} & set(brokers) if route is not None else set()
            refusals = [await _refusal(ask(client, name, topic), f"topic {topic} may not be {what}") for name in sorted(names)]
            return [said for said in refusals if said]

    written = {*write, BARRIER_TOPIC} if write else set()
    asked = [one(topic, "read", _read) for topic in sorted({*read, *written})]
    asked += [one(topic, "written to", _write) for topic in sorted(written)]
    return [said for found in await asyncio.gather(*asked) for said in found]


async def _refusal(asked: Awaitable[None], what: str) -> str:
    try:
        await asked
    except Answered as error:
        if error.concerns_rights:
            return f"{what}: {error}"
        if error.concerns_credentials:
            raise
    return ""


async def _read(client: Client, broker_name: str, topic: str) -> None:
    """At the very end, where nothing is carried; beyond it a broker would write down that somebody went astray."""
    end = headers.read_offset(await client.ask(broker_name, headers.max_offset(topic, 0)))
    await client.ask(broker_name, headers.pull(READER_GROUP, (topic, 0), end, 1), PULL_ANSWERS)


async def _write(client: Client, broker_name: str, topic: str) -> None:
    await client.ask(broker_name, headers.send_single(headers.SendTarget(SENDER_GROUP, topic, NO_QUEUE, 0), b"-", b""))
