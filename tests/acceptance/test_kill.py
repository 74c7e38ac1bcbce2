"""kill -9 of the whole product during traffic, again and again: nothing lost, nothing twice, order kept.

``REPLICATOR_KILL_ROUNDS`` sets how often (4 in the ordinary run, 50 by ``make kills``).
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.acceptance.process import TWO_WAY, task_yaml
from tests.acceptance.truth import assert_copied_exactly, born_and_copied

ROUNDS = int(os.environ.get("REPLICATOR_KILL_ROUNDS", "4"))
MESSAGES_A_ROUND = 600
pytestmark = [pytest.mark.rocketmq, pytest.mark.timeout(120 + 20 * ROUNDS)]


def test_kill_during_traffic(two_clusters, witness, replicator, cluster_documents, topic_name) -> None:
    hangzhou, shanghai = two_clusters
    topic = topic_name("kill")
    for cluster in two_clusters:
        witness.create_topic(cluster.name_servers, topic, queues=4)
    process = replicator(*cluster_documents, task_yaml("kill", topic, TWO_WAY))
    rnd = random.Random(7)
    for number in range(ROUNDS):
        process.start()
        futures = [
            witness.submit(
                "bulk", name_servers=cluster.name_servers, topic=topic, count=MESSAGES_A_ROUND, batch_size=rnd.choice((1, 7, 32)),
                prefix=f"{cluster.name}-{number}", first=0, with_keys=True,
            )
            for cluster in two_clusters
        ]
        time.sleep(rnd.uniform(0.3, 7.0))  # anywhere in its life: starting, recovering, copying, idle
        process.kill()
        for future in futures:
            future.result(60)
    process.start()
    process.wait_ready()
    process.wait_caught_up(90)
    rows = {
        cluster.name: witness.drain(cluster.name_servers, topic, expect=2 * ROUNDS * MESSAGES_A_ROUND, timeout_seconds=60)
        for cluster in two_clusters
    }
    for origin, other in ((hangzhou.name, shanghai.name), (shanghai.name, hangzhou.name)):
        born, _ = born_and_copied(rows[origin], origin)
        _, copies = born_and_copied(rows[other], other)
        assert len(born) == ROUNDS * MESSAGES_A_ROUND
        assert_copied_exactly(born, copies, {"origin": origin})
    assert process.stop() < 10
    print(f"{ROUNDS} kills, {ROUNDS * MESSAGES_A_ROUND} messages each side: lost 0, doubled 0")
