"""What a worker answers monitors."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from replicator.store.memory import MemoryStore
from replicator.worker.endpoints import create_worker_app
from replicator.worker.supervisor import Worker


def connect(cluster):
    raise AssertionError("nothing is declared")


async def ask(worker: Worker, path: str, *, token: str | None = None, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_worker_app(worker, token))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def worker() -> Worker:
    return Worker(MemoryStore(), connect, "w1", "shanghai")


async def test_it_lives_before_the_database_knows_of_it_and_is_ready_after(worker):
    assert (await ask(worker, "/healthz")).json() == {"status": "ok"}
    assert (await ask(worker, "/readyz")).status_code == 503
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(5.0):
        while (await ask(worker, "/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    text = (await ask(worker, "/metrics")).text
    assert 'replicator_worker_assignments{worker="w1"} 0.0' in text
    assert "replicator_store_up 1.0" in text
    stop.set()
    await asyncio.wait_for(running, 5.0)
    assert (await ask(worker, "/nothing")).status_code == 404


async def test_only_the_numbers_want_the_token(worker):
    for path in ("/healthz", "/readyz"):
        assert (await ask(worker, path, token="right")).status_code in (200, 503)
    assert (await ask(worker, "/metrics", token="right")).status_code == 401
    assert (await ask(worker, "/metrics", token="right", authorization="Bearer wrong")).status_code == 401
    assert (await ask(worker, "/metrics", token="right", authorization="Bearer right")).status_code == 200
