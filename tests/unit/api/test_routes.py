"""Every route calls its operation with what was asked."""

import pytest

from replicator.coordinator.failover.assessing import Move
from replicator.coordinator.progress.commands import Ask, Place
from replicator.core.failover import Options

CLUSTER = {
    "apiVersion": "replicator/v1", "kind": "Cluster", "metadata": {"name": "hangzhou"},
    "spec": {"connector": "rocketmq", "rocketmq": {"name_servers": ["127.0.0.1:9876"]}},
}
PAIR = {"source": "a", "destination": "b"}
LOSS = {"topic": "pay", "source": "a", "destination": "b", "accept_loss": True}


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("GET", "/status", None, ("status", None)),
        ("GET", "/status?task=orders", None, ("status", "orders")),
        ("GET", "/tasks", None, ("get", "tasks", None)),
        ("GET", "/clusters/hangzhou", None, ("get", "clusters", "hangzhou")),
        ("GET", "/workers", None, ("get", "workers", None)),
        ("GET", "/assignments", None, ("get", "assignments", None)),
        ("DELETE", "/tasks/orders", None, ("delete", "tasks", "orders", False, False)),
        ("DELETE", "/clusters/a?force=true&purge=true", None, ("delete", "clusters", "a", True, True)),
        ("POST", "/tasks/orders/pause", None, ("set_paused", "orders", True, None, None, None)),
        ("POST", "/tasks/orders/pause", {"topic": "pay"}, ("set_paused", "orders", True, "pay", None, None)),
        ("POST", "/tasks/orders/resume", None, ("resume", "orders", None, None, None, False, None, False)),
        ("POST", "/tasks/orders/resume", LOSS, ("resume", "orders", "pay", "a", "b", True, None, False)),
        ("POST", "/tasks/orders/resume", {**LOSS, "dry_run": True}, ("resume", "orders", "pay", "a", "b", True, None, True)),
        ("GET", "/tasks/orders/events", None, ("events", "orders")),
        ("GET", "/tasks/orders/parked", None, ("parked_list", "orders")),
        ("POST", "/tasks/orders/parked/retry", {"ids": [1, 2]}, ("parked_retry", "orders", [1, 2])),
        ("GET", "/tasks/orders/offsets/translate?source=a&destination=b&topic=pay&queue=x/3&offset=7", None,
         ("translate", "orders", "a", "b", "pay", "x/3", 7)),
        ("POST", "/tasks/orders/parked/discard", {"ids": [3]}, ("parked_discard", "orders", [3])),
        ("GET", "/tasks/orders/groups?source=a&destination=b", None, ("groups_list", Ask("orders", "a", "b"))),
        ("GET", "/tasks/orders/groups/plan?source=a&destination=b&group=g&back=true", None,
         ("groups_plan", Ask("orders", "a", "b", "g"), True, False)),
        ("POST", "/tasks/orders/groups/sync", {**PAIR, "seen_again": 3}, ("groups_sync", Ask("orders", "a", "b"), 3, False, False)),
        ("GET", "/tasks/orders/failover/plan?failed=a&destination=b&topic=t", None,
         ("failover_plan", Move("orders", "failover", "a", "b", Options(topic="t")))),
        ("POST", "/tasks/orders/failback/run", {"failed": "a", "destination": "b", "fence_source": True},
         ("failover_run", Move("orders", "failback", "a", "b", Options(fence_source=True)))),
        ("POST", "/tasks/orders/failback/run", {"failed": "a", "destination": "b", "restore": True},
         ("failover_run", Move("orders", "failback", "a", "b", Options(restore=True)))),
        ("GET", "/tasks/orders/failback/plan?failed=a&destination=b&restore=true", None,
         ("failover_plan", Move("orders", "failback", "a", "b", Options(restore=True)))),
        ("GET", "/tasks/orders/failover/status", None, ("failover_status", "orders", "failover")),
        ("POST", "/tasks/orders/failback/abort", None, ("failover_abort", "orders", "failback")),
        ("POST", "/tasks/orders/groups/reset", {**PAIR, "group": "g", "topic": "t", "offset": 7, "queue": 1},
         ("groups_reset", Ask("orders", "a", "b", "g"), Place(7, None, "t", None, 1), False)),
        ("POST", "/tasks/orders/groups/reset", {**PAIR, "group": "g", "time": "1970-01-01T00:00:01Z", "dry_run": True},
         ("groups_reset", Ask("orders", "a", "b", "g"), Place(timestamp_ms=1000), True)),
    ],
)
async def test_a_route_calls_its_operation(api, method, path, body, call):
    answer = await api.ask(method, f"/api/v1{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"ok": True}
    assert api.coordinator.calls == [call]


@pytest.mark.parametrize("operation", ["retry", "discard"])
async def test_all_parked_messages_are_meant_only_where_it_is_said(api, operation):
    path = f"/api/v1/tasks/orders/parked/{operation}"
    await api.ask("POST", path, json={"all": True})
    assert api.coordinator.calls == [(f"parked_{operation}", "orders", None)]
    api.coordinator.calls.clear()
    for body in ({}, {"ids": []}, {"ids": None}, {"ids": [1], "all": True}):
        answer = await api.ask("POST", path, json=body)
        assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)
        assert "all: true" in answer.json()["title"]
    assert api.coordinator.calls == []


@pytest.mark.parametrize("offset", ["-1", "x", "", "9223372036854775808"])
async def test_an_offset_is_a_number_from_0_on(api, offset):
    answer = await api.ask("GET", f"/api/v1/tasks/orders/offsets/translate?source=a&destination=b&topic=t&queue=0&offset={offset}")
    assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)
    assert api.coordinator.calls == []


@pytest.mark.parametrize(("dry_run", "lost"), [(False, []), (True, ["hangzhou"])])
async def test_apply_hands_over_what_the_documents_declare(api, dry_run, lost):
    answer = await api.ask("POST", "/api/v1/apply", json={"documents": [CLUSTER], "dry_run": dry_run, "lost": lost})
    assert answer.status_code == 200, answer.text
    (operation, clusters, *rest), = api.coordinator.calls
    assert (operation, [cluster.name for cluster in clusters], rest) == ("apply", ["hangzhou"], [[], dry_run, lost])


async def test_a_rebuild_is_begun_and_watched(api):
    answer = await api.ask("POST", "/api/v1/tasks/orders/rebuild", json={"topic": "pay", "cluster_ids": {"hangzhou": "abcdefgh"}})
    assert (answer.status_code, answer.json()) == (202, {"ok": True})
    assert (await api.ask("GET", "/api/v1/tasks/orders/rebuild")).status_code == 200
    assert api.coordinator.calls == [
        ("rebuild", "orders", "pay", None, None, {"hangzhou": "abcdefgh"}), ("rebuild_progress", "orders"),
    ]
    assert (await api.ask("POST", "/api/v1/tasks/orders/rebuild", json={"topics": "pay"})).status_code == 400


async def test_an_invalid_document_changes_nothing(api):
    answer = await api.ask("POST", "/api/v1/apply", json={"documents": [{**CLUSTER, "spec": {"connector": "rocketmq", "rokcetmq": {}}}]})
    assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)
    assert api.coordinator.calls == []


async def test_the_schema_is_a_json_schema(api):
    answer = await api.ask("GET", "/api/v1/schema")
    assert "$schema" in answer.json() or "$defs" in answer.json()


async def test_the_api_is_described(api):
    answer = await api.ask("GET", "/openapi.json")
    assert "/api/v1/status" in answer.json()["paths"]
