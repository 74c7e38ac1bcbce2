"""What a destination's log tells of a source that is out of reach: its lasting id, its queues, where each was put, and how far each was
examined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from replicator.coordinator.connections import Link
from replicator.coordinator.copylog import read_copies
from replicator.coordinator.declared import Declared, rules_of
from replicator.core.copies import Gathered
from replicator.core.errors import InvalidInput, Unsafe
from replicator.core.offset_map import Epoch
from replicator.core.patterns import TopicRules
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET, MessageQueue, OffsetRange, RecordIdentity
from replicator.core.stamp import Place
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Checkpoint, Flow, NewAssignment, Store

Seen = dict[Place, dict[MessageQueue, tuple[int, int]]]
"""{source queue: {destination queue: (lowest, highest source offset)}}"""


async def find_flow(store: Store, destination: Link, flow: Flow, known: Declared, cluster_ids: Mapping[str, str]) -> int:
    """Claims and assigns what the flow is seen to have copied; what is there already stays. Returns how many records were read.
    Raises ``Unsafe`` where nobody can tell which of several ids is the source's."""
    task, rules = known.tasks[flow.task], rules_of(known.tasks[flow.task])
    destination_id = known.rows[flow.destination].cluster_id
    if destination_id is None:
        return 0
    seen: Seen = {}
    records = 0
    for topic in await destination.topics():
        if _source_topics(rules, topic):
            described = await destination.describe(topic)
            for queue in described.queues if described is not None else ():
                records += await _look(destination, Place(destination_id, queue), seen)
    seen = {place: queues for place, queues in seen.items() if any(place.queue.topic in _source_topics(rules, q.topic) for q in queues)}
    source_id = await _identify(store, flow, known, cluster_ids, seen)
    if source_id is not None:
        await _assign(store, flow, task, {place.queue: queues for place, queues in seen.items() if place.cluster_id == source_id})
    return records


def _source_topics(rules: TopicRules, arrives: str) -> list[str]:
    """Topics of a source that would arrive under this name."""
    renamed = [topic for topic, name in rules.rename.items() if name == arrives]
    return [topic for topic in (*renamed, arrives) if rules.matches(topic) and rules.destination_name(topic) == arrives]


async def _look(link: Link, put: Place, seen: Seen) -> int:
    records = 0
    bounds = await link.ask(link.connector.offset_range(put.queue))
    async with aclosing(read_copies(link, put, bounds)) as pages:
        async for page, count in pages:
            records += count
            for copy in page:
                queues = seen.setdefault(copy.upstream.source, {})
                lowest, highest = queues.get(put.queue, (copy.source_offset, copy.source_offset))
                queues[put.queue] = min(lowest, copy.source_offset), max(highest, copy.source_offset)
    return records


async def _identify(store: Store, flow: Flow, known: Declared, given: Mapping[str, str], seen: Seen) -> str | None:
    """The lasting id of the flow's source, learned from the stamps where it is not declared yet; None where nothing was copied."""
    row = known.rows[flow.source]
    if row.cluster_id is not None:
        return row.cluster_id
    found = Counter(place.cluster_id for place in seen)
    strange = sorted(found.keys() - known.names_by_id().keys())
    nameless = [name for name, other in known.rows.items() if other.cluster_id is None]
    chosen = given.get(flow.source)
    if chosen is not None and chosen not in strange:
        raise InvalidInput(f"no copy on {flow.destination} comes from a cluster {chosen}", hint=f"seen are: {', '.join(strange) or 'none'}")
    if chosen is None and not strange:
        return None
    if chosen is None and (len(strange) > 1 or len(nameless) > 1):
        listed = ", ".join(f"{one} ({found[one]} queues)" for one in strange)
        raise Unsafe(
            f"which of the clusters that were copied to {flow.destination} is {flow.source}? Not declared are: {listed}",
            hint=f"--cluster-id {flow.source}=ID",
        )
    source_id = chosen or strange[0]
    await store.put_cluster(replace(row, cluster_id=source_id))
    known.rows[flow.source] = replace(row, cluster_id=source_id)
    await store.record_event(flow.task, "identified", f"{flow.source} is cluster {source_id}: its copies on {flow.destination} say so")
    return source_id


async def _assign(
    store: Store, flow: Flow, task: ReplicationTask, seen: Mapping[MessageQueue, Mapping[MessageQueue, tuple[int, int]]]
) -> None:
    rules = rules_of(task)
    by_topic: dict[str, list[NewAssignment]] = {}
    for source, puts in sorted(seen.items()):
        arrives = rules.destination_name(source.topic)
        own = {put: offsets for put, offsets in puts.items() if put.topic == arrives}
        if not own:
            continue
        # A queue's place never moves; should it have done so all the same, the newest copies count.
        put = max(own, key=lambda queue: own[queue][1])
        # Where a task began elsewhere than at the first message, its first copy is the best that is known of it.
        start = 0 if task.start.kind == "earliest" else own[put][0]
        by_topic.setdefault(source.topic, []).append(NewAssignment(source, put, start))
    for topic, rows in by_topic.items():
        pair = await store.claim_pair(flow.flow_id, topic, rules.destination_name(topic))
        await store.add_assignments(pair.pair_id, rows)


def found_checkpoint(one: Assignment, gathered: Gathered, epochs: Sequence[Epoch], bounds: OffsetRange) -> Checkpoint:
    """What the copies of a queue prove. What was skipped behind the last one is examined again: nobody can tell how far that went."""
    newest, seen, stored = epochs[-1], gathered.newest, one.checkpoint
    fresh = Checkpoint(newest.number, scanned_through=bounds.max_offset, copied_total=gathered.copies_total)
    if seen is None or seen.number < newest.number:
        epoch, last_restored = gathered.last_restored
        at_least = last_restored + 1 if epoch == newest.number else 0
        begins = max(at_least, one.start_offset if newest.number == 1 or newest.start_offset is None else newest.start_offset)
        if stored is not None and stored.epoch == newest.number and stored.confirmed_destination_offset < bounds.min_offset:
            # Its copies have expired, or there never were any: the log contradicts nothing of what was written down.
            position = max(at_least, stored.examined_through)
            return replace(fresh, examined_through=position, identity=stored.identity, seen=stored.seen)
        return replace(fresh, examined_through=begins)
    return replace(
        fresh,
        examined_through=seen.last_offset + 1,
        confirmed_source_offset=seen.last_offset,
        confirmed_destination_offset=seen.last_destination_offset,
        identity=RecordIdentity(seen.last_offset, seen.last_store_timestamp_ms, UNSEEN_COMMIT_LOG_OFFSET, 0),
    )
