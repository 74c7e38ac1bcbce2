"""Messages as the broker stores and delivers them, and as a batch carries them to it (MessageDecoder, MessageExtEncoder).

    stored   total i32 | magic i32 | body crc i32 | queue id i32 | flag i32 | queue offset i64 | commit log offset i64
             | sys flag i32 | born ms i64 | born host 8 or 20 | store ms i64 | store host 8 or 20 | reconsume times i32
             | prepared transaction offset i64 | body length i32 | body | topic length 1 (V1) or 2 (V2) | topic
             | properties length i16 | properties
    batched  total i32 | magic 0 | crc 0 | flag i32 | body length i32 | body | properties length i16 | properties

``walk`` and ``encode_batch`` are the hot path of the replicator: every message passes both. They work on columns, and
check lengths by the sum at a record's end instead of one by one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, overload

from connectors.rocketmq.remoting.errors import ProtocolError


class SysFlag:
    """Bits of a message's sys flag."""

    COMPRESSED: Final = 0x01
    MULTI_TAGS: Final = 0x02
    TRANSACTION_PREPARED: Final = 0x04
    TRANSACTION_COMMIT: Final = 0x08
    TRANSACTION_ROLLBACK: Final = 0x0C
    TRANSACTION: Final = 0x0C
    BORN_HOST_V6: Final = 0x10
    STORE_HOST_V6: Final = 0x20
    NEED_UNWRAP: Final = 0x40
    INNER_BATCH: Final = 0x80
    COMPRESSION_TYPE: Final = 0x700
    CARRIED: Final = 0x701
    """What may be sent on: all other bits are the broker's own, and some destroy the record when sent."""


MAGIC_V1 = 0xDAA320A7
MAGIC_V2 = 0xDAA320AB
PROPERTIES_BYTES_MAX = 32767
TOPIC_BYTES_MAX_V1 = 127
VIEW_BODY_BYTES_MIN = 4096
"""When the first record is as large as this, bodies of this size and more are views of the received frame; all others are
copied, so that the frame can go."""

_STORED = struct.Struct(">IIiiiqqiq8xq8xiqI")
_STORED_NEEDED = struct.Struct(">II8xiq8xi16xq20xI")  # total, magic, flag, queue offset, sys flag, store, body length
_STORED_HEAD = struct.Struct(">IIiiiqqiq")  # up to the born timestamp
_BATCHED = struct.Struct(">iiiii")
_BATCHED_OVERHEAD = _BATCHED.size + 2
_U16 = struct.Struct(">H")
_PROPERTIES_LENGTH = struct.Struct(">h")
_STORED_OVERHEAD = _STORED.size + 1 + 2
_HOST_V4_BYTES = 8
_HOST_V6_BYTES = 20
_SLOW = SysFlag.BORN_HOST_V6 | SysFlag.STORE_HOST_V6 | SysFlag.INNER_BATCH
_CRC_MASK = 0x7FFFFFFF


class StoredColumn(Sequence[int]):
    """One field of stored records, unpacked when asked for: of most records nobody asks."""

    __slots__ = ("_buffer", "_field", "_starts")

    def __init__(self, buffer: bytes, starts: Sequence[int], field: tuple[struct.Struct, int]) -> None:
        """``starts``: where each record begins; ``field``: its form and where it stands in a V1 record with v4 hosts."""
        self._buffer = buffer
        self._starts = starts
        self._field = field

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return StoredColumn(self._buffer, self._starts[index], self._field)
        form, at = self._field
        value: int = form.unpack_from(self._buffer, self._starts[index] + at)[0]
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class MessageColumns:
    """Messages as columns of equal length, in stored order. ``sys_flags`` are raw, ``topic`` is the first message's."""

    queue_offsets: Sequence[int] = ()
    bodies: list[bytes | memoryview] = field(default_factory=list)
    properties: list[bytes] = field(default_factory=list)
    sys_flags: Sequence[int] = ()
    flags: Sequence[int] = ()
    born_timestamps_ms: Sequence[int] = ()
    store_timestamps_ms: Sequence[int] = ()
    commit_log_offsets: Sequence[int] = ()
    body_crcs: Sequence[int] = ()
    reconsume_times: Sequence[int] = ()
    prepared_transaction_offsets: Sequence[int] = ()
    queue_ids: Sequence[int] = ()
    topic: bytes = b""

    def __len__(self) -> int:
        return len(self.bodies)


