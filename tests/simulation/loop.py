"""An event loop whose clock jumps to the next timer when nothing is ready: hours of waiting in milliseconds, the same each time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from replicator.worker import clock

EPOCH_MS = 1_763_700_000_000


class _InstantSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now

    def clock_ms(self) -> int:
        return EPOCH_MS + int(self._instant.now * 1000)


def run(main: Coroutine[Any, Any, Any], loop: VirtualLoop) -> None:
    """Runs ``main`` on the virtual clock, the worker's fence clock included."""
    clock.use(loop.time)
    try:
        loop.run_until_complete(main)
    finally:
        clock.use(None)
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()
