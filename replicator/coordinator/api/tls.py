"""The certificate the API shows: read at the start, and again whenever its files change, without a restart."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from replicator.core.errors import InvalidInput

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks at the files: so long the old certificate is shown after they changed."""

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM. ``cert``: the certificate, then the ones up to its root; ``key``: its key, without a passphrase."""

    cert: Path
    key: Path


class Certificate:
    """``context`` stays the same object: connections that are open keep what they were opened with, new ones get the new one.
    Raises ``InvalidInput`` for files that are not there or do not belong together."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = self._look()
        self.context = _context()
        self._load(self.context)

    async def watch(self) -> None:
        """Until cancelled. While the files do not belong together (one is written after the other) the old certificate stays."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._reload()

    def _reload(self) -> None:
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            # First into another one: half a change would leave the live one with a key that does not fit.
            self._load(_context())
            self._load(self.context)
        except InvalidInput as error:
            log.warning("certificate not read, the old one stays", error=str(error))
            return
        self._stamp = stamp
        log.info("certificate read again", cert=str(self._files.cert))

    def _look(self) -> _Stamp:
        try:
            found = [os.stat(path) for path in (self._files.cert, self._files.key)]
        except OSError as error:
            raise InvalidInput(f"{error.filename}: {error.strerror}") from error
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A key with a passphrase would ask for it on the terminal.
            context.load_cert_chain(self._files.cert, self._files.key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{self._files.cert} and {self._files.key} cannot be used for TLS: {error}",
                hint="PEM files that belong together, the key without a passphrase",
            ) from error


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
