"""Tokens, roles and TLS through the real command, against a real process and a real database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.coordinator.access import TOKENS_FRESH_SECONDS
from tests.acceptance.command import refused, run_command
from tests.acceptance.process import free_port
from tests.certificates import Authority

pytestmark = pytest.mark.postgres
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.2
ENVIRONMENT_TOKEN = "given-with-the-environment"
Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Secured:
    url: str
    database_url: str
    authority: Authority
    log: Path

    def command(self, token: str | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"REPLICATOR_URL": self.url, "REPLICATOR_CA_FILE": str(self.authority.root.cert), **environment}
        if token is not None:
            given["REPLICATOR_TOKEN"] = token
        return run_command(*arguments, environment=given)

    def made(self, token: str, *arguments: str) -> str:
        done = self.command(token, "tokens", "create", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def secured(tmp_path: Path, postgres_url: str) -> Iterator[Secured]:
    """``replicator run`` with TLS and a token, on an own database."""
    authority = Authority(tmp_path)
    pair, port, log = authority.issue("coordinator"), free_port(), tmp_path / "run.log"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("REPLICATOR_")}
    environment = clean | {
        "REPLICATOR_DATABASE_URL": postgres_url, "REPLICATOR_TOKEN": ENVIRONMENT_TOKEN,
        "REPLICATOR_TLS_CERT_FILE": str(pair.cert), "REPLICATOR_TLS_KEY_FILE": str(pair.key),
    }  # fmt: skip
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "replicator", "run", "--listen", f"127.0.0.1:{port}"],
            stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path,
        )  # fmt: skip
    found = Secured(f"https://127.0.0.1:{port}", postgres_url, authority, log)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while found.command(ENVIRONMENT_TOKEN, "status").returncode != 0:
            is_late = time.monotonic() > deadline
            assert child.poll() is None, log.read_text(errors="replace")[-4000:]
            assert not is_late, log.read_text(errors="replace")[-4000:]
        yield found
        child.send_signal(signal.SIGTERM)
        assert child.wait(STOP_SECONDS_MAX) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def test_tokens_and_roles_over_tls(secured: Secured) -> None:
    first = run_command(
        "tokens", "create", "boss", "--role", "admin", "--database", environment={"REPLICATOR_DATABASE_URL": secured.database_url}
    )
    assert first.returncode == 0, first.stderr
    boss = first.stdout.strip()
    reader = secured.made(boss, "grafana", "--role", "read", "--expires-days", "30")
    operator = secured.made(boss, "ops", "--role", "operate")

    assert json.loads(secured.command(reader, "status", "-o", "json").stdout)["tasks"] == []
    assert "has the role read, this needs operate" in refused(secured.command(reader, "pause", "orders"), 1)
    assert "orders" in refused(secured.command(operator, "pause", "orders"), 3)
    assert "this needs admin" in refused(secured.command(operator, "tokens", "list"), 1)
    for token in (None, "wrong"):
        assert "token is missing or wrong" in refused(secured.command(token, "status"), 1)

    listed = secured.command(ENVIRONMENT_TOKEN, "tokens", "list", "-o", "json").stdout
    assert {row["name"]: (row["role"], row["state"]) for row in json.loads(listed)} == {
        "boss": ("admin", "living"), "grafana": ("read", "living"), "ops": ("operate", "living"),
    }  # fmt: skip
    assert secured.command(boss, "tokens", "revoke", "grafana").returncode == 0
    time.sleep(TOKENS_FRESH_SECONDS)
    refused(secured.command(reader, "status"), 1)

    changes = json.loads(secured.command(operator, "changes", "-o", "json").stdout)
    assert [(one["caller"], one["method"], one["route"], one["object"], one["status"]) for one in changes] == [
        ("database", "", "tokens create --database", "boss", 201),
        ("boss", "POST", "/tokens", "", 201),
        ("boss", "POST", "/tokens", "", 201),
        ("grafana", "POST", "/tasks/{task}/pause", "orders", 403),
        ("ops", "POST", "/tasks/{task}/pause", "orders", 404),
        ("boss", "DELETE", "/tokens/{name}", "grafana", 200),
    ]
    told = secured.log.read_text() + listed + json.dumps(changes)
    assert not [token for token in (boss, reader, operator, ENVIRONMENT_TOKEN) if token in told]
    assert "Traceback" not in told


def test_who_is_not_believed_is_told_what_to_do(secured: Secured, tmp_path: Path) -> None:
    assert "REPLICATOR_CA_FILE" in refused(secured.command("x", "status", REPLICATOR_CA_FILE=""), 1)
    stranger = Authority(tmp_path, "stranger")
    assert "REPLICATOR_CA_FILE" in refused(secured.command("x", "status", REPLICATOR_CA_FILE=str(stranger.root.cert)), 1)
    assert "nowhere.pem" in refused(secured.command("x", "status", REPLICATOR_CA_FILE="nowhere.pem"), 2)
    refused(secured.command("x", "status", REPLICATOR_URL=secured.url.replace("https", "http")), 1)


@pytest.mark.parametrize(
    ("token", "options", "code", "said"),
    [
        (None, [], 4, "without a token"),
        ("t", [], 4, "--insecure-http"),
        ("t", ["--tls-cert", "x.pem"], 2, "--tls-key"),
        ("t", ["--tls-cert", "nowhere.pem", "--tls-key", "nowhere.key"], 2, "nowhere.pem"),
    ],
)
def test_an_open_door_is_refused_before_anything_starts(tmp_path: Path, token, options, code, said) -> None:
    environment = {"REPLICATOR_TOKEN": token} if token else {}
    arguments = ["run", "--data-dir", str(tmp_path / "data"), "--listen", f"0.0.0.0:{free_port()}", *options]
    assert said in refused(run_command(*arguments, environment=environment), code)
    assert not (tmp_path / "data").exists()
