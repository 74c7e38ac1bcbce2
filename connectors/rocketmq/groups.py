"""Consumer groups from outside: what brokers know of them, and writing their progress exactly or not at all.

Facts (ConsumerManageProcessor, AdminBrokerProcessor, ConsumerOffsetManager, 4.4.0 to 5.3.3): only 43 tells "never committed" from 0.
15 is a plain put, which a running member overwrites within its 5 s commit interval. 222 with a queue and an offset is exact for
running groups from 5.2 on (5.1 where switched on); before, it knows timestamps only. While a reset is pending, 15 is answered with
success and ignored, hence every write is read back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from connectors.rocketmq.admin import require_brokers
from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.progress import GroupProgress
from connectors.rocketmq.proxies import ProxyMembers
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode, describe
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten, Subscription
from replicator.core.record import MessageQueue
from replicator.core.retry import RETRY_PREFIX

WRITES_TOGETHER = 64
RESET_SWITCH = "useServerSideResetOffset"
_RESET_SINCE = (5, 1, 0)
_RESET_BY_DEFAULT_SINCE = (5, 2, 0)
_KINDS = {"CONSUME_PASSIVELY": "push", "CONSUME_ACTIVELY": "pull", "CONSUME_POP": "pop"}
_SUCCESS_OR_MISSING = (int(ResponseCode.SUCCESS), int(ResponseCode.QUERY_NOT_FOUND))
_SUCCESS_OR_OFFLINE = (int(ResponseCode.SUCCESS), int(ResponseCode.CONSUMER_NOT_ONLINE))


class Groups:
    """Raises ``Unreachable``, ``Answered``, ``ProtocolError``; the connector maps them."""

    def __init__(self, client: Client, progress: GroupProgress, behind_proxies: ProxyMembers) -> None:
        self._client = client
        self._progress = progress
        self._behind_proxies = behind_proxies
        self._pops: set[str] = set()
        """Groups with progress in a retry topic as only popping makes one."""

    async def _brokers(self) -> list[str]:
        """Without any, as while a cluster starts, nobody knows anything: that is not the same as no groups and no progress."""
        await require_brokers(self._client)
        return sorted(await self._client.brokers())

    async def offsets(self, topics: Collection[str]) -> dict[str, dict[MessageQueue, int]]:
        wanted = set(topics)
        found: dict[str, dict[MessageQueue, int]] = {}
        for broker_name in await self._brokers():
            answer = await self._client.ask(broker_name, headers.all_consumer_offsets(), any_replica=True)
            for (topic, group), offsets in bodies.read_consumer_offsets(answer.body).items():
                if _is_pop_retry(topic, group):
                    self._pops.add(group)
                if topic in wanted:
                    queues = found.setdefault(group, {})
                    queues.update((MessageQueue(topic, broker_name, queue_id), offset) for queue_id, offset in offsets.items())
        return found

    async def _configs(self, broker_name: str) -> dict[str, bodies.SubscriptionGroup]:
        answer = await self._client.ask(broker_name, headers.all_subscription_groups(), any_replica=True)
        return bodies.read_subscription_groups(answer.body)

    async def settings(self) -> dict[str, GroupSettings]:
        """Where brokers differ, the first one's settings; consumable only if everywhere."""
        found: dict[str, GroupSettings] = {}
        for broker_name in await self._brokers():
            for name, config in (await self._configs(broker_name)).items():
                ordered = config.fields.get("consumeMessageOrderly") is True
                known = found.get(name)
                if known is None:
                    found[name] = GroupSettings(name, config.fields, ordered, config.consume_enabled)
                elif known.consumable and not config.consume_enabled:
                    found[name] = replace(known, consumable=False)
        return found

    async def create(self, settings: Sequence[GroupSettings]) -> dict[str, Answered]:
        """{group: what a broker answered instead of making it}."""
        failed: dict[str, Answered] = {}
        for broker_name in await self._brokers():
            there = await self._configs(broker_name)
            for one in settings:
                if one.group not in there:
                    fields = {**one.settings, "groupName": one.group, "consumeEnable": one.consumable}
                    try:
                        await self._client.ask(broker_name, headers.create_subscription_group(fields))
                    except Answered as error:
                        failed[one.group] = error
        return failed

    async def set_consumable(self, groups: Collection[str], consumable: bool) -> None:
        for broker_name in await self._brokers():
            there = await self._configs(broker_name)
            for group in groups:
                config = there.get(group)
                if config is not None and config.consume_enabled is not consumable:
                    fields = {**config.fields, "consumeEnable": consumable}
                    await self._client.ask(broker_name, headers.create_subscription_group(fields))

    async def members(self, group: str) -> GroupMembers:
        clients: set[str] = set()
        seen: list[bodies.ConsumerConnections] = []
        for broker_name in await self._brokers():
            answer = await self._client.ask(broker_name, headers.consumer_connections(group), _SUCCESS_OR_OFFLINE, any_replica=True)
            if answer.code == ResponseCode.SUCCESS:
                connections = bodies.read_consumer_connections(answer.body)
                clients.update(connection.client_id for connection in connections.connections)
                seen.append(connections)
        there = await self._behind_proxies.members(group)
        pops = "pop" if group in self._pops else ""
        if not seen:
            return replace(there, kind=there.kind or pops)
        subscriptions = [_subscriptions(one, group) for one in seen]
        if there.count:
            subscriptions.append(there.subscriptions)
        kind = there.kind or pops or _KINDS.get(seen[0].consume_type, "")
        broadcasting = there.broadcasting or any(one.message_model == "BROADCASTING" for one in seen)
        agree = all(one == subscriptions[0] for one in subscriptions)
        return GroupMembers(len(clients) + there.count, kind, broadcasting, subscriptions[0], agree)

    async def can_reset_exactly(self, broker_name: str) -> bool:
        version = _version(await self._client.version(broker_name))
        if version < _RESET_SINCE:
            return False
        try:
            config = bodies.read_properties_text((await self._client.ask(broker_name, headers.broker_config())).body)
        except Answered:
            return version >= _RESET_BY_DEFAULT_SINCE  # not every account may read the configuration
        switch = config.get(RESET_SWITCH)
        return version >= _RESET_BY_DEFAULT_SINCE if switch is None else switch == "true"

    async def write(self, group: str, offsets: Mapping[MessageQueue, int], *, running: bool) -> list[OffsetWritten]:
        brokers = {queue.broker_name for queue in offsets}
        resets = {name: await _or_refusal(self.can_reset_exactly, name) for name in brokers} if running else {}
        written: dict[MessageQueue, OffsetWritten] = {}
        for together in _in_turns(offsets):
            answers = await asyncio.gather(
                *(self._write(group, queue, offsets[queue], resets.get(queue.broker_name)) for queue in together)
            )
            written.update(zip(together, answers, strict=True))
        for queue, one in written.items():
            if one.now is None:
                self._progress.forget(queue.broker_name)
            else:
                self._progress.note(group, queue, one.now)
        return [written[queue] for queue in offsets]

    async def _write(self, group: str, queue: MessageQueue, offset: int, reset: bool | str | None) -> OffsetWritten:
        """``reset``: None for a group nobody uses; else whether the broker can, or why it could not be asked."""
        before: int | None = None
        try:
            before = await self._progress.offset(group, queue)
            if isinstance(reset, str):
                return OffsetWritten(queue, before, before, refused=reset)
            if reset is False:
                reason = "members are online, and a broker of this version sets a running group's offset by time only: stop them first"
                return OffsetWritten(queue, before, before, refused=reason)
            way, command = ("commit", headers.update_consumer_offset) if reset is None else ("reset", headers.reset_offset)
            await self._client.ask(queue.broker_name, command(group, queue.topic, queue.queue_id, offset))
            answer = await self._client.ask(
                queue.broker_name, headers.query_consumer_offset(group, queue.topic, queue.queue_id), _SUCCESS_OR_MISSING
            )
        except Answered as error:
            return OffsetWritten(queue, before, None, refused=f"{describe(error.code)}{': ' + error.remark if error.remark else ''}")
        except Unreachable as error:
            return OffsetWritten(queue, before, None, refused=str(error))
        now = headers.read_offset(answer) if answer.code == ResponseCode.SUCCESS else None
        refused = "" if now == offset else f"{offset} was written, but {now} stands there: another client commits, or a reset is pending"
        return OffsetWritten(queue, before, now, way, refused)


