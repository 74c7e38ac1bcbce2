"""TLS on real brokers and name servers that take nothing else and want a certificate of each client, from 4.9.7 to 5.3.3.

Every connection of the product goes through a relay, so that a test can end them all: a certificate counts at the next one.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.local import LocalCluster, start_clusters, stop_clusters
from tests.acceptance.command import refused, run_command
from tests.acceptance.process import cluster_yaml, one_way, task_yaml
from tests.acceptance.relay import Relay
from tests.acceptance.truth import assert_copied_exactly
from tests.certificates import Authority, Pair
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness

pytestmark = [pytest.mark.long, pytest.mark.rocketmq, pytest.mark.postgres, pytest.mark.timeout(600)]
OLD, NEW = "lhasa", "xining"
QUEUES = 2
MESSAGES = 40
RELOAD_SECONDS_MAX = 20.0
BLOCKED_SECONDS_MAX = 60.0
BACK_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1


def jvm_options(authority: Authority, server: Pair, client: Pair) -> list[str]:
    """Of servers, which are each other's clients, and of the witness. Java's clients look at no server's certificate here."""
    return [f"-Dtls.{name}={value}" for name, value in {
        "enable": "true", "test.mode.enable": "false", "server.mode": "enforcing", "server.need.client.auth": "require",
        "server.authClient": "true", "server.trustCertPath": authority.root.cert, "server.certPath": server.cert,
        "server.keyPath": server.key, "client.authServer": "false", "client.certPath": client.cert, "client.keyPath": client.key,
    }.items()]  # fmt: skip


def put(made: Pair, place: Pair) -> None:
    """Takes the place of what is there in one step for each file, as whoever renews certificates should do it."""
    for source, target in ((made.key, place.key), (made.cert, place.cert)):
        fresh = target.with_suffix(".fresh")
        shutil.copy(source, fresh)
        os.replace(fresh, target)


@dataclass
class Secured:
    """A cluster that takes nothing but TLS, and the files the product has for it: ``ca.pem``, ``ours.pem``, ``ours.key``."""

    cluster: LocalCluster
    folder: Path
    authority: Authority
    server: Pair
    ours: Pair
    ca: Path
    relays: list[Relay] = field(default_factory=list)

    def document(self, *, with_certificate: bool = True, enabled: bool = True) -> str:
        names, broker = self.relays
        tls = [f"enabled: {str(enabled).lower()}", f"ca_file: {self.ca}"]
        tls += [f"cert_file: {self.ours.cert}", f"key_file: {self.ours.key}"] if with_certificate else []
        mapped = f'address_map: {{"{self.cluster.broker_addresses[0]}": "{broker.address}"}}'
        return cluster_yaml(self.cluster.name, names.address, mapped, f"tls: {{{', '.join(tls)}}}")

    def cut(self) -> None:
        for relay in self.relays:
            relay.cut()

    def serve(self, made: Pair) -> None:
        """The servers' own certificate; they look at their files every half second."""
        put(made, self.server)
        wanted = ssl.PEM_cert_to_DER_cert(made.cert.read_text())
        deadline = time.monotonic() + RELOAD_SECONDS_MAX
        for address in (self.cluster.name_servers, self.cluster.broker_addresses[0]):
            while self._served(address) != wanted:
                assert time.monotonic() < deadline, f"{address} still shows its former certificate"
                time.sleep(POLL_SECONDS)

    def _served(self, address: str) -> bytes | None:
        host, _, port = address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, int(port)), timeout=5) as raw, context.wrap_socket(raw) as wrapped:
            return wrapped.getpeercert(binary_form=True)


def secured(name: str, version: str, folder: Path) -> Secured:
    authority = Authority(folder)
    server, internal, ours = (authority.issue(part) for part in ("server", "internal", "ours"))
    asking = ssl.create_default_context(cafile=authority.root.cert)
    asking.load_cert_chain(internal.cert, internal.key)
    ca = folder / "ca.pem"
    shutil.copy(authority.root.cert, ca)
    cluster = LocalCluster(
        name, version=version, broker_properties=PATIENT, jvm_options=jvm_options(authority, server, internal), tls=asking
    )
    return Secured(cluster, folder, authority, server, ours, ca)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Iterator[tuple[Secured, Secured]]:
    old, new = secured(OLD, "4.9.7", tmp_path_factory.mktemp(OLD)), secured(NEW, "5.3.3", tmp_path_factory.mktemp(NEW))
    start_clusters(old.cluster, new.cluster)
    try:
        for one in (old, new):
            one.relays = [Relay(one.cluster.name_servers), Relay(one.cluster.broker_addresses[0])]
        yield old, new
    finally:
        for relay in (*old.relays, *new.relays):
            relay.close()
        stop_clusters(old.cluster, new.cluster)


