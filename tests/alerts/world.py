"""Coordinator, workers and two memory clusters on a clock that jumps, scraped like Prometheus would: minutes pass in milliseconds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from connectors.memory import factory
from connectors.memory.cluster import MemoryCluster
from connectors.memory.connector import MemorySettings
from replicator.coordinator.api.app import create_app
from replicator.coordinator.service import Coordinator
from replicator.core.connector import Connector, ConnectorContext
from replicator.core.task import Cluster, ReplicationTask, StartPoint
from replicator.observe.metrics import WorkerMetrics
from replicator.store.memory import MemoryStore
from replicator.store.port import StoreUnavailable
from replicator.worker.supervisor import Worker
from tests.simulation.loop import VirtualLoop

SCRAPE_SECONDS = 15
MESSAGE_SECONDS = 5
CALM_SECONDS = 120
TOPIC = "orders"
ONE_WAY = ReplicationTask("orders", "one-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest"))

Labels = tuple[tuple[str, str], ...]


class StoreGate:
    """The way from one process to the store; while ``away`` nothing gets through."""

    def __init__(self, store: MemoryStore) -> None:
        self.away = False
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def through(*arguments: Any, **named: Any) -> Any:
            if self.away:
                raise StoreUnavailable("the database does not answer")
            return await found(*arguments, **named)

        return through


@dataclass
class Process:
    worker: Worker
    gate: StoreGate
    stop: asyncio.Event
    task: asyncio.Task[None]


@dataclass
class World:
    loop: VirtualLoop
    task: ReplicationTask = ONE_WAY
    queue_count: int = 2
    series: dict[tuple[str, Labels], dict[int, float]] = field(default_factory=dict)
    expected: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    """(scrape, names of the alerts that fire then)"""
    each_step: Callable[[], Awaitable[None]] | None = None
    is_scraped: bool = True

    def __post_init__(self) -> None:
        for name in self.task.clusters:
            MemoryCluster.forget(name)
        self.clusters = {name: MemoryCluster.create(name, clock_ms=self.loop.clock_ms) for name in self.task.clusters}
        for cluster in self.clusters.values():
            cluster.add_topic(TOPIC, self.queue_count)
        self.store = MemoryStore(clock=self.loop.time)
        self.gate = StoreGate(self.store)
        self.coordinator = Coordinator(self.gate, self._connector("coordinator-1"), "coordinator-1")
        self.processes: dict[str, Process | None] = {}
        self.scrapes = 0

    def _connector(self, instance: str) -> Callable[[Cluster], Connector]:
        return lambda cluster: factory(MemorySettings(**cluster.settings), ConnectorContext(cluster.name, instance))

    async def start(self) -> None:
        await self.store.open()
        stop = asyncio.Event()
        self._coordinating = self.loop.create_task(self.coordinator.run(stop))
        await self.coordinator.apply([Cluster(name, "memory", {"cluster": name}) for name in self.task.clusters], [self.task])
        transport = httpx.ASGITransport(create_app(self.coordinator, self.gate))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8420")
        self.add_worker()
        await self.watch(CALM_SECONDS)
        self.expect()

    def add_worker(self) -> Process:
        instance = f"worker-{len(self.processes) + 1}"
        gate, stop = StoreGate(self.store), asyncio.Event()
        worker = Worker(gate, self._connector(instance), instance)
        process = Process(worker, gate, stop, self.loop.create_task(worker.run(stop), name=instance))
        self.processes[instance] = process
        return process

    def living(self) -> Process:
        """The one that was started last."""
        return next(process for process in reversed(self.processes.values()) if process is not None)

    async def stop_worker(self) -> None:
        """In order, and taken from the list of what is scraped."""
        process = self.living()
        process.stop.set()
        await process.task
        del self.processes[process.worker.instance]
        self.processes[f"stopped {process.worker.instance}"] = None

    def kill_worker(self) -> None:
        """kill -9; it stays among what is scraped, and no longer answers."""
        process = self.living()
        instance = process.worker.instance
        process.gate.away = True
        for cluster in self.clusters.values():
            cluster.cut(instance=instance)
            cluster.reset_connections(instance=instance)
        process.task.cancel()
        self.processes[instance] = None

    def forget_dead(self) -> None:
        """Whoever looks after the scrape's targets has seen that they are gone."""
        for name in [name for name, process in self.processes.items() if process is None]:
            del self.processes[name]
            self.processes[f"stopped {name}"] = None

    def produce(self, count: int = 1, body: bytes = b"body") -> None:
        cluster = self.clusters["hangzhou"]
        for queue in cluster.queues(TOPIC):
            for _ in range(count):
                cluster.produce(queue, body, {})

    async def watch(self, seconds: int) -> None:
        """Life goes on for so long: messages come, and Prometheus looks in."""
        for passed in range(MESSAGE_SECONDS, seconds + 1, MESSAGE_SECONDS):
            await asyncio.sleep(MESSAGE_SECONDS)
            self.produce()
            if self.each_step is not None:
                await self.each_step()
            if passed % SCRAPE_SECONDS == 0:
                await self._scrape()

    def expect(self, *alerts: str) -> None:
        """As of the last scrape exactly these fire."""
        self.expected.append((self.scrapes - 1, frozenset(alerts)))

    async def _scrape(self) -> None:
        if self.is_scraped:
            answer = await self._client.get("/metrics")
            assert answer.status_code == 200, answer.text
            self._note(answer.text, "replicator-coordinator", "coordinator-1")
        for instance, process in self.processes.items():
            if process is not None:
                self._note(WorkerMetrics(instance).render(process.worker.figures()).decode(), "replicator-worker", instance)
            elif not instance.startswith("stopped"):
                self._add("up", {}, "replicator-worker", instance, 0)
        self.scrapes += 1

    def _note(self, text: str, job: str, instance: str) -> None:
        self._add("up", {}, job, instance, 1)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.name.endswith("_bucket"):
                    self._add(sample.name, sample.labels, job, instance, sample.value)

    def _add(self, name: str, labels: dict[str, str], job: str, instance: str, value: float) -> None:
        key = name, tuple(sorted({**labels, "job": job, "instance": instance}.items()))
        self.series.setdefault(key, {})[self.scrapes] = value

    async def close(self) -> None:
        await self._client.aclose()
