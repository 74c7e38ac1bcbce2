"""What travels between connectors: columns, not objects.

A ``RecordBatch`` is a view over what one read returned. Properties are *packed bytes*, ``name \\x01 value \\x02`` repeated,
UTF-8, in the producer's order, a name may stand twice; the final \\x02 may be absent. Bodies are never decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

NAME_END = b"\x01"
PAIR_END = b"\x02"


@dataclass(frozen=True, slots=True, order=True)
class MessageQueue:
    """Unit of order, assignment and checkpointing."""

    topic: str
    broker_name: str
    queue_id: int

    def __str__(self) -> str:
        return f"{self.topic} {self.broker_name}/{self.queue_id}"


@dataclass(frozen=True, slots=True)
class Record:
    """One message as an object, for those who ask (explorer, other connectors, tests); never made on the copy path."""

    queue_offset: int
    body: bytes
    properties: bytes
    encoding: int = 0
    flag: int = 0
    born_timestamp_ms: int = 0
    store_timestamp_ms: int = 0
    commit_log_offset: int = -1
    body_crc: int = 0
    reconsume_times: int = 0


@dataclass(slots=True)
class RecordBatch:
    """Columns of equal length, in queue order, all of one queue.

    ``encoding`` is opaque to the engine: the bits that describe how the body bytes are to be read (RocketMQ: sys_flag
    masked to compression, 0x701). Records of different encoding never share one append.
    ``next_offset``: where to read on; everything below it that is not in the batch does not exist any more or was
    never visible. ``min_offset``/``max_offset``: bounds of the queue seen with this read (max is exclusive).
    """

    offsets: Sequence[int] = ()
    bodies: Sequence[bytes | memoryview] = ()
    properties: Sequence[bytes] = ()
    encodings: Sequence[int] = ()
    flags: Sequence[int] = ()
    born_timestamps_ms: Sequence[int] = ()
    store_timestamps_ms: Sequence[int] = ()
    commit_log_offsets: Sequence[int] = ()
    body_crcs: Sequence[int] = ()
    reconsume_times: Sequence[int] = ()
    next_offset: int = 0
    min_offset: int = 0
    max_offset: int = 0
    size_bytes: int = 0
    """Memory the batch keeps alive; returned to the byte credits when the batch is released."""
    remark: str = ""
    """What a person should know about where these were read, where it is not the usual place."""

    def __len__(self) -> int:
        return len(self.offsets)

    def records(self) -> Iterator[Record]:
        for i in range(len(self.offsets)):
            yield Record(
                self.offsets[i], bytes(self.bodies[i]), self.properties[i], self.encodings[i], self.flags[i],
                self.born_timestamps_ms[i], self.store_timestamps_ms[i], self.commit_log_offsets[i],
                self.body_crcs[i], self.reconsume_times[i],
            )


@dataclass(slots=True)
class AppendBatch:
    """What one append carries to one destination queue: contiguous in order, one encoding, all or nothing."""

    bodies: Sequence[bytes | memoryview]
    properties: Sequence[bytes]
    flags: Sequence[int]
    encoding: int = 0
    born_timestamp_ms: int = 0
    reconsume_times: int = 0

    def __len__(self) -> int:
        return len(self.bodies)


@dataclass(frozen=True, slots=True)
class RecordIdentity:
    """What proves that an offset still holds the record we examined (UNIQ_KEY is not unique, so it is not in here)."""

    queue_offset: int
    store_timestamp_ms: int
    commit_log_offset: int
    body_crc: int


UNSEEN_COMMIT_LOG_OFFSET = -1
"""In an identity that comes from a copy's stamp, which tells offset and time only; its body CRC counts for nothing either."""


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """``[min_offset, max_offset)`` of a queue."""

    min_offset: int
    max_offset: int
    may_lack_newest: bool = False
    """Told by a replica that may be behind: records at and beyond the end may exist all the same."""


def pack_properties(pairs: dict[str, str] | Sequence[tuple[str, str]]) -> bytes:
    """Packed bytes of name/value pairs, in the order given."""
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return "".join(f"{name}\x01{value}\x02" for name, value in items).encode()


def iterate_properties(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Pairs in stored order; a fragment without \\x01 is yielded with an empty value."""
    for pair in packed.split(PAIR_END):
        if pair:
            name, _, value = pair.partition(NAME_END)
            yield name, value


def parse_properties(packed: bytes) -> dict[str, str]:
    """As RocketMQ's ``MessageDecoder.string2messageProperties``: empty names and values dropped, the last of a name wins."""
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in iterate_properties(packed)
        if name and value
    }


@dataclass(frozen=True, slots=True)
class QueueSpread:
    """How many queues a topic has on one broker."""

    broker_name: str
    queue_count: int


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the replicator needs it. ``queues`` are readable ones, sorted by (broker_name, queue_id)."""

    name: str
    queues: tuple[MessageQueue, ...]
    ordered: bool = False
    message_type: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    readable: bool = True
    writable: bool = True
    unsupported: str = ""
    """Why this topic cannot be replicated (static topic, compaction …), or empty."""
