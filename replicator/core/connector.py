"""The ports: what the engine asks of a kind of messaging system.

The engine (``replicator.worker``) owns loops, retries, back-off, doubt, history and fencing; a connector owns only the
calls. A connector contains no retry of a write and no sleep. Every wait takes its limit from the caller or from a named
constant; every method that awaits is safe to cancel unless it says otherwise. Errors are those of ``core.errors``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from replicator.core.errors import ReplicatorError
from replicator.core.groups import GroupMembers, GroupSettings, OffsetWritten
from replicator.core.record import (
    AppendBatch,
    MessageQueue,
    OffsetRange,
    QueueSpread,
    RecordBatch,
    TopicDescription,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The append is in the destination log at ``[first_offset, first_offset + n)``.

    ``weak`` names a durability answer below the wish (RocketMQ 10, 11, 12): stored all the same, never to be sent again.
    """

    first_offset: int
    weak: str = ""


@dataclass(frozen=True, slots=True)
class NotStored:
    """Nothing of the append is in the log, for certain.

    ``scope``: ``"busy"`` (try again after ``retry_after_seconds``), ``"unreachable"`` (never left this machine), ``"moved"`` (role or
    route changed, or no connection is open): after both ``connect``, re-verify the last confirmed copy, then again;
    ``"record"`` (a refusal of one record: bisect and park), ``"queue"`` (the queue or cluster refuses: block the assignment with
    ``detail``), ``"fenced"`` (the deadline passed before the frame could leave).
    """

    scope: str
    detail: str
    retry_after_seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class Unknown:
    """The append may be in the log now or later. The engine settles it (architecture, "Stamp, position, doubt").

    ``sender``: identity of the connection that carried it."""

    detail: str
    sender: str = ""


AppendOutcome = Stored | NotStored | Unknown


class SendPermit(Protocol):
    """The right to write, asked immediately before the system call that completes a frame."""

    def is_valid(self) -> bool:
        """True while the fence proves that no successor can be writing. Synchronous, no I/O."""
        ...


class QueueReader(Protocol):
    """Reads one queue from a position, stateless at the broker: nothing is committed by reading."""

    async def read(self) -> RecordBatch:
        """Next records in order, never a gap other than ``next_offset`` says. Waits for new ones up to the connector's
        long-poll limit and then returns an empty batch with fresh bounds. Cancel-safe: a cancelled read loses nothing.
        Raises ``NotConnected``, ``Throttled``, ``HistoryChanged`` (position outside the queue's bounds), ``Refused``."""
        ...

    def release(self, batch: RecordBatch) -> None:
        """Gives the memory of a batch back to the byte credits. Call once for each batch."""
        ...

    async def close(self) -> None:
        """Drops prefetched records and held requests. Idempotent."""
        ...


class QueueSender(Protocol):
    """Appends to the queues of one broker through one sending connection, apart from all other traffic.

    ``identity`` names the current connection as the broker lists it (where it can list), ``<instance>@<n>``, new for each
    connection; empty before the first.
    """

    @property
    def identity(self) -> str: ...

    @property
    def is_open(self) -> bool:
        """That connection is there still, as far as anybody has noticed."""
        ...

    async def connect(self) -> str:
        """Opens the connection to the present master where none is open, and returns its identity. What the destination holds is
        to be verified after this and before the next append: a broker that lost what it confirmed did so on another connection.
        Raises ``NotConnected``, ``NotPermitted``, ``Refused``."""
        ...

    async def append(self, queue: MessageQueue, batch: AppendBatch, permit: SendPermit, timeout_seconds: float) -> AppendOutcome:
        """One append on the open connection; it never opens one. Never raises for what a broker or network can do: the outcome
        says it. Cancelling leaves the outcome unknown: the caller then treats it as ``Unknown``."""
        ...

    async def late_answer(self, queue: MessageQueue, timeout_seconds: float) -> AppendOutcome | None:
        """The answer to the last unanswered append to ``queue`` on the same connection, or None when none came in time."""
        ...

    async def reset(self, identity: str) -> None:
        """Resets the connection of that identity (RST: undelivered bytes are dropped by this machine); others are left alone, so
        that one doubt does not make more. Whatever was under way on it is answered ``Unknown``. Idempotent."""
        ...

    async def close(self) -> None: ...


