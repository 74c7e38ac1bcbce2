"""What the connector asks and changes besides records: brokers, topics, groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.message import PROPERTIES_BYTES_MAX, stored_size
from connectors.rocketmq.sink import BATCH_BYTES_MAX
from replicator.core.connector import BrokerDescription, ClusterDescription
from replicator.core.errors import NotConnected
from replicator.core.record import MessageQueue, OffsetRange, QueueSpread, TopicDescription

if TYPE_CHECKING:
    from connectors.rocketmq.connector import RocketMQConnector

APPEND_RECORDS_MAX = 4_000
"""5.x counts a batch in 16 bits; a few thousand is far from that (P§5)."""
PROPERTIES_BYTES_SAFE = 32_000
"""4.8 to 5.3.3 append batch-level properties without a look at the 32,767 limit."""
TOPIC_READY_SECONDS_MAX = 15.0
TOPIC_POLL_SECONDS = 0.05
_RECORD_OVERHEAD_BYTES = stored_size("", 0, 0)
_SYSTEM_ATTRIBUTES = ("message.type",)

assert PROPERTIES_BYTES_SAFE < PROPERTIES_BYTES_MAX


async def describe_cluster(client: Client, cluster: str) -> ClusterDescription:
    """Asks every master; one that does not answer is a ``NotConnected`` with its name."""
    found: list[BrokerDescription] = []
    size_max = BATCH_BYTES_MAX
    warnings: list[str] = []
    for name in sorted(await client.brokers(fresh=True)):
        began = time.perf_counter()
        runtime = bodies.read_runtime_info((await client.ask(name, headers.broker_runtime_info())).body)
        elapsed_ms = (time.perf_counter() - began) * 1000
        config: dict[str, str] = {}
        try:
            config = bodies.read_properties_text((await client.ask(name, headers.broker_config())).body)
        except Answered as error:
            warnings.append(f"broker {name}: its configuration cannot be read ({error}); defaults are assumed")
        size_max = min(size_max, int(config.get("maxMessageSize", str(BATCH_BYTES_MAX))))
        filters = {"true": True, "false": False}.get(config.get("enablePropertyFilter", ""))
        found.append(
            BrokerDescription(name, await client.master_address(name), runtime.get("brokerVersionDesc", "unknown"), filters, elapsed_ms)
        )
        if filters is False:
            warnings.append(f"broker {name}: enablePropertyFilter is off, so consumers cannot filter by origin tag with SQL92")
    if not found:
        raise NotConnected(f"cluster {cluster}: its name server knows no broker", hint="check name_servers and cluster_name")
    return ClusterDescription(
        tuple(found), size_max, APPEND_RECORDS_MAX, PROPERTIES_BYTES_SAFE, _RECORD_OVERHEAD_BYTES, tuple(warnings)
    )


async def describe_topic(client: Client, topic: str) -> TopicDescription | None:
    """From the route (which queues exist and may be read) and one master's own configuration (what kind of topic it is)."""
    brokers = await client.brokers()
    route = await client.route(topic)
    if route is None:
        return None
    queues: list[MessageQueue] = []
    readable = writable = True
    for data in route.queues:
        if data.broker_name not in brokers:
            continue
        queues.extend(MessageQueue(topic, data.broker_name, queue_id) for queue_id in range(data.read_queue_count))
        readable = readable and bool(data.perm & headers.PERM_READ)
        writable = writable and bool(data.perm & headers.PERM_WRITE)
    if not queues:
        return None
    queues.sort(key=lambda queue: (queue.broker_name, queue.queue_id))
    config = await _topic_config(client, queues[0].broker_name, topic)
    attributes = dict(config.attributes) if config is not None else {}
    return TopicDescription(
        topic, tuple(queues), config.order if config is not None else bool(route.order_conf), attributes.get("message.type", ""),
        attributes, readable, writable, _unsupported(route, attributes),
    )


