"""The loop that makes topics, queue maps and assignments follow the declarations and the clusters.

Only the holder of the lease ``coordinator`` runs it. Each flow is reconciled by itself, so that a cluster that does not answer
keeps nobody else waiting; each topic of a flow by itself, so that its errors stay its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from replicator.coordinator import declared, starting
from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.declared import Declared, graph_of, rules_of
from replicator.coordinator.identity import read_id, refuse_other_cluster
from replicator.coordinator.retries import RetryFinder
from replicator.coordinator.starting import Offsets
from replicator.coordinator.survey import survey_flow
from replicator.coordinator.topics import FlowRound, TopicReconciler
from replicator.coordinator.troubles import WHOLE_FLOW, FlowKey, Trouble, Troubles
from replicator.coordinator.tuning import Tuner
from replicator.core.errors import NotConnected, Refused, ReplicatorError, Throttled, Unsafe
from replicator.core.graph import GraphFlow
from replicator.core.patterns import TopicRules
from replicator.core.retry import RetryRules, group_behind, retry_rules_of
from replicator.core.task import ReplicationTask
from replicator.store.port import Flow, Store, StoreUnavailable, TopicPair

log = structlog.get_logger(__name__)

RECONCILE_SECONDS = 3.0
"""New topics and queues are found within 10 s, see ``connections``."""
COORDINATOR_LEASE_SECONDS = 12.0
FLOW_SECONDS_MAX = 90.0
"""A flow that takes longer is given up for this round, and goes on from where it came in the next."""
TOPICS_AT_ONCE_MAX = 8
IDENTITY_SECONDS = 30.0

Claims = Mapping[tuple[str, str, str, str], TopicPair]


@dataclass(frozen=True, slots=True)
class _World:
    """What all flows of one round share."""

    declared: Declared
    generations: Mapping[str, int]
    graph: tuple[GraphFlow, ...]
    claims: Claims


class Reconciler:
    def __init__(self, store: Store, connections: Connections, instance: str) -> None:
        self.troubles = Troubles()
        self._store = store
        self._connections = connections
        self._instance = instance
        self._writes = store.under_lease(instance)
        self._topics = TopicReconciler(self._writes, self.troubles)
        self._tuner = Tuner(self._writes)
        self._retries = RetryFinder()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, tuple[int, Offsets]] = {}
        self._identified: dict[str, tuple[Link, float]] = {}
        self._woken = asyncio.Event()
        self._told: dict[str, Any] = {}

    def wake(self) -> None:
        """Something was declared: the next round begins now."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        failing = ""
        try:
            while not stop.is_set():
                self._woken.clear()
                try:
                    await self._turn()
                    failing = ""
                except ReplicatorError as error:
                    if str(error) != failing:
                        log.warning("reconciling waits", error=str(error))
                    failing = str(error)
                except Exception:
                    # A bug of ours: loud, and the next round may still do what this one did not.
                    log.exception("reconciling failed")
                await self._pause(stop)
        finally:
            await self.close()

    async def close(self) -> None:
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def round_to_end(self) -> None:
        """One round over everything, with nothing remembered of the clusters."""
        self._connections.forget_answers()
        self._identified.clear()
        if not await self._store.hold_coordinator(self._instance, COORDINATOR_LEASE_SECONDS):
            raise Unsafe("another coordinator reconciles")
        try:
            self._begin(await self._look())
            await asyncio.gather(*list(self._running.values()))
        finally:
            await self._store.drop_coordinator(self._instance)

    async def _turn(self) -> None:
        if not await self._store.hold_coordinator(self._instance, COORDINATOR_LEASE_SECONDS):
            await self.close()
            self.troubles.keep_flows(())
            self._told = {}
            return
        self._begin(await self._look())
        told = {"troubles": self.troubles.told()}
        if told != self._told and await self._store.tell_as_coordinator(self._instance, told):
            self._told = told

    async def troubles_now(self) -> Troubles:
        """Of whoever reconciles."""
        holder, told = await self._store.told_by_coordinator()
        return self.troubles if holder in ("", self._instance) else Troubles.heard(told.get("troubles", {}))

    async def _pause(self, stop: asyncio.Event) -> None:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._woken.wait())]
        try:
            await asyncio.wait(waits, timeout=RECONCILE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _look(self) -> _World:
        known = await declared.load(self._store)
        generations = {row.name: row.generation for row in await self._store.tasks()}
        pairs = await self._store.pairs()
        claims = {(p.source_cluster_id, p.source_topic, p.destination_cluster_id, p.destination_topic): p for p in pairs}
        self.troubles.keep_flows(_key(flow) for flow in known.flows)
        self._retries.keep({flow.flow_id for flow in known.flows})
        self._starts = {flow.flow_id: self._starts[flow.flow_id] for flow in known.flows if flow.flow_id in self._starts}
        return _World(known, generations, tuple(graph_of(known.tasks.values())), claims)

    def _begin(self, world: _World) -> None:
        for flow in world.declared.flows:
            if flow.flow_id not in self._running:
                task = asyncio.create_task(self._guarded(flow, world), name=f"reconcile {flow.flow_id}")
                self._running[flow.flow_id] = task

    async def _guarded(self, flow: Flow, world: _World) -> None:
        """Never raises but for a cancel: what went wrong is shown with the flow."""
        try:
            async with asyncio.timeout(FLOW_SECONDS_MAX):
                await self._reconcile(flow, world)
            if self.troubles.clear(_key(flow), WHOLE_FLOW) is not None:
                await self._tell(flow, "recovered", f"{flow.source} to {flow.destination} is within reach again")
        except StoreUnavailable as error:
            log.warning("reconciling waits", task=flow.task, error=str(error))
        except (NotConnected, Throttled, TimeoutError) as error:
            await self._trouble(flow, Trouble("unreachable", str(error) or f"not done within {FLOW_SECONDS_MAX:g} s"))
        except ReplicatorError as error:
            await self._trouble(flow, Trouble("blocked", str(error)))
        except Exception as error:
            log.exception("reconciling failed", task=flow.task, source=flow.source, destination=flow.destination)
            await self._trouble(flow, Trouble("failed", f"{type(error).__name__}: {error}"))
        finally:
            self._running.pop(flow.flow_id, None)

    async def _trouble(self, flow: Flow, trouble: Trouble) -> None:
        if self.troubles.set(_key(flow), WHOLE_FLOW, trouble):
            await self._tell(flow, trouble.state, trouble.reason)

    async def _tell(self, flow: Flow, kind: str, message: str) -> None:
        log.info(kind, task=flow.task, source=flow.source, destination=flow.destination, what=message)
        try:
            await self._writes.record_event(flow.task, kind, message, {"source": flow.source, "destination": flow.destination})
        except StoreUnavailable as error:
            log.warning("event not recorded", task=flow.task, error=str(error))

    async def _reconcile(self, flow: Flow, world: _World) -> None:
        task = world.declared.tasks[flow.task]
        source, destination = await self._link(flow.source, world), await self._link(flow.destination, world)
        pairs = {pair.source_topic: pair for pair in world.claims.values() if pair.flow_id == flow.flow_id}
        try:
            await self._identify(world, source)
            await self._identify(world, destination)
            names = await source.topics()
            await self._tuner.follow(task, source, world.declared.tasks.values())
            starts = await self._starts_of(flow, task, world.generations[flow.task], source, destination, bool(pairs))
        except NotConnected:
            await self._connections.lost(source)
            await self._connections.lost(destination)
            raise
        except Unsafe as error:
            await self._block_pairs(pairs, str(error))
            raise
        rows = world.declared.rows
        source_id, destination_id = rows[flow.source].cluster_id, rows[flow.destination].cluster_id
        if source_id is None or destination_id is None:
            raise Refused(f"cluster {flow.destination if source_id else flow.source} was never marked", hint="apply it again")
        assignments: dict[int, list[Any]] = {}
        for assignment in await self._store.assignments(flow_id=flow.flow_id):
            assignments.setdefault(assignment.pair_id, []).append(assignment)
        rules = retry_rules_of(task) if task.retry else rules_of(task)
        known = FlowRound(
            flow, task, rules, source, destination, source_id, destination_id, world.graph, starts, pairs, world.claims, assignments,
        )  # fmt: skip
        refused: Refused | None = None
        if isinstance(rules, RetryRules):
            try:
                names = (*names, *await self._retries.topics(flow.flow_id, rules, source, names))
            except Refused as error:
                refused = error
        await self._reconcile_topics(known, names)
        if refused is not None:
            raise refused

    async def _reconcile_topics(self, known: FlowRound, names: tuple[str, ...]) -> None:
        rules, key = known.rules, known.key
        for topic in [topic for topic in known.pairs if not _is_selected(rules, topic)]:
            await self._release(known.flow, known.pairs.pop(topic))
        colliding = _losers(rules, names, known.pairs)
        # Topics we copy stay in view when they are gone from the list: only the cluster itself can say that they do not exist.
        topics = sorted({*rules.select(names), *known.pairs})
        self.troubles.keep_topics(key, topics)
        limit = asyncio.Semaphore(TOPICS_AT_ONCE_MAX)

        async def one(topic: str) -> bool:
            async with limit:
                if topic in colliding:
                    await self._topics.block(known, topic, colliding[topic])
                    return True
                return await self._topic(known, topic)

        reached = await _all(one(topic) for topic in topics)
        if reached and not any(reached):
            await self._connections.lost(known.source)
            await self._connections.lost(known.destination)
        missing = rules.missing([*names, *known.pairs])
        self.troubles.wait_for(key, f"waiting for topic {', '.join(missing)} on {known.flow.source}" if missing else "")

    async def _topic(self, known: FlowRound, topic: str) -> bool:
        """False if a cluster was out of reach."""
        try:
            await self._topics.reconcile(known, topic)
        except StoreUnavailable:
            raise
        except (NotConnected, Throttled) as error:
            self.troubles.set(known.key, topic, Trouble("unreachable", f"topic {topic}: {error}"))
            return False
        except ReplicatorError as error:
            self.troubles.set(known.key, topic, Trouble("blocked", f"topic {topic}: {error}"))
        except Exception as error:
            log.exception("reconciling a topic failed", task=known.flow.task, topic=topic)
            self.troubles.set(known.key, topic, Trouble("failed", f"topic {topic}: {type(error).__name__}: {error}"))
        return True

    async def _release(self, flow: Flow, pair: TopicPair) -> None:
        if await self._writes.release_pair(pair.pair_id):
            await self._tell(flow, "topic-dropped", f"topic {pair.source_topic} of {flow.source} is no longer selected")

    async def _block_pairs(self, pairs: Mapping[str, TopicPair], reason: str) -> None:
        for pair in pairs.values():
            if (pair.state, pair.reason) != ("blocked", reason):
                await self._writes.set_pair_state(pair.pair_id, "blocked", reason)

    async def _link(self, name: str, world: _World) -> Link:
        return await self._connections.get(world.declared.cluster(name))

    async def _identify(self, world: _World, link: Link) -> None:
        """``Unsafe`` where the name leads to another cluster than it did. Asked for each new link, and now and then."""
        name = link.cluster.name
        last = self._identified.get(name)
        if last is not None and last[0] is link and time.monotonic() - last[1] < IDENTITY_SECONDS:
            return
        known = world.declared
        refuse_other_cluster(name, known.rows[name].cluster_id, await read_id(link), known.names_by_id())
        self._identified[name] = link, time.monotonic()

    async def _starts_of(
        self, flow: Flow, task: ReplicationTask, generation: int, source: Link, destination: Link, has_pairs: bool
    ) -> Offsets:
        known = self._starts.get(flow.flow_id)
        if known is None or known[0] != generation:
            offsets = await starting.read_back(self._store, flow)
            if offsets is None:
                # Whoever created the task died before writing it down; a flow that has copied already lost it to old age.
                offsets = {} if has_pairs else await self._found_now(flow, task, source, destination)
            known = self._starts[flow.flow_id] = generation, offsets
        return known[1]

    async def _found_now(self, flow: Flow, task: ReplicationTask, source: Link, destination: Link) -> Offsets:
        survey = await survey_flow(task, source, destination)
        offsets = starting.offsets_of(start for topic in survey.topics for start in topic.starts)
        await starting.write_down(self._writes, flow, task.start, offsets)
        return offsets


def _is_selected(rules: TopicRules, topic: str) -> bool:
    """No pattern of a task means the topics of groups: ``retry: true`` does."""
    return rules.matches(topic) and (group_behind(topic) is None or isinstance(rules, RetryRules))


def _key(flow: Flow) -> FlowKey:
    return flow.task, flow.source, flow.destination


async def _all(work: Iterable[Coroutine[Any, Any, bool]]) -> list[bool]:
    """As ``gather``, but nothing goes on in the background after an error."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _losers(rules: TopicRules, names: tuple[str, ...], pairs: Mapping[str, TopicPair]) -> dict[str, str]:
    """Of topics that would arrive under one name: all but the one that does so already, else the renamed one; with the reason."""
    losers = {}
    for arrives, sources in rules.collisions([*names, *pairs]).items():
        winner = min(sources, key=lambda topic: (topic not in pairs or pairs[topic].state == "blocked", topic not in rules.rename, topic))
        for topic in sources:
            if topic != winner:
                losers[topic] = f"topics {winner} and {topic} would both arrive as {arrives}: exclude one of them"
    return losers
