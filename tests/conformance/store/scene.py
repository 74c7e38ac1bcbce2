"""What most tests begin with: two marked clusters, a task, a claimed pair with assignments."""

from replicator.core.record import MessageQueue
from replicator.store.port import ClusterRow, NewAssignment

LEASE_SECONDS = 30.0
SHORT_LEASE_SECONDS = 0.05


def queue(topic, number, broker="broker-a"):
    return MessageQueue(topic, broker, number)


async def put_clusters(store, *names):
    for name in names:
        await store.put_cluster(ClusterRow(name, "memory", "", {"at": name}, f"id-{name}"))


async def put_flow(store, task="orders", source="hangzhou", destination="shanghai"):
    await put_clusters(store, source, destination)
    await store.put_task(task, {"name": task}, [(source, destination)])
    return next(flow for flow in await store.flows() if flow.task == task)


async def put_assignments(store, count=1, *, task="orders", topic="orders"):
    flow = await put_flow(store, task)
    pair = await store.claim_pair(flow.flow_id, topic, topic)
    await store.add_assignments(pair.pair_id, [NewAssignment(queue(topic, n), queue(topic, n, "broker-b"), 10 * n) for n in range(count)])
    return flow, pair


async def leased(store, holder="worker-1", *, seconds=LEASE_SECONDS, limit=100):
    return list(await store.acquire(holder, seconds, limit))


async def expire(store, holder="worker-1"):
    """The holder's leases end now, as if it had stopped renewing."""
    await store.renew(holder, 0.0)
