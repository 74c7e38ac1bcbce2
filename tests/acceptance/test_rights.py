"""Accounts on real brokers: a wrong secret, a right that is missing, taken away and given back, keys that change, the least that is enough.

What the accounts may do is read from ``docs/operations.md``, section "Access to the brokers".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local import running_clusters
from tests.acceptance.command import refused, run_command
from tests.acceptance.guarded import ADMIN, AccessControl1, Auth2, Guarded, documented
from tests.acceptance.process import ReplicatorProcess, cluster_yaml, free_port, one_way, task_yaml
from tests.acceptance.truth import assert_copied_exactly
from tests.witness.client import Witness

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(600)]
OLD, NEW = "chengdu", "kunming"
REFUSAL = {OLD: "No default permission for", NEW: "no permission"}
MESSAGES = 100
LIGHT_PER_SECOND = 20
LARGE_BODY_BYTES = 3_950_000
"""Goes alone: 4.9.7 asks for no right at all for a batch."""
BLOCKED_SECONDS_MAX = 60.0
BACK_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1


class Account:
    """What the replicator has on one side: an account made as the page says, and the files with its key."""

    def __init__(self, one: Guarded, part: str, words: dict[str, str], folder: Path) -> None:
        self.one, self.part, self.words = one, part, words
        self.key_file, self.secret_file = folder / f"{part}.key", folder / f"{part}.secret"
        self.name = self.secret = ""

    def make(self, witness: Witness, name: str, secret: str) -> None:
        """The one in use from now on, as far as the cluster is concerned."""
        words = self.words | {"ACCOUNT": name, "SECRET": secret}
        self.one.apply(witness, documented(f"{self.part}/{self.one.version}", words))
        self.name, self.secret = name, secret

    def write_files(self) -> None:
        for file, text in ((self.key_file, self.name), (self.secret_file, self.secret)):
            fresh = file.with_suffix(".fresh")
            fresh.write_text(text)
            fresh.replace(file)

    def set_secret(self, witness: Witness, secret: str) -> None:
        self.one.set_secret(witness, self.name, secret)
        self.secret = secret

    def document(self) -> str:
        cluster = self.one.cluster
        lines = [f"access_key: {{file: {self.key_file}}}", f"secret_key: {{file: {self.secret_file}}}"]
        return cluster_yaml(cluster.name, cluster.name_servers, *lines)


@dataclass(frozen=True)
class Case:
    source: Account
    destination: Account
    topic: str
    task: str

    @property
    def lock_group(self) -> str:
        return f"replicator-lock-{self.destination.words['DESTINATION_ID']}"

    def documents(self) -> list[str]:
        task = task_yaml(self.task, self.topic, one_way(self.source.one.cluster.name, self.destination.one.cluster.name))
        return [self.source.document(), self.destination.document(), task]


@pytest.fixture(scope="module")
def admin():
    """The official client with an administrator's account."""
    with Witness(account=ADMIN) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    old, new = AccessControl1(OLD, tmp_path_factory.mktemp(OLD)), Auth2(NEW, tmp_path_factory.mktemp(NEW))
    with running_clusters(old.cluster, new.cluster):
        yield old, new


@pytest.fixture(params=[OLD, NEW])
def case(request, guarded, admin, topic_name, tmp_path) -> Case:
    """``request.param`` is the source. Everything is as the page wants it."""
    source, destination = guarded if request.param == OLD else guarded[::-1]
    topic = topic_name("orders")
    words = {
        "TOPIC": topic, "TASK": f"task-{topic}", "DESTINATION": destination.cluster.name,
        "SOURCE_ID": f"id-{source.cluster.name}", "DESTINATION_ID": f"id-{destination.cluster.name}",
    }  # fmt: skip
    source.prepare(admin, "source", words)
    destination.prepare(admin, "destination", words)
    sides = []
    for part, one in (("source", source), ("destination", destination)):
        admin.create_topic(one.cluster.name_servers, topic, queues=1)
        account = Account(one, part, words, tmp_path)
        account.make(admin, f"{part}-of-{topic}", f"{part}-secret-1")
        account.write_files()
        sides.append(account)
    return Case(*sides, topic, words["TASK"])


