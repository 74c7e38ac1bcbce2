"""Without a token a browser on this machine must not be led to ask by a foreign page."""

import pytest

PAUSE = "/api/v1/tasks/orders/pause"


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null", "http://10.0.0.1:8420", "http://["])
async def test_a_foreign_page_is_refused(api, origin):
    answer = await api.ask("POST", PAUSE, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["exit_code"]) == (403, 1)
    assert api.coordinator.calls == []


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8420", "http://localhost:3000", "http://[::1]:8420"])
async def test_a_program_and_a_local_page_are_answered(api, origin):
    answer = await api.ask("POST", PAUSE, headers={"Origin": origin} if origin else {})
    assert answer.status_code == 200


async def test_with_a_token_the_token_decides(guarded):
    headers = {"Origin": "http://console.example", "Authorization": "Bearer right"}
    assert (await guarded.ask("POST", PAUSE, headers=headers)).status_code == 200


async def test_metrics_count_what_each_living_worker_holds(api):
    api.coordinator.answer = []
    await api.store.worker_seen("w-1", {"assignments": 3})
    assert 'replicator_worker_assignments{worker="w-1"} 3.0' in (await api.ask("GET", "/metrics")).text
