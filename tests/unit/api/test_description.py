"""Schemathesis asks every route of a coordinator that runs, with valid and invalid requests, and judges each answer by the
published description: statuses, media types, bodies; no server errors; nothing invalid taken, nothing without a token answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig

from connectors.memory import MemoryCluster
from replicator.coordinator.api.app import create_app, describe
from replicator.coordinator.api.limits import Limits
from replicator.coordinator.api.serving import listen, serve
from replicator.coordinator.service import Coordinator
from replicator.store.memory import MemoryStore
from replicator.store.port import Checkpoint, Parked, Progress, Run, Store
from replicator.store.postgres import PostgresStore
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

    store: Store
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
        await self.store.open()
        coordinator = Coordinator(self.store, connect, INSTANCE)
        try:
            await fill(self.store, coordinator)
            app = create_app(coordinator, self.store, TOKEN, limits=Limits(requests_per_second_max=1e6, burst_max=10**6))
            with listen("127.0.0.1", 0) as listener:
                self.port = listener.getsockname()[1]
                self.ready.set()
                await serve(app, "127.0.0.1", self.port, self._stop, listener)
        finally:
            await coordinator.close()
            await self.store.close()


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
    await store.record_event(TASK, "created", "made by a test", {"n": 1})


@pytest.fixture(scope="module", params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    store = MemoryStore() if request.param == "memory" else PostgresStore(request.getfixturevalue("shared_postgres_url"))
    with Running(store) as found:
        yield found
    for name in ("hz", "sh", "hz-spare"):
        MemoryCluster.forget(name)


@SCHEMA.parametrize()
@settings(suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
def test_every_answer_is_as_described(case: schemathesis.Case, running: Running) -> None:
    case.call_and_validate(base_url=f"http://127.0.0.1:{running.port}", headers={"Authorization": f"Bearer {TOKEN}"})
