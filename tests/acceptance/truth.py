"""What stands in two clusters, read by the official Java client, and whether it is what replication promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connectors.rocketmq.names import RESERVED_PROPERTIES
from replicator.core.stamp import STAMP_NAME, parse_stamp
from tests.witness.rows import Seen

STAMP = STAMP_NAME.decode()
COMPRESSION = 0x701
"""Bits of a message's flag that say whether and how its body is compressed."""


def stamp_of(seen: Seen):
    value = (seen.properties or {}).get(STAMP)
    return parse_stamp(value.encode()) if value else None


def born_and_copied(rows: Sequence[Seen], origin: str) -> tuple[list[Seen], list[Seen]]:
    """Rows of one cluster: those born there and those copied there. ``origin``: prefix of the keys of what was born there."""
    born = [row for row in rows if (row.keys or "").startswith(origin)]
    copied = [row for row in rows if not (row.keys or "").startswith(origin)]
    return born, copied


def _own_properties(seen: Seen, tag: Mapping[str, str]) -> dict[str, str]:
    """What its producer set. Where it carries a stamp, the stamp and the tags came with an earlier copy."""
    added = {STAMP, *tag} if STAMP in seen.user_properties else set()
    return {
        name: value for name, value in seen.user_properties.items()
        if name not in added and name.encode() not in RESERVED_PROPERTIES
    }  # fmt: skip


def of_prefix(rows: Sequence[Seen], prefix: str) -> list[Seen]:
    return [row for row in rows if (row.keys or "").startswith(prefix)]


def assert_copied_exactly(born: Sequence[Seen], copies: Sequence[Seen], tag: Mapping[str, str]) -> None:
    """Each once, queue by queue in order, bodies, tags, keys and user properties equal; only ours added."""
    doubled = [keys for keys, count in Counter(row.keys for row in copies).items() if count > 1]
    assert not doubled, f"{len(doubled)} doubled, first {doubled[:3]}"
    lost = {row.keys for row in born} - {row.keys for row in copies}
    assert not lost, f"{len(lost)} lost, first {sorted(map(str, lost))[:3]}"
    assert len(born) == len(copies)
    by_queue: dict[int, list[Seen]] = {}
    for row in sorted(copies, key=lambda row: (row.queue, row.offset)):
        by_queue.setdefault(row.queue, []).append(row)
    for queue in sorted({row.queue for row in born}):
        expected = sorted((row for row in born if row.queue == queue), key=lambda row: row.offset)
        found = by_queue.pop(queue)
        assert [row.keys for row in expected] == [row.keys for row in found], f"queue {queue}: order"
        for original, copy in zip(expected, found, strict=True):
            assert original.sha256 == copy.sha256, f"{original.keys}: body"
            assert original.tags == copy.tags
            kept = {name: value for name, value in copy.user_properties.items() if name != STAMP and name not in tag}
            assert kept == _own_properties(original, tag), f"{original.keys}: user properties"
            assert {name: copy.user_properties.get(name) for name in tag} == dict(tag)
            stamp = stamp_of(copy)
            assert stamp is not None
            assert stamp.hop.offset == original.offset
    assert not by_queue


@dataclass(frozen=True, slots=True)
class Comparison:
    """How copies differ from what they are copies of: numbers of messages, all zero where replication kept its promise."""

    missing: int
    doubled: int
    strange: int
    """Among the copies, and not among the originals."""
    disordered: int
    """Behind one that was behind them in their source queue, or in another queue than the first of it."""
    different: int


def compare(born: Sequence[Seen], copies: Sequence[Seen], tag: Mapping[str, str]) -> Comparison:
    """Judged by keys alone, whichever queues of whichever brokers the two are in. Where the source holds keys twice (a broker may
    commit a transaction twice), so has the destination to."""
    originals, found = _numbered(born), _numbered(copies)
    disordered = 0
    before: dict[tuple[str, int], Seen] = {}
    for name, original in originals.items():
        copy = found.get(name)
        if copy is None:
            continue
        last = before.setdefault(_queue(original), copy)
        if _queue(last) != _queue(copy) or last.offset > copy.offset:
            disordered += 1
        else:
            before[_queue(original)] = copy
    keys = {row.keys for row in born}
    more = [row for name, row in found.items() if name not in originals]
    return Comparison(
        missing=sum(name not in found for name in originals),
        doubled=sum(row.keys in keys for row in more),
        strange=sum(row.keys not in keys for row in more),
        disordered=disordered,
        different=sum(_is_different(original, found[name], tag) for name, original in originals.items() if name in found),
    )


def _numbered(rows: Sequence[Seen]) -> dict[tuple[str | None, int], Seen]:
    """By keys and how many of these keys stand before, in the order of places."""
    counts: Counter[str | None] = Counter()
    numbered: dict[tuple[str | None, int], Seen] = {}
    for row in sorted(rows, key=lambda row: row.place):
        numbered[(row.keys, counts[row.keys])] = row
        counts[row.keys] += 1
    return numbered


def _queue(row: Seen) -> tuple[str, int]:
    return row.broker, row.queue


def _is_different(original: Seen, copy: Seen, tag: Mapping[str, str]) -> bool:
    kept = {name: value for name, value in copy.user_properties.items() if name != STAMP and name not in tag}
    return (
        (original.sha256, original.tags, original.sys_flag & COMPRESSION) != (copy.sha256, copy.tags, copy.sys_flag & COMPRESSION)
        or kept != _own_properties(original, tag)
        or any(copy.user_properties.get(name) != value for name, value in tag.items())
    )
