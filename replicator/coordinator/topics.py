"""One source topic of one flow, from found to copied: judged, claimed, created, mapped, assigned. Idempotent; run each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from replicator.coordinator import starting
from replicator.coordinator.connections import Link
from replicator.coordinator.retries import make_group
from replicator.coordinator.starting import Offsets
from replicator.coordinator.survey import refusal
from replicator.coordinator.troubles import FlowKey, Trouble, Troubles
from replicator.core.errors import Refused
from replicator.core.graph import GraphFlow, judge_topic
from replicator.core.patterns import TopicRules
from replicator.core.queues import counts_by_broker, destination_of, ordered_refusal, plan_queue_map, plan_spread
from replicator.core.record import MessageQueue, TopicDescription
from replicator.core.retry import WAITING_PREFIX, group_behind, is_waiting, retry_topic
from replicator.core.task import ReplicationTask
from replicator.store.port import Assignment, Conflict, Flow, NewAssignment, Store, TopicPair

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class FlowRound:
    """What one round knows of a flow."""

    flow: Flow
    task: ReplicationTask
    rules: TopicRules
    source: Link
    destination: Link
    source_id: str
    destination_id: str
    graph: Sequence[GraphFlow]
    starts: Offsets
    pairs: dict[str, TopicPair]
    """Of this flow, by source topic."""
    claims: Mapping[tuple[str, str, str, str], TopicPair]
    """All, also tombstones, by (source id, source topic, destination id, destination topic)."""
    assignments: dict[int, list[Assignment]]

    @property
    def key(self) -> FlowKey:
        return self.flow.task, self.flow.source, self.flow.destination


@dataclass(slots=True)
class TopicReconciler:
    store: Store
    troubles: Troubles
    _barriers: dict[int, dict[MessageQueue, int]] = field(default_factory=dict)
    """Of a grown ordered topic, by pair: where each older queue must have been examined to. Lost with the process, then taken
    again, later: safe."""

    async def reconcile(self, known: FlowRound, topic: str) -> None:
        """Raises ``ReplicatorError`` for what may pass by itself."""
        try:
            waiting = await self._advance(known, topic)
        except (Refused, Conflict) as error:
            await self.block(known, topic, str(error))
        else:
            await self._unblock(known, topic, waiting)

    async def _advance(self, known: FlowRound, topic: str) -> Trouble | None:
        """What keeps new queues waiting while the older ones go on, None if nothing does."""
        source = await known.source.describe(topic)
        if source is None:
            raise Refused(f"topic {topic} is not found on {known.flow.source}")
        pair = known.pairs.get(topic)
        if pair is None or pair.state == "blocked":
            self._judge(known, topic)
        arrives = known.rules.destination_name(topic)
        there = await known.destination.describe(arrives)
        if there is not None and await self._grow(known, pair, source, there):
            there = await known.destination.describe(arrives)
        is_running = pair is not None and pair.pair_id in known.assignments
        if reason := refusal(source, there, arrives, known.flow.destination, create=known.task.create, is_running=is_running):
            raise Refused(reason)
        if pair is None:
            pair = known.pairs[topic] = await self.store.claim_pair(known.flow.flow_id, topic, arrives)
        if is_waiting(topic) and not is_running:
            await make_group(known.source, known.destination, topic.removeprefix(WAITING_PREFIX))
        if there is None:
            there = await self._create(known, await self._shape(known, source), arrives)
        return await self._assign(known, pair, source, there)

    async def _shape(self, known: FlowRound, source: TopicDescription) -> TopicDescription:
        """What a topic of the destination is created like. Delay levels are no queues of a retry topic."""
        if not is_waiting(source.name):
            return source
        name = retry_topic(source.name.removeprefix(WAITING_PREFIX))
        found = await known.source.describe(name)
        if found is None:
            raise Refused(f"topic {name} is not found on {known.flow.source}")
        return found

    def _judge(self, known: FlowRound, topic: str) -> None:
        if group_behind(topic) is not None:
            return  # It goes one hop only, and the claim sees to it that one flow carries it.
        flow = next(one for one in known.graph if (one.task, one.source, one.destination) == known.key)
        findings = judge_topic(known.graph, flow, topic)
        if findings:
            raise Refused("; ".join(f"{finding.message} ({finding.hint})" for finding in findings))
        arrives = known.rules.destination_name(topic)
        for other in known.claims.values():
            is_same_place = (other.source_cluster_id, other.destination_cluster_id, other.destination_topic) == (
                known.source_id, known.destination_id, arrives,
            )  # fmt: skip
            if is_same_place and other.flow_id is not None and other.source_topic != topic:
                raise Refused(f"topic {other.source_topic} of {known.flow.source} arrives as {arrives} on {known.flow.destination} already")

    async def _grow(self, known: FlowRound, pair: TopicPair | None, source: TopicDescription, there: TopicDescription) -> bool:
        """Queues added to a source follow on the destination where both had as many before and topics are ours to create."""
        if pair is None or not known.task.create or len(source.queues) <= len(there.queues):
            return False
        listed = await self.store.queue_map(pair.pair_id)
        ours, theirs = listed.get(known.source_id, ()), listed.get(known.destination_id, ())
        if not ours or len(ours) != len(theirs) or len(there.queues) < len(theirs):
            return False
        await self._put_topic(known, source, there.name, counts_by_broker(there.queues))
        await self._tell(known, "topic-grown", f"topic {there.name} of {known.flow.destination} now has {len(source.queues)} queues")
        return True

    async def _create(self, known: FlowRound, source: TopicDescription, name: str) -> TopicDescription:
        await self._put_topic(known, source, name, {})
        made = await known.destination.describe(name)
        if made is None or not made.queues:
            raise Refused(f"topic {name} was created on {known.flow.destination} and does not show there")
        await self._tell(known, "topic-created", f"topic {name} was created on {known.flow.destination} with {len(made.queues)} queues")
        if reason := refusal(source, made, name, known.flow.destination, create=True):
            raise Refused(reason)
        return made

    async def _put_topic(self, known: FlowRound, source: TopicDescription, name: str, existing: dict[str, int]) -> None:
        link = known.destination
        brokers = [broker.broker_name for broker in (await link.ask(link.connector.describe())).brokers]
        if not brokers:
            raise Refused(f"cluster {known.flow.destination} has no broker to create topic {name} on")
        wanted = TopicDescription(name, (), ordered=source.ordered, message_type=source.message_type)
        await link.ask(link.connector.create_topic(wanted, plan_spread(len(source.queues), brokers, existing)))
        link.forget(name)

    async def _assign(self, known: FlowRound, pair: TopicPair, source: TopicDescription, there: TopicDescription) -> Trouble | None:
        has = known.assignments.get(pair.pair_id, [])
        assigned = {one.source_queue for one in has}
        fresh = [queue for queue in source.queues if queue not in assigned]
        if not fresh:
            self._barriers.pop(pair.pair_id, None)
            return None
        listed = await self.store.queue_map(pair.pair_id)
        appended = plan_queue_map(listed, (known.source_id, source.queues), (known.destination_id, there.queues))
        if appended:
            listed = await self.store.extend_queue_map(pair.pair_id, appended)
        if source.ordered and has:
            if reason := ordered_refusal(len(source.queues), len(there.queues)):
                return Trouble("blocked", f"new queues of topic {source.name} wait: {reason}")
            if not await self._has_passed(known, pair, has):
                return Trouble("starting", f"new queues of ordered topic {source.name} wait until the older ones are copied")
        ours, theirs = listed[known.source_id], listed[known.destination_id]
        rows = [
            NewAssignment(
                queue,
                destination_of(ours, theirs, queue, there.queues),
                await starting.start_offset(known.source, known.task.start, known.starts, queue),
            )
            for queue in sorted(fresh)
        ]
        added = await self.store.add_assignments(pair.pair_id, rows)
        self._barriers.pop(pair.pair_id, None)
        if added and has:
            await self._tell(known, "queues-added", f"{added} queues of {source.name} on {known.flow.source} were added")
        elif added:
            await self._tell(known, "topic-added", f"topic {source.name} of {known.flow.source}: {added} queues are copied to {there.name}")
        return None

    async def _has_passed(self, known: FlowRound, pair: TopicPair, older: Sequence[Assignment]) -> bool:
        """Order of a key over a growth: what its old queue held must be copied before its new queue begins."""
        barrier = self._barriers.get(pair.pair_id)
        if barrier is None:
            connector = known.source.connector
            barrier = {
                one.source_queue: (await known.source.ask(connector.offset_range(one.source_queue))).max_offset for one in older
            }
            self._barriers[pair.pair_id] = barrier
        return all(one.examined_through >= barrier.get(one.source_queue, 0) for one in older)

    async def block(self, known: FlowRound, topic: str, reason: str) -> None:
        pair = known.pairs.get(topic)
        if pair is None and not self._has_tombstone(known, topic):
            pair = await self._claim_blocked(known, topic)
        if pair is None:
            if self.troubles.set(known.key, topic, Trouble("blocked", reason)):
                await self._tell(known, "blocked", f"topic {topic}: {reason}")
            return
        self.troubles.clear(known.key, topic)
        if (pair.state, pair.reason) != ("blocked", reason):
            await self.store.set_pair_state(pair.pair_id, "blocked", reason)
            await self._tell(known, "blocked", f"topic {topic}: {reason}")

    def _has_tombstone(self, known: FlowRound, topic: str) -> bool:
        """Claiming it would set its old assignments going at once."""
        return (known.source_id, topic, known.destination_id, known.rules.destination_name(topic)) in known.claims

    async def _claim_blocked(self, known: FlowRound, topic: str) -> TopicPair | None:
        """A claimed pair shows its reason to every coordinator. None where another flow has it."""
        try:
            return await self.store.claim_pair(known.flow.flow_id, topic, known.rules.destination_name(topic))
        except Conflict:
            return None

    async def _unblock(self, known: FlowRound, topic: str, waiting: Trouble | None) -> None:
        was = self.troubles.clear(known.key, topic)
        pair = known.pairs.get(topic)
        is_blocked = pair is not None and pair.state == "blocked"
        if pair is not None and is_blocked:
            await self.store.set_pair_state(pair.pair_id, "active", "")
        if waiting is not None:
            self.troubles.set(known.key, topic, waiting)
            if was != waiting:
                await self._tell(known, "queues-waiting", waiting.reason)
        elif is_blocked or (was is not None and was.state == "blocked"):
            await self._tell(known, "unblocked", f"topic {topic} goes on")

    async def _tell(self, known: FlowRound, kind: str, message: str) -> None:
        flow = known.flow
        log.info(kind, task=flow.task, source=flow.source, destination=flow.destination, what=message)
        await self.store.record_event(flow.task, kind, message, {"source": flow.source, "destination": flow.destination})