def _unsupported(route: bodies.TopicRoute, attributes: dict[str, str]) -> str:
    if route.is_static:
        return "a static topic: its queue ids and offsets are mapped by the brokers"
    if attributes.get("cleanup.policy", "DELETE") == "COMPACTION":
        return "a compaction topic: records vanish from its middle"
    if attributes.get("queue.type", "SimpleCQ") == "BatchCQ":
        return "a batch queue topic: offsets count within stored batches"
    return ""


async def _topic_config(client: Client, broker_name: str, topic: str) -> bodies.TopicConfig | None:
    """351 where the broker knows it, else the whole table: 4.4.0 does not even answer requests it does not know."""
    if await _is_5x(client, broker_name):
        answer = await client.ask(
            broker_name, headers.topic_config(topic), (int(ResponseCode.SUCCESS), int(ResponseCode.TOPIC_NOT_EXIST))
        )
        return bodies.read_topic_config(answer.body) if answer.code == ResponseCode.SUCCESS else None
    answer = await client.ask(broker_name, headers.all_topic_configs())
    return bodies.read_topic_configs(answer.body).get(topic)


async def _is_5x(client: Client, broker_name: str) -> bool:
    runtime = bodies.read_runtime_info((await client.ask(broker_name, headers.broker_runtime_info())).body)
    return runtime.get("brokerVersionDesc", "").startswith("V5")


async def create_topic(client: Client, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
    """Creates or grows on each master of the spread, then waits until the name server's route shows it all."""
    for part in spread:
        existing = await _topic_config(client, part.broker_name, description.name)
        read = max(part.queue_count, existing.read_queue_count if existing else 0)
        write = max(part.queue_count, existing.write_queue_count if existing else 0)
        if existing is not None and (read, write) == (existing.read_queue_count, existing.write_queue_count):
            continue
        attributes = ""
        if existing is None and description.message_type and await _is_5x(client, part.broker_name):
            attributes = f"+message.type={description.message_type}"
        await create_topic_on(
            client, part.broker_name, headers.NewTopic(description.name, read, write, order=description.ordered, attributes=attributes)
        )
    deadline = asyncio.get_running_loop().time() + TOPIC_READY_SECONDS_MAX
    while not await _is_routed(client, description.name, spread):
        if asyncio.get_running_loop().time() > deadline:
            raise Unreachable("name servers", f"topic {description.name} was created, but its route does not show it")
        await asyncio.sleep(TOPIC_POLL_SECONDS)


async def _is_routed(client: Client, topic: str, spread: Sequence[QueueSpread]) -> bool:
    route = await client.route(topic)
    counts = {data.broker_name: data.read_queue_count for data in route.queues} if route is not None else {}
    return all(counts.get(part.broker_name, 0) >= part.queue_count for part in spread)


async def create_topic_on(client: Client, broker_name: str, topic: headers.NewTopic) -> None:
    await client.ask(broker_name, headers.create_topic(topic))


async def create_group(client: Client, broker_name: str, group: str) -> None:
    await client.ask(broker_name, headers.create_subscription_group({"groupName": group, "consumeEnable": True}))


async def first_at_or_after(
    connector: RocketMQConnector, queue: MessageQueue, bounds: OffsetRange, guess: int, timestamp_ms: int
) -> int:
    """Mends a broker's answer by looking at the records themselves: 4.x answers the nearest record on either side, and 5.x one
    past the last where all are older. Store times rise with offsets, so the neighbours decide; equal times are walked through."""

    async def stored_at(offset: int) -> int | None:
        reader = connector.reader(queue, offset, prefetch=False)
        try:
            batch = await reader.read()
            found = batch.store_timestamps_ms[0] if len(batch) and batch.offsets[0] == offset else None
            reader.release(batch)
            return found
        finally:
            await reader.close()

    offset = guess
    while offset > bounds.min_offset:
        before = await stored_at(offset - 1)
        if before is None or before < timestamp_ms:
            break
        offset -= 1
    while offset < bounds.max_offset:
        here = await stored_at(offset)
        if here is None or here >= timestamp_ms:
            break
        offset += 1
    return offset
