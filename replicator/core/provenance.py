"""Whose record is it? Decides, for one source queue of one flow, whether a record was born there or came from elsewhere.

Rule: a stamp counts only where it was put, and only if its coordinates exceed the last ones seen of that upstream queue.
Copies arrive in source order (G3), so anything at or below them was published again by an application that kept the
properties: it is born here. Exact, as long as ``seen`` is carried along with the position it belongs to.
"""

from __future__ import annotations

from enum import Enum

from replicator.core.stamp import Place, Stamp


class Verdict(Enum):
    BORN_HERE = "born here"
    REPUBLISHED = "born here, with the stamp of another record"
    LOOP = "loop"
    RELAY = "relay"


def upstream_key(stamp: Stamp) -> str:
    """Name of the upstream queue and history that a stamp's coordinates belong to."""
    queue = stamp.hop.place.queue
    return f"{stamp.hop.place.cluster_id}/{queue.topic}/{queue.broker_name}/{queue.queue_id}/{stamp.hop.epoch}"


class Provenance:
    """Judges the records of one source queue in order. ``seen`` is its whole state: save it with the position."""

    def __init__(self, here: Place, destination_id: str, *, relay: bool, seen: dict[str, int] | None = None) -> None:
        self.here = here
        self.destination_id = destination_id
        self.relay = relay
        self.seen: dict[str, int] = dict(seen or {})

    def judge(self, stamp: Stamp | None) -> Verdict:
        """Advances ``seen`` when the stamp is genuine: call once for each record, in queue order."""
        if stamp is None:
            return Verdict.BORN_HERE
        if stamp.put != self.here:
            return Verdict.REPUBLISHED
        key = upstream_key(stamp)
        if stamp.hop.offset <= self.seen.get(key, -1):
            return Verdict.REPUBLISHED
        self.seen[key] = stamp.hop.offset
        if self.relay and self.destination_id not in stamp.clusters_passed:
            return Verdict.RELAY
        return Verdict.LOOP
