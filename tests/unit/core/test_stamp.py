import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.record import MessageQueue
from replicator.core.stamp import (
    FIRST_HOP_SUFFIX,
    NewerStamp,
    Place,
    find_stamp,
    parse_stamp,
    relay_suffix,
    stamp_prefix,
)

NAMES = st.text("abcXYZ019_-%|.:;,/ é", min_size=1, max_size=20)
QUEUES = st.builds(MessageQueue, NAMES, NAMES, st.integers(0, 9999))
IDS = st.text("abcdefgh234567", min_size=8, max_size=8)
PLACES = st.builds(Place, IDS, QUEUES)
NUMBERS = st.integers(0, 2**62)


def packed_stamp(put: Place, source: Place, epoch: int, offset: int, time_ms: int, suffix: bytes = FIRST_HOP_SUFFIX) -> bytes:
    return stamp_prefix("k3f9a2", put, source, epoch) + f"{offset:x};{time_ms:x}".encode() + suffix


@given(PLACES, PLACES, st.integers(1, 10**6), NUMBERS, NUMBERS)
def test_first_hop_round_trip(put: Place, source: Place, epoch: int, offset: int, time_ms: int) -> None:
    stamp = find_stamp(b"KEYS\x01a\x02" + packed_stamp(put, source, epoch, offset, time_ms) + b"origin\x01x\x02")
    assert stamp is not None
    assert (stamp.put, stamp.hop.place, stamp.hop.epoch) == (put, source, epoch)
    assert (stamp.hop.offset, stamp.hop.store_timestamp_ms) == (offset, time_ms)
    assert stamp.origin is None
    assert stamp.origin_cluster_id == source.cluster_id


@given(PLACES, PLACES, PLACES, NUMBERS, NUMBERS)
def test_a_relayed_copy_keeps_its_origin_and_grows_its_path(a: Place, b: Place, c: Place, offset: int, time_ms: int) -> None:
    first = find_stamp(packed_stamp(b, a, 1, offset, time_ms))
    assert first is not None
    second = find_stamp(packed_stamp(c, b, 2, 7, 8, relay_suffix(first)))
    assert second is not None
    assert second.origin == first.hop
    assert second.path == (a.cluster_id,)
    third = find_stamp(packed_stamp(a, c, 1, 9, 9, relay_suffix(second)))
    assert third is not None
    assert third.origin == first.hop
    assert third.path == (a.cluster_id, b.cluster_id)
    assert third.clusters_passed == {a.cluster_id, b.cluster_id, c.cluster_id}


def test_a_first_hop_stamp_is_about_ninety_bytes() -> None:
    put = Place("sh7q2m3b", MessageQueue("orders", "broker-a", 3))
    source = Place("hz8k2m3a", MessageQueue("orders", "broker-a", 3))
    assert len(packed_stamp(put, source, 1, 123_456_789, 1_763_700_000_000)) <= 95


@given(st.binary(max_size=200))
def test_garbage_is_no_stamp(value: bytes) -> None:
    version = value.split(b";")[0]
    if version.isdigit() and int(version) > 1:
        with pytest.raises(NewerStamp):
            parse_stamp(value)
    else:
        assert parse_stamp(value) is None


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_truncated_stamp_is_no_stamp_or_fails_to_name_a_place(cut: int) -> None:
    put = Place("sh7q2m3b", MessageQueue("orders", "broker-a", 3))
    text = packed_stamp(put, put, 1, 5, 6)[6:-1]
    assert parse_stamp(text[:cut]) is None


def test_a_later_version_is_refused_not_ignored() -> None:
    with pytest.raises(NewerStamp, match="version 2"):
        find_stamp(b"a\x01b\x02__rep\x012;whatever\x02")


def test_a_name_that_ends_like_ours_is_not_ours() -> None:
    put = Place("sh7q2m3b", MessageQueue("orders", "broker-a", 3))
    assert find_stamp(b"my" + packed_stamp(put, put, 1, 5, 6)) is None
