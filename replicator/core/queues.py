"""Which source queue goes to which destination queue: by index, modulo, decided once and never moved.

Queues of both sides are listed in index order, sorted by (broker, queue id) when first seen; later ones are appended. The
lists are kept for a pair of topics and shared by both directions, so with equal counts one direction is the inverse of the
other. A source queue's destination is fixed when its assignment is made: growth on either side moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.core.errors import Refused
from replicator.core.record import MessageQueue, QueueSpread


def new_queues(listed: Sequence[MessageQueue], present: Sequence[MessageQueue]) -> list[MessageQueue]:
    """Those of ``present`` not listed yet, in the order in which they are to be appended."""
    known = set(listed)
    return sorted((queue for queue in present if queue not in known), key=lambda queue: (queue.broker_name, queue.queue_id))


def destination_of(index: int, destinations: Sequence[MessageQueue]) -> MessageQueue:
    """Destination of the source queue at ``index``."""
    return destinations[index % len(destinations)]


def plan_spread(queue_count: int, broker_names: Sequence[str]) -> list[QueueSpread]:
    """``queue_count`` queues in all over these brokers, as evenly as possible, the first ones getting one more."""
    names = sorted(broker_names)
    share, rest = divmod(queue_count, len(names))
    spread = [QueueSpread(name, share + (1 if index < rest else 0)) for index, name in enumerate(names)]
    return [part for part in spread if part.queue_count]


def check_totals(topic: str, source_count: int, destination_count: int, *, ordered: bool) -> None:
    """Raises ``Refused`` where an ordered topic would change its queue count: producers would shard differently after a failover."""
    if ordered and source_count != destination_count:
        raise Refused(
            f"topic {topic} is ordered and has {source_count} queues on the source, {destination_count} on the destination",
            hint="give the destination topic the same number of queues in all",
        )
