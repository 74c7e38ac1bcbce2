"""Which waiting and dead-letter topics a task with ``retry: true`` carries besides its own, and making their group at the destination."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.coordinator.connections import Link
from replicator.coordinator.progress.writing import ensure_groups
from replicator.core.connector import KeepsProgress, KeepsRetries
from replicator.core.errors import Refused
from replicator.core.retry import RetryRules, is_waiting

FOUND_FRESH_SECONDS = 4.5
"""As topics: a group that begins to consume is carried within 10 s."""
GROUPS_MAX = 100
"""Of one flow. Each costs an assignment for every delay level of every broker, and each of these reads the whole level."""


@dataclass(slots=True)
class RetryFinder:
    """Asks the source at most once in ``FOUND_FRESH_SECONDS`` a flow."""

    _found: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)

    async def topics(self, flow_id: str, rules: RetryRules, source: Link, names: Sequence[str]) -> tuple[str, ...]:
        """Of the groups that have progress in selected topics, those that exist. Raises ``Refused`` for more groups than
        ``GROUPS_MAX``, and where the system cannot tell."""
        now = time.monotonic()
        known = self._found.get(flow_id)
        if known is not None and now - known[0] < FOUND_FRESH_SECONDS:
            return known[1]
        connector = source.connector
        if not isinstance(connector, KeepsProgress) or not isinstance(connector, KeepsRetries):
            raise Refused(f"retry: true: cluster {source.cluster.name} ({source.cluster.connector}) does not tell what waits for a retry")
        offsets = await source.ask(connector.group_offsets(rules.select(names)))
        groups = sorted(group for group in offsets if rules.carries(group))
        found = tuple(sorted(await source.ask(connector.retry_topics(groups))))
        count = sum(map(is_waiting, found))
        if count > GROUPS_MAX:
            raise Refused(
                f"retry: true with {count} groups that consume selected topics of {source.cluster.name}; {GROUPS_MAX} are possible",
                hint="select groups by progress.groups",
            )
        self._found[flow_id] = now, found
        return found

    def keep(self, flow_ids: set[str]) -> None:
        self._found = {flow_id: one for flow_id, one in self._found.items() if flow_id in flow_ids}


async def make_group(source: Link, destination: Link, group: str) -> None:
    """Nothing can be put into the retry topic of a group that a cluster does not know."""
    if not all(isinstance(link.connector, KeepsProgress) for link in (source, destination)):
        raise Refused(f"cluster {destination.cluster.name} keeps no consumer groups: retries of {group} cannot be put there")
    for error in (await ensure_groups(source, destination, [group])).values():
        raise error
