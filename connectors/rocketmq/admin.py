"""What the connector asks and changes besides records: brokers, topics, groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.remoting.message import PROPERTIES_BYTES_MAX, stored_size
from connectors.rocketmq.sink import BATCH_BYTES_MAX
from replicator.core.connector import BrokerDescription, ClusterDescription
from replicator.core.errors import NotConnected, Refused
from replicator.core.record import MessageQueue, OffsetRange, QueueSpread, TopicDescription

if TYPE_CHECKING:
    from connectors.rocketmq.connector import RocketMQConnector

APPEND_RECORDS_MAX = 4_000
"""5.x counts a batch in 16 bits; a few thousand is far from that (P§5)."""
PROPERTIES_BYTES_SAFE = 32_000
"""4.8 to 5.3.3 append batch-level properties without a look at the 32,767 limit."""
TUNED_PULL_LIMITS = {
    "maxTransferCountOnMessageInMemory": 1024,
    "maxTransferCountOnMessageInDisk": 1024,
    "maxTransferBytesOnMessageInMemory": 1024 * 1024,
    "maxTransferBytesOnMessageInDisk": 1024 * 1024,
}
"""What one pull returns at most on a tuned source. No more bytes than one append carries: a pull reserves its worst case."""
TOPIC_READY_SECONDS_MAX = 15.0
TOPIC_POLL_SECONDS = 0.05
VERSION_LOWEST = (4, 4, 0)
"""Older brokers lack request codes and record fields that copying rests on."""
_RECORD_OVERHEAD_BYTES = stored_size("", 0, 0)
_ORDER_NAMESPACE = "ORDER_TOPIC_CONFIG"
_PUT_KV_CONFIG = 100

assert PROPERTIES_BYTES_SAFE < PROPERTIES_BYTES_MAX


async def describe_cluster(client: Client, cluster: str) -> ClusterDescription:
    """Asks every master; one that does not answer is a ``NotConnected`` with its name, one that is too old a ``Refused``."""
    found: list[BrokerDescription] = []
    size_max = BATCH_BYTES_MAX
    warnings: list[str] = []
    for name in sorted(await client.brokers(fresh=True)):
        began = time.perf_counter()
        runtime = await client.runtime_info(name)
        elapsed_ms = (time.perf_counter() - began) * 1000
        version = runtime.get("brokerVersionDesc", "unknown")
        _refuse_old(cluster, name, version)
        config: dict[str, str] = {}
        try:
            config = bodies.read_properties_text((await client.ask(name, headers.broker_config(), any_replica=True)).body)
        except Answered as error:
            warnings.append(f"broker {name}: its configuration cannot be read ({error}); defaults are assumed")
        size_max = min(size_max, int(config.get("maxMessageSize", str(BATCH_BYTES_MAX))))
        filters = {"true": True, "false": False}.get(config.get("enablePropertyFilter", ""))
        place = await client.place(name, any_replica=True)
        if not place.is_master:
            warnings.append(f"broker {name}: it has no master now; {place.address}, a slave, can be read, and nothing can be written")
        found.append(
            BrokerDescription(name, place.address, version, filters, elapsed_ms)
        )
        if filters is False:
            warnings.append(f"broker {name}: enablePropertyFilter is off, so consumers cannot filter by origin tag with SQL92")
    if not found:
        raise NotConnected(f"cluster {cluster}: its name server knows no broker", hint="check name_servers and cluster_name")
    return ClusterDescription(
        tuple(found), size_max, APPEND_RECORDS_MAX, PROPERTIES_BYTES_SAFE, _RECORD_OVERHEAD_BYTES, tuple(warnings)
    )


def _refuse_old(cluster: str, broker_name: str, version: str) -> None:
    """``version`` as the broker says it (``V4_3_2``, ``V5_0_0_SNAPSHOT``); one that cannot be read passes."""
    numbers = tuple(int(part) for part in version.removeprefix("V").split("_")[:3] if part.isdigit())
    if len(numbers) == len(VERSION_LOWEST) and numbers < VERSION_LOWEST:
        lowest = ".".join(map(str, VERSION_LOWEST))
        raise Refused(
            f"cluster {cluster}, broker {broker_name}: RocketMQ {'.'.join(map(str, numbers))} is not supported",
            hint=f"upgrade its brokers to {lowest} or newer",
        )


async def require_brokers(client: Client) -> None:
    """Brokers that stop take their topics with them: a name server without any broker says nothing about topics and marks.
    Raises ``Unreachable``."""
    if not await client.brokers(fresh=True):
        raise Unreachable("name servers", "no broker of the cluster is registered")


async def describe_topic(client: Client, topic: str) -> TopicDescription | None:
    """From the route (which queues exist and may be read) and one master's own configuration (what kind of topic it is)."""
    brokers = await client.brokers()
    route = await client.route(topic)
    if route is None:
        await require_brokers(client)
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
    config = await _topic_config(client, queues[0].broker_name, topic, any_replica=True)
    attributes = dict(config.attributes) if config is not None else {}
    ordered = (config is not None and config.order) or bool(route.order_conf)
    if not ordered and not await _is_5x(client, queues[0].broker_name):
        ordered = bool(await _order_conf(client, topic))
    return TopicDescription(
        topic, tuple(queues), ordered, attributes.get("message.type", ""), attributes, readable, writable, _unsupported(route, attributes),
    )


