from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.rocketmq.remoting.command import decode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.framing import CHUNK_BYTES, FrameReader
from tests.protocol.cases import COMMANDS, frame

STREAM = b"".join(data for data, _, _ in COMMANDS.values())
EXPECTED = [command for _, command, _ in COMMANDS.values()]


def drain(reader: FrameReader) -> list[bytes]:
    frames = []
    while (found := reader.next_frame()) is not None:
        frames.append(bytes(found))
    return frames


def payload(size: int, fill: int = 7) -> bytes:
    """A frame of ``size`` bytes behind the length, with an empty header."""
    return struct.pack(">iI", size, 0) + bytes([fill]) * (size - 4)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_dripped_in_steps_of(step: int) -> None:
    reader = FrameReader()
    frames = []
    for start in range(0, len(STREAM), step):
        reader.feed(STREAM[start : start + step])
        frames += drain(reader)
    assert [decode_frame(found) for found in frames] == EXPECTED
    assert reader.is_idle


def test_a_stream_cut_anywhere_waits_for_the_rest() -> None:
    data, _, _ = COMMANDS["request, binary header"]
    for length in range(1, len(data)):
        reader = FrameReader()
        reader.feed(data[:length])
        assert reader.next_frame() is None
        assert not reader.is_idle
        reader.feed(data[length:] + data[:5])
        assert drain(reader) == [data[4:]]
        assert not reader.is_idle


@given(st.lists(st.integers(4, 3 * CHUNK_BYTES) | st.integers(4, 300), max_size=8), st.lists(st.integers(1, 100_000), min_size=1))
def test_any_sizes_in_any_pieces_come_back_and_stay_valid(sizes: list[int], steps: list[int]) -> None:
    sent = [payload(size, number) for number, size in enumerate(sizes, 1)]
    stream = b"".join(sent)
    reader = FrameReader()
    views: list[memoryview] = []
    position = number = 0
    while position < len(stream):
        buffer = reader.get_buffer()
        assert len(buffer) > 0
        step = min(steps[number % len(steps)], len(buffer), len(stream) - position)
        buffer[:step] = stream[position : position + step]
        reader.buffer_updated(step)
        position, number = position + step, number + 1
        while (found := reader.next_frame()) is not None:
            views.append(found)
    assert [bytes(view) for view in views] == [data[4:] for data in sent]
    assert reader.is_idle


def test_the_rest_of_a_large_frame_is_received_in_its_own_buffer() -> None:
    size = 5 * CHUNK_BYTES
    data = payload(size)
    reader = FrameReader()
    reader.feed(data[:100])
    target = reader.get_buffer(65536)
    assert len(target) == size + 4 - 100
    target[:] = data[100:]
    reader.buffer_updated(len(target))
    found = reader.next_frame()
    assert found is not None
    assert found.nbytes == len(found.obj) == size
    assert bytes(found) == data[4:]
    assert len(reader.get_buffer()) > 0


@pytest.mark.parametrize("length", [-1, -(2**31), 0, 3, 1001, 2**31 - 1])
def test_a_bad_length_raises_after_the_good_frames_and_for_good(length: int) -> None:
    reader = FrameReader(1000)
    good = frame(0, b"{}")
    reader.feed(good + struct.pack(">i", length) + b"rest")
    assert reader.next_frame() == good[4:]
    for _ in range(2):
        with pytest.raises(ProtocolError):
            reader.next_frame()
        reader.feed(good)
    assert len(reader.get_buffer()) <= CHUNK_BYTES
    assert not reader.is_idle


def test_a_frame_of_exactly_the_limit_passes() -> None:
    reader = FrameReader(1000)
    reader.feed(payload(1000))
    assert drain(reader) == [payload(1000)[4:]]


def test_a_header_beyond_its_frame_is_refused_before_anything_is_allocated() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">iI", 50_000_000, 50_000_000 & 0xFFFFFF | 0xFFFFFF))
    assert len(reader.get_buffer()) == 50_000_000 - 4
    refused = FrameReader()
    refused.feed(struct.pack(">iI", 100, 97))
    with pytest.raises(ProtocolError):
        refused.next_frame()


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_garbage_raises_only_a_protocol_error(pieces: list[bytes]) -> None:
    reader = FrameReader(1 << 20)
    try:
        for piece in pieces:
            reader.feed(piece)
            drain(reader)
    except ProtocolError:
        return
