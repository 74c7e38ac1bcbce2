"""What every long-running command does around its parts: an event loop, signals, an end in time."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any

import structlog
import uvloop

from replicator.observe.outcome import cause_of

log = structlog.get_logger(__name__)

WORKER_STOP_SECONDS_MAX = 7.0
PART_STOP_SECONDS_MAX = 1.5
GC_THRESHOLD_OBJECTS = 50_000


def run_to_end(process: Coroutine[Any, Any, None]) -> None:
    """Of several errors that end it together, the one to show is raised."""
    try:
        # The copy path makes many short-lived objects and no cycles: a collection every 700 of them is wasted.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD_OBJECTS)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(process)
    except Exception as error:
        raise cause_of(error) from None


def stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def end_part(part: asyncio.Task[None], seconds_max: float) -> None:
    """Waits for a part that was told to stop; cancels it when it takes longer."""
    await asyncio.wait({part}, timeout=seconds_max)
    if not part.done():
        log.warning("did not stop in time, cancelled", part=part.get_name(), seconds=seconds_max)
        part.cancel()
        await asyncio.wait({part}, timeout=PART_STOP_SECONDS_MAX)
