"""The store as the engine sees it. Two implementations pass one suite: Postgres (``postgres.py``) and memory (``memory.py``).

Each method is one transaction. Every write on behalf of an assignment carries the fencing token it was leased with and
changes nothing when a newer token exists. Offsets are 64-bit; times are the database's own clock unless named otherwise.
Methods raise ``StoreUnavailable`` while the database cannot be reached (callers go on with what they hold) and
``Conflict`` where a rule of the data forbids the change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from replicator.core.errors import ReplicatorError, Unsafe
from replicator.core.map_rows import HoleColumns, Place, RunColumns
from replicator.core.offset_map import Epoch
from replicator.core.record import MessageQueue, RecordIdentity
from replicator.core.stamping import Restoration
from replicator.store.access_rows import ApiChange, ApiToken, LivingToken
from replicator.store.failover_rows import FailoverRow, Sighting
from replicator.store.group_rows import GroupState, GroupWrite, QueueWrite
from replicator.store.sharing_port import SharesAssignments

FORMER_LEASE_MARK = "!"


class StoreUnavailable(ReplicatorError):
    """The database cannot be reached now."""


class LeaseLost(StoreUnavailable):
    """Whoever writes does not hold the lease ``coordinator`` any more: nothing was written, and who holds it will."""


class Conflict(Unsafe):
    """A rule of the data forbids the change: an overlapping claim, one id under two names, an immutable field."""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    name: str
    connector: str
    region: str
    settings: dict[str, Any]
    cluster_id: str | None = None
    """Lasting id, set when the cluster was first marked; unique over all rows."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """``spec`` is canonical JSON of core.task.ReplicationTask as config.py dumps it."""

    name: str
    spec: dict[str, Any]
    generation: int = 1
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class TopicPair:
    """The claim: only one flow may write ``source topic -> destination topic`` between two clusters.

    Identified for ever by the four ids/names; ``flow_id`` is None for a tombstone. Positions, epochs and runs hang here,
    so a task re-created under any name goes on from them. ``state``: ``active`` or ``blocked`` (with ``reason``).
    """

    pair_id: int
    source_cluster_id: str
    source_topic: str
    destination_cluster_id: str
    destination_topic: str
    flow_id: str | None
    task: str | None
    source: str
    """Declared name of the source cluster of the flow that last held the pair."""
    destination: str
    state: str = "active"
    reason: str = ""
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    flow_id: str
    """Short lasting id, [a-z0-9]{6}; part of the stamp."""
    task: str
    source: str
    destination: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` copies, contiguous on both sides: source offset s in [source_start, source_start+length) stands at
    destination_start + (s - source_start) of the assignment's destination queue."""

    epoch: int
    source_start: int
    destination_start: int
    length: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Source offsets ``[source_start, source_start+length)`` of an epoch without a copy, and why:
    filtered, loop, refused, expired, history."""

    epoch: int
    source_start: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A second copy that slipped in, or a copy of a record the source lost (``ghost``)."""

    epoch: int
    source_offset: int
    destination_offset: int
    kind: str


class MapVersion(NamedTuple):
    """Equal as long as nothing changed that an answer of the map depends on."""

    version: int
    """Grows with every change of the rows."""
    rewritten: int
    """Version of the last change that touched more than the end: what was read before it has to be read again from the start."""
    examined_through: int
    scanned_through: int
    relearn_from: int | None = None
    """Copies that the map has forgotten stand at or above this destination offset (``ToRelearn``)."""


@dataclass(frozen=True, slots=True)
class MapRows:
    """An assignment's map, all of one moment."""

    version: MapVersion
    is_whole: bool
    """False: ``runs`` and ``holes`` begin with the last row that the caller knew; the rest is complete all the same."""
    runs: RunColumns
    holes: HoleColumns
    duplicates: Sequence[Duplicate]
    epochs: Sequence[Epoch]
    start_offset: int


@dataclass(frozen=True, slots=True)
class KnownRows:
    """What a caller of ``map_rows`` has already: the version it read, and the last row of each kind."""

    version: int
    last_run: Place | None
    last_hole: Place | None


@dataclass(frozen=True, slots=True)
class Parked:
    """A refused record, kept by place (its bytes stay on the source)."""

    source_offset: int
    reason: str
    size_bytes: int
    parked_id: int = 0
    state: str = "parked"
    """parked, discarded, retried."""


