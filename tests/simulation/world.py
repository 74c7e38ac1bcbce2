"""Two memory clusters, a store, workers that die, and checkers that know the truth."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from connectors.memory import factory
from connectors.memory.cluster import MemoryCluster
from connectors.memory.connector import MemorySettings
from replicator.config import task_to_spec
from replicator.core.connector import Connector, ConnectorContext
from replicator.core.record import MessageQueue
from replicator.core.stamp import Place, find_stamp
from replicator.core.task import Cluster, ReplicationTask, StartPoint
from replicator.store.memory import MemoryStore
from replicator.store.port import Assignment, ClusterRow, NewAssignment
from replicator.worker.supervisor import Worker
from tests.simulation.loop import VirtualLoop

TOPIC = "orders"
QUIET_SECONDS_MAX = 900.0


@dataclass
class Process:
    """A worker process that can be killed: nothing it would do afterwards happens."""

    instance: str
    worker: Worker
    stop: asyncio.Event
    task: asyncio.Task[None]


@dataclass
class World:
    seed: int
    loop: VirtualLoop
    queue_count: int = 2
    task: ReplicationTask = field(default_factory=lambda: ReplicationTask(
        "orders", "two-way", ("hangzhou", "shanghai"), (TOPIC,), StartPoint("earliest")))

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        random.seed(self.seed)  # What the product itself takes from chance is the same each time, too.
        self.clusters = {name: MemoryCluster.create(name, clock_ms=self.loop.clock_ms) for name in self.task.clusters}
        self.store = MemoryStore(clock=self.loop.time)
        self.produced: dict[tuple[str, MessageQueue], list[bytes]] = {}
        self.processes: list[Process] = []
        self._started = 0
        self._bodies = 0
        for cluster in self.clusters.values():
            cluster.add_topic(TOPIC, self.queue_count)
            cluster.pace = self._pace

    async def _pace(self, point: str, instance: str) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.0, 0.001, 0.02)))

    async def declare(self) -> None:
        await self.store.open()
        for index, name in enumerate(self.task.clusters):
            await self.store.put_cluster(ClusterRow(name, "memory", "", {"cluster": name}, f"id{index:06d}"))
        await self.store.put_task(self.task.name, task_to_spec(self.task), self.task.flows)
        for flow in await self.store.flows():
            pair = await self.store.claim_pair(flow.flow_id, TOPIC, TOPIC)
            rows = [NewAssignment(queue, queue, 0) for queue in self.clusters[flow.source].queues(TOPIC)]
            await self.store.add_assignments(pair.pair_id, rows)

    def start_process(self) -> Process:
        self._started += 1
        instance = f"worker-{self._started}"

        def connect(cluster: Cluster) -> Connector:
            return factory(MemorySettings(**cluster.settings), ConnectorContext(cluster.name, instance))

        worker, stop = Worker(self.store, connect, instance), asyncio.Event()
        process = Process(instance, worker, stop, self.loop.create_task(worker.run(stop), name=instance))
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """kill -9: the machine resets its connections, and none of its code runs again."""
        self.processes.remove(process)
        for cluster in self.clusters.values():
            cluster.cut(instance=process.instance)
            cluster.reset_connections(instance=process.instance)
        process.worker._store = _DeadStore()  # type: ignore[assignment]  # what a dead process would still write goes nowhere
        for running in process.worker._running.values():
            running.copier._store = _DeadStore()  # type: ignore[assignment]
        process.task.cancel()

    def produce(self, count: int) -> None:
        for _ in range(count):
            name = self.random.choice(self.task.clusters)
            queue = self.random.choice(self.clusters[name].queues(TOPIC))
            self._bodies += 1
            body = b"%s-%d" % (name.encode(), self._bodies)
            self.clusters[name].produce(queue, body, {"KEYS": str(self._bodies)})
            self.produced.setdefault((name, queue), []).append(body)

    async def until_caught_up(self) -> None:
        """Waits until every source queue is examined and saved to its end, or says which is stuck and why."""
        deadline = self.loop.time() + QUIET_SECONDS_MAX
        while True:
            missing = [str(a.source_queue) for a in await self.store.assignments() if not self._is_caught_up(a)]
            if not missing:
                return
            if self.loop.time() > deadline:
                states = [(str(r.copier), r.copier.state, r.copier.error) for p in self.processes for r in p.worker._running.values()]
                raise AssertionError(f"seed {self.seed}: not caught up: {missing}; {states}")
            await asyncio.sleep(1.0)

    def _is_caught_up(self, assignment: Assignment) -> bool:
        """As the store knows it: a position saved at the end of the source queue."""
        end = self.clusters[assignment.source].log(assignment.source_queue).readable_end
        checkpoint = assignment.checkpoint
        return checkpoint is not None and checkpoint.examined_through == end and checkpoint.to_relearn is None

    async def check(self) -> None:
        """Nothing lost, nothing twice, order kept, and the map exact both ways."""
        for (name, queue), born in self.produced.items():
            other = next(n for n in self.task.clusters if n != name)
            prefix = name.encode() + b"-"
            copies = [record.body for record in self.clusters[other].records(queue) if record.body.startswith(prefix)]
            assert copies == born, f"seed {self.seed}: {name} {queue}: {len(born)} born, {len(copies)} copies"
            own = [record.body for record in self.clusters[name].records(queue) if record.body.startswith(prefix)]
            assert own == born, f"seed {self.seed}: {name} {queue}: copies came back"
        for assignment in await self.store.assignments():
            await self._check_map(assignment)

    async def _check_map(self, assignment: Assignment) -> None:
        ids = {row.name: row.cluster_id for row in await self.store.clusters()}
        source = Place(ids[assignment.source] or "", assignment.source_queue)
        truth: dict[int, int] = {}
        for record in self.clusters[assignment.destination].records(assignment.destination_queue):
            stamp = find_stamp(record.properties)
            if stamp is not None and stamp.hop.place == source:
                truth[stamp.hop.offset] = record.queue_offset
        recorded: dict[int, int] = {}
        for run in await self.store.runs(assignment.assignment_id, limit=100_000):
            for index in range(run.length):
                assert run.source_start + index not in recorded, f"seed {self.seed}: runs overlap"
                recorded[run.source_start + index] = run.destination_start + index
        assert recorded == truth, f"seed {self.seed}: map of {assignment.source} {assignment.source_queue}: {len(recorded)} of {len(truth)}"
        covered = set(recorded)
        for hole in await self.store.holes(assignment.assignment_id, limit=100_000):
            offsets = set(range(hole.source_start, hole.source_start + hole.length))
            assert not offsets & covered, f"seed {self.seed}: a hole over copies or holes: {hole}"
            covered |= offsets
        end = self.clusters[assignment.source].log(assignment.source_queue).readable_end
        assert covered == set(range(end)), f"seed {self.seed}: {assignment.source_queue}: offsets without copy or reason"


class _DeadStore:
    """The store of a process that no longer runs: every call waits for ever."""

    def __getattr__(self, name: str) -> object:
        async def never(*args: object, **kwargs: object) -> None:
            await asyncio.Event().wait()

        return never
