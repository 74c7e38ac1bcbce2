"""Consumer groups as the engine sees them: what a cluster knows of a group, and what writing its progress came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.core.record import MessageQueue

GROUPS_AT_ONCE_MAX = 100
"""Groups made or closed with one call: brokers store the whole table for each of them."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a group wants of a topic. ``expression_type``: ``TAG`` or ``SQL92``; everything is ``TAG`` with ``*``."""

    topic: str
    expression: str = "*"
    expression_type: str = "TAG"


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """Who consumes with a group now, as one cluster's brokers see it."""

    count: int = 0
    """Clients connected to the brokers themselves, and those behind proxies that tell."""
    kind: str = ""
    """``push``, ``pull``, ``pop`` or empty where the brokers do not say. Of a group that pops also while nobody is online."""
    broadcasting: bool = False
    """Each client keeps its own progress: nothing to sync."""
    subscriptions: tuple[Subscription, ...] = ()
    agree: bool = True
    """False where members subscribe differently: then no offset of the group proves anything."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a group is set up. ``settings`` are the system's own, given back as they are when the group is made elsewhere."""

    group: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = False
    consumable: bool = True


@dataclass(frozen=True, slots=True)
class OffsetWritten:
    """One queue's answer to ``write_offsets``. ``now``: the offset read back after it, None where none stands there.

    ``way``: how it was written: ``commit`` (a group nobody uses now) or ``reset`` (exact for groups that run). ``refused``: why
    nothing was written, or empty."""

    queue: MessageQueue
    before: int | None
    now: int | None
    way: str = ""
    refused: str = ""