@pytest.fixture(scope="module")
def witnesses(both) -> Iterator[dict[str, Witness]]:
    """The official client for each cluster, with a certificate of that cluster's authority."""
    made = {}
    for one in both:
        internal = Pair(one.folder / "internal.pem", one.folder / "internal.key")
        made[one.cluster.name] = Witness(jvm_options=jvm_options(one.authority, one.server, internal))
    with made[OLD], made[NEW]:
        yield made


class Wrong:
    """One thing that is not as it should be, on one side, and how it is put right."""

    def __init__(self, one: Secured) -> None:
        self.one = one
        self.stranger = Authority(one.folder, "stranger")

    def wrong_authority(self) -> str:
        shutil.copy(self.stranger.root.cert, self.one.ca)
        return "certificate verify failed"

    def wrong_name(self) -> str:
        self.one.serve(self.one.authority.issue("elsewhere", "DNS:elsewhere.example"))
        return "certificate is not valid for '127.0.0.1'"

    def expired(self) -> str:
        self.one.serve(self.one.authority.issue_expired("expired"))
        return "certificate has expired"

    def strange_client(self) -> str:
        put(self.stranger.issue("strange"), self.one.ours)
        return "alert"

    def no_client_file(self) -> str:
        self.one.ours.cert.unlink()
        return f"cert_file {self.one.ours.cert}"

    def put_right(self, name: str) -> None:
        shutil.copy(self.one.authority.root.cert, self.one.ca)
        if name in ("wrong_name", "expired"):
            self.one.serve(self.one.authority.issue("renewed"))
        if name in ("strange_client", "no_client_file"):
            put(self.one.authority.issue("ours-renewed"), self.one.ours)


WRONGS = ("wrong_authority", "wrong_name", "expired", "strange_client", "no_client_file")


@pytest.mark.parametrize("index", [0, 1], ids=["source", "destination"])
def test_what_is_wrong_with_certificates_blocks_until_it_is_mended(both, witnesses, replicator, topic_name, index) -> None:
    source, destination = both
    topic = topic_name("tls")
    start, end = witnesses[OLD], witnesses[NEW]
    start.create_topic(source.cluster.name_servers, topic, queues=QUEUES)
    process = replicator(source.document(), destination.document(), task_yaml("tls", topic, one_way(OLD, NEW)))
    process.start()
    process.wait_ready()
    start.bulk(source.cluster.name_servers, topic, MESSAGES, prefix="first", with_keys=True)
    process.wait_caught_up(60, copied_at_least=MESSAGES)
    wrong, pid = Wrong(both[index]), process.pid
    for number, name in enumerate(WRONGS, 2):
        said = getattr(wrong, name)()
        wrong.one.cut()
        start.bulk(source.cluster.name_servers, topic, MESSAGES, prefix=name, with_keys=True)
        flow = process.wait_flow(f"blocked by {name}", lambda flow, said=said: flow["state"] == "blocked" and said in flow["error"],
                                 BLOCKED_SECONDS_MAX)
        assert f"cluster {wrong.one.cluster.name}" in flow["error"]
        checked = refused(run_command("check", "-f", process.file), 1)
        assert f"cluster {wrong.one.cluster.name}" in checked
        assert said in " ".join(checked.split())
        wrong.put_right(name)
        process.wait_caught_up(BACK_SECONDS_MAX, copied_at_least=number * MESSAGES)
    total = (1 + len(WRONGS)) * MESSAGES
    born = start.drain(source.cluster.name_servers, topic, expect=total)
    assert len(born) == total
    assert_copied_exactly(born, end.drain(destination.cluster.name_servers, topic, expect=total), {"origin": OLD})
    assert process.pid == pid
    process.assert_no_traceback()
    assert process.stop() < 10


@pytest.mark.parametrize("index", [0, 1], ids=[OLD, NEW])
@pytest.mark.parametrize(
    ("given", "said"),
    [({"with_certificate": False}, ("certificate required", "bad certificate", "another client certificate")),
     ({"enabled": False}, ("a server that wants TLS",))],
    ids=["no-certificate", "plain"],
)  # fmt: skip
def test_check_says_what_a_server_wants(both, tmp_path, index, given, said) -> None:
    file = tmp_path / "clusters.yaml"
    file.write_text(both[index].document(**given))
    told = " ".join(refused(run_command("check", "-f", file), 1).split())
    assert any(words in told for words in said), told
