"""Wrong input through the real command: exit code, place of the mistake, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.command import refused
from tests.acceptance.command import run_command as replicator
from tests.acceptance.process import free_port

GOOD = """apiVersion: replicator/v1
kind: Cluster
metadata: {name: hangzhou}
spec:
  connector: rocketmq
  rocketmq:
    name_servers: ["127.0.0.1:9876"]
    access_key: {env: HZ_ACCESS_KEY}
    secret_key: {file: secrets/hz}
---
apiVersion: replicator/v1
kind: Cluster
metadata: {name: shanghai}
spec:
  connector: rocketmq
  rocketmq: {name_servers: ["127.0.0.1:9877"]}
---
apiVersion: replicator/v1
kind: ReplicationTask
metadata: {name: orders}
spec:
  mode: two-way
  clusters: [hangzhou, shanghai]
  topics: {include: ["orders", "pay-*"]}
  start: earliest
"""

WRONG = [
    pytest.param("start: earliest", "start: earliest\n  strat: earliest", "strat", id="unknown key"),
    pytest.param("  start: earliest", "  start: earliest\n  limits: {messages_per_second: fast}", "messages_per_second", id="wrong type"),
    pytest.param("clusters: [hangzhou, shanghai]", "clusters: [hangzhou, shanghia]", "shanghia", id="dangling name"),
    pytest.param("secret_key: {file: secrets/hz}", "secret_key: hunter2", "secret_key", id="plain secret"),
    pytest.param("  start: earliest\n", "", "start", id="missing key"),
    pytest.param("mode: two-way", "mode: both-ways", "mode", id="unknown value"),
    pytest.param("clusters: [hangzhou, shanghai]", "clusters: [hangzhou, shanghai", "", id="bad YAML"),
    pytest.param("start: earliest", "start: earliest\n  delayed: ahead", "not available in this version", id="feature of a later version"),
]


@pytest.fixture
def good(tmp_path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


def wrong_file(folder: Path, old: str, new: str) -> Path:
    assert old in GOOD
    file = folder / "wrong.yaml"
    file.write_text(GOOD.replace(old, new))
    return file


def test_a_good_file_passes_offline(good):
    result = replicator("check", "--offline", "-f", good)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("old", "new", "named"), WRONG)
def test_a_mistake_is_told_with_its_place(tmp_path, old, new, named):
    file = wrong_file(tmp_path, old, new)
    said = refused(replicator("check", "--offline", "-f", file), 2)
    places = [part for part in said.split(f"{file}:")[1:] if part[:1].isdigit()]
    assert places, said
    assert named in said
    assert "hunter2" not in said


def test_a_dangling_name_comes_with_the_nearest_one(tmp_path):
    file = wrong_file(tmp_path, "clusters: [hangzhou, shanghai]", "clusters: [hangzhou, shanghia]")
    said = refused(replicator("check", "--offline", "-f", file), 2)
    assert "shanghai" in said
    assert f"{file}:{GOOD[:GOOD.index('clusters: [')].count(chr(10)) + 1}" in said


def test_run_refuses_a_wrong_file_before_it_starts_anything(tmp_path):
    file = wrong_file(tmp_path, "mode: two-way", "mode: both-ways")
    data = tmp_path / "data"
    said = refused(replicator("run", "-f", file, "--data-dir", data, "--listen", f"127.0.0.1:{free_port()}"), 2)
    assert f"{file}:" in said
    assert not data.exists()


@pytest.mark.parametrize("command", [("check", "--offline"), ("check",), ("apply",), ("run",)])
def test_a_missing_file_is_wrong_use(tmp_path, command):
    said = refused(replicator(*command, "-f", tmp_path / "nowhere.yaml"), 2)
    assert "nowhere.yaml" in said


@pytest.mark.parametrize(
    "command", ["audit", "find", "estimate"]
)
def test_a_command_of_a_later_version_says_so(command):
    assert "not available in this version" in refused(replicator(command, "plan", "orders", "--failed", "a"), 2)


@pytest.mark.parametrize("arguments", [("nonsense",), ("status", "--nonsense"), ("get", "nonsense"), ("apply",), ("pause",)])
def test_wrong_use_of_the_command_line(arguments):
    refused(replicator(*arguments), 2)


@pytest.mark.parametrize(
    "arguments", [("status",), ("get", "tasks"), ("pause", "orders"), ("resume", "orders"), ("events", "orders"), ("delete", "tasks", "x")]
)
def test_an_unreachable_coordinator_is_one_line(arguments):
    url = f"http://127.0.0.1:{free_port()}"
    said = refused(replicator(*arguments, environment={"REPLICATOR_URL": url}), 1)
    assert url in said
    assert len(said.splitlines()) == 1


def test_an_open_door_is_refused(good, tmp_path):
    said = refused(replicator("run", "-f", good, "--data-dir", tmp_path / "data", "--listen", "0.0.0.0:0"), 4)
    assert "REPLICATOR_TOKEN" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("listen", ["8420", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x"])
def test_a_wrong_address_to_listen_on(tmp_path, listen):
    refused(replicator("run", "--listen", listen, "--data-dir", tmp_path / "data"), 2)


def test_version_and_schema_need_nothing():
    assert replicator("version").stdout.strip()
    assert '"$schema"' in replicator("schema").stdout


def test_a_cluster_that_does_not_answer_is_named(tmp_path):
    """Reached for and not found: one line with the cluster and its address."""
    address = f"127.0.0.1:{free_port()}"
    file = tmp_path / "away.yaml"
    file.write_text(GOOD.partition("---")[0].replace("127.0.0.1:9876", address).split("    access_key")[0])
    said = refused(replicator("check", "-f", file), 1)
    assert "hangzhou" in said
    assert address in said
    assert len(said.splitlines()) == 1


def test_a_data_directory_that_cannot_be_made_is_one_line(good, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = replicator("run", "-f", good, "--data-dir", tmp_path / "file" / "data", "--listen", f"127.0.0.1:{free_port()}")
    said = refused(result, 1)
    assert str(tmp_path / "file") in said.splitlines()[-1]
