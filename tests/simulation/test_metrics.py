"""What /metrics says against what was done: so many copied, so many skipped, one doubt made, one history changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from unittest.mock import patch

from prometheus_client.parser import text_string_to_metric_families

from replicator.core.task import ReplicationTask, StartPoint
from replicator.observe.metrics import FlowMetrics, WorkerMetrics
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.world import TOPIC, World

TASK = ReplicationTask(
    "orders", "one-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"), filter="kind = 'wanted'",
)
WANTED, UNWANTED, REFUSED = 40, 9, 3
FLOW = {"task": "orders", "source": "hangzhou", "destination": "shanghai"}
WORKER_SEEN_SECONDS = 15.0
WATCHED_SECONDS = 300.0


async def scraped(world: World) -> dict[str, float]:
    """Sample name, with its reason or state, -> value; every one of this world's only flow and worker."""
    metrics = FlowMetrics()
    workers = {holder: info for holder, info, _ in await world.store.workers(WORKER_SEEN_SECONDS)}
    metrics.update(await world.store.flow_figures(), workers, {})
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            known = {**FLOW, "worker": "worker-1"}
            assert all(value == known[label] for label, value in sample.labels.items() if label in known), sample
            extra = [value for label, value in sample.labels.items() if label in {"reason", "state", "le"}]
            found[":".join([sample.name, *extra])] = sample.value
    return found


async def until(world: World, name: str, value: float) -> dict[str, float]:
    deadline = world.loop.time() + WATCHED_SECONDS
    while (found := await scraped(world)).get(name) != value:
        assert world.loop.time() < deadline, f"{name} is {found.get(name)}, never {value}"
        await asyncio.sleep(0.5)
    return found


def produce(world: World, kind: str, count: int) -> None:
    (queue,) = world.clusters["hangzhou"].queues(TOPIC)
    for number in range(count):
        world.clusters["hangzhou"].produce(queue, b"%s-%d" % (kind.encode(), number), {"kind": "wanted" if kind != "unwanted" else "no"})


async def counted(world: World) -> None:
    await world.declare()
    world.clusters["shanghai"].refuse_records(lambda queue, body, properties: "too large" if body.startswith(b"big") else None)
    process = world.start_process()
    for kind, count in (("unwanted", UNWANTED), ("wanted", WANTED), ("big", REFUSED)):
        produce(world, kind, count)
    await world.until_caught_up()
    await until(world, "replicator_latency_seconds_count", WANTED)  # Workers tell their figures at other moments than they save.
    found = await until(world, "replicator_copied_messages_total", WANTED)
    copies = [record.body for record in world.clusters["shanghai"].records(world.clusters["shanghai"].queues(TOPIC)[0])]
    assert len([body for body in copies if body.startswith(b"wanted")]) == WANTED
    assert found["replicator_skipped_messages_total:filtered"] == UNWANTED
    assert found["replicator_skipped_messages_total:refused"] == found["replicator_parked_messages"] == REFUSED
    assert found["replicator_latency_seconds_count"] == found["replicator_latency_seconds_bucket:+Inf"] == WANTED
    assert found["replicator_state_queues:running"] == found["replicator_worker_assignments"] == 1
    assert found["replicator_lag_messages"] == found["replicator_lag_seconds"] == 0
    assert found["replicator_doubts_total"] == found["replicator_barriers_total"] == found["replicator_history_stops_total"] == 0
    own = WorkerMetrics(process.instance).render(process.worker.figures()).decode()
    labels = 'destination="shanghai",source="hangzhou",task="orders",worker="worker-1"'
    assert f"replicator_latency_seconds_count{{{labels}}} {WANTED}.0" in own


def test_what_was_copied_and_skipped_is_what_is_counted() -> None:
    loop = VirtualLoop()
    run(counted(World(1, loop, queue_count=1, task=TASK)), loop)


async def doubted(world: World) -> None:
    await world.declare()
    world.start_process()
    produce(world, "wanted", 5)
    await world.until_caught_up()
    world.clusters["shanghai"].lose_next_answer()
    produce(world, "wanted", 5)
    await world.until_caught_up()
    found = await until(world, "replicator_latency_seconds_count", 5)
    found = await until(world, "replicator_barriers_total", 1)
    assert found["replicator_settling_rounds_total"] == found["replicator_doubts_total"] == 1
    assert found["replicator_settling_seconds_total"] >= 1.0
    assert found["replicator_barriers_failed_total"] == 0
    # The batch in doubt was found on the destination: copied, without a latency that anybody measured.
    assert found["replicator_copied_messages_total"] == 10
    assert found["replicator_latency_seconds_count"] == 5


def test_an_append_without_an_answer_is_one_doubt_settled_by_one_barrier() -> None:
    loop = VirtualLoop()
    run(doubted(World(2, loop, queue_count=1, task=replace(TASK, filter=""))), loop)


async def stopped(world: World) -> None:
    await world.declare()
    world.start_process()
    produce(world, "wanted", 20)
    await world.until_caught_up()
    hangzhou = world.clusters["hangzhou"]
    hangzhou.truncate(hangzhou.queues(TOPIC)[0], 10)
    hangzhou.cut_readers()
    await until(world, "replicator_state_queues:stopped-history-change", 1)
    await asyncio.sleep(60)  # Looked at again and again meanwhile: still one stop.
    assert (await scraped(world))["replicator_history_stops_total"] == 1


def test_a_history_stop_is_counted_once() -> None:
    loop = VirtualLoop()
    run(stopped(World(3, loop, queue_count=1, task=replace(TASK, filter=""))), loop)


async def cut_off(world: World) -> None:
    await world.declare()
    world.start_process()
    produce(world, "wanted", 5)
    await world.until_caught_up()
    await until(world, "replicator_unverifiable_positions_total", 0)
    world.clusters["shanghai"].cut()
    produce(world, "wanted", 5)
    await asyncio.sleep(120)
    found = await scraped(world)
    assert "replicator_lag_messages" not in found
    assert "replicator_lag_seconds" not in found
    assert 110 <= found["replicator_uncopied_age_seconds"] <= 125


def test_while_the_destination_is_away_the_age_grows() -> None:
    loop = VirtualLoop()
    with patch("time.monotonic", loop.time), patch("time.time_ns", lambda: loop.clock_ms() * 1_000_000):
        run(cut_off(World(5, loop, queue_count=1, task=replace(TASK, filter=""))), loop)


async def silent(world: World) -> None:
    await world.declare()
    process = world.start_process()
    produce(world, "wanted", 5)
    await world.until_caught_up()
    world.kill(process)
    await asyncio.sleep(60)
    found = await scraped(world)
    assert "replicator_lag_seconds" not in found
    assert found["replicator_uncopied_age_seconds"] >= 60
    assert found["replicator_state_queues:waiting-for-worker"] == 1


def test_while_nobody_reports_the_age_grows() -> None:
    loop = VirtualLoop()
    run(silent(World(4, loop, queue_count=1, task=replace(TASK, filter=""))), loop)
