"""Clusters, tasks, flows, claims, tombstones, queue maps."""

import pytest

from replicator.store.port import Checkpoint, ClusterRow, Conflict, NewAssignment, Progress, Run
from tests.conformance.store.scene import leased, put_assignments, put_clusters, put_flow, queue


async def test_a_cluster_is_created_changed_and_found_unchanged(store):
    row = ClusterRow("hangzhou", "rocketmq", "cn", {"name_servers": ["a:1"], "tls": None})
    assert await store.put_cluster(row) == "created"
    assert await store.put_cluster(row) == "unchanged"
    assert await store.put_cluster(ClusterRow("hangzhou", "rocketmq", "cn", {"name_servers": ["b:1"]}, "id1")) == "changed"
    assert await store.put_cluster(ClusterRow("hangzhou", "rocketmq", "cn", {"name_servers": ["b:1"]})) == "unchanged"
    assert list(await store.clusters()) == [ClusterRow("hangzhou", "rocketmq", "cn", {"name_servers": ["b:1"]}, "id1")]


async def test_one_id_under_two_names_is_refused_and_so_is_a_changed_id(store):
    await store.put_cluster(ClusterRow("a", "memory", "", {}, "id1"))
    with pytest.raises(Conflict, match="already known as a"):
        await store.put_cluster(ClusterRow("b", "memory", "", {}, "id1"))
    with pytest.raises(Conflict, match="another cluster now"):
        await store.put_cluster(ClusterRow("a", "memory", "", {}, "id2"))
    assert [row.cluster_id for row in await store.clusters()] == ["id1"]


async def test_a_used_cluster_stays_and_a_deleted_one_may_come_back_under_another_name(store):
    await put_flow(store)
    with pytest.raises(Conflict, match="used by task orders"):
        await store.delete_cluster("hangzhou")
    await store.delete_task("orders")
    assert await store.delete_cluster("hangzhou")
    assert not await store.delete_cluster("hangzhou")
    assert await store.put_cluster(ClusterRow("hz", "memory", "", {}, "id-hangzhou")) == "created"


async def test_a_task_makes_its_flows_once(store):
    await put_clusters(store, "a", "b", "c")
    flows = [("a", "b"), ("a", "c")]
    assert await store.put_task("t", {"include": ["x"]}, flows) == "created"
    first = await store.flows()
    assert [(flow.source, flow.destination) for flow in first] == flows
    assert all(len(flow.flow_id) == 6 for flow in first)
    assert await store.put_task("t", {"include": ["x"]}, flows) == "unchanged"
    assert await store.put_task("t", {"include": ["y"]}, flows) == "changed"
    assert await store.flows() == first
    (task,) = await store.tasks()
    assert (task.spec, task.generation) == ({"include": ["y"]}, 2)
    with pytest.raises(Conflict, match="cannot change"):
        await store.put_task("t", {"include": ["y"]}, [("a", "b")])


async def test_a_task_on_an_undeclared_cluster_is_refused_and_leaves_nothing(store):
    await put_clusters(store, "a")
    with pytest.raises(Conflict, match="not declared: b"):
        await store.put_task("t", {}, [("a", "b")])
    assert list(await store.tasks()) == []
    assert list(await store.flows()) == []


async def test_a_deleted_task_is_gone_and_made_anew_with_fresh_flow_ids(store):
    flow = await put_flow(store)
    assert await store.delete_task("orders")
    assert not await store.delete_task("orders")
    assert list(await store.tasks()) == []
    assert list(await store.flows()) == []
    again = await put_flow(store)
    assert again.flow_id != flow.flow_id


async def test_a_pair_is_claimed_once(store):
    flow = await put_flow(store)
    pair = await store.claim_pair(flow.flow_id, "orders", "orders")
    assert (pair.source_cluster_id, pair.destination_cluster_id) == ("id-hangzhou", "id-shanghai")
    assert (pair.flow_id, pair.task, pair.state, pair.paused) == (flow.flow_id, "orders", "active", False)
    assert await store.claim_pair(flow.flow_id, "orders", "orders") == pair
    other = await put_flow(store, "second")
    with pytest.raises(Conflict, match="by task orders"):
        await store.claim_pair(other.flow_id, "orders", "orders")
    assert (await store.claim_pair(other.flow_id, "orders", "elsewhere")).pair_id != pair.pair_id


async def test_a_claim_needs_marked_clusters_and_a_living_flow(store):
    await store.put_cluster(ClusterRow("a", "memory", "", {}))
    await put_clusters(store, "b")
    await store.put_task("t", {}, [("a", "b")])
    (flow,) = await store.flows()
    with pytest.raises(Conflict, match="no lasting id"):
        await store.claim_pair(flow.flow_id, "x", "x")
    await store.delete_task("t")
    with pytest.raises(Conflict, match="does not exist any more"):
        await store.claim_pair(flow.flow_id, "x", "x")


