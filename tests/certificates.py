"""Certificates for tests, made by the ``openssl`` command: a root of their own, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL_SECONDS_MAX = 60


@dataclass(frozen=True)
class Pair:
    cert: Path
    key: Path


class Authority:
    """A root certificate in ``folder``; what it issues is good for ``localhost`` and 127.0.0.1 unless told otherwise."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        self.folder = folder
        self.root = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        _openssl(
            "req", "-x509", *_new_key(self.root), "-days", "2", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def issue(self, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        made = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        _openssl(
            "req", "-x509", *_new_key(made), "-days", "2", "-subj", f"/CN={name}", "-CA", str(self.root.cert), "-CAkey",
            str(self.root.key), "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
        return made

    def issue_expired(self, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """Good until yesterday."""
        made, request = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key"), self.folder / f"{name}.csr"
        _openssl("req", *_new_key(Pair(request, made.key)), "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.root.cert), "-CAkey", str(self.root.key), "-CAcreateserial",
            "-days", "-1", "-copy_extensions", "copy", "-out", str(made.cert),
        )  # fmt: skip
        return made


def _new_key(made: Pair) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key), "-out", str(made.cert)]


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=OPENSSL_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