def _in_turns(queues: Iterable[MessageQueue]) -> Iterator[list[MessageQueue]]:
    """What may be written side by side. Of each topic on each broker one queue goes first, alone: a broker that meets two first
    commits of a group in a topic at once keeps one and answers success to both (``ConsumerOffsetManager.commitOffset``)."""
    firsts: dict[tuple[str, str], MessageQueue] = {}
    others = [queue for queue in queues if firsts.setdefault((queue.broker_name, queue.topic), queue) is not queue]
    for turn in (list(firsts.values()), others):
        for start in range(0, len(turn), WRITES_TOGETHER):
            yield turn[start : start + WRITES_TOGETHER]


async def _or_refusal(ask: Callable[[str], Awaitable[bool]], broker_name: str) -> bool | str:
    try:
        return await ask(broker_name)
    except (Unreachable, Answered) as error:
        return str(error)


def _subscriptions(connections: bodies.ConsumerConnections, group: str) -> tuple[Subscription, ...]:
    """Without the retry topic, which every push consumer subscribes by itself."""
    return tuple(
        Subscription(topic, text or "*", kind or "TAG")
        for topic, (text, kind) in sorted(connections.subscriptions.items())
        if not topic.startswith(f"%RETRY%{group}")
    )


def _is_pop_retry(topic: str, group: str) -> bool:
    """``%RETRY%group_topic`` or ``%RETRY%group+topic``: where what was popped and not acknowledged comes back."""
    own = RETRY_PREFIX + group
    return topic.startswith((f"{own}_", f"{own}+"))


def _version(text: str) -> tuple[int, ...]:
    """``V5_3_3`` and ``V5_3_3_SNAPSHOT`` as (5, 3, 3); () for what is none, which is below every version."""
    found = re.match(r"V(\d+)_(\d+)_(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


