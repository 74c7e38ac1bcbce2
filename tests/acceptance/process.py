"""The product as a user runs it: ``replicator run`` in a process of its own, asked through its REST API only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.command import run_command

READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cluster_yaml(name: str, name_servers: str, *settings: str) -> str:
    """``settings``: further lines of its ``spec.rocketmq``."""
    more = "".join(f"    {line}\n" for line in settings)
    return f"""apiVersion: replicator/v1
kind: Cluster
metadata: {{name: {name}}}
spec:
  connector: rocketmq
  rocketmq:
    name_servers: ["{name_servers}"]
{more}"""


class ReplicatorProcess:
    """``replicator run -f FILE --data-dir DIR --listen ADDRESS``; may be started again after it was killed."""

    def __init__(
        self, file: Path, data_dir: Path, *, database_url: str = "", port: int | None = None, lost: tuple[str, ...] = ()
    ) -> None:
        self.file = file
        self.data_dir = data_dir
        self.port = port or free_port()
        self.environment = {**os.environ, "REPLICATOR_LOG_FORMAT": "json"}
        if database_url:
            self.environment["REPLICATOR_DATABASE_URL"] = database_url
        self.lost = lost
        self.log = data_dir.parent / f"{data_dir.name}-{self.port}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def arguments(self) -> list[str]:
        lost = [word for name in self.lost for word in ("--lost", name)]
        return ["run", "-f", str(self.file), "--data-dir", str(self.data_dir), *lost]

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "replicator", *self.arguments(), "--listen", f"127.0.0.1:{self.port}"],
                stdout=output, stderr=subprocess.STDOUT, env=self.environment,
            )

    def wait_ready(self, seconds_max: float = READY_SECONDS_MAX) -> None:
        deadline = time.monotonic() + seconds_max
        while True:
            assert self._child is not None
            if self._child.poll() is not None:
                raise AssertionError(f"replicator run ended with {self._child.returncode}:\n{self.tail()}")
            try:
                self.get("/readyz")
                return
            except (OSError, urllib.error.URLError) as error:
                if time.monotonic() > deadline:
                    said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
                    raise AssertionError(f"not ready after {seconds_max:.0f} s: {error} {said}\n{self.tail()}") from error
                time.sleep(POLL_SECONDS)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = self.get("/api/v1/status")
        return result

    def wait_caught_up(self, timeout_seconds: float, *, copied_at_least: int = 0) -> dict[str, Any]:
        """Waits until every flow runs with lag 0, seen twice. Lag null does not count."""
        deadline = time.monotonic() + timeout_seconds
        seen = 0
        status: dict[str, Any] = {}
        while seen < 2:
            if time.monotonic() > deadline:
                raise AssertionError(f"not caught up after {timeout_seconds:.0f} s: {json.dumps(status)[:4000]}\n{self.tail()}")
            time.sleep(POLL_SECONDS)
            try:
                status = self.status()
            except (OSError, urllib.error.URLError):
                continue
            flows = [flow for task in status["tasks"] for flow in task["flows"]]
            copied = sum(flow["copied_total"] for flow in flows)
            done = flows and all(flow["state"] == "running" and flow["lag_messages"] == 0 for flow in flows)
            seen = seen + 1 if done and copied >= copied_at_least else 0
            if seen == 1:
                time.sleep(1.0)  # The figures are saved once a second: the second look has to be a newer one.
        return status

    def flows(self) -> list[dict[str, Any]]:
        return [flow for task in self.status()["tasks"] for flow in task["flows"]]

    def wait_flow(
        self, what: str, is_so: Callable[[dict[str, Any]], bool], timeout_seconds: float, *, source: str = ""
    ) -> dict[str, Any]:
        """Waits until a flow (of ``source``, where given) is as ``is_so`` wants it, and returns it."""
        deadline = time.monotonic() + timeout_seconds
        flows: list[dict[str, Any]] = []
        while True:
            try:
                flows = [flow for flow in self.flows() if source in ("", flow["source"])]
            except (OSError, urllib.error.URLError):
                flows = []
            for flow in flows:
                if is_so(flow):
                    return flow
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what} after {timeout_seconds:.0f} s: {json.dumps(flows)[:4000]}\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def command(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A command that asks this process."""
        return run_command(*arguments, environment={"REPLICATOR_URL": f"http://127.0.0.1:{self.port}"} | (environment or {}))

    def answer_of(self, *arguments: str) -> Any:
        """The JSON a command prints; fails where it does not end well."""
        done = self.command(*arguments, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def assert_no_traceback(self) -> None:
        """What went wrong outside must not look like a mistake of ours."""
        text = self.log.read_text(errors="replace")
        assert "Traceback" not in text, text[max(0, text.index("Traceback") - 1000):][:6000]

    def wait_topic(self, witness: Any, name_servers: str, topic: str, timeout_seconds: float = 30.0) -> None:
        """Waits until the replicator has created a topic."""
        deadline = time.monotonic() + timeout_seconds
        while topic not in witness.topics(name_servers):
            assert time.monotonic() < deadline, f"topic {topic} was not created\n{self.tail()}"
            time.sleep(POLL_SECONDS)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and nothing is left of it but what the kernel does."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> float:
        """SIGTERM; returns the seconds it took. Fails if it is not gone with exit code 0 in time."""
        assert self._child is not None
        began = time.monotonic()
        self._child.send_signal(signal.SIGTERM)
        try:
            code = self._child.wait(STOP_SECONDS_MAX + 5)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop within {STOP_SECONDS_MAX + 5:.0f} s\n{self.tail()}") from None
        assert code == 0, f"exit code {code}\n{self.tail()}"
        return time.monotonic() - began

    def end(self) -> None:
        """Leaves nothing running, however the test went."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""


def task_yaml(name: str, include: str, body: str, *, start: str = "earliest", topics: str = "") -> str:
    """A task over one topic pattern; ``topics``: further keys of that mapping; ``body``: the other lines of its spec."""
    return f"""apiVersion: replicator/v1
kind: ReplicationTask
metadata: {{name: {name}}}
spec:
  topics: {{include: ["{include}"]{topics and ", "}{topics}}}
  start: {start}
{body}"""


TWO_WAY = """  mode: two-way
  clusters: [hangzhou, shanghai]
"""


def one_way(source: str, *destinations: str, relay: bool = False) -> str:
    """The lines of a one-way task's spec."""
    return f"  mode: one-way\n  source: {source}\n  destinations: [{', '.join(destinations)}]\n  relay: {str(relay).lower()}\n"
