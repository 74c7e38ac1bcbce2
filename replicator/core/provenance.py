"""Whose record is it? Decides, for one source queue of one flow, whether a record was born there or came from elsewhere.

Rule: a stamp counts only where it was put, and only if its coordinates exceed the last ones seen of that upstream queue.
Copies arrive in source order (G3), so anything at or below them was published again by an application that kept the
properties: it is born here. Exact, as long as ``seen`` is carried along with the position it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replicator.core.stamp import VARYING_FIELDS, Place, Stamp, parse_stamp


class Verdict(Enum):
    BORN_HERE = "born here"
    REPUBLISHED = "born here, with the stamp of another record"
    LOOP = "loop"
    RELAY = "relay"


def upstream_key(stamp: Stamp) -> str:
    """Name of the upstream queue and history that a stamp's coordinates belong to."""
    queue = stamp.hop.place.queue
    return f"{stamp.hop.place.cluster_id}/{queue.topic}/{queue.broker_name}/{queue.queue_id}/{stamp.hop.epoch}"


@dataclass(frozen=True, slots=True)
class _Upstream:
    """What a stamp says apart from its offset and time."""

    key: str
    was_put_here: bool
    passes: bool
    """May go on to the destination (relay)."""


UPSTREAMS_MAX = 1024
"""Upstream queues remembered for the copies of one source queue; there are a handful."""


class Provenance:
    """Judges the records of one source queue in order. ``seen`` is its whole state: save it with the position."""

    def __init__(self, here: Place, destination_id: str, *, relay: bool, seen: dict[str, int] | None = None) -> None:
        self.here = here
        self.destination_id = destination_id
        self.relay = relay
        self.seen: dict[str, int] = dict(seen or {})
        self._upstreams: dict[bytes, _Upstream] = {}

    def judge(self, value: bytes) -> Verdict:
        """``value``: the stamp property of a record. Advances ``seen`` when the stamp is genuine: call once for each record that
        has one, in queue order. Raises ``NewerStamp``.

        In a two-way task half of all records are copies, and their stamps differ in offset and time only: what the rest means is
        worked out once."""
        fields = value.rsplit(b";", VARYING_FIELDS)
        is_first_hop = value.endswith(b";;") and len(fields) > VARYING_FIELDS
        upstream = self._upstreams.get(fields[0]) if is_first_hop else None
        if upstream is not None:
            try:
                offset, _ = int(fields[1], 16), int(fields[2], 16)
            except ValueError:
                return Verdict.BORN_HERE
            return self._judge(upstream, offset)
        stamp = parse_stamp(value)
        if stamp is None:
            return Verdict.BORN_HERE
        passes = self.relay and self.destination_id not in stamp.clusters_passed
        upstream = _Upstream(upstream_key(stamp), stamp.put == self.here, passes)
        if is_first_hop and len(self._upstreams) < UPSTREAMS_MAX:
            self._upstreams[fields[0]] = upstream
        return self._judge(upstream, stamp.hop.offset)

    def _judge(self, upstream: _Upstream, offset: int) -> Verdict:
        if not upstream.was_put_here or offset <= self.seen.get(upstream.key, -1):
            return Verdict.REPUBLISHED
        self.seen[upstream.key] = offset
        return Verdict.RELAY if upstream.passes else Verdict.LOOP
