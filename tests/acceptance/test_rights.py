"""Accounts on real brokers: a wrong secret, a right that is missing and granted later, and the least that is enough.

``docs/operations.md``, section "Rights", lists what is granted here.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from deploy.local import start_clusters, stop_clusters
from tests.acceptance.command import refused, run_command
from tests.acceptance.guarded import ADMIN, SECRET, AccessControl1, Auth2, Guarded, Rights
from tests.acceptance.process import cluster_yaml, free_port, one_way, task_yaml
from tests.acceptance.truth import assert_copied_exactly
from tests.witness.client import Witness

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(180)]
OLD, NEW = "chengdu", "kunming"
MARKS = {OLD: "replicator-id-chengdu", NEW: "replicator-id-kunming"}
BARRIER_TOPIC = "replicator-barrier"
READER, WRITER = "source-account", "destination-account"
ACCOUNT_LINES = ["access_key: {env: REPLICATOR_TEST_KEY}", "secret_key: {env: REPLICATOR_TEST_SECRET}"]
REFUSAL = {OLD: "No default permission for", NEW: "no permission"}
MESSAGES = 100
LARGE_BODY_BYTES = 3_950_000
"""Goes alone: 4.9.7 asks for no right at all for a batch."""


@dataclass(frozen=True)
class Case:
    source: Guarded
    destination: Guarded
    topic: str

    @property
    def task(self) -> str:
        return f"from-{self.source.cluster.name}"

    @property
    def position_group(self) -> str:
        return f"replicator-{self.task}-{self.destination.cluster.name}"

    @property
    def lock_group(self) -> str:
        return f"replicator-lock-{MARKS[self.destination.cluster.name].removeprefix('replicator-id-')}"


def source_rights(case: Case) -> Rights:
    """Reading, its queue locks, and its position under its own group."""
    topic = f"Topic:{case.topic}"
    groups: Rights = {f"Group:{group}": ["Sub"] for group in ("replicator-reader", case.position_group)}
    if isinstance(case.source, AccessControl1):
        return {topic: ["Sub"], **groups}
    return {topic: ["Sub", "Get"], **groups, f"Group:{case.lock_group}": ["Sub"]}


def destination_rights(case: Case) -> Rights:
    """All but the right to write to the topic itself."""
    topic, barrier, group = f"Topic:{case.topic}", f"Topic:{BARRIER_TOPIC}", "Group:replicator-reader"
    if isinstance(case.destination, AccessControl1):
        return {topic: ["Sub"], barrier: ["Pub", "Sub"], group: ["Sub"]}
    return {topic: ["Sub", "Get"], barrier: ["Pub", "Sub", "Get"], group: ["Sub"], "Cluster:*": ["Get"]}


@pytest.fixture(scope="module")
def admin():
    """The official client with an administrator's account."""
    with Witness(account=ADMIN) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, admin):
    """Both clusters with everything that only an administrator may create."""
    old, new = AccessControl1(OLD, tmp_path_factory.mktemp(OLD)), Auth2(NEW, tmp_path_factory.mktemp(NEW))
    start_clusters(old.cluster, new.cluster)
    try:
        for one in (old, new):
            admin.create_topic(one.cluster.name_servers, MARKS[one.cluster.name], queues=1)
            admin.create_topic(one.cluster.name_servers, BARRIER_TOPIC, queues=1)
        yield old, new
    finally:
        stop_clusters(old.cluster, new.cluster)


@pytest.fixture(params=[OLD, NEW])
def case(request, guarded, admin) -> Case:
    """``request.param`` is the source."""
    source, destination = guarded if request.param == OLD else guarded[::-1]
    case = Case(source, destination, f"orders-of-{request.param}")
    for one in (source, destination):
        admin.create_topic(one.cluster.name_servers, case.topic, queues=1)
    for group in ("replicator-reader", case.position_group):
        for one in (source, destination):
            admin.create_group(one.cluster.name_servers, group)
    source.grant(admin, READER, source_rights(case))
    destination.grant(admin, WRITER, destination_rights(case))
    return case


def account(prefix: str, key: str, secret: str = SECRET) -> tuple[list[str], dict[str, str]]:
    """Lines of a cluster's settings, and the environment they name."""
    lines = [line.replace("REPLICATOR_TEST", prefix) for line in ACCOUNT_LINES]
    return lines, {f"{prefix}_KEY": key, f"{prefix}_SECRET": secret}


@pytest.mark.parametrize("index", [0, 1], ids=[OLD, NEW])
def test_a_wrong_secret(guarded, admin, tmp_path, index) -> None:
    one = guarded[index]
    lines, environment = account("WRONG", ADMIN[0], "another-secret")
    file = tmp_path / "wrong.yaml"
    file.write_text(cluster_yaml(one.cluster.name, one.cluster.name_servers, *lines))
    commands = [("check", "-f", file), ("run", "-f", file, "--data-dir", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}")]
    for command in commands:
        result = run_command(*command, environment=environment)
        said = refused(result, 1)
        assert f"cluster {one.cluster.name}" in said
        assert one.cluster.broker_names[0] in said
        assert "access_key" in said
        assert "another-secret" not in result.stdout + said


def test_a_missing_right_blocks_until_it_is_granted(case, admin, replicator, monkeypatch) -> None:
    """With the least rights on both sides; first without the one to write to the topic."""
    source, destination = case.source.cluster, case.destination.cluster
    documents = []
    for prefix, cluster, key in (("SOURCE", source, READER), ("DESTINATION", destination, WRITER)):
        lines, environment = account(prefix, key)
        documents.append(cluster_yaml(cluster.name, cluster.name_servers, *lines))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    task = task_yaml(case.task, case.topic, one_way(source.name, destination.name))
    admin.produce(source.name_servers, case.topic, 1, prefix="large", body_bytes=LARGE_BODY_BYTES, with_keys=True)
    admin.bulk(source.name_servers, case.topic, MESSAGES, prefix="before", with_keys=True)
    process = replicator(*documents, task)
    process.start()
    process.wait_ready()
    flow = process.wait_flow("blocked for the right", lambda flow: flow["state"] == "blocked", 60)
    assert f"cluster {destination.name}" in flow["error"]
    assert case.topic in flow["error"]
    assert REFUSAL[destination.name] in flow["error"]
    assert not admin.drain(destination.name_servers, case.topic)
    case.destination.grant(admin, WRITER, {f"Topic:{case.topic}": ["Pub"]})
    process.wait_caught_up(60, copied_at_least=1 + MESSAGES)
    admin.bulk(source.name_servers, case.topic, MESSAGES, prefix="after", with_keys=True)
    process.wait_caught_up(60, copied_at_least=1 + 2 * MESSAGES)
    born = admin.drain(source.name_servers, case.topic, expect=1 + 2 * MESSAGES)
    assert len(born) == 1 + 2 * MESSAGES
    assert_copied_exactly(born, admin.drain(destination.name_servers, case.topic, expect=1 + 2 * MESSAGES), {"origin": source.name})
    assert f"group {case.position_group}" not in process.log.read_text(), "the position could not be published"
    process.assert_no_traceback()
    assert process.stop() < 10
