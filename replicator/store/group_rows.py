"""What the store keeps of consumer groups, as ``port`` hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replicator.core.record import MessageQueue


@dataclass(frozen=True, slots=True)
class GroupState:
    """What is known of a consumer group between the two clusters of a flow; one row for both directions."""

    task: str
    group: str
    clusters: tuple[str, str]
    """Declared names, in alphabetical order."""
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueueWrite:
    queue: MessageQueue
    old: int | None
    new: int
    now: int | None = None
    """Read back after the write; None while nobody has, or where nothing stands there."""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class GroupWrite:
    """One write of a group's offsets on one cluster. ``token`` and ``at`` are the store's."""

    task: str
    group: str
    cluster: str
    owner: str
    """The cluster whose progress it carries; empty where a person said the offsets."""
    why: str
    queues: tuple[QueueWrite, ...]
    write_id: int = 0
    token: int = 0
    """Of the coordinator's lease it was intended under."""
    done: bool = False
    """False: it was intended, and what became of it is not known."""
    at: datetime | None = None
