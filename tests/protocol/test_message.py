from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.message import (
    PROPERTIES_BYTES_MAX,
    StoredMessage,
    SysFlag,
    decode_batch,
    encode_batch,
    encode_record,
    stored_size,
    walk,
)
from tests.protocol.cases import BATCH, STORED_V1, STORED_V2_HOSTS_V6

Buffer = bytes | bytearray | memoryview
KINDS: list[Callable[[bytes], Buffer]] = [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))]
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
HOST = st.sampled_from([b"\x7f\x00\x00\x01\x00\x00\x1f\x90", bytes(15) + b"\x01\x00\x00\x1f\x90"])
BODY = st.binary(max_size=200) | st.integers(4090, 5000).map(bytes)
MESSAGE = st.builds(
    StoredMessage,
    topic=st.just(b"orders") | st.binary(min_size=1, max_size=300),
    queue_id=INT32,
    queue_offset=INT64,
    body=BODY,
    properties=st.binary(max_size=100),
    flag=INT32,
    sys_flag=st.sampled_from([0, SysFlag.COMPRESSED, 0x301, SysFlag.TRANSACTION_COMMIT]),
    commit_log_offset=INT64,
    born_timestamp_ms=INT64,
    store_timestamp_ms=INT64,
    born_host=HOST,
    store_host=HOST,
    reconsume_times=INT32,
    prepared_transaction_offset=INT64,
)


@pytest.mark.parametrize("kind", KINDS)
def test_walk_reads_what_the_layout_says(kind: Callable[[bytes], Buffer]) -> None:
    columns = walk(kind(STORED_V1 + STORED_V2_HOSTS_V6 + STORED_V1))
    assert len(columns) == 3
    assert list(columns.queue_offsets) == [12, 13, 12]
    assert columns.bodies == [b"hello", b"", b"hello"]
    assert columns.properties == [b"TAGS\x01a\x02K\x01v", b"", b"TAGS\x01a\x02K\x01v"]
    assert list(columns.sys_flags) == [1, 0x30, 1]
    assert list(columns.flags) == [9, 0, 9]
    assert list(columns.born_timestamps_ms) == [1_700_000_000_000] * 3
    assert list(columns.store_timestamps_ms) == [1_700_000_000_001, 1_700_000_000_002, 1_700_000_000_001]
    assert list(columns.commit_log_offsets) == [0x1000, 0x1070, 0x1000]
    assert list(columns.body_crcs) == [zlib.crc32(b"hello") & 0x7FFFFFFF, 0, zlib.crc32(b"hello") & 0x7FFFFFFF]
    assert list(columns.reconsume_times) == [3, 0, 3]
    assert list(columns.prepared_transaction_offsets) == [0, 7, 0]
    assert list(columns.queue_ids) == [2, 2, 2]
    assert columns.topic == b"orders"


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_is_a_protocol_error(kind: Callable[[bytes], Buffer]) -> None:
    for data in (STORED_V1, STORED_V2_HOSTS_V6, STORED_V1 + STORED_V1):
        for length in range(1, len(data)):
            if length != len(STORED_V1):
                with pytest.raises(ProtocolError):
                    walk(kind(data[:length]))
        with pytest.raises(ProtocolError):
            walk(kind(data + b"\x00"))


def test_nothing_is_no_message() -> None:
    for kind in KINDS:
        assert len(walk(kind(b""))) == 0


def expected_flag(message: StoredMessage) -> int:
    v6 = SysFlag.BORN_HOST_V6 if len(message.born_host) == 20 else 0
    return message.sys_flag | v6 | (SysFlag.STORE_HOST_V6 if len(message.store_host) == 20 else 0)


@given(st.lists(MESSAGE, max_size=6), st.sampled_from(KINDS))
def test_stored_messages_come_back(messages: list[StoredMessage], kind: Callable[[bytes], Buffer]) -> None:
    records = [encode_record(message) for message in messages]
    columns = walk(kind(b"".join(records)))
    rows = zip(
        columns.queue_offsets, columns.bodies, columns.properties, columns.sys_flags, columns.flags,
        columns.born_timestamps_ms, columns.store_timestamps_ms, columns.commit_log_offsets, columns.reconsume_times,
        columns.prepared_transaction_offsets, columns.queue_ids, columns.body_crcs,
        strict=True,
    )  # fmt: skip
    assert list(rows) == [
        (
            message.queue_offset, message.body, message.properties, expected_flag(message), message.flag,
            message.born_timestamp_ms, message.store_timestamp_ms, message.commit_log_offset, message.reconsume_times,
            message.prepared_transaction_offset, message.queue_id, zlib.crc32(message.body) & 0x7FFFFFFF,
        )
        for message in messages
    ]  # fmt: skip
    assert columns.topic == (messages[0].topic if messages else b"")
    for message, record in zip(messages, records, strict=True):
        if len(message.born_host) + len(message.store_host) == 16:
            assert stored_size(message.topic, len(message.body), len(message.properties)) == len(record)


