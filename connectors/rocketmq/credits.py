"""Memory for records read and not yet released, shared by all readers of a connector."""

from __future__ import annotations

import asyncio


class ByteCredits:
    """Bytes taken and given back. What has arrived is taken without asking, so it may go beyond the limit by answers underway."""

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max = size_bytes_max
        self.used_bytes = 0
        self._given = asyncio.Event()

    def try_take(self, size_bytes: int) -> bool:
        if self.used_bytes + size_bytes > self.size_bytes_max:
            return False
        self.used_bytes += size_bytes
        return True

    def take(self, size_bytes: int) -> None:
        """Without asking: for what has arrived already."""
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        if size_bytes:
            self.used_bytes -= size_bytes
            self._given.set()

    async def take_within(self, size_bytes: int, timeout_seconds: float) -> bool:
        """Waits for room; False if there was none in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.try_take(size_bytes):
                    self._given.clear()
                    await self._given.wait()
        except TimeoutError:
            return False
        return True
