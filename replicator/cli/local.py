"""``check`` from this machine, without a coordinator."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from replicator.cli.options import new_instance
from replicator.core.errors import ReplicatorError


def check(loaded: Any) -> Any:
    """The coordinator's own check on an empty store."""
    # Only this command needs them: every other one starts faster without.
    from fastapi.encoders import jsonable_encoder

    from replicator.coordinator.service import Coordinator
    from replicator.observe import logging
    from replicator.registry import connect
    from replicator.store.memory import MemoryStore

    logging.configure(level="error")

    async def ask() -> Any:
        instance = new_instance()
        store = MemoryStore()
        await store.open()
        coordinator = Coordinator(store, partial(connect, instance=instance), instance)
        return await coordinator.check(loaded.clusters, loaded.tasks)

    return jsonable_encoder(asyncio.run(ask()))


def raise_for_problems(answer: Any) -> None:
    """A check that found problems has failed, though it has shown all it saw."""
    problems = answer.get("problems") if isinstance(answer, dict) else None
    if problems:
        raise ReplicatorError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found")