def test_bodies_are_views_when_records_are_large() -> None:
    small, large = StoredMessage(b"t", 0, 0, b"s" * 3000), StoredMessage(b"t", 0, 1, b"l" * 4096)
    for messages, large_type in (((small, large), bytes), ((large, small), memoryview)):
        buffer = bytearray(b"".join(map(encode_record, messages)))
        columns = walk(memoryview(buffer))
        assert columns.bodies == [message.body for message in messages]
        assert {len(body): type(body) for body in columns.bodies} == {3000: bytes, 4096: large_type}
        assert all(type(text) is bytes for text in columns.properties)


@given(st.binary(max_size=300))
def test_garbage_raises_only_a_protocol_error(data: bytes) -> None:
    for parse in (walk, decode_batch):
        for kind in KINDS:
            try:
                parse(kind(data))  # type: ignore[operator]
            except ProtocolError:
                continue


@given(st.lists(MESSAGE, min_size=1, max_size=3), st.data())
def test_a_changed_byte_raises_only_a_protocol_error(messages: list[StoredMessage], data: st.DataObject) -> None:
    changed = bytearray(b"".join(map(encode_record, messages)))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        walk(changed)
    except ProtocolError:
        return


def test_an_inner_batch_is_expanded() -> None:
    before, after = StoredMessage(b"t", 0, 4, b"before"), StoredMessage(b"t", 0, 8, b"after")
    inner = encode_batch([b"one", b"two", b"three"], [b"", b"K\x011\x02", b""], [0, 5, -1])
    outer = StoredMessage(b"t", 0, 5, inner, b"INNER_NUM\x013\x02", sys_flag=SysFlag.INNER_BATCH, commit_log_offset=77)
    columns = walk(b"".join(map(encode_record, (before, outer, after))))
    assert list(columns.queue_offsets) == [4, 5, 6, 7, 8]
    assert columns.bodies == [b"before", b"one", b"two", b"three", b"after"]
    assert columns.properties == [b"", b"", b"K\x011\x02", b"", b""]
    assert list(columns.flags) == [0, 0, 5, -1, 0]
    assert list(columns.body_crcs) == [zlib.crc32(body) & 0x7FFFFFFF for body in columns.bodies]
    assert list(columns.commit_log_offsets) == [0, 77, 77, 77, 0]
    with pytest.raises(ProtocolError):
        walk(encode_record(replace(outer, body=inner[:-1])))


def test_a_foreign_topic_in_between_is_still_read() -> None:
    messages = [StoredMessage(topic, 0, 0, b"body", b"K\x01v\x02") for topic in (b"orders", b"longer-name", b"o")]
    columns = walk(b"".join(map(encode_record, messages)))
    assert columns.bodies == [b"body"] * 3
    assert columns.properties == [b"K\x01v\x02"] * 3


def test_a_batch_is_written_as_the_layout_says() -> None:
    assert encode_batch([b"hello", b""], [b"\x01\x02", b""], [9, -1]) == BATCH
    assert decode_batch(BATCH) == [(9, b"hello", b"\x01\x02"), (-1, b"", b"")]
    for length in range(1, len(BATCH)):
        if length != 29:
            with pytest.raises(ProtocolError):
                decode_batch(BATCH[:length])


@given(st.lists(st.tuples(INT32, st.binary(max_size=300), st.binary(max_size=100)), max_size=8))
def test_batches_come_back(messages: list[tuple[int, bytes, bytes]]) -> None:
    flags = [flag for flag, _, _ in messages]
    bodies = [memoryview(body) if flag % 2 else body for flag, body, _ in messages]
    properties = [text for _, _, text in messages]
    assert decode_batch(memoryview(encode_batch(bodies, properties, flags))) == messages


def test_what_does_not_fit_a_batch() -> None:
    assert decode_batch(encode_batch([b""], [b"x" * PROPERTIES_BYTES_MAX], [0]))
    with pytest.raises(ProtocolError):
        encode_batch([b""], [b"x" * (PROPERTIES_BYTES_MAX + 1)], [0])
    with pytest.raises(ProtocolError):
        encode_batch([b""], [b""], [2**31])
    with pytest.raises(ValueError, match="argument"):
        encode_batch([b"", b""], [b""], [0])


def test_carried_bits() -> None:
    dangerous = SysFlag.TRANSACTION | SysFlag.BORN_HOST_V6 | SysFlag.STORE_HOST_V6 | SysFlag.NEED_UNWRAP | SysFlag.INNER_BATCH
    assert SysFlag.CARRIED & dangerous == 0
    assert SysFlag.CARRIED == SysFlag.COMPRESSED | SysFlag.COMPRESSION_TYPE