class Connector(Protocol):
    """One cluster. Built by the entry point's factory from the cluster's settings; opened and closed by the engine."""

    kind: str
    cluster: str
    """The declared name, for messages."""
    reserved_properties: Collection[bytes]
    """Property names this system adds by itself; stripped from copies."""

    async def open(self) -> None:
        """Connects far enough to prove that the cluster answers. Raises ``NotConnected``, ``NotPermitted``, ``Refused``."""
        ...

    async def close(self) -> None:
        """Idempotent, bounded."""
        ...

    async def describe(self) -> ClusterDescription: ...

    async def read_marks(self) -> Sequence[str]:
        """Lasting ids this cluster carries (more than one is a history change)."""
        ...

    async def write_mark(self, cluster_id: str) -> None:
        """Marks the cluster with its lasting id. Idempotent."""
        ...

    async def list_topics(self) -> Sequence[str]:
        """Names of user topics: neither the system's own nor ours."""
        ...

    async def describe_topic(self, topic: str) -> TopicDescription | None:
        """None where the topic does not exist. Asks the cluster, not a cache."""
        ...

    async def create_topic(self, description: TopicDescription, spread: Sequence[QueueSpread]) -> None:
        """Creates the topic, or adds missing queues; never shrinks. Returns when it can be written to. Idempotent."""
        ...

    async def offset_range(self, queue: MessageQueue, *, any_replica: bool = False) -> OffsetRange:
        """``any_replica``: while the queue has no master, a replica that may lack its newest records will do."""
        ...

    async def offset_at(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """First offset stored at or after ``timestamp_ms``; the end if all are older."""
        ...

    async def consumer_offset(self, group: str, queue: MessageQueue) -> int | None:
        """Committed progress of a group, None if it never committed there."""
        ...

    async def publish_position(self, group: str, positions: Mapping[MessageQueue, int]) -> None:
        """Commits our own read positions under our own group, for the system's tools to show lag. Best effort, may raise."""
        ...

    def reader(self, queue: MessageQueue, offset: int, *, prefetch: bool = True, any_replica: bool = False) -> QueueReader:
        """A reader positioned at ``offset``. ``prefetch=False``: one request at a time, for scans and checks. ``any_replica``: as
        for ``offset_range``; batches from there carry a ``remark``, and the master is read again as soon as there is one."""
        ...

    def sender(self, broker_name: str) -> QueueSender:
        """The sender for a broker; one connection shared by every queue of that broker in this connector."""
        ...

    async def write_barrier(self, broker_name: str, permit: SendPermit, timeout_seconds: float) -> None:
        """Appends a record to our own topic on that broker and returns when it is readable: everything the broker appended
        before is then readable too. Raises ``NotConnected`` when it cannot be shown in time."""
        ...


@dataclass(frozen=True, slots=True)
class BrokerDescription:
    broker_name: str
    address: str
    version: str
    filters_properties: bool | None = None
    """SQL92 on properties enabled (G8); None: not asked or not answered."""
    connect_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    brokers: tuple[BrokerDescription, ...]
    append_bytes_max: int
    """Largest append (sum of ``record_overhead_bytes`` + topic + body + properties) every broker takes."""
    append_records_max: int
    properties_bytes_max: int
    record_overhead_bytes: int
    warnings: tuple[str, ...] = ()

    def distance_ms(self, answered_ms: float) -> float:
        """How long the nearest broker took to connect to; ``answered_ms``, what the description took, where that is not known."""
        return round(min((one.connect_ms for one in self.brokers if one.connect_ms is not None), default=answered_ms), 1)


@runtime_checkable
class FencesSource(Protocol):
    """Ability: exclusive right to a source queue, granted by the source broker itself.

    ``holder`` is a client id with the fencing token in it."""

    async def lock_queues(
        self, group: str, holder: str, queues: Collection[MessageQueue], *, any_replica: bool = False
    ) -> set[MessageQueue]:
        """Takes or renews; returns those now held. A queue held by another live holder is missing from the answer.
        ``any_replica``: while a queue has no master, what a replica grants counts. Replicas do not know each other's grants, so this
        is for a caller whom something else proves to be the only one."""
        ...

    async def unlock_queues(self, group: str, holder: str, queues: Collection[MessageQueue]) -> None:
        """Gives up, also in another's name (take-over)."""
        ...


@runtime_checkable
class ListsSenders(Protocol):
    """Ability: the destination broker can say which sending connections it still holds open."""

    async def sender_identities(self, broker_name: str) -> set[str] | None:
        """Identities (``QueueSender.identity``) the broker still has a channel for; None where it cannot say."""
        ...


@runtime_checkable
class TellsRetention(Protocol):
    """Ability: a source broker can say how long it keeps records."""

    async def retention_seconds(self, broker_name: str) -> float | None:
        """Age that a record reaches at least before it is deleted, unless disks fill up; None where the broker does not say."""
        ...


@runtime_checkable
class TellsRights(Protocol):
    """Ability: it can be asked what our account may do, without doing it."""

    async def missing_rights(self, read: Collection[str], write: Collection[str]) -> Sequence[str]:
        """One text for each topic that the cluster would not let us read, or write copies to. Changes nothing.
        Raises ``NotConnected``, ``NotPermitted`` (the account itself is not accepted), ``Throttled``."""
        ...


@runtime_checkable
class RemovesGroups(Protocol):
    """Ability: a consumer group can be taken away with its progress."""

    async def remove_group(self, group: str) -> None:
        """From every broker. Idempotent. Raises ``NotConnected``, ``NotPermitted``, ``Refused``."""
        ...


@runtime_checkable
class KeepsProgress(Protocol):
    """Ability: consumer groups whose progress is an offset for each queue, readable and writable from outside.

    Reads may be as old as the clients' own commit interval (RocketMQ: 5 s). All raise ``NotConnected``, ``NotPermitted``,
    ``Throttled``, ``Refused``."""

    async def group_offsets(self, topics: Collection[str]) -> Mapping[str, Mapping[MessageQueue, int]]:
        """{group: {queue: offset}} of every group that ever committed in one of these topics; never an invented zero. One request
        a broker, however many groups; asks the brokers, not a cache. Pseudo-groups and our own are in it: ``core`` leaves them out."""
        ...

    async def group_settings(self) -> Mapping[str, GroupSettings]:
        """Of every group that was set up, system groups included. One request a broker."""
        ...

    async def create_groups(self, settings: Sequence[GroupSettings]) -> Mapping[str, ReplicatorError]:
        """On every broker that does not have them; existing ones are left as they are. Idempotent. {group that could not be made
        everywhere: why}; at most ``GROUPS_AT_ONCE_MAX`` at once, so that it ends within the time of one call."""
        ...

    async def set_groups_consumable(self, groups: Collection[str], consumable: bool) -> None:
        """Whether members may consume at all, on every broker; other settings stay, unknown groups are passed over. Idempotent; at
        most ``GROUPS_AT_ONCE_MAX`` at once."""
        ...

    async def group_members(self, group: str) -> GroupMembers:
        """Over all brokers, asked now."""
        ...

    async def can_reset_exactly(self, broker_name: str) -> bool:
        """True where a running group's offset can be set to an exact value (RocketMQ from 5.2 on, by its configuration)."""
        ...

    async def write_offsets(self, group: str, offsets: Mapping[MessageQueue, int], *, running: bool) -> Sequence[OffsetWritten]:
        """Writes each and reads it back. ``running``: members may be online, so only an exact reset will do; a queue whose broker has
        none is refused, never approximated. The group has to exist. One answer a queue, in the order given; a queue whose broker
        cannot be reached is refused with that reason. Cancelled half-way, some queues are written: read ``group_offsets``."""
        ...


@runtime_checkable
class CountsPending(Protocol):
    """Ability: messages that were sent and are not yet delivered to their topics can be counted."""

    async def pending_counts(self) -> Mapping[str, int]:
        """{kind: messages}, over all topics of the cluster, an upper bound each; kinds: ``delayed``, ``timed``, ``half``. A kind that
        cannot be counted is left out. Raises ``NotConnected``, ``NotPermitted``, ``Throttled``, ``Refused``."""
        ...


@runtime_checkable
class ClosesTopics(Protocol):
    """Ability: a topic can be closed to producers and opened again."""

    async def set_topic_writable(self, topic: str, writable: bool) -> bool:
        """On every broker that has it; what else is set stays. True if it was the other way on any. Official producers notice at
        their next look at the route (RocketMQ: 30 s). Idempotent."""
        ...


@runtime_checkable
class KeepsRetries(Protocol):
    """Ability: what a group failed on can be read before it is delivered again (``core.retry`` has the names).

    A waiting topic is described, read and bounded like any other topic, and ``group_offsets`` answers for it; nothing is ever
    appended to it. All raise ``NotConnected``, ``NotPermitted``, ``Throttled``, ``Refused``."""

    async def retry_topics(self, groups: Collection[str]) -> Collection[str]:
        """The waiting and dead-letter topics of these groups that exist now."""
        ...

    async def waiting_ends(self) -> Mapping[tuple[str, int], int]:
        """{(broker name, queue id): max offset} of every waiting topic: the groups of a broker share one place. What a group had
        failed on by the time it moved its offset past it stands below."""
        ...

    async def waiting_counts(self, groups: Collection[str]) -> Mapping[str, int]:
        """{group: messages it failed on and has not processed since}, groups without left out; at least so many, where there are more
        than can be looked through."""
        ...

    def retried_topic(self, topic: str, properties: Mapping[str, str]) -> str | None:
        """The topic from which a record of a waiting or dead-letter topic was consumed first, None for one of another group."""
        ...


@runtime_checkable
class TunesSource(Protocol):
    """Ability: the limits of a source's brokers to what one read returns can be raised while they run."""

    async def plan_tuning(self) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """{broker: {setting: (value now, value wanted)}} of what is below what the connector would like. Only reads."""
        ...

    async def read_settings(self, broker_name: str) -> Mapping[str, str]: ...

    async def change_settings(self, broker_name: str, settings: Mapping[str, str]) -> None:
        """Raises ``NotPermitted`` where the account may not."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectorContext:
    """What the engine hands to a factory besides the settings."""

    cluster: str
    instance: str
    """Unique to this process and start: part of every identity the cluster sees."""
    memory_bytes_max: int = 256 * 1024 * 1024


class ConnectorFactory(Protocol):
    """Entry point (group ``replicator.connectors``)."""

    settings_model: type[Any]
    """Pydantic model, ``extra="forbid"``, frozen, of the ``spec.<kind>`` block."""

    def __call__(self, settings: Any, context: ConnectorContext) -> Connector: ...
