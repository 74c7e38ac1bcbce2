"""A worker's counters never fall when a copier ends."""

from types import SimpleNamespace

from replicator.worker.counters import Counters


def copier(own_tags_kept_total, unverifiable_total, doubts_total):
    return SimpleNamespace(
        own_tags_kept_total=own_tags_kept_total, unverifiable_total=unverifiable_total, doubts_total=doubts_total
    )


def test_sums_keep_what_ended_copiers_counted():
    counters = Counters()
    one, two = copier(1, 2, 3), copier(10, 20, 30)
    before = counters.sums([one, two], 7)
    assert before == {"own_tags_kept_total": 11, "unverifiable_total": 22, "doubts_total": 33, "settling_rounds_total": 7}
    counters.ended(one)
    assert counters.sums([two], 7) == before
