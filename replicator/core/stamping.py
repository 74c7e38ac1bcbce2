"""The copy path's decision, once for each batch: which records go on, with which properties.

No object per record: the properties of a whole batch are joined into one text, and what is constant in it (reserved
properties that brokers add) is removed for all records at once. 0xff cannot occur in UTF-8, so it separates records;
a batch whose properties hold it all the same takes the slow way, record by record, with the same result.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from replicator.core.correspondence import Intervals
from replicator.core.errors import Refused
from replicator.core.provenance import Provenance, Verdict
from replicator.core.record import RecordBatch, RecordIdentity, parse_properties
from replicator.core.stamp import FIRST_HOP_SUFFIX, STAMP_NAME, Stamp, parse_stamp, relay_suffix, stamp_value

_BREAK = b"\xff\x02"
"""Between two records of a joined text: the first ends with \\x02, the second begins behind one."""
CONSTANT_FRAGMENTS_MAX = 8
"""Reserved properties with constant values that are remembered from batch to batch."""

CONSTANT_SHARE = 8
"""A reserved property counts as constant if more than one record in so many has it with the same value."""

_STAMP_NEEDLE = b"\x02" + STAMP_NAME + b"\x01"


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a flow sends back to its destination, which has lost it: the messages whose only copies stand at ``offsets`` of the source
    queue. Below ``through`` nothing else is copied, for all of it was decided upon before."""

    through: int
    offsets: Intervals


NOTHING_TO_RESTORE = Restoration(0, Intervals([]))

_COLUMNS = (
    "offsets", "store_timestamps_ms", "born_timestamps_ms", "bodies", "properties", "flags", "encodings", "reconsume_times",
)


@dataclass(slots=True)
class Decided:
    """What one batch comes to. Columns are of equal length: the records to copy, in source order."""

    offsets: Sequence[int]
    store_timestamps_ms: Sequence[int]
    born_timestamps_ms: Sequence[int]
    bodies: Sequence[bytes | memoryview]
    properties: Sequence[bytes]
    flags: Sequence[int]
    encodings: Sequence[int]
    reconsume_times: Sequence[int] = ()
    """Empty where the source does not tell."""
    holes: list[tuple[int, int, str]] = field(default_factory=list)
    """(source_start, length, reason) of what is not copied, ascending, neighbours of one reason merged."""
    examined_through: int = 0
    identity: RecordIdentity | None = None
    """Of the last record examined, None for a batch without records."""
    own_tags_kept: int = 0
    """Records whose producer had set a property of a tag's name: left as it is."""

    def __len__(self) -> int:
        return len(self.offsets)

    def select(self, keep: Sequence[int]) -> None:
        """Leaves only the records at these indices."""
        for column in _COLUMNS:
            values = getattr(self, column)
            if values:
                setattr(self, column, [values[i] for i in keep])


@dataclass(frozen=True, slots=True)
class TagSource:
    """Tags as packed bytes. ``constant``: the same for every record born here, or None where a rule looks at the record."""

    keys: tuple[bytes, ...]
    constant: bytes | None
    suffix_for: Callable[[dict[str, str], str | None], bytes]
    """(properties, origin cluster id or None for born here) -> packed tags, without those whose key is in the properties."""


