"""With ``retry: true`` a group's offset may only be carried over once everything that it had failed on by then is copied.

A consumer sends a message back before it moves its offset past it. So what stands in the waiting topics *after* offsets were read
is all that belongs to them: until it is copied, the other side would be told that messages are done which it can get nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import structlog

from replicator.coordinator.connections import Link
from replicator.core.connector import KeepsRetries
from replicator.core.errors import ReplicatorError
from replicator.core.retry import WAITING_PREFIX, is_waiting
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Store

log = structlog.get_logger(__name__)

COPIED_SECONDS_MAX = 5.0
"""Positions are stored about once a second."""
LOOK_SECONDS = 0.25


async def not_copied(
    store: Store, task: ReplicationTask, links: Mapping[str, Link | None], groups: Collection[str]
) -> dict[str, dict[str, str]]:
    """{cluster: {group: why its offsets there may not be carried over now}}. Call it after the offsets were read; waits for copies
    that are under way."""
    if not task.retry:
        return {}
    late: dict[str, dict[str, str]] = {}
    for name, link in links.items():
        others = {other for other in links if other != name and (name, other) in task.flows}
        if link is not None and others and isinstance(link.connector, KeepsRetries):
            try:
                late[name] = await _late_on(store, task.name, link, others, set(groups))
            except ReplicatorError as error:
                late[name] = dict.fromkeys(groups, f"what waits for a retry on {name} is not known now: {error}")
    return late


async def _late_on(store: Store, task: str, link: Link, others: set[str], groups: set[str]) -> dict[str, str]:
    name, keeper = link.cluster.name, link.connector
    assert isinstance(keeper, KeepsRetries)
    ends = await link.ask(keeper.waiting_ends())
    existing = {topic.removeprefix(WAITING_PREFIX) for topic in await link.ask(keeper.retry_topics(sorted(groups))) if is_waiting(topic)}
    deadline = asyncio.get_running_loop().time() + COPIED_SECONDS_MAX
    while True:
        found = [one for one in await store.assignments(task=task) if one.source == name and one.destination in others]
        waiting = [one for one in found if is_waiting(one.source_queue.topic)]
        carried = {one.source_queue.topic.removeprefix(WAITING_PREFIX) for one in waiting}
        behind = {one.source_queue.topic.removeprefix(WAITING_PREFIX) for one in waiting if not _is_copied(one, ends)} & groups
        if not behind or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
    late = dict.fromkeys(existing - carried, f"its retry topic on {name} is not carried by this task")
    return late | dict.fromkeys(behind, f"what it failed on is not all copied from {name} yet")


async def waiting_counts(link: Link, groups: Collection[str]) -> dict[str, int] | None:
    """{group: messages it failed on that wait for their next delivery on this cluster, or for the group}, None where nobody says.
    Without ``retry: true`` they are lost to the other side once its offsets are carried over."""
    if not isinstance(link.connector, KeepsRetries):
        return None
    try:
        return dict(await link.ask(link.connector.waiting_counts(groups)))
    except ReplicatorError as error:
        log.info("messages waiting for a retry not counted", cluster=link.cluster.name, error=str(error))
        return None


def _is_copied(one: Assignment, ends: Mapping[tuple[str, int], int]) -> bool:
    queue = one.source_queue
    return one.examined_through >= ends.get((queue.broker_name, queue.queue_id), 0)
