"""Clusters that want an account: access control 1.0 on 4.9.7 and authentication with authorization on 5.3.3.

What an account of the replicator may do is read from docs/operations.md, section "Access to the brokers".
"""

from __future__ import annotations

import os
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.local import LocalCluster
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness

ADMIN = ("administrator", "admin-secret")
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
_BLOCK = re.compile(r"<!-- access: (\S+) -->\n```\n(.*?)```", re.S)
_AUTH = "org.apache.rocketmq.auth"
_KINDS = {"Topic": "topicPerms", "Group": "groupPerms"}


def documented(name: str, words: Mapping[str, str]) -> str:
    """One of the page's documents, its words in capitals replaced."""
    found = dict(_BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    return re.sub("|".join(rf"(?<![A-Z_]){word}(?![A-Z_])" for word in words), lambda match: words[match.group()], found[name])


class Guarded(ABC):
    """A cluster, and how rights are given there. ``version``: the page's word for it."""

    cluster: LocalCluster
    version: str

    @abstractmethod
    def apply(self, witness: Witness, document: str) -> None:
        """Makes an account as the page says."""

    @abstractmethod
    def set_right(self, witness: Witness, account: str, resource: str, actions: str) -> None:
        """``resource``: as ``Topic:orders``; ``actions``: all there are from now on, as ``Pub,Sub``; none of them when empty."""

    @abstractmethod
    def set_secret(self, witness: Witness, account: str, secret: str) -> None:
        """Of an account that exists."""

    def prepare(self, witness: Witness, part: str, words: Mapping[str, str]) -> None:
        """What the page wants an administrator to create first."""
        self.run(witness, documented(f"{part}/prepare", {**words, "NAME_SERVER": self.cluster.name_servers, "CLUSTER": self.cluster.name}))

    @staticmethod
    def run(witness: Witness, commands: str) -> None:
        for command in commands.strip().splitlines():
            program, *arguments = shlex.split(command)
            assert program == "mqadmin"
            said = witness.mqadmin(*arguments)
            assert "success" in said, f"{command}: {said}"


class AccessControl1(Guarded):
    """4.x: a file the broker reads again when it changes. Topics and groups only, Pub and Sub only."""

    version = "4"

    def __init__(self, name: str, directory: Path) -> None:
        broker_name = f"{name}-a"
        self._file = directory / broker_name / "conf" / "plain_acl.yml"
        self._file.parent.mkdir(parents=True)
        self._accounts: dict[str, dict[str, Any]] = {}
        self._write()
        self.cluster = LocalCluster(
            name, version="4.9.7", brokers=[broker_name], directory=directory, broker_properties=PATIENT | {"aclEnable": True}
        )

    def apply(self, witness: Witness, document: str) -> None:
        for account in yaml.safe_load(document):
            known = self._accounts.setdefault(account["accessKey"], account)
            for part in _KINDS.values():
                known[part] = list(dict.fromkeys([*known[part], *account[part]]))
        self._write()

    def set_right(self, witness: Witness, account: str, resource: str, actions: str) -> None:
        kind, _, name = resource.partition(":")
        part = self._accounts[account][_KINDS[kind]]
        part[:] = [one for one in part if not one.startswith(f"{name}=")]
        part.append(f"{name}={actions.upper().replace(',', '|') or 'DENY'}")
        self._write()

    def set_secret(self, witness: Witness, account: str, secret: str) -> None:
        self._accounts[account]["secretKey"] = secret
        self._write()

    def _write(self) -> None:
        admin = {"accessKey": ADMIN[0], "secretKey": ADMIN[1], "admin": True}
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(yaml.safe_dump({"accounts": [admin, *self._accounts.values()]}))
        os.replace(fresh, self._file)


class Auth2(Guarded):
    """5.x: accounts and policies, changed by commands of an administrator."""

    version = "5"

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

    def apply(self, witness: Witness, document: str) -> None:
        self.run(witness, document.replace("BROKER", self.cluster.broker_addresses[0]))

    def set_right(self, witness: Witness, account: str, resource: str, actions: str) -> None:
        what = f"-a {actions} -d Allow" if actions else "-a Pub,Sub,Get -d Deny"
        self.run(witness, f"mqadmin updateAcl -b {self.cluster.broker_addresses[0]} -s User:{account} -r {resource} {what}")

    def set_secret(self, witness: Witness, account: str, secret: str) -> None:
        self.run(witness, f"mqadmin updateUser -b {self.cluster.broker_addresses[0]} -u {account} -p {secret}")
