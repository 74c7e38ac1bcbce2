"""Schemathesis asks every route of a coordinator that runs, with valid and invalid requests, and judges each answer by the
published description: statuses, media types, bodies; no server errors; nothing invalid taken, nothing without a token answered."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from sqlalchemy import text

from connectors.memory import MemoryCluster
from replicator.coordinator.api.app import create_app, describe
from replicator.coordinator.api.limits import Limits
from replicator.coordinator.api.serving import listen, serve
from replicator.coordinator.service import Coordinator
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, Parked, Progress, Run, Store
from replicator.store.postgres import PostgresStore
from tests.conftest import TEMPLATE, administration, with_database
from tests.unit.coordinator.conftest import INSTANCE, connect, declare, one_way

TOKEN = "right"
EXAMPLES_MAX = 12
START_SECONDS_MAX = 60
GROUP = "billing"
TASK, SPARE = "orders", "spare"
LIKELY = 0.7
CONFIG = SchemathesisConfig.from_dict({
    "generation": {"max-examples": EXAMPLES_MAX, "deterministic": True},
    # Some rules are no matter of one value's shape (of two fields exactly one): such a request is refused with 400, as any other.
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "409"]}},
    # Names of what is there, so that more than refusals are seen.
    "dictionaries": {
        "tasks": {"values": [TASK]}, "clusters": {"values": ["hz", "sh"]}, "groups": {"values": [GROUP]}, "topics": {"values": [TASK]},
        "queues": {"values": ["0", "hz-a/1"]},
    },
    "parameters": {
        name: {"dictionary": dictionary, "probability": LIKELY}
        for name, dictionary in {
            "task": "tasks", "name": "tasks", "source": "clusters", "destination": "clusters", "group": "groups", "topic": "topics",
            "queue": "queues",
        }.items()
    },
})
SCHEMA = schemathesis.openapi.from_dict(describe(), config=CONFIG)


@dataclass
class Running:
    """A coordinator with two memory clusters and a task between them, serving from a thread."""

    open_store: Callable[[], AbstractAsyncContextManager[Store]]
    port: int = 0
    error: BaseException | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Running:
        self._thread = threading.Thread(target=self._run, name="api")
        self._thread.start()
        assert self.ready.wait(START_SECONDS_MAX)
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS_MAX)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.open_store() as store, running_coordinator(store) as coordinator:
            await fill(store, coordinator)
            app = create_app(coordinator, store, TOKEN, limits=Limits(requests_per_second_max=1e6, burst_max=10**6))
            with listen("127.0.0.1", 0) as listener:
                self.port = listener.getsockname()[1]
                self.ready.set()
                await serve(app, "127.0.0.1", self.port, self._stop, listener)


@asynccontextmanager
async def running_coordinator(store: Store) -> AsyncIterator[Coordinator]:
    coordinator = Coordinator(store, connect, INSTANCE)
    try:
        yield coordinator
    finally:
        await coordinator.close()


@asynccontextmanager
async def memory_store() -> AsyncIterator[Store]:
    yield MemoryStore()


@asynccontextmanager
async def postgres_store(server_url: str) -> AsyncIterator[Store]:
    """On an own, upgraded database."""
    name = f"described_{secrets.token_hex(6)}"
    async with administration(server_url) as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    store = PostgresStore(with_database(server_url, name))
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def fill(store: Store, coordinator: Coordinator) -> None:
    """A task with everything that can be listed: queues, copies, a refused message, a group."""
    for name in ("hz", "sh"):
        cluster = MemoryCluster.create(name, (f"{name}-a",))
        cluster.add_topic("orders", 2)
        for queue in cluster.queues("orders"):
            cluster.produce_many(queue, [b"body"] * 5)
            cluster.commit(GROUP, queue, 3)
    clusters = [declare("hz"), declare("sh"), declare(SPARE, "hz-spare")]
    MemoryCluster.create("hz-spare", ("x",))
    await coordinator.apply(clusters, [one_way(TASK, "hz", "sh"), one_way(SPARE, "hz", "sh", topics=("nothing",))])
    await coordinator.reconcile_once()
    await store.worker_seen("worker-1", {"assignments": 2})
    leased = await store.acquire("worker-1", 600.0, 100)
    assert leased
    await store.save_progress([
        Progress(
            one.assignment_id, one.token, one.checkpoint or Checkpoint(examined_through=4), runs=[Run(1, 0, 5, 3)],
            parked=[Parked(3, "too large", 10)], lag_messages=1, lag_seconds=0.5, latency_ms=(1.0, 2.0),
        )
        for one in leased
    ])
    for one in leased:
        await store.release(one.assignment_id, one.token, clean=True)
    await store.record_event(TASK, "created", "made by a test", {"n": 1})


@pytest.fixture(scope="module", params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    is_memory = request.param == "memory"
    open_store = memory_store if is_memory else partial(postgres_store, request.getfixturevalue("postgres_server").url)
    with pytest.MonkeyPatch.context() as patched, Running(open_store) as found:
        patched.setattr("replicator.coordinator.check.WORKERS_SECONDS_MAX", 0.05)  # this worker answers nobody
        yield found
    for name in ("hz", "sh", "hz-spare"):
        MemoryCluster.forget(name)


def complete(schema: Any) -> Any:
    """As published, but with no key besides those described: they may grow, and then the description grows with them."""
    if isinstance(schema, list):
        return [complete(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: complete(one) for key, one in schema.items()}
    return {**made, "additionalProperties": False} if "properties" in schema and schema.get("type") == "object" else made


GROUPS = f"/tasks/{TASK}/groups"
SIDES = "source=hz&destination=sh"
CLUSTER = {
    "apiVersion": "replicator/v1", "kind": "Cluster", "metadata": {"name": "hz"},
    "spec": {"connector": "memory", "memory": {"cluster": "hz"}},
}  # fmt: skip
SUCCEEDING = [
    ("GET", "/status", "/status", None),
    ("GET", "/tasks", "/tasks", None),
    ("GET", "/tasks/{name}", f"/tasks/{TASK}", None),
    ("GET", "/clusters", "/clusters", None),
    ("GET", "/clusters/{name}", "/clusters/hz", None),
    ("GET", "/assignments", "/assignments", None),
    ("GET", "/tasks/{task}/events", f"/tasks/{TASK}/events", None),
    ("GET", "/tasks/{task}/parked", f"/tasks/{TASK}/parked", None),
    ("GET", "/tasks/{task}/offsets/translate", f"/tasks/{TASK}/offsets/translate?{SIDES}&topic=orders&queue=0&offset=1", None),
    ("GET", "/tasks/{task}/groups", f"{GROUPS}?{SIDES}", None),
    ("GET", "/tasks/{task}/groups/plan", f"{GROUPS}/plan?{SIDES}", None),
    ("POST", "/tasks/{task}/groups/sync", f"{GROUPS}/sync", {"source": "hz", "destination": "sh"}),
    ("POST", "/tasks/{task}/groups/reset", f"{GROUPS}/reset", {
        "source": "hz", "destination": "sh", "group": GROUP, "topic": "orders", "offset": 1,
    }),
    ("POST", "/tasks/{task}/pause", f"/tasks/{TASK}/pause", {"topic": "orders"}),
    ("POST", "/tasks/{task}/resume", f"/tasks/{TASK}/resume", {"dry_run": True}),
    ("POST", "/tasks/{task}/resume", f"/tasks/{TASK}/resume", {}),
    ("POST", "/tasks/{task}/parked/discard", f"/tasks/{TASK}/parked/discard", {"all": True}),
    ("POST", "/check", "/check", {"documents": [CLUSTER]}),
    ("POST", "/apply", "/apply", {"documents": [CLUSTER], "dry_run": True}),
    ("GET", "/workers", "/workers", None),
    ("POST", "/tokens", "/tokens", {"name": "ci", "role": "read", "expires_in_days": 3}),
    ("GET", "/tokens", "/tokens", None),
    ("DELETE", "/tokens/{name}", "/tokens/ci", None),
    ("DELETE", "/tasks/{name}", f"/tasks/{SPARE}", None),
    ("GET", "/changes", "/changes", None),
]  # fmt: skip
OPEN_OBJECTS = {"/workers"}
"""Whose further keys are the worker's own."""


def test_what_succeeds_is_described_to_the_last_key(running: Running) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    published = describe()
    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}/api/v1", headers=headers, trust_env=False) as client:
        for method, path, address, body in SUCCEEDING:
            answer = client.request(method, address, json=body)
            assert answer.status_code in (200, 201), (method, address, answer.text)
            assert answer.json() not in ([], {}, {"groups": []}, {"tasks": []}), (method, address)
            described = published["paths"][f"/api/v1{path}"][method.lower()]["responses"][str(answer.status_code)]
            schema = {**described["content"]["application/json"]["schema"], "components": published["components"]}
            jsonschema.validate(answer.json(), schema if path in OPEN_OBJECTS else complete(schema))


@SCHEMA.parametrize()
@settings(suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
def test_every_answer_is_as_described(case: schemathesis.Case, running: Running) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{running.port}", headers={"Authorization": f"Bearer {TOKEN}"})