_CRC, _QUEUE_ID, _LOG_OFFSET, _BORN, _RECONSUME, _PREPARED = (
    (struct.Struct(">i"), 8), (struct.Struct(">i"), 12), (struct.Struct(">q"), 28), (struct.Struct(">q"), 40),
    (struct.Struct(">i"), 72), (struct.Struct(">q"), 76),
)  # fmt: skip

# total, magic, crc, queue id, flag, queue offset, commit log offset, sys flag, born, store, reconsume, prepared, length
_Row = tuple[int, ...]


def walk(buffer: bytes | bytearray | memoryview) -> MessageColumns:
    """Every message of a pull answer's body. Properties come back byte for byte, a CRC property among them.

    An inner batch (a 5.x batch queue) is expanded: its messages get consecutive queue offsets and their own CRCs.
    """
    if len(buffer) < 4:
        if len(buffer):
            raise ProtocolError("a stored message is cut")
        return MessageColumns()
    if int.from_bytes(buffer[:4], "big") < VIEW_BODY_BYTES_MIN:
        # One copy of the whole makes all slices plain bytes; with large bodies the views are worth more.
        try:
            columns = _walk_alike(buffer if isinstance(buffer, bytes) else bytes(buffer))
        except (struct.error, IndexError):  # cut, or unlike its neighbours: the careful walk finds out which
            columns = None
        if columns is not None:
            return columns
    try:
        return _walk_mixed(memoryview(buffer))
    except struct.error as error:
        raise ProtocolError(f"stored message is cut: {error}") from error


def _walk_alike(buffer: bytes) -> MessageColumns | None:
    """All records at once, if they are V1 with v4 hosts and of one topic, as nearly all are; else None."""
    unpack = _STORED_NEEDED.unpack_from
    topic_start = 89 + unpack(buffer, 0)[6]
    topic = buffer[topic_start : topic_start + buffer[topic_start - 1]]
    gap = len(topic) + 3  # from a body's end to the properties: two lengths and the topic
    starts: list[int] = []
    rows: list[_Row] = []
    bodies: list[bytes | memoryview] = []
    properties: list[bytes] = []
    add_start, add_row, add_body, add_properties = starts.append, rows.append, bodies.append, properties.append
    position, end = 0, len(buffer)
    while position < end:
        row = unpack(buffer, position)
        body_start = position + 88
        body_end = body_start + row[6]
        properties_start = body_end + gap
        add_start(position)
        position += row[0]
        if properties_start + (buffer[properties_start - 2] << 8 | buffer[properties_start - 1]) != position:
            return None
        add_row(row)
        add_body(buffer[body_start:body_end])
        add_properties(buffer[properties_start:position])
    _, magics, flags, offsets, sys_flags, store, _ = zip(*rows, strict=True)
    if position != end or magics.count(MAGIC_V1) != len(rows) or any(sys_flag & _SLOW for sys_flag in set(sys_flags)):
        return None
    crcs, queue_ids, log_offsets, born, reconsume, prepared = (
        StoredColumn(buffer, starts, field) for field in (_CRC, _QUEUE_ID, _LOG_OFFSET, _BORN, _RECONSUME, _PREPARED)
    )
    return MessageColumns(
        offsets, bodies, properties, sys_flags, flags, born, store, log_offsets, crcs, reconsume, prepared, queue_ids, topic
    )


def _walk_mixed(view: memoryview) -> MessageColumns:
    rows: list[_Row] = []
    bodies: list[bytes | memoryview] = []
    properties: list[bytes] = []
    position, end = 0, len(view)
    while position < end:
        position = _walk_one(view, position, rows, bodies, properties)
    if not rows:
        return MessageColumns()
    return _message_columns(tuple(zip(*rows, strict=True)), bodies, properties, _topic_at(view, 0))