@dataclass(frozen=True, slots=True)
class ToRelearn:
    """A piece of the map that the holder no longer had room for: source offsets ``[source_start, source_end)`` were all decided,
    their copies stand in the destination queue at ``[destination_start, destination_end)``."""

    epoch: int
    source_start: int
    source_end: int
    destination_start: int
    destination_end: int
    reason: str = ""
    """Of every offset in it without a copy and without a hole of its own; empty where there is none, or nobody can tell any more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where an assignment stands. Written about once a second; see architecture, "Stamp, position, doubt"."""

    epoch: int = 1
    examined_through: int = 0
    """Source offsets below it have been decided."""
    confirmed_source_offset: int = -1
    confirmed_destination_offset: int = -1
    """Last copy known stored, -1 before the first."""
    identity: RecordIdentity | None = None
    """Of the last examined source record."""
    scanned_through: int = 0
    """A destination max_offset read while nothing of ours was in flight: no own copy newer than the confirmed one below it."""
    seen: dict[str, int] = field(default_factory=dict)
    """Provenance state: last genuine coordinates seen for each upstream source queue (relay and two-way)."""
    in_flight: bool = False
    """True while appends may be under way; a holder that leaves it True died in doubt."""
    copied_total: int = 0
    skipped_total: dict[str, int] = field(default_factory=dict)
    to_relearn: ToRelearn | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """One source queue of one flow, and where it goes. ``start_offset`` is decided once, when the row is made."""

    assignment_id: int
    pair_id: int
    flow_id: str
    task: str
    source: str
    destination: str
    source_queue: MessageQueue
    destination_queue: MessageQueue
    start_offset: int
    checkpoint: Checkpoint | None = None
    token: int = 0
    """Fencing token, grows with every lease of this assignment; 0 = never leased."""
    holder: str = ""
    """Worker instance holding or last holding the lease."""
    clean: bool = True
    """False when the last holder did not release it with nothing in flight."""
    senders: tuple[str, ...] = ()
    """Sender identities the last holders may have used on the destination broker and that were not proven closed; a lease of which
    nobody said which ones: ``holder``, ``FORMER_LEASE_MARK``, token."""
    state: str = "starting"
    """As shown to people: what the holder reported, unless it is blocked, paused or waits for a worker."""
    error: str = ""
    paused: bool = False
    lag_messages: int | None = None
    lag_seconds: float | None = None
    observed_at: datetime | None = None
    worker: str = ""
    """Who is to hold it, as the coordinator decided."""
    rate_per_second: float | None = None

    @property
    def examined_through(self) -> int:
        """The source offset up to which every record was decided upon, as far as the store knows."""
        return self.checkpoint.examined_through if self.checkpoint is not None else self.start_offset


@dataclass(frozen=True, slots=True)
class NewAssignment:
    source_queue: MessageQueue
    destination_queue: MessageQueue
    start_offset: int


@dataclass(slots=True)
class Progress:
    """What one assignment reports in one save."""

    assignment_id: int
    token: int
    checkpoint: Checkpoint
    runs: Sequence[Run] = ()
    """Appended since the last successful save; a run that continues the last stored one is merged into it."""
    holes: Sequence[Hole] = ()
    duplicates: Sequence[Duplicate] = ()
    parked: Sequence[Parked] = ()
    senders: tuple[str, ...] = ()
    drop_runs_from: int | None = None
    """First remove runs and holes of this epoch at or above this source offset (the destination lost them)."""
    state: str = "running"
    error: str = ""
    lag_messages: int | None = None
    lag_seconds: float | None = None
    """No record not yet decided upon is older. While ``lag_messages`` is None that is all it says."""
    rate_per_second: float | None = None
    latency_ms: tuple[float, float] | None = None
    """p50, p99 of the last interval."""
    epochs: Sequence[Epoch] = ()
    """Histories met in the destination's log that the store may not know yet; one it knows stays as it is."""


class AskedCheck(NamedTuple):
    check_id: int
    clusters: Sequence[ClusterRow]
    """As somebody wants to declare them; without their ids."""


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime
    task: str
    kind: str
    message: str
    detail: dict[str, Any] = field(default_factory=dict)


