"""Errors, the token, the size limit, health."""

import asyncio

import pytest

from replicator.coordinator.api.app import listen, serve
from replicator.coordinator.api.limits import Limits
from replicator.core.errors import InvalidInput, Missing, NotConnected, ReplicatorError, Unsafe
from replicator.store.port import StoreUnavailable
from tests.unit.api.conftest import Api


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(InvalidInput("no", hint="try"), 400, 2), (Missing("no", hint="try"), 404, 3), (Unsafe("no", hint="try"), 409, 4),
     (NotConnected("no", hint="try"), 503, 1)],
)
async def test_an_error_on_purpose_keeps_its_words(api, error, status, code):
    api.coordinator.error = error
    answer = await api.ask("GET", "/api/v1/status")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == status
    assert answer.json() == {"type": "about:blank", "title": "no", "status": status, "exit_code": code, "hint": "try"}


async def test_a_bug_tells_nothing_of_its_inside(api):
    api.coordinator.error = ValueError("hunter2")
    answer = await api.ask("GET", "/api/v1/status")
    assert (answer.status_code, answer.json()["exit_code"]) == (500, 1)
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("body", [{"nonsense": 1}, {"from_offset": -1}, {"from_offset": "x"}])
async def test_a_wrong_body_is_wrong_use(api, body):
    answer = await api.ask("POST", "/api/v1/tasks/orders/resume", json=body)
    assert (answer.status_code, answer.json()["exit_code"]) == (400, 2)
    assert api.coordinator.calls == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", "right", "Basic right", "Bearer "])
async def test_without_the_token_nothing_is_told(guarded, header):
    headers = {"Authorization": header} if header else {}
    for path in ("/api/v1/status", "/metrics", "/openapi.json", "/docs"):
        answer = await guarded.ask("GET", path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.coordinator.calls == []


async def test_with_the_token_and_for_health_the_door_is_open(guarded):
    assert (await guarded.ask("GET", "/api/v1/status", headers={"Authorization": "Bearer right"})).status_code == 200
    assert (await guarded.ask("GET", "/healthz")).status_code == 200
    assert (await guarded.ask("GET", "/readyz")).status_code == 200


async def test_a_request_that_is_too_large_is_refused(api):
    answer = await api.ask("POST", "/api/v1/apply", content=b"x" * (Limits().body_bytes_max + 1))
    assert (answer.status_code, answer.json()["exit_code"]) == (413, 2)


async def test_a_chunked_request_that_is_too_large_is_refused(api):
    async def chunks():
        for _ in range(Limits().body_bytes_max // 65536 + 1):
            yield b"x" * 65536

    answer = await api.ask("POST", "/api/v1/apply", content=chunks())
    assert (answer.status_code, answer.json()["exit_code"]) == (413, 2)


async def test_ready_only_when_the_files_are_applied_and_the_store_answers(api, monkeypatch):
    assert (await api.ask("GET", "/readyz")).status_code == 200
    api.readiness.applied, api.readiness.waiting_for = False, "applying the files: cluster a is away"
    answer = await api.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["applying the files: cluster a is away"])
    api.readiness.applied = True

    async def away():
        raise StoreUnavailable("the database is away")

    monkeypatch.setattr(api.store, "identity", away)
    answer = await api.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["the database is away"])
    assert (await api.ask("GET", "/healthz")).status_code == 200


async def test_serving_ends_when_asked(unused_tcp_port):
    api, stop = Api(), asyncio.Event()
    listener = listen("127.0.0.1", unused_tcp_port)
    serving = asyncio.create_task(serve(api.app, "127.0.0.1", unused_tcp_port, stop, listener))
    reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await reader.read()
    writer.close()
    await writer.wait_closed()
    stop.set()
    await asyncio.wait_for(serving, 5)


def test_a_taken_port_is_named(unused_tcp_port):
    with listen("127.0.0.1", unused_tcp_port), pytest.raises(ReplicatorError, match=f"cannot listen on 127.0.0.1:{unused_tcp_port}"):
        listen("127.0.0.1", unused_tcp_port)
