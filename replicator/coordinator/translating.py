"""``offsets translate``: where one message of a source queue stands in the destination, from the map alone."""

from __future__ import annotations

import re
from typing import Any

from replicator.coordinator.atlas import Atlas
from replicator.coordinator.operations import Scope, require_scope
from replicator.core.errors import InvalidInput, Missing
from replicator.core.offset_map import PRUNED, UNKNOWN_EPOCH, Absent, Found, OffsetMap, Unlisted
from replicator.core.progress import EXPIRED
from replicator.core.record import MessageQueue
from replicator.store.port import Assignment, Store

COPIED, SKIPPED, NOT_YET = "copied", "skipped", "not-yet"
_OWN_STATUS = (EXPIRED, PRUNED, UNKNOWN_EPOCH)
"""Reasons that are a status themselves; for any other the message was skipped."""
FORGOTTEN = "the map has no room for it; it is learned again from the destination's log"


def parse_queue(text: str) -> tuple[str, int]:
    """``[BROKER/]Q``: (broker name or empty, queue id)."""
    found = re.fullmatch(r"(?:([^/\s]+)/)?([0-9]{1,9})", text)
    if found is None:
        raise InvalidInput(f"{text!r} is not a queue", hint="Q, or BROKER/Q where several brokers have a queue of that number")
    return found[1] or "", int(found[2])


async def translate(store: Store, atlas: Atlas, scope: Scope, queue: str, offset: int) -> dict[str, Any]:
    """``destination_offset`` is that of the message's own copy, else of the first copy of a later one; where there is none yet, one
    past the last copy. Null only where the map has forgotten what stands in between."""
    broker_name, queue_id = parse_queue(queue)
    if offset < 0:
        raise InvalidInput(f"offset {offset} is below 0")
    await require_scope(store, scope)
    one = await _assignment(store, scope, broker_name, queue_id)
    status, destination_offset, reason = answer(await atlas.offset_map(one.assignment_id), offset)
    return {
        "status": status,
        "source_broker": one.source_queue.broker_name,
        "source_queue": one.source_queue.queue_id,
        "destination_topic": one.destination_queue.topic,
        "destination_broker": one.destination_queue.broker_name,
        "destination_queue": one.destination_queue.queue_id,
        "destination_offset": destination_offset,
        "reason": reason,
    }


async def _assignment(store: Store, scope: Scope, broker_name: str, queue_id: int) -> Assignment:
    def is_meant(queue: MessageQueue) -> bool:
        return queue.queue_id == queue_id and broker_name in ("", queue.broker_name)

    found = [one for one in await store.assignments(task=scope.task) if scope.holds(one) and is_meant(one.source_queue)]
    if not found:
        raise Missing(f"{scope}: queue {f'{broker_name}/' if broker_name else ''}{queue_id} is not copied")
    if len(found) > 1:
        names = ", ".join(sorted(f"{one.source_queue.broker_name}/{queue_id}" for one in found))
        raise InvalidInput(f"{scope}: {len(found)} brokers have a queue {queue_id}", hint=f"name one of {names}")
    return found[0]


def answer(copies: OffsetMap, offset: int) -> tuple[str, int | None, str]:
    """(status, destination offset, reason)."""
    own = copies.to_destination(offset)
    if isinstance(own, Found):
        return COPIED, own.offset, ""
    later = copies.first_copy_at_or_after(offset)
    if isinstance(later, Found):
        place: int | None = later.offset
    else:
        place = copies.copies_end or copies.known_through
    if isinstance(own, Unlisted) or isinstance(later, Unlisted):
        place = None
    if isinstance(own, Absent):
        return own.reason if own.reason in _OWN_STATUS else SKIPPED, place, own.reason
    return NOT_YET, place, FORGOTTEN if isinstance(own, Unlisted) else ""