@pytest.mark.parametrize("index", [0, 1], ids=[OLD, NEW])
def test_a_wrong_secret(guarded, tmp_path, index) -> None:
    one = guarded[index]
    file = tmp_path / "wrong.yaml"
    lines = ["access_key: {env: WRONG_KEY}", "secret_key: {env: WRONG_SECRET}"]
    file.write_text(cluster_yaml(one.cluster.name, one.cluster.name_servers, *lines))
    commands = [("check", "-f", file), ("run", "-f", file, "--data-dir", tmp_path / "data", "--listen", f"127.0.0.1:{free_port()}")]
    for command in commands:
        result = run_command(*command, environment={"WRONG_KEY": ADMIN[0], "WRONG_SECRET": "another-secret"})
        said = refused(result, 1)
        assert f"cluster {one.cluster.name}" in said
        assert one.cluster.broker_names[0] in said
        assert "access_key" in said
        assert "another-secret" not in result.stdout + said


def finish(process: ReplicatorProcess, case: Case, admin: Witness, total: int) -> None:
    source, destination = case.source.one.cluster, case.destination.one.cluster
    process.wait_caught_up(BACK_SECONDS_MAX, copied_at_least=total)
    born = admin.drain(source.name_servers, case.topic, expect=total)
    assert len(born) == total
    assert_copied_exactly(born, admin.drain(destination.name_servers, case.topic, expect=total), {"origin": source.name})
    process.assert_no_traceback()
    assert process.stop() < 10


def started(case: Case, replicator: Callable[..., ReplicatorProcess]) -> ReplicatorProcess:
    process = replicator(*case.documents())
    process.start()
    process.wait_ready()
    return process


def test_a_missing_right_blocks_until_it_is_granted(case, admin, replicator) -> None:
    """With the least rights on both sides; first without the one to write to the topic."""
    source, destination = case.source.one.cluster, case.destination.one.cluster
    resource = f"Topic:{case.topic}"
    case.destination.one.set_right(admin, case.destination.name, resource, "Sub" if destination.name == OLD else "Sub,Get")
    admin.produce(source.name_servers, case.topic, 1, prefix="large", body_bytes=LARGE_BODY_BYTES, with_keys=True)
    admin.bulk(source.name_servers, case.topic, MESSAGES, prefix="before", with_keys=True)
    process = started(case, replicator)
    told = " ".join(refused(run_command("check", "-f", process.file), 1).split())
    assert f"cluster {destination.name}: topic {case.topic} may not be written to" in told
    assert REFUSAL[destination.name] in told
    flow = process.wait_flow("blocked for the right", lambda flow: flow["state"] == "blocked", BLOCKED_SECONDS_MAX)
    assert f"cluster {destination.name}" in flow["error"]
    assert case.topic in flow["error"]
    assert REFUSAL[destination.name] in flow["error"]
    assert not admin.drain(destination.name_servers, case.topic)
    case.destination.one.set_right(admin, case.destination.name, resource, "Pub,Sub" if destination.name == OLD else "Pub,Sub,Get")
    process.wait_caught_up(60, copied_at_least=1 + MESSAGES)
    checked = run_command("check", "-f", process.file)
    assert checked.returncode == 0, checked.stderr
    admin.bulk(source.name_servers, case.topic, MESSAGES, prefix="after", with_keys=True)
    finish(process, case, admin, 1 + 2 * MESSAGES)
    assert f"group replicator-{case.task}-{destination.name}" not in process.log.read_text(), "the position could not be published"


