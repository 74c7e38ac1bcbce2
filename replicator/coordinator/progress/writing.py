"""Carrying out plans: the group made first, the intent stored, the offsets written and read back, the result stored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from replicator.coordinator.connections import Link, in_time
from replicator.core.connector import KeepsProgress
from replicator.core.errors import ReplicatorError, Unsafe
from replicator.core.groups import GROUPS_AT_ONCE_MAX, GroupSettings, OffsetWritten
from replicator.core.record import MessageQueue
from replicator.store.group_rows import GroupWrite, QueueWrite
from replicator.store.port import Store

log = structlog.get_logger(__name__)

WRITES_AT_ONCE_MAX = 8
"""Groups written side by side on one cluster."""
WRITE_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Offsets of one group on the written side. ``owner``: the side they come from, empty where a person said them."""

    group: str
    offsets: Mapping[MessageQueue, int]
    current: Mapping[MessageQueue, int]
    why: str
    running: bool = False
    """The group has members: only an exact reset will do."""


@dataclass(slots=True)
class Written:
    """``offsets``: read back as they were wished. ``refused``: {queue: reason}, None for the whole group."""

    group: str
    offsets: dict[MessageQueue, int] = field(default_factory=dict)
    refused: dict[MessageQueue | None, str] = field(default_factory=dict)


def keeper(link: Link) -> KeepsProgress:
    """Raises ``Unsafe`` for a system whose groups have no offsets."""
    if not isinstance(link.connector, KeepsProgress):
        raise Unsafe(f"cluster {link.cluster.name} ({link.cluster.connector}) keeps no progress of consumer groups")
    return link.connector


async def make_groups(link: Link, settings: Sequence[GroupSettings]) -> dict[str, ReplicatorError]:
    """{group that could not be made: why}."""
    failed: dict[str, ReplicatorError] = {}
    for first in range(0, len(settings), GROUPS_AT_ONCE_MAX):
        together = settings[first : first + GROUPS_AT_ONCE_MAX]
        try:
            failed.update(await link.ask(keeper(link).create_groups(together)))
        except ReplicatorError as error:
            failed.update({one.group: error for one in together})
    return failed


async def ensure_groups(source: Link | None, link: Link, groups: Sequence[str]) -> dict[str, ReplicatorError]:
    """Makes those that are absent, set up as on the source. {group that could not be made: why}."""
    there = await link.ask(keeper(link).group_settings())
    absent = [group for group in groups if group not in there]
    if not absent:
        return {}
    known = await source.ask(keeper(source).group_settings()) if source is not None else {}
    # Whether members may consume is no setting but a state: a fence on the source must not come along.
    return await make_groups(link, [replace(known.get(group) or GroupSettings(group), consumable=True) for group in absent])


async def make_group(link: Link, settings: GroupSettings) -> None:
    for error in (await make_groups(link, [settings])).values():
        raise error


async def set_consumable(link: Link, groups: Sequence[str], consumable: bool) -> None:
    for first in range(0, len(groups), GROUPS_AT_ONCE_MAX):
        await link.ask(keeper(link).set_groups_consumable(groups[first : first + GROUPS_AT_ONCE_MAX], consumable))


class Writer:
    """``holder``: who writes, under the coordinator's lease. Every write of one round to one cluster goes through here at once."""

    def __init__(self, store: Store, holder: str) -> None:
        self._store = store
        self._holder = holder

    async def carry_out(self, task: str, owner: str, source: Link | None, link: Link, wishes: Sequence[Wish]) -> list[Written]:
        """In the order given. Raises ``Unsafe`` where the lease was lost: then nothing is written."""
        if not wishes:
            return []
        failed = await ensure_groups(source, link, [one.group for one in wishes])
        missing = {group: f"the group could not be made on {link.cluster.name}: {error}" for group, error in failed.items()}
        able = [one for one in wishes if one.group not in missing]
        ids = await self._store.intend_group_writes(self._holder, [_intent(task, owner, link, one) for one in able])
        if ids is None:
            raise Unsafe("another coordinator holds the lease: nothing was written", hint="ask that one")
        limit = asyncio.Semaphore(WRITES_AT_ONCE_MAX)
        answers = await asyncio.gather(*(self._write(limit, link, one) for one in able))
        await self._store.finish_group_writes(dict(zip(ids, (_results(*pair) for pair in zip(able, answers, strict=True)), strict=True)))
        done = {one.group: _written(one, answer) for one, answer in zip(able, answers, strict=True)}
        return [done.get(one.group) or Written(one.group, refused={None: missing[one.group]}) for one in wishes]

    async def _write(self, limit: asyncio.Semaphore, link: Link, wish: Wish) -> Sequence[OffsetWritten] | ReplicatorError:
        async with limit:
            try:
                asked = keeper(link).write_offsets(wish.group, wish.offsets, running=wish.running)
                return await in_time(asked, link.cluster.name, WRITE_SECONDS_MAX)
            except ReplicatorError as error:
                log.warning("offsets not written", group=wish.group, cluster=link.cluster.name, error=str(error))
                return error


def _intent(task: str, owner: str, link: Link, wish: Wish) -> GroupWrite:
    queues = tuple(QueueWrite(queue, wish.current.get(queue), new) for queue, new in wish.offsets.items())
    return GroupWrite(task, wish.group, link.cluster.name, owner, wish.why, queues)


def _results(wish: Wish, answer: Sequence[OffsetWritten] | ReplicatorError) -> list[QueueWrite]:
    if isinstance(answer, ReplicatorError):
        why = f"not known: {answer}"
        return [QueueWrite(queue, wish.current.get(queue), new, None, why) for queue, new in wish.offsets.items()]
    return [QueueWrite(one.queue, one.before, wish.offsets[one.queue], one.now, one.refused) for one in answer]


def _written(wish: Wish, answer: Sequence[OffsetWritten] | ReplicatorError) -> Written:
    if isinstance(answer, ReplicatorError):
        return Written(wish.group, refused={None: str(answer)})
    found = Written(wish.group)
    for one in answer:
        if one.now == wish.offsets[one.queue] and not one.refused:
            found.offsets[one.queue] = one.now
        else:
            found.refused[one.queue] = one.refused or f"{one.now} stands there after {wish.offsets[one.queue]} was written"
    return found
