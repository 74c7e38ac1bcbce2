"""A region comes back without its newest messages, and gets them from where their copies are: real clusters, official consumers."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.acceptance.truth import assert_copied_exactly
from tests.faults.test_history_real import copy_store, keys_from, produce, store_of

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(420)]
KEPT, LOST, NEW, ABROAD = 60, 50, 7, 20
QUEUES = 2


def keys(rows) -> list[str]:
    return [row.keys for row in rows]


def named(prefix: str, count: int) -> set[str]:
    return {f"{prefix}-{number}" for number in range(count)}


def moved(process, kind: str, clusters, *more: str) -> dict:
    source, destination = clusters
    done = process.command(kind, "run", "back", "--failed", source.name, "--destination", destination.name, "--yes", "-o", "json", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return {one["name"]: one["detail"] for one in json.loads(done.stdout)["steps"]}


def test_what_a_region_lost_goes_back_to_it_and_consumers_find_it_there(rough_clusters, witness, one_way, tmp_path) -> None:
    source, destination = rough_clusters
    process, topic = one_way("back", "progress: {sync: manual}", queues=QUEUES)
    group = f"{topic}-pay"
    witness.create_group(source.name_servers, group)
    for queue in range(QUEUES):
        witness.set_progress(source.name_servers, topic, group, 0, broker=source.broker_names[0], queue=queue)
    produce(witness, source, topic, "kept", KEPT)
    process.wait_caught_up(60, copied_at_least=KEPT)
    store, older = store_of(source), tmp_path / "older"
    source.kill_broker()
    copy_store(store, older)
    source.start_broker()
    produce(witness, source, topic, "lost", LOST)
    process.wait_caught_up(90, copied_at_least=KEPT + LOST)
    processed = keys(witness.take(source.name_servers, topic, group, 30))

    source.kill_broker()
    moved(process, "failover", rough_clusters)
    processed += keys(witness.take(destination.name_servers, topic, group, 45))
    produce(witness, destination, topic, "abroad", ABROAD)
    processed += keys(witness.take(destination.name_servers, topic, group, 10))
    assert len(processed) == len(set(processed)) == 85

    shutil.rmtree(store)
    copy_store(older, store)
    source.start_broker()
    produce(witness, source, topic, "new", NEW)
    process.wait_flow("stopped for its history", lambda flow: flow["state"] == "stopped-history-change", 60)
    sides = ("--failed", source.name, "--destination", destination.name)
    plan = process.answer_of("failback", "plan", "back", *sides, "--restore")
    assert [one["name"] for one in plan["blockers"] if one["severity"] == "blocks"] == ["loss-not-known"]
    assert process.command("failback", "run", "back", *sides, "--restore", "--yes").returncode == 4
    assert process.command("resume", "back", "--accept-loss", "--yes").returncode == 0
    process.wait_caught_up(60, copied_at_least=KEPT + LOST + NEW)
    plan = process.answer_of("failback", "plan", "back", *sides, "--restore")
    assert [one["name"] for one in plan["blockers"] if one["severity"] == "blocks"] == []
    assert plan["lost"]["messages"] == LOST
    done = moved(process, "failback", rough_clusters, "--restore")
    assert done["restore"].startswith(f"{LOST} messages of {QUEUES} queues that {source.name} has lost go back")

    everything = named("kept", KEPT) | named("lost", LOST) | named("new", NEW) | named("abroad", ABROAD)
    home = witness.drain(source.name_servers, topic, expect=len(everything))
    assert sorted(keys(home)) == sorted(everything), "each message once"
    abroad = witness.drain(destination.name_servers, topic, expect=len(everything))
    assert sorted(keys(abroad)) == sorted(everything)
    born = [row for row in abroad if row.keys.startswith("lost-")]
    sent_back = [row for row in home if row.keys.startswith("lost-")]
    assert not any("origin" in row.properties for row in sent_back), "as they were where they were born"
    assert_copied_exactly(born, sent_back, {})
    assert len(keys_from(home, "abroad")) == ABROAD
    answer = process.answer_of("failback", "plan", "back", *sides)
    assert answer["lost"]["messages"] == 0

    back = keys(witness.take(source.name_servers, topic, group, len(everything)))
    assert set(processed) | set(back) == everything, "lost"
    again = len(set(processed) & set(back))
    print(f"{again} of {len(processed)} processed messages seen again; {done['progress']}")
    assert f"{again} messages are seen again" in done["progress"]
    assert len(back) == len(set(back))
    process.assert_no_traceback()
    assert process.stop() < 10