def _unsupported(route: bodies.TopicRoute, attributes: dict[str, str]) -> str:
    if route.is_static:
        return "a static topic: its queue ids and offsets are mapped by the brokers"
    acting = sorted(broker.broker_name for broker in route.brokers if broker.lets_slaves_act)
    if acting:
        # It grants locks that its master never hears of, and its escape bridge stores messages in other brokers' queues.
        return f"enableSlaveActingMaster is on at {', '.join(acting)}: a slave that acts for its master is taken for the master itself"
    if attributes.get("cleanup.policy", "DELETE") == "COMPACTION":
        return "a compaction topic: records vanish from its middle"
    if attributes.get("queue.type", "SimpleCQ") == "BatchCQ":
        return "a batch queue topic: offsets count within stored batches"
    return ""


async def _topic_config(client: Client, broker_name: str, topic: str, *, any_replica: bool = False) -> bodies.TopicConfig | None:
    """351 where the broker knows it, else the whole table: 4.4.0 does not even answer requests it does not know."""
    if await _is_5x(client, broker_name):
        expected = (int(ResponseCode.SUCCESS), int(ResponseCode.TOPIC_NOT_EXIST))
        answer = await client.ask(broker_name, headers.topic_config(topic), expected, any_replica=any_replica)
        return bodies.read_topic_config(answer.body) if answer.code == ResponseCode.SUCCESS else None
    answer = await client.ask(broker_name, headers.all_topic_configs(), any_replica=any_replica)
    return bodies.read_topic_configs(answer.body).get(topic)


async def _is_5x(client: Client, broker_name: str) -> bool:
    return (await client.version(broker_name)).startswith("V5")


