"""When the offsets of a group mean the same on another cluster, so that its progress may be carried over.

An offset proves only what the subscription delivers: below it, every message that matched was processed, of the others nothing
is known. Carried over, it is right only where the same messages match on both sides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from replicator.core.patterns import compile_pattern
from replicator.core.sql92 import FilterSyntaxError, compile_filter
from replicator.core.stamp import STAMP_NAME
from replicator.core.task import ProgressSpec

OWN_GROUP_PREFIX = "replicator-"
SYSTEM_GROUP_PREFIX = "CID_RMQ_SYS_"
SYSTEM_GROUPS = frozenset({"TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "__MONITOR_CONSUMER", "SCHEDULE_CONSUMER", "SELF_TEST_C_GROUP"})
BROADCAST_SUFFIX = "@broadcast"

TAG, SQL92 = "TAG", "SQL92"
_EVERYTHING = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the members of a group on one side ask for in one topic, as the broker tells (or as it was last told)."""

    expression: str = "*"
    kind: str = TAG
    is_broadcast: bool = False
    """Every member gets every message and keeps its own offsets."""


class Carried(Enum):
    SYNCED = "synced"
    LOCAL = "local"
    """Planned for and shown, never written: its offsets mean nothing on the other side."""
    EXCLUDED = "excluded"
    NEVER = "never"
    """Not a group of the users."""


@dataclass(frozen=True, slots=True)
class Meaning:
    carried: Carried
    reason: str = ""
    """Why it is not synced; empty where it is."""


SYNCED = Meaning(Carried.SYNCED)


def never_synced(group: str) -> str:
    """Why a group of this name is never synced, or empty."""
    if group.startswith(OWN_GROUP_PREFIX):
        return "a group of the replicator itself"
    if group.startswith(SYSTEM_GROUP_PREFIX) or group in SYSTEM_GROUPS:
        return "a group of the broker or its tools"
    if group.endswith(BROADCAST_SUFFIX):
        return "stands for the members of a broadcast group, which keep their own offsets"
    return ""


def meaning(
    group: str,
    progress: ProgressSpec,
    *,
    is_two_way: bool,
    owning: Subscription | None,
    written: Subscription | None,
    changed_properties: Collection[str] = (),
) -> Meaning:
    """Whether the progress of ``group`` in one topic may be written on the other side.

    ``owning``, ``written``: the subscription on the side that owns the progress and on the one to be written; None: not known,
    nobody was ever seen there. ``changed_properties``: names that a copy has another value of than its original: the keys of the
    task's tags and what the connector strips."""
    reason = never_synced(group)
    if reason:
        return Meaning(Carried.NEVER, reason)
    if _matches(group, progress.exclude) or not _matches(group, progress.include):
        return Meaning(Carried.EXCLUDED, "not selected by progress.groups")
    if _matches(group, progress.local):
        return Meaning(Carried.LOCAL, "declared local by progress.groups.local")
    reason = _local_reason(is_two_way, owning, written, {*changed_properties, STAMP_NAME.decode()})
    return Meaning(Carried.LOCAL, reason) if reason else SYNCED


def _matches(group: str, patterns: Collection[str]) -> bool:
    return any(compile_pattern(pattern)(group) for pattern in patterns)


def _local_reason(is_two_way: bool, owning: Subscription | None, written: Subscription | None, changed: Collection[str]) -> str:
    known = [one for one in (owning, written) if one is not None]
    if any(one.is_broadcast for one in known):
        return "a broadcast group: its members keep their own offsets"
    for one in known:
        reason = _unreadable(one) or _names_changed(one, changed)
        if reason:
            return reason
    if owning is not None and written is not None and _normalised(owning) != _normalised(written):
        return f"different expressions: {_shown(owning)} where it is owned, {_shown(written)} on the other side"
    if is_two_way and owning is None:
        return "no subscription of it is known, and in a two-way task it may be one for local messages only"
    return ""


def _unreadable(one: Subscription) -> str:
    if one.kind not in (TAG, SQL92):
        return f"its expression is of kind {one.kind!r}, which only the broker can evaluate"
    return ""


def _names_changed(one: Subscription, changed: Collection[str]) -> str:
    if one.kind != SQL92:
        return ""
    try:
        names = compile_filter(one.expression).names
    except FilterSyntaxError as error:
        return f"its expression cannot be read: {error}"
    named = sorted(names & set(changed))
    if named:
        return f"its expression names {', '.join(named)}, which copies do not have as their originals do"
    return ""


def _normalised(one: Subscription) -> tuple[str, object]:
    if one.kind == SQL92:
        return SQL92, one.expression.strip()
    tags = frozenset(tag.strip() for tag in one.expression.split("||")) - {""}
    return TAG, _EVERYTHING if not tags or "*" in tags and len(tags) == 1 else tags


def _shown(one: Subscription) -> str:
    return f"{one.kind} {one.expression!r}"