def _walk_one(
    view: memoryview, position: int, rows: list[_Row], bodies: list[bytes | memoryview], properties: list[bytes]
) -> int:
    """Any one record, whatever its version and hosts; returns where the next one starts."""
    row, body_start = _unpack_any(view, position)
    total, magic, sys_flag, body_bytes = row[0], row[1], row[7], row[12]
    body_end = body_start + body_bytes
    topic_start = body_end + _topic_length_bytes(magic)
    topic_end = topic_start + int.from_bytes(view[body_end:topic_start], "big")
    properties_start = topic_end + 2
    record_end = position + total
    if record_end > len(view):
        raise ProtocolError("the last stored message is cut")
    if properties_start + int.from_bytes(view[topic_end:properties_start], "big") != record_end:
        raise ProtocolError("lengths in a stored message disagree")
    body = view[body_start:body_end]
    if sys_flag & SysFlag.INNER_BATCH:
        _expand(row, body, rows, bodies, properties)
    else:
        rows.append(row)
        bodies.append(body if body_bytes >= VIEW_BODY_BYTES_MIN else bytes(body))
        properties.append(bytes(view[properties_start:record_end]))
    return record_end


def _unpack_any(view: memoryview, position: int) -> tuple[_Row, int]:
    """The fixed fields as the fast layout has them, and where the body starts."""
    head = _STORED_HEAD.unpack_from(view, position)
    magic, sys_flag = head[1], head[7]
    _topic_length_bytes(magic)
    store_at = position + _STORED_HEAD.size + (_HOST_V6_BYTES if sys_flag & SysFlag.BORN_HOST_V6 else _HOST_V4_BYTES)
    (store_timestamp_ms,) = struct.unpack_from(">q", view, store_at)
    rest_at = store_at + 8 + (_HOST_V6_BYTES if sys_flag & SysFlag.STORE_HOST_V6 else _HOST_V4_BYTES)
    rest = struct.unpack_from(">iqI", view, rest_at)
    return (*head, store_timestamp_ms, *rest), rest_at + 16


def _topic_length_bytes(magic: int) -> int:
    if magic == MAGIC_V1:
        return 1
    if magic == MAGIC_V2:
        return 2
    raise ProtocolError(f"unknown magic {magic:#x} in a stored message")


def _expand(
    row: _Row, body: memoryview, rows: list[_Row], bodies: list[bytes | memoryview], properties: list[bytes]
) -> None:
    for index, (flag, inner_body, inner_properties) in enumerate(decode_batch(body)):
        crc = zlib.crc32(inner_body) & _CRC_MASK
        rows.append((*row[:2], crc, row[3], flag, row[5] + index, *row[6:]))
        bodies.append(inner_body)
        properties.append(inner_properties)


def _message_columns(
    columns: tuple[tuple[int, ...], ...], bodies: list[bytes | memoryview], properties: list[bytes], topic: bytes
) -> MessageColumns:
    _, _, crcs, queue_ids, flags, offsets, log_offsets, sys_flags, born, store, reconsume, prepared, _ = columns
    return MessageColumns(
        queue_offsets=offsets,
        bodies=bodies,
        properties=properties,
        sys_flags=sys_flags,
        flags=flags,
        born_timestamps_ms=born,
        store_timestamps_ms=store,
        commit_log_offsets=log_offsets,
        body_crcs=crcs,
        reconsume_times=reconsume,
        prepared_transaction_offsets=prepared,
        queue_ids=queue_ids,
        topic=topic,
    )


def _topic_at(view: memoryview, position: int) -> bytes:
    row, body_start = _unpack_any(view, position)
    body_end = body_start + row[12]
    topic_start = body_end + _topic_length_bytes(row[1])
    return bytes(view[topic_start : topic_start + int.from_bytes(view[body_end:topic_start], "big")])