def test_rights_taken_away_block_until_they_are_given_back(case, admin, replicator) -> None:
    topic, reader = f"Topic:{case.topic}", "Group:replicator-reader"
    if case.source.one.cluster.name == OLD:
        taken = [(case.source, topic, "", "Sub"), (case.source, reader, "", "Sub"), (case.destination, topic, "Sub,Get", "Pub,Sub,Get")]
    else:
        taken = [(case.source, topic, "Get", "Sub,Get"), (case.source, f"Group:{case.lock_group}", "", "Sub")]
    process = started(case, replicator)
    source = case.source.one.cluster.name_servers
    for number, (account, resource, rest, all_of_it) in enumerate(taken, 1):
        admin.bulk(source, case.topic, MESSAGES, prefix=f"with-{number}", with_keys=True)
        process.wait_caught_up(60, copied_at_least=(2 * number - 1) * MESSAGES)
        account.one.set_right(admin, account.name, resource, rest)
        admin.bulk(source, case.topic, MESSAGES, prefix=f"without-{number}", with_keys=True)
        flow = process.wait_flow(f"blocked for {resource}", lambda flow: flow["state"] == "blocked", BLOCKED_SECONDS_MAX)
        assert f"cluster {account.one.cluster.name}" in flow["error"]
        assert "permission" in flow["error"]
        account.one.set_right(admin, account.name, resource, all_of_it)
        process.wait_caught_up(BACK_SECONDS_MAX, copied_at_least=2 * number * MESSAGES)
    finish(process, case, admin, 2 * len(taken) * MESSAGES)


@contextmanager
def light_traffic(admin: Witness, case: Case) -> Iterator[Callable[[], int]]:
    """One second's messages after another, until the end of the block; how many there were is told then."""
    stop, sent = threading.Event(), [0]
    problems: list[BaseException] = []

    def produce() -> None:
        try:
            while not stop.is_set():
                sent[0] += len(admin.produce(
                    case.source.one.cluster.name_servers, case.topic, LIGHT_PER_SECOND, prefix="light", first=sent[0],
                    per_second=LIGHT_PER_SECOND, with_keys=True,
                ))  # fmt: skip
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=produce, name="light-traffic")
    thread.start()
    try:
        yield lambda: sent[0]
    finally:
        stop.set()
        thread.join()
    assert not problems, problems[0]


def goes_on(process: ReplicatorProcess, seconds_of_traffic: int = 3) -> None:
    """Copies that much more, and is never seen blocked meanwhile."""
    goal = process.flows()[0]["copied_total"] + seconds_of_traffic * LIGHT_PER_SECOND
    deadline = time.monotonic() + BACK_SECONDS_MAX
    while (flow := process.flows()[0])["copied_total"] < goal:
        assert flow["state"] == "running", flow
        assert time.monotonic() < deadline, flow
        time.sleep(POLL_SECONDS)


def change_account_first(process: ReplicatorProcess, account: Account, admin: Witness) -> None:
    account.set_secret(admin, f"{account.part}-secret-2")
    flow = process.wait_flow("blocked for the key", lambda flow: flow["state"] == "blocked", BLOCKED_SECONDS_MAX)
    assert f"cluster {account.one.cluster.name}" in flow["error"]
    assert "check access_key and secret_key" in flow["error"]
    account.write_files()
    process.wait_flow("running again", lambda flow: flow["state"] == "running", BACK_SECONDS_MAX)
    goes_on(process)


def change_file_first(process: ReplicatorProcess, account: Account, admin: Witness) -> None:
    secret = account.secret = f"{account.part}-secret-3"
    account.write_files()
    goes_on(process)
    account.set_secret(admin, secret)
    goes_on(process, 8)


def change_to_a_second_account(process: ReplicatorProcess, account: Account, admin: Witness) -> None:
    former = account.name
    account.make(admin, f"second-{former}", f"{account.part}-secret-4")
    account.write_files()
    goes_on(process)
    account.one.set_secret(admin, former, "nobody-knows-this")
    goes_on(process, 8)


def test_keys_change_without_a_restart(case, admin, replicator) -> None:
    with light_traffic(admin, case) as sent:
        process = started(case, replicator)
        process.wait_flow("copying", lambda flow: flow["copied_total"] > 0, 60)
        pid = process.pid
        for account in (case.source, case.destination):
            change_account_first(process, account, admin)
            change_file_first(process, account, admin)
            change_to_a_second_account(process, account, admin)
    finish(process, case, admin, sent())
    assert process.pid == pid
