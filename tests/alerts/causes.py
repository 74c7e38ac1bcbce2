"""What goes wrong, made with the product's own parts; each ends mended, with nothing firing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from replicator.core.task import ProgressSpec, ReplicationTask, StartPoint
from tests.alerts.world import ONE_WAY, TOPIC, World

SETTLED_SECONDS = 120
HOUR = 3600
OTHERS_LEASE_SECONDS = 60.0
RETENTION_FLOOR_SECONDS = 6 * HOUR
TWO_WAY = ReplicationTask("orders", "two-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"))


@dataclass(frozen=True, slots=True)
class Cause:
    name: str
    make: Callable[[World], Awaitable[None]]
    task: ReplicationTask = ONE_WAY
    queue_count: int = 2


async def killed(world: World) -> None:
    world.kill_worker()
    await world.watch(240)
    world.expect("ReplicatorWithoutWorker", "ReplicatorTargetDown", "ReplicatorLagging")
    world.add_worker()
    world.forget_dead()
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def killed_again_and_again(world: World) -> None:
    for _ in range(11):
        world.kill_worker()
        world.forget_dead()
        world.add_worker()
        await world.watch(60)
    world.expect("ReplicatorDoubtRecurs")
    await world.watch(1200)
    world.expect()


async def database_away(world: World) -> None:
    world.gate.away = world.living().gate.away = True
    await world.watch(180)
    world.expect("ReplicatorStoreDown", "ReplicatorLeaseStale")
    world.gate.away = world.living().gate.away = False
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def lease_held_elsewhere(world: World) -> None:
    """A coordinator that Prometheus does not know, of another installation on the same database, say."""

    async def renew() -> None:
        await world.store.hold_coordinator("unknown", OTHERS_LEASE_SECONDS)

    world.gate.away = True
    await world.watch(30)
    world.each_step = renew
    await renew()
    world.gate.away = False
    await world.watch(120)
    world.expect("ReplicatorNobodyLeads")
    world.each_step = None
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def coordinators_gone(world: World) -> None:
    world.is_scraped = False
    await world.watch(180)
    world.expect("ReplicatorAbsent")
    world.is_scraped = True
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def destination_cut_off(world: World) -> None:
    world.clusters["hangzhou"].retention_seconds = RETENTION_FLOOR_SECONDS + 60
    world.clusters["shanghai"].cut()
    await world.watch(510)
    world.expect("ReplicatorUnreachable", "ReplicatorLagging", "ReplicatorRetentionNear", "ReplicatorProgressStale")
    world.clusters["shanghai"].heal()
    world.clusters["hangzhou"].retention_seconds = 72 * HOUR
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def refused_with_stop(world: World) -> None:
    judges = world.clusters["shanghai"].faults.judges
    world.clusters["shanghai"].refuse_records(lambda queue, body, properties: "too large" if body == b"big" else None)
    world.produce(body=b"big")
    await world.watch(240)
    world.expect("ReplicatorBlocked", "ReplicatorLagging")
    judges.clear()
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def refused_and_parked(world: World) -> None:
    world.clusters["shanghai"].refuse_records(lambda queue, body, properties: "too large" if body == b"big" else None)
    world.produce(body=b"big")
    await world.watch(30)
    world.expect("ReplicatorParked")
    await world.coordinator.parked_discard("orders", None)
    await world.watch(30)
    world.expect()


async def source_truncated(world: World) -> None:
    hangzhou = world.clusters["hangzhou"]
    (queue,) = hangzhou.queues(TOPIC)
    end = hangzhou.log(queue).readable_end
    hangzhou.truncate(queue, end - 10)
    hangzhou.cut_readers()
    await world.watch(30)
    world.expect("ReplicatorHistoryStopped")
    await world.coordinator.resume("orders", from_offset=end - 10)
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def expired_before_it_was_copied(world: World) -> None:
    await world.stop_worker()
    world.produce(50)
    for queue in world.clusters["hangzhou"].queues(TOPIC):
        world.clusters["hangzhou"].expire(queue, world.clusters["hangzhou"].log(queue).readable_end - 10)
    world.add_worker()
    await world.watch(60)
    world.expect("ReplicatorMessagesExpired", "ReplicatorUnverifiable")
    await world.watch(HOUR + 60)
    world.expect()


async def bug_in_one_queue(world: World) -> None:
    world.clusters["hangzhou"].fail_next_read(RuntimeError("a bug"))  # type: ignore[arg-type]
    await world.watch(15)  # Tried again 30 s later.
    world.expect("ReplicatorFailed")
    await world.watch(SETTLED_SECONDS)
    world.expect()


async def barrier_not_seen(world: World) -> None:
    shanghai = world.clusters["shanghai"]
    shanghai.pause_dispatch("broker-a")
    shanghai.lose_next_answer()
    await world.watch(210)
    world.expect("ReplicatorBarrierFails", "ReplicatorUnreachable", "ReplicatorLagging")
    shanghai.resume_dispatch("broker-a")
    await world.watch(720)
    world.expect()


async def worker_cut_off_from_the_database(world: World) -> None:
    cut_off = world.living()
    cut_off.gate.away = True
    world.add_worker()
    await world.watch(60)
    cut_off.gate.away = False
    await world.watch(30)
    world.expect("ReplicatorLeasesLost")
    await world.watch(960)
    world.expect()


async def group_on_both_sides(world: World) -> None:
    offset = 0

    async def consume() -> None:
        nonlocal offset
        offset += 1
        for cluster in world.clusters.values():
            cluster.commit("pay", cluster.queues(TOPIC)[0], offset)

    world.each_step = consume
    await world.watch(60)
    world.expect("ReplicatorGroupSplit")


async def group_ahead_on_the_destination(world: World) -> None:
    """Somebody set it there by hand, to where it has not come on the source: it is not set back unless that is asked for."""
    offset = 0
    hangzhou, shanghai = world.clusters.values()
    for queue in shanghai.queues(TOPIC):
        shanghai.commit("pay", queue, 10_000)

    async def consume() -> None:
        nonlocal offset
        offset += 1
        for queue in hangzhou.queues(TOPIC):
            hangzhou.commit("pay", queue, offset)

    world.each_step = consume
    await world.watch(HOUR + 600)
    world.expect("ReplicatorGroupsRefused")
    for queue in shanghai.queues(TOPIC):
        del shanghai.consumer_offsets["pay", queue]
    await world.watch(SETTLED_SECONDS)
    world.expect()


CAUSES = (
    Cause("a worker is killed", killed),
    Cause("workers are killed one after the other", killed_again_and_again),
    Cause("the database is away", database_away),
    Cause("an unknown coordinator holds the lease", lease_held_elsewhere),
    Cause("no coordinator is there", coordinators_gone),
    Cause("the destination is cut off", destination_cut_off),
    Cause("the destination refuses a message, on_refused: stop", refused_with_stop, replace(ONE_WAY, on_refused="stop")),
    Cause("the destination refuses a message", refused_and_parked),
    Cause("a source queue is truncated", source_truncated, queue_count=1),
    Cause(
        "messages expire unread, on_history_change: continue", expired_before_it_was_copied, replace(ONE_WAY, on_history_change="continue")
    ),
    Cause("a bug in one queue", bug_in_one_queue),
    Cause("the destination's index stands still", barrier_not_seen),
    Cause("a worker is cut off from the database", worker_cut_off_from_the_database, queue_count=8),
    Cause("a group consumes on both sides", group_on_both_sides, replace(TWO_WAY, progress=ProgressSpec())),
    Cause("a group was set ahead on the destination", group_ahead_on_the_destination),
)
