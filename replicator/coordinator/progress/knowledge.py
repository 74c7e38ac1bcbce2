"""What is known of each group between two clusters, over restarts: ownership, subscriptions last seen, our last writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from replicator.core.groups import GroupMembers
from replicator.core.ownership import Ownership
from replicator.core.record import MessageQueue
from replicator.core.subscriptions import Subscription
from replicator.store.group_rows import GroupState

SideTopic = tuple[str, str]
"""(cluster, topic)"""


@dataclass(slots=True)
class Known:
    """One group between the two clusters of a pair. ``subscriptions``: what members asked for when they were last seen.
    ``disagreed``: sides whose members asked for different things. ``written``: {cluster: {queue: offset}}, read back after it."""

    ownership: Ownership = field(default_factory=Ownership)
    subscriptions: dict[SideTopic, Subscription] = field(default_factory=dict)
    disagreed: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    written: dict[str, dict[str, int]] = field(default_factory=dict)

    def learn(self, cluster: str, members: GroupMembers) -> bool:
        """Keeps what the members on ``cluster`` ask for. True if that was news."""
        before = (dict(self.subscriptions), set(self.disagreed), dict(self.kinds))
        if members.kind:
            self.kinds[cluster] = members.kind
        if not members.count:
            return before[2] != self.kinds
        for one in members.subscriptions:
            self.subscriptions[cluster, one.topic] = Subscription(one.expression, one.expression_type, members.broadcasting)
        (self.disagreed.discard if members.agree else self.disagreed.add)(cluster)
        return before != (self.subscriptions, self.disagreed, self.kinds)

    def has_written(self, cluster: str, offsets: Mapping[MessageQueue, int]) -> None:
        self.written.setdefault(cluster, {}).update({str(queue): offset for queue, offset in offsets.items()})

    def proven(self, cluster: str, queue: MessageQueue, current: int | None) -> int:
        """Through where a start that we wrote shows the messages of ``queue`` to be processed; 0 once something else stands there."""
        own = self.written.get(cluster, {}).get(str(queue))
        return own if own is not None and own == current else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "ownership": self.ownership.to_json(),
            "subscriptions": [[*where, asdict(one)] for where, one in sorted(self.subscriptions.items(), key=lambda item: item[0])],
            "disagreed": sorted(self.disagreed),
            "kinds": self.kinds,
            "written": self.written,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Known:
        return cls(
            Ownership.from_json(stored["ownership"]),
            {(cluster, topic): Subscription(**one) for cluster, topic, one in stored["subscriptions"]},
            set(stored["disagreed"]),
            dict(stored["kinds"]),
            {cluster: dict(offsets) for cluster, offsets in stored["written"].items()},
        )


GroupKey = tuple[str, tuple[str, str]]
"""(group, pair of clusters)"""


def known_of(states: Sequence[GroupState]) -> dict[GroupKey, Known]:
    return {(one.group, one.clusters): Known.from_json(one.state) for one in states}


def row_of(task: str, key: GroupKey, known: Known) -> GroupState:
    return GroupState(task, key[0], key[1], known.to_json())
