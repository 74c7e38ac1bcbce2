"""The store in memory, with Postgres' semantics: for the simulator and for tests. Passes the same conformance suite.

Every method runs without awaiting in between, so each is a transaction of its own. Values given and returned are copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from replicator.core.correspondence import Intervals
from replicator.core.offset_map import Epoch
from replicator.core.record import UNSEEN_COMMIT_LOG_OFFSET, MessageQueue
from replicator.core.stamping import NOTHING_TO_RESTORE, Restoration
from replicator.store import rules
from replicator.store.identifiers import make_flow_id
from replicator.store.limits import EVENTS_PER_TASK_MAX
from replicator.store.memory_access import MemoryAccess
from replicator.store.memory_checks import MemoryChecks
from replicator.store.memory_failovers import MemoryFailovers
from replicator.store.memory_figures import effective_state, flow_figures
from replicator.store.memory_leases import MemoryLeases, MemoryWatch
from replicator.store.memory_reads import MapReads
from replicator.store.memory_rebuilds import MemoryRebuilds
from replicator.store.memory_tables import StoredAssignment, StoredPair, StoredParked, Tables, TopicKey
from replicator.store.port import (
    Assignment,
    Checkpoint,
    ClusterRow,
    Event,
    Flow,
    Hole,
    LeaseLost,
    NewAssignment,
    Parked,
    Progress,
    StoreUnavailable,
    TaskRow,
    TopicPair,
)


class MemoryStore(MapReads, MemoryLeases, MemoryRebuilds, MemoryFailovers, MemoryAccess, MemoryChecks):
    """``clock``: seconds since 1970, injectable. ``available = False`` is an outage: every method raises ``StoreUnavailable``;
    setting it back is a restart of the database, after which expired leases count only one lease time later."""

    def __init__(self, clock: Callable[[], float] = time.time, *, make_flow_id: Callable[[], str] = make_flow_id) -> None:
        self._clock = clock
        self._make_flow_id = make_flow_id
        self._tables = Tables()
        self._available = True
        self._up_since = clock()
        self._watches: WeakValueDictionary[int, MemoryWatch] = WeakValueDictionary()
        self._watches_made = count()

    def under_lease(self, holder: str) -> MemoryStore:
        return _UnderLease(self, holder)

    @property
    def available(self) -> bool:
        return self._available

    @available.setter
    def available(self, value: bool) -> None:
        if value and not self._available:
            self._up_since = self._clock()
        self._available = value

    def _read(self) -> Tables:
        if not self._available:
            raise StoreUnavailable("the database cannot be reached: simulated outage")
        return self._tables

    def _new_id(self) -> int:
        self._tables.last_id += 1
        return self._tables.last_id

    def _at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    async def open(self) -> None:
        self._read()

    async def close(self) -> None:
        """Nothing to give back; the content stays, as that of a database does."""

    async def identity(self) -> tuple[str, int]:
        return self._read().identity, 1

    async def put_cluster(self, row: ClusterRow) -> str:
        clusters = self._read().clusters
        if row.cluster_id is not None:
            for other in clusters.values():
                if other.cluster_id == row.cluster_id and other.name != row.name:
                    raise rules.known_as_another(row.cluster_id, other.name, row.name)
        stored = clusters.get(row.name)
        if stored is None:
            clusters[row.name] = deepcopy(row)
            return "created"
        rules.refuse_another_id(row.name, stored.cluster_id, row.cluster_id)
        merged = replace(deepcopy(row), cluster_id=row.cluster_id or stored.cluster_id)
        if merged == stored:
            return "unchanged"
        clusters[row.name] = merged
        return "changed"

    async def clusters(self) -> Sequence[ClusterRow]:
        return deepcopy(sorted(self._read().clusters.values(), key=lambda row: row.name))

    async def delete_cluster(self, name: str) -> bool:
        tables = self._read()
        for flow in tables.flows.values():
            if name in (flow.source, flow.destination):
                raise rules.in_use(name, flow.task)
        return tables.clusters.pop(name, None) is not None

    async def put_task(self, name: str, spec: dict[str, Any], flows: Sequence[tuple[str, str]]) -> str:
        tables = self._read()
        stored = tables.tasks.get(name)
        if stored is not None and not stored.deleted:
            known = {(flow.source, flow.destination) for flow in tables.flows.values() if flow.task == name}
            rules.refuse_other_flows(name, known, flows)
            if stored.spec == spec:
                return "unchanged"
            tables.tasks[name] = TaskRow(name, deepcopy(spec), stored.generation + 1)
            return "changed"
        rules.refuse_undeclared(name, flows, set(tables.clusters))
        tables.tasks[name] = TaskRow(name, deepcopy(spec), stored.generation + 1 if stored else 1)
        for source, destination in flows:
            flow_id = self._make_flow_id()
            while flow_id in tables.flow_ids:
                flow_id = self._make_flow_id()
            tables.flow_ids.add(flow_id)
            tables.flows[flow_id] = Flow(flow_id, name, source, destination)
        return "created"

    async def tasks(self) -> Sequence[TaskRow]:
        living = [row for row in self._read().tasks.values() if not row.deleted]
        return deepcopy(sorted(living, key=lambda row: row.name))

    async def delete_task(self, name: str) -> bool:
        tables = self._read()
        row = tables.tasks.get(name)
        if row is None or row.deleted:
            return False
        tables.tasks[name] = replace(row, deleted=True)
        own = {flow.flow_id for flow in tables.flows.values() if flow.task == name}
        for stored in tables.assignments.values():
            if tables.pairs[stored.row.pair_id].row.flow_id in own and stored.lease_until is not None:
                stored.revoked = True
        for pair in tables.pairs.values():
            if pair.row.flow_id in own:
                pair.row = replace(pair.row, flow_id=None, task=None, state="active", reason="", paused=False)
        for flow_id in own:
            del tables.flows[flow_id]
        return True

    async def purge_task(self, name: str) -> None:
        tables = self._read()
        gone = {pair_id for pair_id, pair in tables.pairs.items() if pair.row.flow_id is None and pair.last_task == name}
        for assignment_id in [i for i, stored in tables.assignments.items() if stored.row.pair_id in gone]:
            del tables.assignments[assignment_id]
            tables.offsets.pop(assignment_id, None)
            tables.parked = {i: one for i, one in tables.parked.items() if one.assignment_id != assignment_id}
        for pair_id in gone:
            del tables.pairs[pair_id]
        used = {_map_key(pair.row) for pair in tables.pairs.values()}
        tables.maps = {key: value for key, value in tables.maps.items() if key in used}
        if name not in tables.tasks or tables.tasks[name].deleted:
            tables.group_states = {key: one for key, one in tables.group_states.items() if one.task != name}
            tables.failovers = {key: one for key, one in tables.failovers.items() if one.task != name}
            tables.sightings = {key: one for key, one in tables.sightings.items() if key[0] != name}

    async def flows(self) -> Sequence[Flow]:
        return sorted(self._read().flows.values(), key=lambda flow: (flow.task, flow.source, flow.destination))

    async def set_paused(self, task: str, paused: bool, *, topic: str | None = None, flow: tuple[str, str] | None = None) -> int:
        tables = self._read()
        chosen = [f for f in tables.flows.values() if f.task == task and (flow is None or flow == (f.source, f.destination))]
        if topic is None:
            for one in chosen:
                tables.flows[one.flow_id] = replace(one, paused=paused)
            return len(chosen)
        ids = {one.flow_id for one in chosen}
        pairs = [pair for pair in tables.pairs.values() if pair.row.flow_id in ids and pair.row.source_topic == topic]
        for pair in pairs:
            pair.row = replace(pair.row, paused=paused)
        return len(pairs)

    async def claim_pair(self, flow_id: str, source_topic: str, destination_topic: str) -> TopicPair:
        tables = self._read()
        flow = tables.flows.get(flow_id)
        if flow is None:
            raise rules.flow_is_gone(flow_id)
        source_id, destination_id = (self._cluster_id(name) for name in (flow.source, flow.destination))
        four = (source_id, source_topic, destination_id, destination_topic)
        pair = next((one for one in tables.pairs.values() if _claim(one.row) == four), None)
        if pair is None:
            row = TopicPair(self._new_id(), *four, flow_id, flow.task, flow.source, flow.destination)
            pair = tables.pairs[row.pair_id] = StoredPair(row, flow.task)
            tables.maps.setdefault(_map_key(row), {})
        elif pair.row.flow_id is None:
            pair.row = replace(pair.row, flow_id=flow_id, task=flow.task, source=flow.source, destination=flow.destination)
            pair.last_task = flow.task
        elif pair.row.flow_id != flow_id:
            raise rules.already_copied(source_topic, flow.source, destination_topic, flow.destination, pair.row.task)
        return pair.row

    def _cluster_id(self, name: str) -> str:
        row = self._tables.clusters.get(name)
        if row is None or row.cluster_id is None:
            raise rules.not_marked(name)
        return row.cluster_id

    async def set_pair_state(self, pair_id: int, state: str, reason: str) -> None:
        pair = self._read().pairs.get(pair_id)
        if pair is not None:
            pair.row = replace(pair.row, state=state, reason=reason)

    async def release_pair(self, pair_id: int) -> bool:
        tables = self._read()
        pair = tables.pairs.get(pair_id)
        if pair is None or pair.row.flow_id is None:
            return False
        for stored in tables.assignments.values():
            if stored.row.pair_id == pair_id and stored.lease_until is not None:
                stored.revoked = True
        pair.row = replace(pair.row, flow_id=None, task=None, state="active", reason="", paused=False)
        return True

    async def pairs(self, flow_id: str | None = None) -> Sequence[TopicPair]:
        return [pair.row for pair in self._read().pairs.values() if flow_id is None or pair.row.flow_id == flow_id]

    async def queue_map(self, pair_id: int) -> Mapping[str, Sequence[MessageQueue]]:
        tables = self._read()
        pair = tables.pairs.get(pair_id)
        return {key: list(value) for key, value in tables.maps[_map_key(pair.row)].items()} if pair else {}

    async def extend_queue_map(self, pair_id: int, queues: Mapping[str, Sequence[MessageQueue]]) -> Mapping[str, Sequence[MessageQueue]]:
        tables = self._read()
        pair = self._pair(pair_id)
        known = tables.maps[_map_key(pair.row)]
        for cluster_id, wanted in queues.items():
            for queue in wanted:
                if queue not in known.get(cluster_id, ()):
                    known.setdefault(cluster_id, []).append(queue)
        return {key: list(value) for key, value in known.items()}

    def _pair(self, pair_id: int) -> StoredPair:
        pair = self._tables.pairs.get(pair_id)
        if pair is None:
            raise rules.pair_is_gone(pair_id)
        return pair

    async def add_assignments(self, pair_id: int, rows: Sequence[NewAssignment]) -> int:
        tables = self._read()
        if not rows:
            return 0
        self._pair(pair_id)
        known = {stored.row.source_queue for stored in tables.assignments.values() if stored.row.pair_id == pair_id}
        added = 0
        for new in rows:
            if new.source_queue in known:
                continue
            known.add(new.source_queue)
            row = Assignment(self._new_id(), pair_id, "", "", "", "", new.source_queue, new.destination_queue, new.start_offset)
            tables.assignments[row.assignment_id] = StoredAssignment(row)
            added += 1
        self._announce()
        return added

    async def assignments(self, *, task: str | None = None, flow_id: str | None = None) -> Sequence[Assignment]:
        found = []
        for stored in self._read().assignments.values():
            row = self._complete(stored)
            if row is not None and task in (None, row.task) and flow_id in (None, row.flow_id):
                found.append(row)
        return found

    async def topic_assignments(self, cluster_id: str, topic: str) -> Sequence[tuple[TopicPair, Assignment]]:
        found = []
        for stored in self._read().assignments.values():
            pair = self._tables.pairs[stored.row.pair_id].row
            if (cluster_id, topic) in (_claim(pair)[:2], _claim(pair)[2:]):
                found.append((pair, self._complete(stored) or replace(stored.row, source=pair.source, destination=pair.destination)))
        return found

    def _flow_of(self, stored: StoredAssignment) -> tuple[TopicPair, Flow | None]:
        pair = self._tables.pairs[stored.row.pair_id].row
        return pair, self._tables.flows.get(pair.flow_id) if pair.flow_id is not None else None

    def _complete(self, stored: StoredAssignment) -> Assignment | None:
        """The row as others see it, None for that of a tombstone."""
        pair, flow = self._flow_of(stored)
        if flow is None:
            return None
        return replace(
            stored.row,
            flow_id=flow.flow_id, task=flow.task, source=flow.source, destination=flow.destination,
            checkpoint=_copied(stored.row.checkpoint),
            paused=flow.paused or pair.paused,
            state=effective_state(stored, pair, flow, self._clock()),
            rate_per_second=stored.rate_per_second,
        )

    async def save_progress(self, items: Sequence[Progress]) -> set[int]:
        tables = self._read()
        ids = [item.assignment_id for item in items]
        assert len(set(ids)) == len(ids), "one save holds an assignment once"
        fenced = set()
        for item in items:
            stored = self._held(item.assignment_id, item.token)
            if stored is None:
                fenced.add(item.assignment_id)
                continue
            stored.row = replace(
                stored.row,
                checkpoint=_copied(item.checkpoint), senders=tuple(item.senders), state=item.state, error=item.error,
                lag_messages=item.lag_messages, lag_seconds=item.lag_seconds, observed_at=self._at(self._clock()),
            )
            stored.rate_per_second, stored.latency_ms, stored.observed = item.rate_per_second, item.latency_ms, self._clock()
            offsets = tables.offsets[item.assignment_id]
            if item.drop_runs_from is not None:
                offsets.drop_from(item.checkpoint.epoch, item.drop_runs_from)
            offsets.append(item.runs, item.holes)
            offsets.add_duplicates(item.duplicates)
            offsets.learn_epochs(item.epochs)
            for one in item.parked:
                self._park(item.assignment_id, item.checkpoint.epoch, one)
        return fenced

    def _park(self, assignment_id: int, epoch: int, row: Parked) -> None:
        parked = self._tables.parked
        place = (assignment_id, epoch, row.source_offset)
        if all((one.assignment_id, one.epoch, one.row.source_offset) != place for one in parked.values()):
            parked_id = self._new_id()
            parked[parked_id] = StoredParked(assignment_id, epoch, replace(row, parked_id=parked_id, state="parked"))

    async def set_epoch(
        self,
        assignment_id: int,
        epoch: int,
        examined_through: int,
        reason: str,
        *,
        given_up: Hole | None = None,
        divergence_offset: int | None = None,
    ) -> None:
        stored = self._read().assignments.get(assignment_id)
        if stored is None:
            raise rules.assignment_is_gone(assignment_id)
        is_leased = stored.lease_until is not None and stored.lease_until > self._clock()
        checkpoint = stored.row.checkpoint or Checkpoint()
        rules.refuse_epoch(assignment_id, epoch, checkpoint.epoch, stored.row.holder if is_leased else None)
        skipped = dict(checkpoint.skipped_total)
        if given_up is not None:
            count = self._tables.offsets[assignment_id].give_up(given_up)
            skipped[given_up.reason] = skipped.get(given_up.reason, 0) + count
        fresh = replace(
            checkpoint, epoch=epoch, examined_through=examined_through, identity=None, seen={}, confirmed_source_offset=-1,
            confirmed_destination_offset=-1, skipped_total=skipped,
        )
        stored.lease_until = None
        stored.row = replace(
            stored.row, token=stored.row.token + 1, checkpoint=fresh, state="starting", error="", lag_messages=None, lag_seconds=None
        )
        divergence = examined_through if divergence_offset is None else divergence_offset
        self._tables.offsets[assignment_id].begin_epoch(Epoch(epoch, divergence, examined_through))
        message, detail = rules.epoch_event(assignment_id, epoch, examined_through, reason, given_up, divergence)
        await self.record_event(self._tables.pairs[stored.row.pair_id].last_task, "epoch", message, detail)

    async def begin_restore(self, assignment_id: int, ranges: Sequence[tuple[int, int]], reason: str) -> int:
        stored = self._read().assignments.get(assignment_id)
        if stored is None:
            raise rules.assignment_is_gone(assignment_id)
        is_leased = stored.lease_until is not None and stored.lease_until > self._clock()
        rules.refuse_leased(assignment_id, stored.row.holder if is_leased else None)
        rules.refuse_unclean(assignment_id, stored.row.clean)
        checkpoint = stored.row.checkpoint or Checkpoint(examined_through=stored.row.start_offset)
        through, epoch = checkpoint.examined_through, checkpoint.epoch + 1
        rules.refuse_unexamined(assignment_id, ranges, through)
        identity = checkpoint.identity
        fresh = replace(
            checkpoint, epoch=epoch, examined_through=ranges[0][0], confirmed_source_offset=-1, confirmed_destination_offset=-1,
            identity=None if identity is None or identity.commit_log_offset == UNSEEN_COMMIT_LOG_OFFSET else identity,
        )
        stored.lease_until = None
        stored.row = replace(
            stored.row, token=stored.row.token + 1, checkpoint=fresh, state="starting", error="", lag_messages=None, lag_seconds=None
        )
        offsets = self._tables.offsets[assignment_id]
        offsets.begin_epoch(Epoch(epoch, through, ranges[0][0]))
        offsets.restorations[epoch] = Restoration(through, Intervals(ranges))
        message, detail = rules.restore_event(assignment_id, epoch, ranges, through, reason)
        await self.record_event(self._tables.pairs[stored.row.pair_id].last_task, "epoch", message, detail)
        return epoch

    async def restoration(self, assignment_id: int, epoch: int) -> Restoration:
        return self._read().offsets[assignment_id].restorations.get(epoch, NOTHING_TO_RESTORE)

    async def parked(self, task: str) -> Sequence[tuple[Assignment, Parked]]:
        tables = self._read()
        found = []
        for one in tables.parked.values():
            row = self._complete(tables.assignments[one.assignment_id])
            if row is not None and row.task == task:
                found.append((row, one.row))
        return found

    async def set_parked_state(self, parked_id: int, state: str) -> bool:
        one = self._read().parked.get(parked_id)
        if one is None:
            return False
        one.row = replace(one.row, state=state)
        return True

    async def record_event(self, task: str, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        events = self._read().events[task]
        events.append(Event(self._at(self._clock()), task, kind, message, deepcopy(detail or {})))
        del events[:-EVENTS_PER_TASK_MAX]

    async def events(self, task: str, limit: int = 200) -> Sequence[Event]:
        return deepcopy(self._read().events.get(task, [])[-limit:])

    async def flow_figures(self) -> Sequence[dict[str, Any]]:
        tables = self._read()
        open_parked = [one.assignment_id for one in tables.parked.values() if one.row.state == "parked"]
        pairs = [pair.row for pair in tables.pairs.values()]
        return flow_figures(await self.flows(), pairs, list(tables.assignments.values()), open_parked, self._clock())


class _UnderLease(MemoryStore):
    """The same tables, for the holder of the lease ``coordinator``."""

    def __init__(self, origin: MemoryStore, holder: str) -> None:
        self.__dict__.update(origin.__dict__)
        self._origin = origin
        self._holder = holder

    def _read(self) -> Tables:
        tables = self._origin._read()
        if self._origin._token(self._holder) is None:
            raise LeaseLost("another coordinator reconciles now")
        return tables


def _copied(checkpoint: Checkpoint | None) -> Checkpoint | None:
    if checkpoint is None:
        return None
    return replace(checkpoint, seen=dict(checkpoint.seen), skipped_total=dict(checkpoint.skipped_total))


def _claim(row: TopicPair) -> tuple[str, str, str, str]:
    return row.source_cluster_id, row.source_topic, row.destination_cluster_id, row.destination_topic


def _map_key(row: TopicPair) -> tuple[TopicKey, TopicKey]:
    low, high = sorted(((row.source_cluster_id, row.source_topic), (row.destination_cluster_id, row.destination_topic)))
    return low, high