class Stamper:
    """Decides and stamps the batches of one assignment, in order. State: the provenance's ``seen`` only."""

    def __init__(
        self,
        prefix: bytes,
        tags: TagSource,
        reserved: Collection[bytes],
        provenance: Provenance,
        matches: Callable[[dict[str, str]], bool] | None = None,
        restoration: Restoration = NOTHING_TO_RESTORE,
    ) -> None:
        self.provenance = provenance
        self._restoration = restoration
        self._prefix = prefix
        self._tags = tags
        self._matches = matches
        self._reserved = _names_pattern(reserved)
        self._stale = re.compile(b"\x02(?:" + b"|".join(map(re.escape, (STAMP_NAME, *tags.keys))) + b")\x01[^\x02]*(?=\x02)")
        self._tag_needles = tuple(b"\x02" + key + b"\x01" for key in tags.keys)
        self._constant_fragments: list[bytes] = []
        self._record_needles = (_STAMP_NEEDLE, *self._tag_needles)
        self._first_hop = b"%b" + _escaped(prefix) + b"%x;%x" + _escaped(FIRST_HOP_SUFFIX + (tags.constant or b""))

    def decide(self, batch: RecordBatch, position: int) -> Decided:
        """``position``: the source offset examined so far; everything between it and the batch that is not there is a hole.
        Raises ``NewerStamp``, ``Refused`` where a record that is to be restored is no copy of the destination's."""
        offsets = batch.offsets
        is_restoring = position < self._restoration.through
        holes = _gaps(offsets, position, batch.next_offset)
        if is_restoring:
            holes = _from(holes, self._restoration.through)
        decided = Decided(
            offsets, batch.store_timestamps_ms, batch.born_timestamps_ms, batch.bodies, (), batch.flags, batch.encodings,
            batch.reconsume_times, holes, batch.next_offset,
        )
        if not offsets:
            return decided
        decided.identity = RecordIdentity(
            offsets[-1], batch.store_timestamps_ms[-1], batch.commit_log_offsets[-1], batch.body_crcs[-1]
        )
        joined, texts = self._clean(batch.properties)
        is_plain = joined and self._tags.constant is not None and self._matches is None and not is_restoring
        if is_plain and not any(needle in joined for needle in self._record_needles):
            first_hop = self._first_hop
            decided.properties = [
                first_hop % values for values in zip(joined[1:].split(_BREAK), offsets, batch.store_timestamps_ms, strict=True)
            ]
            return decided
        cleaned = [b"\x02" + text for text in joined[1:].split(_BREAK)] if joined else texts
        self._decide_each(batch, cleaned, decided)
        return decided

    def _clean(self, properties: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
        """Reserved properties removed: (one joined text, []) or, where 0xff occurs, (b"", a text a record), each starting and ending
        with \\x02."""
        breaks = len(properties) - 1
        joined = b"\x02" + _BREAK.join(properties)
        if joined.count(b"\xff") != breaks:
            return b"", [self._strip(b"\x02" + _ended(text)) for text in properties]
        ended = joined.count(b"\x02\xff") + joined.endswith(b"\x02")
        if ended == 0:
            joined = joined.replace(b"\xff", b"\x02\xff") + b"\x02"
        elif ended != breaks + 1:
            joined = b"\x02" + _BREAK.join(map(_ended, properties))
        return self._strip(joined), []

    def _strip(self, text: bytes) -> bytes:
        for fragment in self._constant_fragments:
            text = text.replace(fragment, b"\x02")
        found = self._reserved.search(text)
        while found is not None:
            start = found.start()
            fragment = self._constant_fragment(text, start)
            if fragment:
                text = text.replace(fragment, b"\x02")
                self._remember(fragment)
            else:
                # Values differ from record to record (times, ids): remove the name everywhere in one pass.
                text = re.sub(re.escape(found.group()) + b"[^\x02]*(?=\x02)", b"", text)
            found = self._reserved.search(text, max(0, start - 1))
        return text

    def _constant_fragment(self, text: bytes, start: int) -> bytes:
        """The longest run of reserved properties from ``start`` on that many records have just so; empty if already the first one
        is not constant."""
        fragment, end = b"", start + 1
        common = (text.count(b"\xff") + 1) / CONSTANT_SHARE
        while self._reserved.match(text, end - 1):
            end = text.index(b"\x02", end) + 1
            if text.count(text[start:end]) <= common:
                break
            fragment = text[start:end]
        return fragment

    def _remember(self, fragment: bytes) -> None:
        """What a broker adds to every record is the same in the next batch: removed there without being searched for."""
        if fragment not in self._constant_fragments:
            self._constant_fragments = [*self._constant_fragments, fragment][-CONSTANT_FRAGMENTS_MAX:]

    def _decide_each(self, batch: RecordBatch, texts: list[bytes], decided: Decided) -> None:
        """Records with stamps, own tags or a filter to pass, one by one."""
        keep: list[int] = []
        properties: list[bytes] = []
        skipped: list[tuple[int, int, str]] = []
        born_here, loop = Verdict.BORN_HERE, Verdict.LOOP  # attributes of an Enum are dear
        is_plain = self._tags.constant is not None
        judge, matches, times = self.provenance.judge, self._matches, batch.store_timestamps_ms
        begin = self._restore_first(batch, texts, keep, properties) if batch.offsets[0] < self._restoration.through else 0
        for index, text in enumerate(texts[begin:] if begin else texts, begin):
            offset, reason = batch.offsets[index], ""
            value = stamp_value(text)
            verdict = born_here if value is None else judge(value)
            if verdict is loop:
                reason = "loop"
            elif matches is not None and not matches(parse_properties(batch.properties[index])):
                reason = "filtered"
            if reason:
                start, length, before = skipped[-1] if skipped else (0, 0, "")
                if before == reason and start + length == offset:
                    skipped[-1] = (start, length + 1, reason)
                else:
                    skipped.append((offset, 1, reason))
                continue
            keep.append(index)
            if value is None and is_plain and not any(needle in text for needle in self._tag_needles):
                properties.append(self._first_hop % (text[1:], offset, times[index]))
                continue
            stamp = parse_stamp(value) if value is not None and verdict is Verdict.RELAY else None
            stamped, kept_own = self._stamp_one(text, stamp, verdict, offset, times[index])
            properties.append(stamped)
            decided.own_tags_kept += kept_own
        if len(keep) < len(texts):
            decided.properties = [b""] * len(texts)
            decided.select(keep)
            decided.holes = merge_holes(decided.holes + skipped)
        decided.properties = properties

    def _restore_first(self, batch: RecordBatch, texts: Sequence[bytes], keep: list[int], properties: list[bytes]) -> int:
        """Adds those of the first records that are to be sent back; returns how many records only that decides about."""
        end = bisect_left(batch.offsets, self._restoration.through)
        for index in range(end):
            offset = batch.offsets[index]
            if offset in self._restoration.offsets:
                keep.append(index)
                properties.append(self._restored(texts[index], offset, batch.store_timestamps_ms[index]))
        return end

    def _restored(self, text: bytes, offset: int, time_ms: int) -> bytes:
        """As it was where it was born: without the tags of its copy."""
        value, here = stamp_value(text), self.provenance.here
        stamp = None if value is None else parse_stamp(value)
        is_own = stamp is not None and stamp.origin is None and stamp.hop.place.cluster_id == self.provenance.destination_id
        if stamp is None or stamp.put != here or not is_own:
            raise Refused(
                f"offset {offset} of {here.queue} is to be sent back to the cluster that lost it, but is no copy of one of its messages",
                hint="the queue is not the one that was planned with: look at it, then resume TASK --from-offset O behind it",
            )
        return b"%b%b%x;%x%b" % (self._stale.sub(b"", text)[1:], self._prefix, offset, time_ms, relay_suffix(stamp))

    def _stamp_one(self, text: bytes, stamp: Stamp | None, verdict: Verdict, offset: int, time_ms: int) -> tuple[bytes, int]:
        kept_own = 0
        end, origin_id = FIRST_HOP_SUFFIX, None
        if verdict is Verdict.REPUBLISHED:
            # The tags came with the other record's stamp: they tell that record's origin, not this one's.
            text = self._stale.sub(b"", text)
        elif stamp is not None:
            text = _without(text, _STAMP_NEEDLE)
            end, origin_id = relay_suffix(stamp), stamp.origin_cluster_id
        elif _STAMP_NEEDLE in text:
            text = _without(text, _STAMP_NEEDLE)
        tags = self._tags.constant
        has_own = any(needle in text for needle in self._tag_needles)
        if tags is None or has_own or origin_id is not None:
            tags = self._tags.suffix_for(parse_properties(text), origin_id)
            kept_own = 1 if has_own and origin_id is None else 0
        return b"%b%b%x;%x%b%b" % (text[1:], self._prefix, offset, time_ms, end, tags), kept_own


def _escaped(text: bytes) -> bytes:
    """As itself in a template of ``%``."""
    return text.replace(b"%", b"%%")


def _ended(text: bytes) -> bytes:
    return text if not text or text.endswith(b"\x02") else text + b"\x02"


def _names_pattern(names: Collection[bytes]) -> re.Pattern[bytes]:
    """Where a property of one of these names begins. Looking at the first byte alone rules out nearly all others."""
    if not names:
        return re.compile(b"(?!)")
    first = b"".join(re.escape(byte) for byte in sorted({name[:1] for name in names}))
    return re.compile(b"\x02(?=[" + first + b"])(?:" + b"|".join(map(re.escape, sorted(names))) + b")\x01")


def _without(text: bytes, needle: bytes) -> bytes:
    return re.sub(re.escape(needle) + b"[^\x02]*(?=\x02)", b"", text)


def _gaps(offsets: Sequence[int], position: int, next_offset: int) -> list[tuple[int, int, str]]:
    """Source offsets from ``position`` on that no record stands at: gone from the log before we came to read them."""
    if not offsets:
        return [(position, next_offset - position, "expired")] if next_offset > position else []
    if offsets[0] == position and next_offset - position == len(offsets):
        return []
    gaps = []
    expected = position
    for offset in offsets:
        if offset > expected:
            gaps.append((expected, offset - expected, "expired"))
        expected = offset + 1
    if next_offset > expected:
        gaps.append((expected, next_offset - expected, "expired"))
    return gaps


def _from(holes: list[tuple[int, int, str]], start: int) -> list[tuple[int, int, str]]:
    """What of them lies at or above ``start``."""
    cut = ((max(first, start), first + length, reason) for first, length, reason in holes)
    return [(first, end - first, reason) for first, end, reason in cut if first < end]


def merge_holes(holes: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Ascending, touching neighbours of one reason made one."""
    merged: list[tuple[int, int, str]] = []
    for start, length, reason in sorted(holes):
        if merged and merged[-1][2] == reason and merged[-1][0] + merged[-1][1] == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + length, reason)
        else:
            merged.append((start, length, reason))
    return merged
