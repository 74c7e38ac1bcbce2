"""Blocks of ten free loopback ports, reserved across processes by lock files for as long as a cluster lives."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

from deploy.local.problems import LabProblem

BLOCK_SIZE = 10
# Below the kernel's range for outgoing connections, which would take a port between two starts of a broker.
FIRST_PORT, END_PORT = 20_000, 32_000


class PortReservation:
    """*count* neighbouring blocks of ten ports, nobody else's until :meth:`release`."""

    def __init__(self, count: int) -> None:
        folder = Path(tempfile.gettempdir(), f"replicator-lab-ports-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        starts = list(range(FIRST_PORT, END_PORT - count * BLOCK_SIZE + 1, BLOCK_SIZE))
        random.shuffle(starts)
        for start in starts:
            held = _hold(folder, [start + BLOCK_SIZE * index for index in range(count)])
            if held is not None:
                self.start = start
                self._held = held
                return
        raise LabProblem(f"no {count * BLOCK_SIZE} neighbouring free ports between {FIRST_PORT} and {END_PORT}.")

    def release(self) -> None:
        for lock in self._held:
            lock.close()
        self._held = []


def _hold(folder: Path, block_starts: list[int]) -> list[IO[str]] | None:
    held: list[IO[str]] = []
    for start in block_starts:
        lock = (folder / f"{start}.lock").open("a")
        held.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not all(_is_free(port) for port in range(start, start + BLOCK_SIZE))
        except BlockingIOError:
            taken = True
        if taken:
            for opened in held:
                opened.close()
            return None
    return held


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # All interfaces: a broker's replication port listens on all of them.
            probe.bind(("", port))
        except OSError:
            return False
        return True
