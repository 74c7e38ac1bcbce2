"""The stamp: the one packed property that says where a copy was put and what it is a copy of.

``__rep`` \\x01 ``1;FLOW;D;DT;DB;DQ;S;ST;SB;SQ;E;O;T;ORIGIN;PATH`` \\x02

    FLOW          flow that wrote it (for people; never compared)
    D DT DB DQ    where it was put: cluster id, topic (empty: same name as ST), broker, queue id
    S ST SB SQ    last hop: cluster id, topic, broker, queue id it was read from
    E             epoch of that source queue, decimal
    O T           queue offset and store time (ms) there, hexadecimal
    ORIGIN        C,T,B,Q,E,O,T of the first hop (numbers as above), empty where it is the last hop
    PATH          cluster ids passed before S, comma-separated, oldest first

Rule: a stamp binds to a place. Brokers and applications copy properties when they publish again; a stamp found anywhere
but where it was put says nothing about the record that carries it. Every later release reads all earlier forms.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from replicator.core.errors import Refused
from replicator.core.record import MessageQueue

STAMP_NAME = b"__rep"
STAMP_VERSION = b"1"
_FIELDS = 15
VARYING_FIELDS = 4
"""The last ones: offset, store time, origin, path. All before them is the same for every copy of one assignment."""
_ORIGIN_FIELDS = 7


class NewerStamp(Refused):
    """A record carries a stamp of a later release: judging it as born here could open a loop."""


@dataclass(frozen=True, slots=True)
class Place:
    """One queue of one cluster, by the cluster's lasting id."""

    cluster_id: str
    queue: MessageQueue

    def __str__(self) -> str:
        return f"{self.cluster_id}/{self.queue}"


@dataclass(frozen=True, slots=True)
class Coordinates:
    """One record in one history of one queue."""

    place: Place
    epoch: int
    offset: int
    store_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Stamp:
    flow_id: str
    put: Place
    hop: Coordinates
    origin: Coordinates | None
    """None where the last hop is the origin."""
    path: tuple[str, ...]
    """Cluster ids passed before the last hop."""

    @property
    def origin_cluster_id(self) -> str:
        return self.origin.place.cluster_id if self.origin else self.hop.place.cluster_id

    @property
    def clusters_passed(self) -> frozenset[str]:
        """Every cluster the record is known to have been on, the place it was put apart."""
        return frozenset((*self.path, self.hop.place.cluster_id, self.origin_cluster_id))


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="|-_.:@")


def _unquote(field: bytes) -> str:
    return urllib.parse.unquote(field.decode("ascii"), errors="strict")


def stamp_prefix(flow_id: str, put: Place, source: Place, epoch: int) -> bytes:
    """Everything of a stamp that is constant for an assignment, up to and with the separator before the offset."""
    renamed = "" if put.queue.topic == source.queue.topic else _quote(put.queue.topic)
    fields = (
        "1", flow_id, put.cluster_id, renamed, _quote(put.queue.broker_name), str(put.queue.queue_id),
        source.cluster_id, _quote(source.queue.topic), _quote(source.queue.broker_name), str(source.queue.queue_id), str(epoch),
    )
    return STAMP_NAME + b"\x01" + ";".join(fields).encode() + b";"


FIRST_HOP_SUFFIX = b";;\x02"


def relay_suffix(received: Stamp) -> bytes:
    """The end of the stamp of a copy of a copy: origin and path carried on from the stamp it was received with."""
    origin = received.origin or received.hop
    queue = origin.place.queue
    fields = (
        origin.place.cluster_id, _quote(queue.topic), _quote(queue.broker_name), str(queue.queue_id), str(origin.epoch),
        f"{origin.offset:x}", f"{origin.store_timestamp_ms:x}",
    )
    path = (*received.path, received.hop.place.cluster_id)
    return f";{','.join(fields)};{','.join(path)}\x02".encode()


def parse_stamp(value: bytes) -> Stamp | None:
    """The stamp in a property value, None if it is not one of ours (damaged, or somebody else's property of that name).
    Raises ``NewerStamp`` for a later version."""
    fields = value.split(b";")
    version = fields[0]
    if version != STAMP_VERSION:
        if version.isdigit() and int(version) > int(STAMP_VERSION):
            raise NewerStamp(
                f"a record carries a stamp of version {int(version)}, this release reads up to {int(STAMP_VERSION)}",
                hint="upgrade this worker to the release that writes it",
            )
        return None
    if len(fields) != _FIELDS:
        return None
    try:
        source_topic = _unquote(fields[7])
        put_topic = _unquote(fields[3]) if fields[3] else source_topic
        put = Place(fields[2].decode(), MessageQueue(put_topic, _unquote(fields[4]), int(fields[5])))
        hop = Coordinates(
            Place(fields[6].decode(), MessageQueue(source_topic, _unquote(fields[8]), int(fields[9]))),
            int(fields[10]), int(fields[11], 16), int(fields[12], 16),
        )
        origin = _parse_origin(fields[13]) if fields[13] else None
        path = tuple(fields[14].decode("ascii").split(",")) if fields[14] else ()
        return Stamp(fields[1].decode("ascii"), put, hop, origin, path)
    except (ValueError, UnicodeDecodeError):
        return None


def _parse_origin(field: bytes) -> Coordinates:
    parts = field.split(b",")
    if len(parts) != _ORIGIN_FIELDS:
        raise ValueError("origin of a stamp has seven parts")
    queue = MessageQueue(_unquote(parts[1]), _unquote(parts[2]), int(parts[3]))
    return Coordinates(Place(parts[0].decode("ascii"), queue), int(parts[4]), int(parts[5], 16), int(parts[6], 16))


def find_stamp(packed: bytes) -> Stamp | None:
    """The stamp of a record, from its packed properties. Raises ``NewerStamp``."""
    value = stamp_value(packed)
    return None if value is None else parse_stamp(value)


def stamp_value(packed: bytes) -> bytes | None:
    """The property itself. The last of the name counts, as for every reader of properties."""
    start = packed.rfind(b"\x02__rep\x01")
    if start >= 0:
        start += 7
    elif packed.startswith(b"__rep\x01"):
        start = 6
    else:
        return None
    end = packed.find(b"\x02", start)
    return packed[start:] if end < 0 else packed[start:end]
