"""Who changed what: before it is done, with its end, without secrets."""

import pytest

from replicator.coordinator.access import create_token
from replicator.core.errors import Missing
from replicator.core.roles import Role

PAUSE = "/api/v1/tasks/orders/pause"
SECRET = "hunter2-hunter2"


async def noted(api):
    return [
        (one["caller"], one["role"], one["method"], one["route"], one["object"], one["request"], one["status"])
        for one in (await api.ask("GET", "/api/v1/changes", headers={"Authorization": "Bearer right"} if api.guarded else {})).json()
    ]


@pytest.fixture
def changes(api, guarded):
    api.guarded, guarded.guarded = False, True
    return noted


async def test_what_a_token_changed_stands_under_its_name(guarded, changes):
    token = await create_token(guarded.store, "ci", Role.OPERATE, None)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await guarded.ask("POST", PAUSE, headers=headers, json={"topic": "pay"})).status_code == 200
    assert (await guarded.ask("DELETE", "/api/v1/tasks/orders?purge=true&x=1", headers=headers)).status_code == 403
    assert (await guarded.ask("GET", "/api/v1/status", headers=headers)).status_code == 200
    assert await changes(guarded) == [
        ("ci", "operate", "POST", "/tasks/{task}/pause", "orders", {"topic": "pay"}, 200),
        ("ci", "operate", "DELETE", "/tasks/{name}", "orders", {"purge": "true"}, 403),
    ]


async def test_what_was_refused_is_noted_too(api, changes):
    api.coordinator.error = Missing("no")
    await api.ask("POST", PAUSE)
    api.coordinator.error = ValueError("bug")
    await api.ask("POST", PAUSE)
    await api.ask("POST", PAUSE, content=b"{", headers={"Content-Type": "application/json"})
    await api.ask("POST", PAUSE, json={"nonsense": SECRET, "topic": 7})
    await api.ask("PUT", "/api/v1/nowhere")
    await api.ask("POST", "/api/v1/apply", headers={"Content-Length": str(5 * 1024 * 1024)})
    found = await changes(api)
    assert [(one[0], one[3], one[4], one[5], one[6]) for one in found] == [
        ("local", "/tasks/{task}/pause", "orders", {}, 404),
        ("local", "/tasks/{task}/pause", "orders", {}, 500),
        ("local", "/tasks/{task}/pause", "orders", {}, 400),
        ("local", "/tasks/{task}/pause", "orders", {"topic": 7}, 400),
        ("local", "/nowhere", "", {}, 404),
        ("local", "/apply", "", {}, 413),
    ]


async def test_who_brings_no_good_token_fills_no_table(guarded):
    await guarded.ask("POST", PAUSE, headers={"Authorization": "Bearer wrong"})
    assert list(await guarded.store.api_changes()) == []


async def test_no_secret_is_kept(api, changes):
    """Even one that was written where none may stand."""
    document = {"kind": "Cluster", "metadata": {"name": "hz", "x": SECRET}, "spec": {"secret_key": SECRET, SECRET: 1}}
    await api.ask("POST", "/api/v1/apply", json={"documents": [document, SECRET, {"kind": 7}], "dry_run": True, SECRET: SECRET})
    await api.ask("POST", "/api/v1/tokens", json={"name": "ci", "role": "read", "secret": SECRET})
    await api.ask("POST", PAUSE, json={"topic": f"http://me:{SECRET}@x/", "source": {SECRET: SECRET}})
    found = await changes(api)
    assert SECRET not in str(found)
    assert [one[5] for one in found] == [
        {"documents": ["Cluster/hz", "None/None", "7/None"], "dry_run": True}, {"name": "ci", "role": "read"},
        {"topic": "http://me:***@x/", "source": "1 keys"},
    ]  # fmt: skip


async def test_what_stands_in_the_note_can_be_kept(api, changes):
    await api.ask("POST", PAUSE, content=b'{"topic": "a\\u0000\\ud800", "source": NaN, "destination": "' + b"x" * 5000 + b'"}')
    (one,) = await changes(api)
    assert one[5]["topic"] == "a\N{REPLACEMENT CHARACTER}?"
    assert one[5]["source"] == "nan"
    assert len(one[5]["destination"]) == 200


async def test_it_is_noted_before_it_is_done_and_not_done_where_it_cannot_be(api):
    seen = []

    async def look(*_arguments):
        seen.extend(one.status for one in await api.store.api_changes())

    api.coordinator.set_paused = look
    await api.ask("POST", PAUSE)
    assert seen == [None]
    api.store.available = False
    assert (await api.ask("POST", PAUSE)).status_code == 503
    assert seen == [None]


async def test_pages_of_changes(api):
    for _ in range(5):
        await api.ask("POST", PAUSE)
    ids = [one["id"] for one in (await api.ask("GET", "/api/v1/changes")).json()]
    assert [one["id"] for one in (await api.ask("GET", f"/api/v1/changes?limit=2&before={ids[3]}")).json()] == ids[1:3]
    for query in ("limit=0", "limit=1001", "before=0", f"before={2**63}"):
        assert (await api.ask("GET", f"/api/v1/changes?{query}")).status_code == 400