async def create_topic(client: Client, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
    """Creates or grows on each master of the spread, then waits until the name server's route shows it all."""
    for part in spread:
        existing = await _topic_config(client, part.broker_name, description.name)
        read = max(part.queue_count, existing.read_queue_count if existing else 0)
        write = max(part.queue_count, existing.write_queue_count if existing else 0)
        if existing is not None and (read, write) == (existing.read_queue_count, existing.write_queue_count):
            continue
        if existing is not None:
            # Only the counts grow: what else somebody set there stays, attributes too, since none are sent.
            wanted = headers.NewTopic(
                existing.name, read, write, existing.perm, existing.order, "", existing.filter_type, existing.topic_sys_flag
            )
        else:
            typed = bool(description.message_type) and await _is_5x(client, part.broker_name)
            attributes = f"+message.type={description.message_type}" if typed else ""
            wanted = headers.NewTopic(description.name, read, write, order=description.ordered, attributes=attributes)
        await client.ask(part.broker_name, headers.create_topic(wanted))
    if description.ordered and not await _is_5x(client, spread[0].broker_name):
        await _write_order_conf(client, description.name, spread)
    deadline = asyncio.get_running_loop().time() + TOPIC_READY_SECONDS_MAX
    while not await _is_routed(client, description.name, spread):
        if asyncio.get_running_loop().time() > deadline:
            raise Unreachable("name servers", f"topic {description.name} was created, but its route does not show it")
        await asyncio.sleep(TOPIC_POLL_SECONDS)


async def _order_conf(client: Client, topic: str) -> dict[str, int]:
    """Queues by broker name, where the topic is entered as an ordered one."""
    answer = await client.ask_name_server(
        headers.kv_config(_ORDER_NAMESPACE, topic), (int(ResponseCode.SUCCESS), int(ResponseCode.QUERY_NOT_FOUND))
    )
    parts = (part.rpartition(":") for part in answer.ext_fields.get("value", "").split(";"))
    return {broker_name: int(count) for broker_name, _, count in parts if count.isdigit()}


async def _write_order_conf(client: Client, topic: str, spread: Sequence[QueueSpread]) -> None:
    """4.x brokers do not take the flag that creates a topic; they learn from the name servers which topics are ordered."""
    known = await _order_conf(client, topic)
    wanted = known | {part.broker_name: max(part.queue_count, known.get(part.broker_name, 0)) for part in spread}
    if wanted != known:
        value = ";".join(f"{broker_name}:{count}" for broker_name, count in sorted(wanted.items()))
        fields = {"namespace": _ORDER_NAMESPACE, "key": topic, "value": value}
        await client.tell_name_servers(RemotingCommand(_PUT_KV_CONFIG, fields))


async def _is_routed(client: Client, topic: str, spread: Sequence[QueueSpread]) -> bool:
    route = await client.route(topic)
    counts = {data.broker_name: data.read_queue_count for data in route.queues} if route is not None else {}
    return all(counts.get(part.broker_name, 0) >= part.queue_count for part in spread)


async def ensure_own_topic(client: Client, broker_name: str, topic: str) -> None:
    """One queue on that broker. Asked before it is created: creating takes rights that an account may lack by then."""
    if await _topic_config(client, broker_name, topic) is None:
        await client.ask(broker_name, headers.create_topic(headers.NewTopic(topic, 1, 1)))


async def create_group(client: Client, broker_name: str, group: str) -> None:
    await client.ask(broker_name, headers.create_subscription_group({"groupName": group, "consumeEnable": True}))


def retention_seconds(settings: Mapping[str, str]) -> float | None:
    """``fileReservedTime``, in hours: files younger than that are deleted only when the disk fills up."""
    hours = settings.get("fileReservedTime", "")
    return float(hours) * 3600 if hours.isdigit() else None


def below_wanted(settings: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Pull limits that a broker has below what ``tune_source`` raises them to: {setting: (now, wanted)}."""
    return {
        name: (settings[name], str(wanted))
        for name, wanted in TUNED_PULL_LIMITS.items()
        if settings.get(name, "").isdigit() and int(settings[name]) < wanted
    }


async def first_at_or_after(
    connector: RocketMQConnector, queue: MessageQueue, bounds: OffsetRange, guess: int, timestamp_ms: int
) -> int:
    """Mends a broker's answer by looking at the records themselves: 4.x answers the nearest record on either side, any of those
    with an equal time. Store times rise with offsets, so steps that double from the guess enclose the place and halves find it."""

    async def is_before(offset: int) -> bool:
        """True where the first record at or behind the offset is older than asked."""
        reader = connector.reader(queue, offset, prefetch=False)
        try:
            batch = await reader.read()
            found = batch.store_timestamps_ms[0] if len(batch) else None
            reader.release(batch)
            return found is not None and found < timestamp_ms
        finally:
            await reader.close()

    low, high, step = bounds.min_offset, bounds.max_offset, 1  # everything below low is older; high is not, or the end
    if guess < high and await is_before(guess):
        low = guess + 1
        while low < high and await is_before(min(low + step - 1, high - 1)):
            low, step = min(low + step, high), step * 2
        high = min(low + step - 1, high)
    else:
        high = guess
        while low < high and not await is_before(max(high - step, low)):
            high, step = max(high - step, low), step * 2
        low = min(max(high - step, low) + 1, high)
    while low < high:
        middle = (low + high) // 2
        if await is_before(middle):
            low = middle + 1
        else:
            high = middle
    return low