def encode_batch(bodies: Sequence[bytes | memoryview], properties: Sequence[bytes], flags: Sequence[int]) -> bytes:
    """The body of a batch send, joined once. The three columns have equal length; bodies are copied untouched."""
    body_sizes = list(map(len, bodies))
    properties_sizes = list(map(len, properties))
    count = len(body_sizes)
    pack = _BATCHED.pack
    parts: list[bytes | memoryview] = [b""] * (4 * count)
    try:
        parts[0::4] = [
            pack(_BATCHED_OVERHEAD + body_size + properties_size, 0, 0, flag, body_size)
            for body_size, properties_size, flag in zip(body_sizes, properties_sizes, flags, strict=True)
        ]
        parts[1::4] = bodies
        parts[2::4] = list(map(_PROPERTIES_LENGTH.pack, properties_sizes))
        parts[3::4] = properties
    except struct.error as error:
        raise ProtocolError(f"message does not fit a batch: {error}") from error
    return b"".join(parts)


def decode_batch(body: bytes | memoryview) -> list[tuple[int, bytes, bytes]]:
    """(flag, body, properties) of each message in a batch's body."""
    view = memoryview(body)
    messages: list[tuple[int, bytes, bytes]] = []
    position, end = 0, len(view)
    try:
        while position < end:
            total, _, _, flag, body_bytes = _BATCHED.unpack_from(view, position)
            body_start = position + _BATCHED.size
            body_end = body_start + body_bytes
            if body_bytes < 0 or body_end + 2 > end:
                raise ProtocolError("a batched message is cut")
            (properties_bytes,) = _U16.unpack_from(view, body_end)
            record_end = body_end + 2 + properties_bytes
            if position + total != record_end or record_end > end:
                raise ProtocolError("lengths in a batched message disagree")
            messages.append((flag, bytes(view[body_start:body_end]), bytes(view[body_end + 2 : record_end])))
            position = record_end
    except struct.error as error:
        raise ProtocolError(f"a batched message is cut: {error}") from error
    return messages


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What ``encode_record`` writes. Hosts are raw: 4 or 16 address bytes and 4 bytes of port."""

    topic: bytes
    queue_id: int
    queue_offset: int
    body: bytes
    properties: bytes = b""
    flag: int = 0
    sys_flag: int = 0
    commit_log_offset: int = 0
    born_timestamp_ms: int = 0
    store_timestamp_ms: int = 0
    born_host: bytes = b"\x7f\x00\x00\x01\x00\x00\x00\x00"
    store_host: bytes = b"\x7f\x00\x00\x01\x00\x00\x00\x00"
    reconsume_times: int = 0
    prepared_transaction_offset: int = 0


def encode_record(message: StoredMessage) -> bytes:
    """The stored form. The sys flag's address bits are set from the hosts' lengths; a long topic makes it V2."""
    long_topic = len(message.topic) > TOPIC_BYTES_MAX_V1
    sys_flag = message.sys_flag & ~(SysFlag.BORN_HOST_V6 | SysFlag.STORE_HOST_V6)
    if len(message.born_host) == _HOST_V6_BYTES:
        sys_flag |= SysFlag.BORN_HOST_V6
    if len(message.store_host) == _HOST_V6_BYTES:
        sys_flag |= SysFlag.STORE_HOST_V6
    tail = b"".join((
        message.born_host,
        struct.pack(">q", message.store_timestamp_ms),
        message.store_host,
        struct.pack(">iqI", message.reconsume_times, message.prepared_transaction_offset, len(message.body)),
        message.body,
        len(message.topic).to_bytes(2 if long_topic else 1, "big"),
        message.topic,
        _U16.pack(len(message.properties)),
        message.properties,
    ))  # fmt: skip
    head = _STORED_HEAD.pack(
        _STORED_HEAD.size + len(tail),
        MAGIC_V2 if long_topic else MAGIC_V1,
        zlib.crc32(message.body) & _CRC_MASK,
        message.queue_id,
        message.flag,
        message.queue_offset,
        message.commit_log_offset,
        sys_flag,
        message.born_timestamp_ms,
    )
    return head + tail


def stored_size(topic: bytes | str, body_bytes: int, properties_bytes: int) -> int:
    """Bytes one message takes in the commit log of a broker with IPv4 hosts."""
    topic_bytes = len(topic.encode() if isinstance(topic, str) else topic)
    return _STORED_OVERHEAD + (topic_bytes > TOPIC_BYTES_MAX_V1) + topic_bytes + body_bytes + properties_bytes
