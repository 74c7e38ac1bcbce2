"""Which queue of the destination a source queue is copied to. Pure; the lists are kept by the store, for each pair of topics.

Each side has a list of its queues in the order they were found: at first sorted by (broker, queue id), later ones appended in
that order. Source index i goes to destination index i, modulo the number of queues there. The lists belong to the two topics,
not to a direction: with equally many queues, the opposite flow uses the exact inverse. A queue never changes its index, and
where it was sent is written into its assignment once, so that growth of either side moves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from replicator.core.record import MessageQueue, QueueSpread

QueueLists = Mapping[str, Sequence[MessageQueue]]
"""{cluster id: queues in index order}"""


def plan_appended(listed: Sequence[MessageQueue], found: Collection[MessageQueue]) -> list[MessageQueue]:
    """Queues to append to one side's list, in order."""
    known = set(listed)
    return sorted(queue for queue in set(found) if queue not in known)


def plan_queue_map(
    existing: QueueLists, source: tuple[str, Collection[MessageQueue]], destination: tuple[str, Collection[MessageQueue]]
) -> dict[str, list[MessageQueue]]:
    """What to append for each side, each given as (cluster id, queues found now). Sides without news are left out."""
    planned = {cluster_id: plan_appended(existing.get(cluster_id, ()), found) for cluster_id, found in (source, destination)}
    return {cluster_id: appended for cluster_id, appended in planned.items() if appended}


def destination_of(
    source_queues: Sequence[MessageQueue],
    destination_queues: Sequence[MessageQueue],
    queue: MessageQueue,
    present: Collection[MessageQueue],
) -> MessageQueue:
    """Where ``queue`` goes, given both lists. ``present``: queues the destination has now; the list also remembers removed ones.

    Raises ``ValueError`` for a queue that is not listed, or where the destination has no listed queue left.
    """
    index = source_queues.index(queue)
    if not destination_queues:
        raise ValueError(f"no destination queue is listed for {queue}")
    chosen = destination_queues[index % len(destination_queues)]
    if chosen in present:
        return chosen
    remaining = [one for one in destination_queues if one in present]
    if not remaining:
        raise ValueError(f"none of the destination queues listed for {queue} exists any more")
    return remaining[index % len(remaining)]


def plan_spread(total: int, brokers: Collection[str], existing: Mapping[str, int] | None = None) -> list[QueueSpread]:
    """``total`` queues over ``brokers`` as evenly as possible, never fewer on a broker than it has (``existing``).

    Brokers that would get none are left out. More than ``total`` exist already: they stay as they are.
    """
    if total > 0 and not brokers:
        raise ValueError("there is no broker to put a queue on")
    counts = dict.fromkeys(sorted(brokers), 0)
    counts.update(existing or {})
    usable = sorted(brokers)
    for _ in range(total - sum(counts.values())):
        least = min(usable, key=lambda name: (counts[name], name))
        counts[least] += 1
    return [QueueSpread(name, count) for name, count in sorted(counts.items()) if count]


def counts_by_broker(queues: Collection[MessageQueue]) -> dict[str, int]:
    """How many queues each broker has."""
    counts: dict[str, int] = {}
    for queue in queues:
        counts[queue.broker_name] = counts.get(queue.broker_name, 0) + 1
    return counts


def ordered_refusal(source_count: int, destination_count: int) -> str:
    """Why an ordered topic cannot be mapped, or empty: two source queues in one destination queue would mix their keys."""
    if source_count == destination_count:
        return ""
    return f"an ordered topic needs as many queues on both sides: the source has {source_count}, the destination {destination_count}"
