"""``check`` from this machine, without a coordinator."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from replicator.cli.options import new_instance
from replicator.core.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.config import Declarations


def check(loaded: Declarations) -> dict[str, Any]:
    """The coordinator's own check on an empty store."""
    # Only this command needs them: every other one starts faster without.
    from replicator.coordinator.service import Coordinator
    from replicator.observe import logging
    from replicator.registry import connect
    from replicator.store.memory import MemoryStore

    logging.configure(level="error")

    async def ask() -> dict[str, Any]:
        instance = new_instance()
        store = MemoryStore()
        await store.open()
        coordinator = Coordinator(store, partial(connect, instance=instance), instance)
        try:
            return await coordinator.check(loaded.clusters, loaded.tasks)
        finally:
            await coordinator.close()

    return asyncio.run(ask())


def raise_for_problems(answer: dict[str, Any]) -> None:
    """A check that found problems has failed, though it has shown all it saw."""
    found = answer.get("problems") or answer.get("errors") or []
    if found:
        raise ReplicatorError("; ".join(str(one) for one in found))
