"""What ``run`` and the services are asked to do, read and judged before anything is started."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput, Unsafe

if TYPE_CHECKING:
    from replicator.coordinator.api.tls import TlsFiles

INSTANCE_HOST_LENGTH_MAX = 24
PORT_MAX = 65535
NAME = r"[a-z0-9-]{1,40}"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """``database_url`` empty: an embedded Postgres in ``data_dir``."""

    files: tuple[Path, ...]
    data_dir: Path
    host: str
    port: int
    token: str | None = None
    database_url: str = ""
    lost: tuple[str, ...] = ()
    """Clusters of the files that are gone, and are not waited for."""
    tls: TlsFiles | None = None


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Of a coordinator or worker as a process of its own. ``host`` empty: it does not listen."""

    database_url: str
    host: str = ""
    port: int = 0
    token: str | None = None
    near: str = ""
    tls: TlsFiles | None = None


def parse_near(text: str) -> str:
    """A cluster's name; whether it is declared shows later, and may change."""
    if text and not re.fullmatch(NAME, text):
        raise InvalidInput(f"--near {text!r} is not the name of a cluster")
    return text


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT, [IPV6]:PORT or :PORT."""
    host, separator, port = text.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise InvalidInput(f"--listen {text!r} is not HOST:PORT", hint="for example 127.0.0.1:8420")
    return host.strip("[]") or "0.0.0.0", int(port)


def token_of_environment() -> str | None:
    """``REPLICATOR_TOKEN``, judged where it is read: what cannot stand in a header could never be presented."""
    token = os.environ.get("REPLICATOR_TOKEN") or None
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise InvalidInput("REPLICATOR_TOKEN holds blanks or characters other than ASCII")
    return token


def tls_files(cert: Path | None, key: Path | None) -> TlsFiles | None:
    """None: plain http. Raises ``InvalidInput`` for files that cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InvalidInput("a certificate and its key belong together", hint="give --tls-cert and --tls-key")
    from replicator.coordinator.api.tls import Certificate, TlsFiles

    files = TlsFiles(cert, key)
    Certificate(files)
    return files


def refuse_open_door(host: str, token: str | None, tls: TlsFiles | None = None, *, insecure_http: bool = False) -> None:
    """Without a token only this machine may ask; and a token is not sent over a network that can be listened to."""
    if is_loopback(host):
        return
    if not token:
        raise Unsafe(f"refusing to listen on {host} without a token", hint="set REPLICATOR_TOKEN, or listen on 127.0.0.1")
    if tls is None and not insecure_http:
        raise Unsafe(
            f"refusing to listen on {host} with plain http: tokens could be read on the way",
            hint="give --tls-cert and --tls-key, or --insecure-http where a proxy in front speaks TLS",
        )


def is_loopback(host: str) -> bool:
    """True where packets to ``host`` do not leave this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_instance() -> str:
    """Unique to this process and start; safe inside names of groups and clients."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:INSTANCE_HOST_LENGTH_MAX].strip("-") or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def database_url(text: str) -> str:
    """As SQLAlchemy wants it; the usual spellings of a Postgres address are taken too."""
    for prefix in ("postgres://", "postgresql://"):
        if text.startswith(prefix):
            return "postgresql+asyncpg://" + text.removeprefix(prefix)
    if not text.startswith("postgresql+asyncpg://"):
        raise InvalidInput("REPLICATOR_DATABASE_URL is not a Postgres address", hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return text