class Store(SharesAssignments, Protocol):
    async def open(self) -> None:
        """Connects and checks the schema version: raises ReplicatorError naming both versions when it is older or newer."""
        ...

    async def close(self) -> None: ...

    def under_lease(self, holder: str) -> Store:
        """The same store for who reconciles: whatever is asked of it raises ``LeaseLost``, and changes nothing, unless ``holder``
        holds the lease ``coordinator`` until the transaction has ended."""
        ...

    async def identity(self) -> tuple[str, int]:
        """(identity of this database, lineage): changes when it was emptied or restored."""
        ...

    # what users declare
    async def put_cluster(self, row: ClusterRow) -> str:
        """created | changed | unchanged. Conflict when cluster_id is known under another name, or would change for this one.
        A row given without cluster_id keeps the stored one."""
        ...

    async def clusters(self) -> Sequence[ClusterRow]: ...

    async def delete_cluster(self, name: str) -> bool:
        """False if unknown. Conflict while a task uses it. The id is kept, so the same cluster keeps its id under a new name."""
        ...

    async def put_task(self, name: str, spec: dict[str, Any], flows: Sequence[tuple[str, str]]) -> str:
        """created | changed | unchanged; makes the rows of its flows with fresh flow ids. A deleted task of the name is made anew.
        Conflict when a cluster is not declared, or when the flows of an existing task would change."""
        ...

    async def tasks(self) -> Sequence[TaskRow]:
        """Without deleted ones."""
        ...

    async def delete_task(self, name: str) -> bool:
        """Leaves tombstones: pairs lose their flow, assignments are set aside with their positions and maps."""
        ...

    async def leased_count(self, task: str) -> int:
        """Leases that have not been released or run out, of the assignments of the task, or of the tombstones it left."""
        ...

    async def purge_task(self, name: str) -> None:
        """Drops the tombstones that this task left, and what was known of groups."""
        ...

    async def flows(self) -> Sequence[Flow]: ...

    async def set_paused(self, task: str, paused: bool, *, topic: str | None = None, flow: tuple[str, str] | None = None) -> int:
        """Pauses or resumes whole flows, or one source topic of them. Returns how many flows or pairs it concerned."""
        ...

    # topics and queues
    async def claim_pair(self, flow_id: str, source_topic: str, destination_topic: str) -> TopicPair:
        """The pair for this flow, taking over a tombstone. Conflict when another living flow holds it."""
        ...

    async def set_pair_state(self, pair_id: int, state: str, reason: str) -> None: ...

    async def release_pair(self, pair_id: int) -> bool:
        """Leaves a tombstone of one pair, as ``delete_task`` does of all (its topic is no longer selected). False if it has no flow."""
        ...

    async def pairs(self, flow_id: str | None = None) -> Sequence[TopicPair]: ...

    async def queue_map(self, pair_id: int) -> Mapping[str, Sequence[MessageQueue]]:
        """{cluster_id: queues in index order} for the two topics of the pair, shared with the opposite pair; empty if none."""
        ...

    async def extend_queue_map(self, pair_id: int, queues: Mapping[str, Sequence[MessageQueue]]) -> Mapping[str, Sequence[MessageQueue]]:
        """Appends queues not yet listed, in the order given; existing entries never move. Returns the whole map."""
        ...

    async def add_assignments(self, pair_id: int, rows: Sequence[NewAssignment]) -> int:
        """Adds those whose source queue has none yet in this pair (a tombstone's assignment is kept as it stands). Returns how many."""
        ...

    async def assignments(self, *, task: str | None = None, flow_id: str | None = None) -> Sequence[Assignment]:
        """Of living flows only."""
        ...

    async def topic_assignments(self, cluster_id: str, topic: str) -> Sequence[tuple[TopicPair, Assignment]]:
        """Those that read or write the topic there, whatever task they are of. Also those of tombstones, without flow id and task:
        their copies are still in the queues, and their maps are kept."""
        ...

    # leases
    async def acquire(self, holder: str, lease_seconds: float, limit: int) -> Sequence[Assignment]:
        """Leases up to ``limit`` assignments that are free or whose lease has expired, of active unpaused pairs and flows;
        each with a new token; only those for which this holder was chosen (``sharing_port``). The returned rows carry the previous
        holder and ``clean``, and ``senders`` with the lease of a holder that did not release it cleanly. An expired lease counts
        only after the database has been up for one lease time (Postgres: pg_postmaster_start_time)."""
        ...

    async def renew(self, holder: str, lease_seconds: float) -> Mapping[int, int]:
        """{assignment_id: token} still held, with a new expiry."""
        ...

    async def release(self, assignment_id: int, token: int, *, clean: bool) -> bool: ...

    async def revoked(self, holder: str) -> Sequence[int]:
        """Assignments this holder should let go of: paused, deleted, blocked pairs, and what a living worker was chosen for instead."""
        ...

    # positions and the map
    async def save_progress(self, items: Sequence[Progress]) -> set[int]:
        """Saves all in one transaction. Returns the ids that were NOT saved because their token is no longer the newest, or was
        released. Saving the same runs, holes, duplicates and parked records again (after a lost answer) changes nothing; a source
        offset that has a run or hole keeps it until dropped. Each assignment at most once in ``items``."""
        ...

    async def runs(self, assignment_id: int, *, epoch: int | None = None, around_source: int | None = None,
                   around_destination: int | None = None, limit: int = 1000) -> Sequence[Run]:
        """Ascending by source_start; ``around_*``: the last run starting at or below that offset, and those after it."""
        ...

    async def last_runs(self, assignment_id: int, limit: int) -> Sequence[Run]:
        """The newest runs, newest first: for walking back to a copy that is still there."""
        ...

    async def holes(self, assignment_id: int, *, around_source: int | None = None, limit: int = 1000) -> Sequence[Hole]: ...

    async def duplicates(self, assignment_id: int) -> Sequence[Duplicate]: ...

    async def epochs(self, assignment_id: int) -> Sequence[Epoch]:
        """Ascending; the first one is always there."""
        ...

    async def map_versions(self, assignment_ids: Sequence[int]) -> Mapping[int, MapVersion]:
        """Of those that exist, in one cheap question: is what was read of a map still so?"""
        ...

    async def map_rows(self, assignment_id: int, known: KnownRows | None = None) -> MapRows | None:
        """The whole map of one moment, or what is new since ``known`` where only its end changed. None: no such assignment."""
        ...

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
        """A person's way out of a history stop: new epoch, reading goes on at examined_through, and no copy is confirmed in it yet (a
        copy of an earlier epoch is nothing to verify this one by). Only while not leased (Conflict), and only to a later epoch
        (Conflict). Fences the last holder off and records an event. ``given_up``: kept as a hole, as far
        as no copy is recorded there, and counted among what was skipped. ``divergence_offset``: from there on the older epochs'
        copies are of messages the source lost; left out: from ``examined_through`` on."""
        ...

    async def begin_restore(self, assignment_id: int, ranges: Sequence[tuple[int, int]], reason: str) -> int:
        """A new epoch that sends back to the destination what it has lost; returns its number. ``ranges``: half-open, of source offsets,
        ascending. Reading goes on at the first of them, and up to where it stood nothing else is copied: there the epochs before it
        answer on. The rest of the checkpoint stays. Only of what was read, while not leased, and after a clean end (Conflict): what a
        holder had under way could otherwise be copied again. Fences the last holder off and records an event."""
        ...

    async def restoration(self, assignment_id: int, epoch: int) -> Restoration:
        """What that epoch is to send back: nothing, for nearly all."""
        ...

    # what a check asks workers, who meet the coordinator here only
    async def ask_check(self, clusters: Sequence[ClusterRow]) -> int:
        """Every worker that looks within ``CHECK_SECONDS_MAX`` sees it. Forgets those that are over."""
        ...

    async def asked_checks(self, worker: str) -> Sequence[AskedCheck]:
        """Not answered by this worker yet."""
        ...

    async def answer_check(self, check_id: int, worker: str, clusters: Sequence[Mapping[str, Any]]) -> None:
        """``clusters``: JSON. The first answer counts; to a check that is over nobody listens."""
        ...

    async def check_answers(self, check_id: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """{worker: what it answered}"""
        ...

    # a map made anew from the destination's log; until it replaces the old one, that one answers
    async def begin_map(self, assignment_id: int) -> int:
        """Fences the last holder off and drops what an earlier attempt left; returns the token for what follows. Only while not leased
        (Conflict)."""
        ...

    async def stage_map(
        self, assignment_id: int, token: int, runs: Sequence[Run], holes: Sequence[Hole], duplicates: Sequence[Duplicate]
    ) -> bool:
        """Adds to the new map, as ``save_progress`` would. False, and nothing added, once somebody else holds the assignment."""
        ...

    async def replace_map(
        self, assignment_id: int, token: int, checkpoint: Checkpoint, epochs: Sequence[Epoch], unknown_below: Mapping[int, int]
    ) -> bool:
        """The new map takes the place of the old one, with these epochs (the first among them) and this checkpoint; all or nothing.
        Between two runs of an epoch, below its offset in ``unknown_below``, everything becomes a hole of reason ``unknown``. False
        as above."""
        ...

    # parked, events, workers
    async def parked(self, task: str) -> Sequence[tuple[Assignment, Parked]]: ...

    async def set_parked_state(self, parked_id: int, state: str) -> bool: ...

    async def record_event(self, task: str, kind: str, message: str, detail: dict[str, Any] | None = None) -> None: ...

    async def events(self, task: str, limit: int = 200) -> Sequence[Event]:
        """The newest ``limit``, in the order they happened."""
        ...

    async def worker_seen(self, holder: str, info: dict[str, Any]) -> None: ...

    async def workers(self, within_seconds: float) -> Sequence[tuple[str, dict[str, Any], datetime]]: ...

    async def hold_coordinator(self, holder: str, lease_seconds: float) -> bool:
        """Takes or renews the lease ``coordinator``; True if held now."""
        ...

    # consumer progress
    async def group_states(self, task: str) -> Sequence[GroupState]: ...

    async def save_group_states(self, holder: str, states: Sequence[GroupState]) -> bool:
        """Each as a whole, all in one go. False, and nothing saved, unless ``holder`` holds the lease ``coordinator``."""
        ...

    async def intend_group_writes(self, holder: str, writes: Sequence[GroupWrite]) -> Sequence[int] | None:
        """Before anything is written: one id for each, in the order given. None, and nothing stored, unless ``holder`` holds the
        lease ``coordinator``."""
        ...

    async def finish_group_writes(self, results: Mapping[int, Sequence[QueueWrite]]) -> None:
        """What was read back after each write. True whoever holds the lease now."""
        ...

    async def group_writes(self, task: str, group: str | None = None, limit: int = 200) -> Sequence[GroupWrite]:
        """The newest ``limit``, in the order they were intended."""
        ...

    # moves of consumers
    async def begin_failover(self, row: FailoverRow) -> int:
        """Its id. Raises ``Conflict`` while another one of the task is open."""
        ...

    async def save_failover(self, holder: str, row: FailoverRow) -> bool:
        """Course and ``is_open``. False, and nothing saved, unless ``holder`` holds the lease ``coordinator``."""
        ...

    async def ask_abort(self, failover_id: int) -> bool:
        """For who carries it out to see. False where it is not open."""
        ...

    async def failovers(self, task: str | None = None, *, open_only: bool = False, limit: int = 100) -> Sequence[FailoverRow]:
        """The newest ``limit``, in the order they began."""
        ...

    async def save_sightings(self, holder: str, task: str, sightings: Mapping[str, Mapping[str, Any]]) -> bool:
        """{cluster: what was seen there now}. False, and nothing saved, unless ``holder`` holds the lease ``coordinator``."""
        ...

    async def sightings(self, task: str) -> Mapping[str, Sighting]:
        """{cluster: when it was last seen}."""
        ...

    # who may ask, and who changed what
    async def add_api_token(self, name: str, role: str, token_hash: str, expires_in_days: int | None) -> bool:
        """False: the name is taken, or was by a token that ended less than ``API_CHANGE_DAYS_MAX`` ago. ``Conflict`` above
        ``API_TOKENS_MAX``."""
        ...

    async def api_tokens(self) -> Sequence[ApiToken]:
        """By name; revoked and expired ones too."""
        ...

    async def living_api_tokens(self) -> Sequence[LivingToken]: ...

    async def api_token_used(self, name: str) -> None: ...

    async def revoke_api_token(self, name: str) -> bool:
        """False if there is none, or it was revoked before."""
        ...

    async def begin_api_change(self, change: ApiChange) -> int:
        """Before anything is done. Forgets what is older than ``API_CHANGE_DAYS_MAX``, now and then."""
        ...

    async def finish_api_change(self, change_id: int, status: int) -> None: ...

    async def api_changes(self, before: int | None = None, limit: int = 200) -> Sequence[ApiChange]:
        """The newest ``limit`` with an id below ``before``, in the order they began."""
        ...

    async def flow_figures(self) -> Sequence[dict[str, Any]]:
        """Per flow, aggregated in SQL: task, source, destination, queues_by_state, lag_messages (null if any queue's figure is
        null or older than 15 s), lag_seconds, copied_total, skipped_total{filtered,loop,refused,expired,history}, parked,
        rate_per_second, latency_ms{p50,p99}, error (of the worst queue), paused; source_brokers (sorted names of the queues'),
        uncopied_age_seconds: an age that no record not yet copied exceeds, however old the figures, null if any queue has none."""
        ...