async def test_a_task_under_another_name_goes_on_from_the_tombstone(store):
    _, pair = await put_assignments(store)
    (held,) = await leased(store)
    saved = Progress(held.assignment_id, held.token, Checkpoint(examined_through=50), runs=[Run(1, 0, 0, 50)])
    assert await store.save_progress([saved]) == set()
    await store.release(held.assignment_id, held.token, clean=True)
    await store.set_pair_state(pair.pair_id, "blocked", "why")
    await store.delete_task("orders")
    (tombstone,) = await store.pairs()
    assert (tombstone.flow_id, tombstone.task, tombstone.state) == (None, None, "active")
    assert list(await store.assignments()) == []
    assert await leased(store) == []

    flow = await put_flow(store, "renamed")
    taken = await store.claim_pair(flow.flow_id, "orders", "orders")
    assert (taken.pair_id, taken.task) == (pair.pair_id, "renamed")
    assert await store.add_assignments(pair.pair_id, [NewAssignment(queue("orders", 0), queue("orders", 0), 999)]) == 0
    (row,) = await leased(store)
    assert (row.assignment_id, row.task, row.flow_id, row.start_offset) == (held.assignment_id, "renamed", flow.flow_id, 0)
    assert row.checkpoint.examined_through == 50
    assert list(await store.runs(row.assignment_id)) == [Run(1, 0, 0, 50)]


async def test_purge_drops_the_tombstones_of_that_task_only(store):
    _, pair = await put_assignments(store)
    await store.extend_queue_map(pair.pair_id, {"id-hangzhou": [queue("orders", 0)]})
    other = await put_flow(store, "second")
    kept = await store.claim_pair(other.flow_id, "logs", "logs")
    await store.delete_task("orders")
    await store.delete_task("second")
    await store.purge_task("orders")
    assert [row.pair_id for row in await store.pairs()] == [kept.pair_id]
    _, again = await put_assignments(store)
    assert await store.queue_map(again.pair_id) == {}
    (fresh,) = await store.assignments()
    assert fresh.checkpoint is None


async def test_purge_of_a_living_task_takes_nothing(store):
    _, pair = await put_assignments(store)
    await store.purge_task("orders")
    assert [row.pair_id for row in await store.pairs()] == [pair.pair_id]


async def test_the_queue_map_is_shared_by_both_directions_and_only_grows(store):
    await put_clusters(store, "a", "b")
    await store.put_task("t", {}, [("a", "b"), ("b", "a")])
    there_flow, back_flow = await store.flows()
    there = await store.claim_pair(there_flow.flow_id, "x", "x")
    back = await store.claim_pair(back_flow.flow_id, "x", "x")
    assert await store.queue_map(there.pair_id) == {}
    first = {"id-a": [queue("x", 1), queue("x", 0)], "id-b": [queue("x", 0, "broker-b")]}
    assert await store.extend_queue_map(there.pair_id, first) == first
    assert await store.queue_map(back.pair_id) == first
    grown = await store.extend_queue_map(back.pair_id, {"id-a": [queue("x", 0), queue("x", 2), queue("x", 1)]})
    assert grown == {"id-a": [queue("x", 1), queue("x", 0), queue("x", 2)], "id-b": [queue("x", 0, "broker-b")]}
    assert await store.queue_map(there.pair_id) == grown


async def test_what_belongs_to_a_pair_that_is_gone_is_refused(store):
    with pytest.raises(Conflict, match="does not exist any more"):
        await store.extend_queue_map(12345, {"a": [queue("x", 0)]})
    with pytest.raises(Conflict, match="does not exist any more"):
        await store.add_assignments(12345, [NewAssignment(queue("x", 0), queue("x", 0), 0)])
    assert await store.queue_map(12345) == {}
    assert await store.add_assignments(12345, []) == 0


async def test_assignments_are_added_once_and_listed_by_task_and_flow(store):
    flow, pair = await put_assignments(store, 2)
    rows = [NewAssignment(queue("orders", n), queue("orders", n), 7) for n in range(3)]
    assert await store.add_assignments(pair.pair_id, rows) == 1
    found = await store.assignments(task="orders")
    assert [row.start_offset for row in found] == [0, 10, 7]
    assert found == await store.assignments(flow_id=flow.flow_id) == await store.assignments()
    assert list(await store.assignments(task="other")) == []
    assert (found[0].source, found[0].destination, found[0].token, found[0].clean) == ("hangzhou", "shanghai", 0, True)
    assert found[0].destination_queue == queue("orders", 0, "broker-b")


async def test_pairs_are_listed_by_flow(store):
    flow, pair = await put_assignments(store)
    other = await put_flow(store, "second")
    second = await store.claim_pair(other.flow_id, "logs", "logs")
    assert list(await store.pairs(flow.flow_id)) == [pair]
    assert list(await store.pairs()) == [pair, second]
