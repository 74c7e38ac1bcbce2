"""Cuts a byte stream into frames (NettyDecoder), with as little copying as the layout allows.

    length i32 | type u8 | header length u24 | header | body

Bytes are received into a shared chunk; frames that fit are views of it, and a chunk that is used up is let go, never
overwritten. A frame that does not fit gets a buffer of exactly its own size, and the rest of it is received right there.
"""

from __future__ import annotations

import struct
from collections import deque

from connectors.rocketmq.remoting.errors import ProtocolError

CHUNK_BYTES = 64 * 1024
CHUNK_FREE_BYTES_MIN = 8 * 1024  # below this a fresh chunk is cheaper than another short read
FRAME_BYTES_MIN = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024  # an answer is not bound by the broker's 16 MiB; raised pull limits give larger ones

_LENGTH = struct.Struct(">i")


class FrameReader:
    """Shaped for ``asyncio.BufferedProtocol``: ``get_buffer`` / ``buffer_updated`` / ``next_frame``; or ``feed`` for bytes.

    Frames stay valid for as long as somebody holds them. After the first bad length every ``next_frame`` raises, once the
    good frames before it were taken; what arrives later is ignored.
    """

    __slots__ = ("_chunk", "_end", "_error", "_frames", "_large", "_large_filled", "_start", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._chunk = memoryview(bytearray(CHUNK_BYTES))
        self._start = 0
        self._end = 0
        self._large: memoryview | None = None
        self._large_filled = 0
        self._frames: deque[memoryview] = deque()
        self._error: str = ""

    def get_buffer(self, size_hint: int = -1) -> memoryview:
        """Where the next bytes go. Never empty; ``size_hint`` is ignored, as asyncio allows."""
        if self._large is not None:
            return self._large[self._large_filled :]
        # A frame whose length is known and that stayed in the chunk fits there, so only a shorter rest is worth moving.
        if self._end - self._start < 8 and CHUNK_BYTES - self._end < CHUNK_FREE_BYTES_MIN:
            self._renew_chunk()
        return self._chunk[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were written to the start of what ``get_buffer`` gave."""
        if self._error:
            return
        if self._large is None:
            self._end += nbytes
            self._scan()
            return
        self._large_filled += nbytes
        if self._large_filled == len(self._large):
            self._frames.append(self._large)
            self._large = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """The same for bytes that already are somewhere else; they are copied."""
        view = memoryview(data)
        while view:
            target = self.get_buffer()
            count = min(len(target), len(view))
            target[:count] = view[:count]
            self.buffer_updated(count)
            view = view[count:]

    def next_frame(self) -> memoryview | None:
        """The next whole frame without its length bytes, or None when more bytes are needed."""
        if self._frames:
            return self._frames.popleft()
        if self._error:
            raise ProtocolError(self._error)
        return None

    @property
    def is_idle(self) -> bool:
        """True when no frame is half received: an end of stream here cuts nothing."""
        return self._large is None and self._start == self._end and not self._error

    def _scan(self) -> None:
        chunk = self._chunk
        start, end = self._start, self._end
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(chunk, start)
            if not FRAME_BYTES_MIN <= length <= self.frame_bytes_max:
                self._fail(f"frame length {length} is not within {FRAME_BYTES_MIN} and {self.frame_bytes_max}")
                return
            if end - start >= 8:
                header_bytes = chunk[start + 5] << 16 | chunk[start + 6] << 8 | chunk[start + 7]
                if header_bytes + 4 > length:
                    self._fail(f"header of {header_bytes} bytes in a frame of {length}")
                    return
            frame_end = start + 4 + length
            if frame_end > end:
                if frame_end > CHUNK_BYTES and end - start >= 8:
                    self._start_large(start + 4, length)
                    return
                break
            self._frames.append(chunk[start + 4 : frame_end])
            start = frame_end
        self._start = start

    def _start_large(self, start: int, length: int) -> None:
        self._large = memoryview(bytearray(length))
        received = self._end - start
        self._large[:received] = self._chunk[start : self._end]
        self._large_filled = received
        # The chunk's tail was copied out and no frame views it: it is free to be written again.
        self._start = self._end = start - 4

    def _renew_chunk(self) -> None:
        rest = self._chunk[self._start : self._end]
        chunk = memoryview(bytearray(CHUNK_BYTES))
        chunk[: len(rest)] = rest
        self._chunk = chunk
        self._start, self._end = 0, len(rest)

    def _fail(self, message: str) -> None:
        self._error = message
        self._start = self._end = 0
        self._chunk = memoryview(bytearray(CHUNK_BYTES))
