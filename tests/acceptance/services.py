"""Coordinator and workers as processes of their own around one Postgres, and who of them holds what."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from replicator.store.embedded import EmbeddedPostgres
from tests.acceptance.process import POLL_SECONDS, ReplicatorProcess

STARTED_SECONDS_MAX = 180.0
"""Several Pythons beginning at once on a machine that is busy with brokers."""

Holders = dict[tuple[str, int], str]
"""Source (broker, queue) -> instance of the worker that holds and copies it."""


class ServiceProcess(ReplicatorProcess):
    def __init__(self, folder: Path, name: str, database_url: str, *words: str) -> None:
        super().__init__(folder / "none", folder / name, database_url=database_url)
        self._words = words

    def arguments(self) -> list[str]:
        return list(self._words)

    def started(self) -> dict[str, Any]:
        """What it logged when it was up: ``instance``, ``timestamp``."""
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and (said := json.loads(line)).get("event") == "started":
                return dict(said)
        raise AssertionError(f"it did not start\n{self.tail()}")


class Services:
    """A Postgres with this release's schema and a running coordinator; workers are made by ``worker``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        self._postgres = EmbeddedPostgres(folder / "postgres", durable=False)
        self._made: list[ServiceProcess] = []

    def __enter__(self) -> Self:
        self._runner.run(self._postgres.start())
        self.coordinator = self._make("coordinator", "coordinator")
        done = self.coordinator.command("db", "upgrade", environment={"REPLICATOR_DATABASE_URL": self._postgres.url})
        assert done.returncode == 0, done.stderr
        self.coordinator.start()
        self.coordinator.wait_ready(STARTED_SECONDS_MAX)
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._made:
            process.end()
        self._runner.run(self._postgres.stop())
        self._runner.close()

    def _make(self, name: str, *words: str) -> ServiceProcess:
        self._made.append(ServiceProcess(self._folder, name, self._postgres.url, *words))
        return self._made[-1]

    def worker(self, near: str = "") -> ServiceProcess:
        """Started, and known to the coordinator."""
        process = self._make(f"worker-{len(self._made)}", "worker", *(("--near", near) if near else ()))
        process.start()
        process.wait_ready(STARTED_SECONDS_MAX)
        return process

    def apply(self, *documents: str) -> None:
        self.declared = self._folder / "declared.yaml"
        self.declared.write_text("---\n".join(documents))
        done = self.coordinator.command("apply", "-f", self.declared)
        assert done.returncode == 0, done.stdout + done.stderr

    def holders(self) -> Holders:
        rows = self.coordinator.get("/api/v1/assignments")
        return {
            (row["source_queue"]["broker_name"], row["source_queue"]["queue_id"]): row["holder"] if row["state"] == "running" else ""
            for row in rows
        }

    def wait_shared(self, among: list[ServiceProcess], seconds_max: float, *, is_so: Callable[[Counter[str]], bool]) -> Holders:
        """Waits until these workers, and nobody else, copy everything, and as many queues each as ``is_so`` wants it."""
        names = {process.started()["instance"] for process in among}
        deadline = time.monotonic() + seconds_max
        while True:
            holders = self.holders()
            counts = Counter(holders.values())
            if holders and set(counts) <= names and is_so(counts):
                return holders
            if time.monotonic() > deadline:
                logs = "\n".join(process.tail()[-1500:] for process in [self.coordinator, *among])
                raise AssertionError(f"not shared after {seconds_max:.0f} s: {counts}\n{logs}")
            time.sleep(POLL_SECONDS)

    def assert_no_traceback(self) -> None:
        for process in self._made:
            process.assert_no_traceback()
