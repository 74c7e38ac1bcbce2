"""Access keys and TLS contexts, read where they are used: at each new connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from connectors.rocketmq.remoting import acl
from connectors.rocketmq.remoting.command import RemotingCommand


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str
    security_token: str = ""

    def sign(self, command: RemotingCommand) -> None:
        command.ext_fields = acl.sign(command.ext_fields, command.body, self.access_key, self.secret_key, self.security_token)

    def __repr__(self) -> str:
        return "Credentials(…)"


@dataclass(frozen=True, slots=True)
class Security:
    """How connections are made. ``credentials`` and ``tls`` are asked at each connection, so that rotated files take effect."""

    credentials: Callable[[], Credentials | None] = lambda: None
    tls: Callable[[], ssl.SSLContext | None] = lambda: None
    server_name: str = ""
