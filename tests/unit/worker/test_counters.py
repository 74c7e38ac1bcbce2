"""What is counted of a flow: settling of all its brokers together, latencies of every message."""

import random

import pytest

from replicator.observe.latencies import BOUNDS_SECONDS, Latencies
from replicator.worker.counters import FlowCounts, SettleCounts


def test_all_brokers_of_a_flow_count_together():
    told = FlowCounts(doubts_total=3).to_json([SettleCounts(1, 2.5, 1, 0), SettleCounts(2, 0.5, 2, 4)])
    assert (told["doubts_total"], told["settling_rounds_total"], told["settling_seconds_total"]) == (3, 3, 3.0)
    assert (told["barriers_total"], told["barriers_failed_total"]) == (3, 4)


def test_every_message_is_in_its_bucket_whatever_batches_it_came_in():
    seeded, latencies, taken = random.Random(4), Latencies(), []
    for _ in range(50):
        ages_ms = sorted((seeded.choice((1, 5, 40, 700, 100_000, 4_000_000)) for _ in range(seeded.randint(1, 20))), reverse=True)
        latencies.observe(9e9, [int(9e9) - age for age in ages_ms])
        taken += ages_ms
    told = latencies.to_json()
    expected = [[str(bound), sum(age <= bound * 1000 for age in taken)] for bound in BOUNDS_SECONDS]
    assert told["buckets"] == [*expected, ["+Inf", len(taken)]]
    assert told["sum_seconds"] == pytest.approx(sum(taken) / 1000)


def test_a_clock_that_is_ahead_takes_nothing_away():
    latencies = Latencies()
    latencies.observe(1000.0, [1500, 1600])
    assert latencies.to_json()["sum_seconds"] == 0
    assert latencies.to_json()["buckets"][0] == ["0.005", 2]
