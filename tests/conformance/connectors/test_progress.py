"""Consumer groups: settings, members, offsets read in bulk, written and read back."""

from __future__ import annotations

import uuid

import pytest

from replicator.core.connector import KeepsProgress
from replicator.core.groups import GroupMembers, GroupSettings
from tests.conformance.connectors.subject import append_batch

pytestmark = pytest.mark.timeout(90)


def group_name() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


async def made(connector, **settings: object) -> str:
    group = group_name()
    assert await connector.create_groups([GroupSettings(group, settings)]) == {}
    return group


async def test_the_ability_is_there(connector):
    assert isinstance(connector, KeepsProgress)


async def test_what_was_never_committed_is_not_in_the_table(cluster, connector):
    first, second = await cluster.topic(2)
    group = await made(connector)
    assert group not in await connector.group_offsets([first.topic])
    (written,) = await connector.write_offsets(group, {second: 0}, running=False)
    assert (written.queue, written.before, written.now, written.way, written.refused) == (second, None, 0, "commit", "")
    assert (await connector.group_offsets([first.topic]))[group] == {second: 0}
    assert group not in await connector.group_offsets(["another-topic"])


async def test_offsets_go_forward_and_back_and_are_read_back(cluster, connector):
    queues = await cluster.topic(3)
    await cluster.produce(queues[1], [b"x"] * 9)
    group = await made(connector)
    for offset in (7, 3, 9):
        written = await connector.write_offsets(group, {queues[1]: offset, queues[2]: 0}, running=False)
        assert [(one.queue, one.now, one.refused) for one in written] == [(queues[1], offset, ""), (queues[2], 0, "")]
        assert (await connector.group_offsets([queues[0].topic]))[group] == {queues[1]: offset, queues[2]: 0}
        assert await connector.consumer_offset(group, queues[1]) == offset


async def test_groups_are_kept_apart_and_asked_for_at_once(cluster, connector):
    (queue,) = await cluster.topic()
    groups = [await made(connector) for _ in range(5)]
    for number, group in enumerate(groups):
        await connector.write_offsets(group, {queue: number}, running=False)
    found = await connector.group_offsets({queue.topic})
    assert {group: found[group] for group in groups} == {group: {queue: number} for number, group in enumerate(groups)}


async def test_a_group_keeps_its_settings_where_it_is_made_again(cluster, connector):
    group = await made(connector)
    settings = (await connector.group_settings())[group]
    assert (settings.group, settings.consumable) == (group, True)
    await connector.set_groups_consumable([group], False)
    assert (await connector.group_settings())[group].consumable is False
    assert await connector.create_groups([GroupSettings(group)]) == {}  # exists: left as it is
    assert (await connector.group_settings())[group].consumable is False
    await connector.set_groups_consumable([group], True)
    assert (await connector.group_settings())[group] == settings
    await connector.set_groups_consumable([group_name()], False)  # unknown: nothing to do
    await connector.remove_group(group)
    assert group not in await connector.group_settings()


async def test_a_group_nobody_uses_has_no_members(connector):
    assert await connector.group_members(await made(connector)) == GroupMembers()


async def test_an_exact_reset_lands_exactly_or_is_refused(cluster, connector):
    (queue,) = await cluster.topic()
    await cluster.produce(queue, [b"x"] * 9)
    group = await made(connector)
    await connector.write_offsets(group, {queue: 9}, running=False)
    (written,) = await connector.write_offsets(group, {queue: 4}, running=True)
    if await connector.can_reset_exactly(queue.broker_name):
        assert (written.before, written.now, written.way, written.refused) == (9, 4, "reset", "")
    else:
        assert (written.now, written.way) == (9, "")
        assert "stop" in written.refused
    (beyond,) = await connector.write_offsets(group, {queue: 500}, running=True)
    assert beyond.refused
    assert await connector.consumer_offset(group, queue) == written.now


async def test_an_append_leaves_progress_alone(cluster, connector):
    (queue,) = await cluster.topic()
    group = await made(connector)
    await connector.write_offsets(group, {queue: 0}, running=False)
    sender = connector.sender(queue.broker_name)
    await sender.connect()
    await cluster.produce(queue, append_batch([b"x"]).bodies)
    assert await connector.consumer_offset(group, queue) == 0
