"""The batch-wise decision against a plain record-by-record model of the same rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.correspondence import Intervals
from replicator.core.errors import Refused
from replicator.core.provenance import Provenance
from replicator.core.record import MessageQueue, RecordBatch, iterate_properties
from replicator.core.stamp import FIRST_HOP_SUFFIX, Coordinates, Place, Stamp, find_stamp, relay_suffix, stamp_prefix
from replicator.core.stamping import Decided, Restoration, Stamper, TagSource

HERE = Place("hhhhhhhh", MessageQueue("orders", "broker-a", 1))
THERE = Place("tttttttt", MessageQueue("orders", "broker-b", 2))
RESERVED = (b"WAIT", b"CLUSTER", b"TIMER_OUT_MS", b"DELAY")
PREFIX = stamp_prefix("flow00", THERE, HERE, 1)
TAG = b"origin\x01hangzhou\x02"


def make_stamper(*, relay: bool = False, matches=None) -> Stamper:
    tags = TagSource((b"origin",), TAG, lambda properties, origin: b"" if "origin" in properties else TAG)
    return Stamper(PREFIX, tags, RESERVED, Provenance(HERE, THERE.cluster_id, relay=relay), matches)


def make_batch(properties: list[bytes], offsets: list[int] | None = None, next_offset: int | None = None) -> RecordBatch:
    offsets = offsets if offsets is not None else list(range(10, 10 + len(properties)))
    column = [0] * len(properties)
    times = [1000 + offset for offset in offsets]
    bodies = [b"body%d" % offset for offset in offsets]
    end = next_offset if next_offset is not None else (offsets[-1] + 1 if offsets else 10)
    return RecordBatch(offsets, bodies, properties, column, column, column, times, column, column, column, next_offset=end)


def expected_properties(packed: bytes, offset: int) -> bytes:
    pairs = [(n, v) for n, v in iterate_properties(packed) if n not in RESERVED]
    text = b"".join(n + b"\x01" + v + b"\x02" for n, v in pairs)
    own = any(n == b"origin" and v for n, v in pairs)
    return text + PREFIX + b"%x;%x" % (offset, 1000 + offset) + FIRST_HOP_SUFFIX + (b"" if own else TAG)


NAME = st.one_of(st.sampled_from([*RESERVED, b"KEYS", b"origin", b"WAITING", b"MYWAIT", b"a"]), st.binary(min_size=1, max_size=4))
VALUE = st.one_of(st.sampled_from([b"true", b"", b"x"]), st.binary(max_size=6), st.text(max_size=4).map(str.encode))
CLEAN = str.maketrans("", "")


def _pair(name: bytes, value: bytes) -> bytes:
    name = name.replace(b"\x01", b"n").replace(b"\x02", b"n")
    return name + b"\x01" + value.replace(b"\x01", b"v").replace(b"\x02", b"v")


PROPERTIES = st.tuples(st.lists(st.builds(_pair, NAME, VALUE), max_size=6), st.booleans()).map(
    lambda t: b"\x02".join(t[0]) + (b"\x02" if t[0] and t[1] else b"")
)


@given(st.lists(PROPERTIES, min_size=1, max_size=20))
def test_batch_equals_record_by_record(properties: list[bytes]) -> None:
    decided = make_stamper().decide(make_batch(properties), 10)
    assert list(decided.properties) == [expected_properties(p, 10 + i) for i, p in enumerate(properties)]
    assert decided.holes == []


@given(st.lists(st.integers(10, 60), unique=True, max_size=20).map(sorted), st.integers(0, 5))
def test_every_offset_is_a_copy_or_a_hole(offsets: list[int], beyond: int) -> None:
    end = (offsets[-1] + 1 if offsets else 10) + beyond
    decided = make_stamper().decide(make_batch([b"a\x01b\x02"] * len(offsets), offsets, end), 10)
    covered = sorted([*decided.offsets, *(o for start, length, _ in decided.holes for o in range(start, start + length))])
    assert covered == list(range(10, end))
    assert decided.examined_through == end


def copy_of(offset: int, put: Place = HERE, source: Place = THERE) -> bytes:
    return b"k\x01v\x02" + stamp_prefix("flow11", put, source, 1) + b"%x;%x" % (offset, 5) + FIRST_HOP_SUFFIX + b"origin\x01shanghai\x02"


def copied_properties(decided: Decided) -> dict[int, bytes]:
    return dict(zip(decided.offsets, decided.properties, strict=True))


def test_copies_do_not_go_back_and_are_listed_as_loop() -> None:
    decided = make_stamper().decide(make_batch([b"a\x01b\x02", copy_of(4), copy_of(5), b"c\x01d"]), 10)
    assert list(decided.offsets) == [10, 13]
    assert decided.holes == [(11, 2, "loop")]


def test_a_copy_published_again_is_born_here_and_loses_stamp_and_tag() -> None:
    elsewhere = Place(HERE.cluster_id, MessageQueue("orders", "broker-a", 0))
    decided = make_stamper().decide(make_batch([copy_of(4), copy_of(4), copy_of(9, put=elsewhere)]), 10)
    assert list(decided.offsets) == [11, 12]
    for packed in copied_properties(decided).values():
        stamp = find_stamp(packed)
        assert stamp is not None
        assert stamp.hop.place == HERE
        assert packed.count(b"__rep\x01") == 1
        assert packed.count(b"origin\x01") == 1
        assert b"origin\x01hangzhou\x02" in packed


def test_relay_copies_what_came_from_a_third_cluster_only() -> None:
    third = Place("cccccccc", MessageQueue("orders", "broker-c", 2))
    decided = make_stamper(relay=True).decide(make_batch([copy_of(4), copy_of(5, source=third)]), 10)
    assert list(decided.offsets) == [11]
    stamp = find_stamp(decided.properties[0])
    assert stamp is not None
    assert stamp.origin_cluster_id == "cccccccc"
    assert b"origin\x01shanghai\x02" in decided.properties[0]
    assert decided.holes == [(10, 1, "loop")]


def test_filter_sees_the_source_properties() -> None:
    stamper = make_stamper(matches=lambda properties: properties.get("level") == "1")
    decided = stamper.decide(make_batch([b"level\x011\x02", b"level\x012\x02", b""]), 10)
    assert list(decided.offsets) == [10]
    assert decided.holes == [(11, 2, "filtered")]


def test_a_system_without_properties_of_its_own_keeps_all() -> None:
    tags = TagSource((b"origin",), TAG, lambda properties, origin: TAG)
    stamper = Stamper(PREFIX, tags, (), Provenance(HERE, THERE.cluster_id, relay=False))
    decided = stamper.decide(make_batch([b"WAIT\x01true\x02", b""]), 10)
    assert [packed.startswith(b"WAIT\x01true\x02") for packed in decided.properties] == [True, False]
    assert all(find_stamp(packed) is not None for packed in decided.properties)


def test_runs_of_constant_reserved_properties_go_in_one_piece_and_odd_ones_one_by_one() -> None:
    usual = b"KEYS\x01%d\x02WAIT\x01true\x02CLUSTER\x01c\x02DELAY\x01%d\x02level\x011\x02"
    odd = b"WAIT\x01false\x02KEYS\x01k\x02CLUSTER\x01other\x02"
    properties = [usual % (i, i) for i in range(20)] + [odd]
    stamper = make_stamper()
    for _ in range(2):  # the second batch uses what the first one taught
        decided = stamper.decide(make_batch(properties), 10)
        assert list(decided.properties) == [expected_properties(p, 10 + i) for i, p in enumerate(properties)]


def test_attempts_stay_with_their_records() -> None:
    batch = make_batch([b"KEYS\x01%d\x02" % index for index in range(4)])
    batch.reconsume_times = [0, 1, 2, 3]
    decided = make_stamper(matches=lambda properties: properties["KEYS"] in ("1", "3")).decide(batch, 10)
    assert (list(decided.offsets), list(decided.reconsume_times)) == ([11, 13], [1, 3])


RELAYED = (
    b"KEYS\x01k\x02" + stamp_prefix("abcdef", HERE, THERE, 1) + b"4;5"
    + relay_suffix(Stamp("k", THERE, Coordinates(Place("c", THERE.queue), 1, 9, 5), None, ()))
)  # fmt: skip
"""Born at a third cluster, from which it comes to the one that lost it again."""


def restoring(through: int, *offsets: int) -> Stamper:
    restoration = Restoration(through, Intervals((offset, offset + 1) for offset in offsets))
    tags = TagSource((b"origin",), TAG, lambda properties, origin: TAG)
    provenance = Provenance(HERE, THERE.cluster_id, relay=False, seen={})
    return Stamper(PREFIX, tags, RESERVED, provenance, lambda properties: properties["KEYS"] != "14", restoration)


def test_what_is_sent_back_is_as_it_was_where_it_was_born() -> None:
    """Offsets 11 and 13 are to be sent back; from 14 on everything goes its usual way: a message born here, filtered, and a copy."""
    batch = make_batch([b"KEYS\x0110\x02", copy_of(4), b"KEYS\x0112\x02", copy_of(5), b"KEYS\x0114\x02", copy_of(6), b"KEYS\x0116\x02"])
    stamper = restoring(14, 11, 13)
    decided = stamper.decide(batch, 10)
    assert list(decided.offsets) == [11, 13, 16]
    assert decided.holes == [(14, 1, "filtered"), (15, 1, "loop")]
    first, second, born_here = (find_stamp(packed) for packed in decided.properties)
    assert [(one.hop.offset, one.origin.place, one.origin.offset) for one in (first, second)] == [(11, THERE, 4), (13, THERE, 5)]
    assert [one.clusters_passed for one in (first, second)] == [{HERE.cluster_id, THERE.cluster_id}] * 2
    assert [b"origin\x01" in packed for packed in decided.properties] == [False, False, True]
    assert (born_here.hop.offset, born_here.origin) == (16, None)
    assert list(stamper.provenance.seen.values()) == [6], "what is read again was judged before"


@pytest.mark.parametrize(("relay", "offsets"), [(False, [11]), (True, [10, 11])])
def test_what_was_sent_back_goes_on_to_third_clusters_only_where_all_does(relay, offsets) -> None:
    """As a flow from there to a third cluster meets it."""
    lost = restoring(11, 10).decide(make_batch([copy_of(4)]), 10)
    third = Provenance(THERE, "cccccccc", relay=relay)
    tags = TagSource((b"origin",), TAG, lambda properties, origin: TAG)
    onward = Stamper(stamp_prefix("flow01", Place("cccccccc", THERE.queue), THERE, 1), tags, RESERVED, third)
    decided = onward.decide(make_batch([lost.properties[0], b"KEYS\x01born\x02"]), 10)
    assert list(decided.offsets) == offsets


def test_offsets_missing_among_what_is_read_again_have_their_reason_already() -> None:
    decided = restoring(14, 11).decide(make_batch([copy_of(4), b"KEYS\x0116\x02"], [11, 16]), 10)
    assert decided.holes == [(14, 2, "expired")]


NOT_THEIRS = [b"KEYS\x01k\x02", copy_of(4, put=Place("x", HERE.queue)), copy_of(4, source=Place("c", THERE.queue)), RELAYED]


@pytest.mark.parametrize("packed", NOT_THEIRS)
def test_only_copies_of_the_destination_s_own_messages_are_sent_back(packed) -> None:
    with pytest.raises(Refused, match="offset 10 of orders"):
        restoring(14, 10).decide(make_batch([packed]), 10)
