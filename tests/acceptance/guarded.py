"""Clusters that want an account: access control 1.0 on 4.9.7 and authentication with authorization on 5.3.3."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local import LocalCluster
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness

ADMIN = ("administrator", "admin-secret")
SECRET = "replicator-secret"
"""Of every account the replicator has."""

Rights = Mapping[str, Sequence[str]]
"""``Topic:orders``, ``Group:g``, ``Cluster:*`` and what is allowed there: Pub, Sub, Get, …"""

_AUTH = "org.apache.rocketmq.auth"


class Guarded(ABC):
    """A cluster, and how rights are given there."""

    cluster: LocalCluster

    @abstractmethod
    def grant(self, witness: Witness, account: str, rights: Rights) -> None:
        """Adds to what the account may do."""


class AccessControl1(Guarded):
    """4.x: a file the broker reads again when it changes (looked at every 5 s). Topics and groups only, Pub and Sub only."""

    def __init__(self, name: str, directory: Path) -> None:
        broker_name = f"{name}-a"
        self._file = directory / broker_name / "conf" / "plain_acl.yml"
        self._file.parent.mkdir(parents=True)
        self._accounts: dict[str, dict[str, list[str]]] = {}
        self._write()
        self.cluster = LocalCluster(
            name, version="4.9.7", brokers=[broker_name], directory=directory, broker_properties=PATIENT | {"aclEnable": True}
        )

    def grant(self, witness: Witness, account: str, rights: Rights) -> None:
        known = self._accounts.setdefault(account, {})
        for resource, actions in rights.items():
            known[resource] = sorted({*known.get(resource, ()), *actions})
        self._write()

    def _write(self) -> None:
        lines = ["accounts:", f"- accessKey: {ADMIN[0]}", f"  secretKey: {ADMIN[1]}", "  admin: true"]
        for account, rights in self._accounts.items():
            lines += [f"- accessKey: {account}", f"  secretKey: {SECRET}", "  admin: false"]
            lines += ["  defaultTopicPerm: DENY", "  defaultGroupPerm: DENY"]
            for kind in ("Topic", "Group"):
                named = [(resource.partition(":")[2], actions) for resource, actions in rights.items() if resource.startswith(kind)]
                lines += [f"  {kind.lower()}Perms:"] if named else []
                lines += [f"  - '{name}={'|'.join(actions).upper()}'" for name, actions in named]
        self._file.write_text("\n".join(lines) + "\n")


class Auth2(Guarded):
    """5.x: accounts and policies, changed by commands of an administrator."""

    def __init__(self, name: str, directory: Path) -> None:
        admin = f'"{{}}":"{ADMIN[0]}","{{}}":"{ADMIN[1]}"'
        properties = {
            "authenticationEnabled": True,
            "authenticationProvider": f"{_AUTH}.authentication.provider.DefaultAuthenticationProvider",
            "authenticationMetadataProvider": f"{_AUTH}.authentication.provider.LocalAuthenticationMetadataProvider",
            "initAuthenticationUser": "{" + admin.format("username", "password") + "}",
            "innerClientAuthenticationCredentials": "{" + admin.format("accessKey", "secretKey") + "}",
            "authorizationEnabled": True,
            "authorizationProvider": f"{_AUTH}.authorization.provider.DefaultAuthorizationProvider",
            "authorizationMetadataProvider": f"{_AUTH}.authorization.provider.LocalAuthorizationMetadataProvider",
        }
        self.cluster = LocalCluster(name, directory=directory, broker_properties=PATIENT | properties)
        self._accounts: dict[str, dict[str, list[str]]] = {}

    def grant(self, witness: Witness, account: str, rights: Rights) -> None:
        if account not in self._accounts:
            self._ask(witness, "createUser", "-u", account, "-p", SECRET, "-t", "Normal")
        known = self._accounts.setdefault(account, {})
        for resource, actions in rights.items():
            command = "updateAcl" if known else "createAcl"
            # What is set for a resource takes the place of what was.
            known[resource] = sorted({*known.get(resource, ()), *actions})
            self._ask(witness, command, "-s", f"User:{account}", "-r", resource, "-a", ",".join(known[resource]), "-d", "Allow")

    def _ask(self, witness: Witness, command: str, *words: str) -> None:
        said = witness.mqadmin(command, "-b", self.cluster.broker_addresses[0], *words)
        assert "success" in said, said
