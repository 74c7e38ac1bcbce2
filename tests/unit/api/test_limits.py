"""How much may be asked at once, how often, and for how long."""

import asyncio

from replicator.coordinator.access import create_token
from replicator.coordinator.api.limits import Limits, Rate
from replicator.core.roles import Role
from tests.unit.api.conftest import Api

PAUSE = "/api/v1/tasks/orders/pause"


def test_a_bucket_fills_again():
    now = 0.0
    rate = Rate(Limits(requests_per_second_max=2.0, burst_max=3), lambda: now)
    assert [rate.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rate.take("b") == 0.0
    now = 0.25
    assert rate.take("a") == 0.25
    now = 0.5
    assert (rate.take("a"), rate.take("a")) == (0.0, 0.5)
    now = 1000.0
    assert [rate.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


async def test_one_token_that_runs_wild_leaves_the_others_alone():
    api = Api("right", Limits(requests_per_second_max=0.01, burst_max=2))
    token = await create_token(api.store, "wild", Role.READ, None)
    headers = {"Authorization": f"Bearer {token}"}
    statuses = [(await api.ask("GET", "/api/v1/status", headers=headers)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = await api.ask("GET", "/api/v1/status", headers=headers)
    assert (refused.headers["content-type"], 1 <= int(refused.headers["retry-after"]) <= 100) == ("application/problem+json", True)
    assert (await api.ask("GET", "/api/v1/status", headers={"Authorization": "Bearer right"})).status_code == 200


async def test_guessing_is_slowed_down_without_shutting_the_door():
    api = Api("right", Limits(requests_per_second_max=0.01, burst_max=2))
    wrong = {"Authorization": "Bearer wrong"}
    assert [(await api.ask("GET", "/metrics", headers=wrong)).status_code for _ in range(3)] == [401, 401, 429]
    assert (await api.ask("GET", "/api/v1/status", headers={"Authorization": "Bearer right"})).status_code == 200
    assert [(await api.ask("GET", "/healthz")).status_code for _ in range(3)] == [200, 200, 429]


async def test_no_more_than_so_many_at_once_but_health_is_answered():
    api = Api(limits=Limits(at_once_max=1))
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_task):
        entered.set()
        await leave.wait()
        return {}

    api.coordinator.status = slow
    first = asyncio.create_task(api.ask("GET", "/api/v1/status"))
    await entered.wait()
    second = await api.ask("GET", "/api/v1/tasks")
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert (await api.ask("GET", "/healthz")).status_code == 200
    leave.set()
    assert (await first).status_code == 200
    assert (await api.ask("GET", "/api/v1/tasks")).status_code == 200


async def test_a_request_that_takes_too_long_is_given_up_and_noted():
    api = Api(limits=Limits(request_seconds_max=3.0))
    ended = []

    async def endless(*_arguments):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    api.coordinator.set_paused = endless
    answer = await api.ask("POST", PAUSE)
    assert (answer.status_code, answer.headers["content-type"], ended) == (504, "application/problem+json", [True])
    assert [one.status for one in await api.store.api_changes()] == [504]


async def test_too_many_headers_and_zero_bytes_are_refused(api):
    answer = await api.ask("GET", "/api/v1/status", headers={f"x-{number}": "1" for number in range(101)})
    assert (answer.status_code, answer.json()["exit_code"]) == (431, 2)
    for path in ("/api/v1/tasks/a%00b", "/api/v1/status?task=a%00"):
        assert (await api.ask("GET", path)).status_code == 400
    for text in ("a\0b", "\ud800"):
        body = b'{"documents": [{"kind": "%s"}]}' % text.encode("unicode_escape").replace(b"\\x00", b"\\u0000")
        answer = await api.ask("POST", "/api/v1/apply", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, "surrogate" in answer.json()["title"]) == (400, True)
    assert api.coordinator.calls == []


async def test_a_method_that_is_not_there_names_those_that_are(api):
    answer = await api.ask("PUT", "/api/v1/tasks/orders")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert answer.headers["allow"] == "DELETE, GET"
