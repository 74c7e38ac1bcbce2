"""JVMs as children: started on a leash, their output in a file, ended by their own pid."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
TERMINATE_SECONDS_MAX = 40.0
FROZEN_LOOK_SECONDS = 0.001
TAIL_LINES_MAX = 15

_requests: queue.SimpleQueue[tuple[list[str], Path, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
_spawner_lock = threading.Lock()
_spawner: threading.Thread | None = None


def _spawn_for_ever() -> None:
    while True:
        command, output, started = _requests.get()
        try:
            with output.open("ab") as sink:
                started.set_result(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
                )
        except OSError as problem:
            started.set_exception(problem)


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Starts *command* from a thread that lives as long as this process.

    The kernel's "parent died" means the *thread* that forked: a child started from a short-lived thread would be
    killed as soon as that thread returned.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None:
            _spawner = threading.Thread(target=_spawn_for_ever, name="lab-spawner", daemon=True)
            _spawner.start()
    started: Future[subprocess.Popen[bytes]] = Future()
    _requests.put((command, output, started))
    return started.result()


class Child:
    """One running server process. All methods block; none raises when the process is already gone."""

    def __init__(self, label: str, command: Sequence[str], output: Path) -> None:
        self.label = label
        self.output = output
        leashed = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command]
        self._process = _spawn(leashed, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def condition(self) -> str:
        return "does not get ready" if self.is_running else f"ended with status {self._process.returncode}"

    def tail(self) -> str:
        # Some versions narrate hundreds of lines of their logging set-up first.
        lines = [line for line in self.output.read_text(errors="replace").splitlines() if line.strip() and "|-INFO" not in line]
        return " | ".join(line.strip() for line in lines[-TAIL_LINES_MAX:]) or f"no output in {self.output}"

    def kill(self) -> None:
        """Ends the process at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Asks the process to end and waits for it; one that does not within the limit is killed."""
        self._process.terminate()
        try:
            self._process.wait(TERMINATE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self) -> None:
        """Stops the process without ending it: connections stay open and nothing answers, from the moment this returns."""
        self._process.send_signal(signal.SIGSTOP)
        while not self._is_frozen():  # The signal is sent at once; threads stop one after the other.
            time.sleep(FROZEN_LOOK_SECONDS)

    def _is_frozen(self) -> bool:
        """All of its threads are; where nobody can say (no /proc), the signal has to do."""
        tasks = Path("/proc", str(self._process.pid), "task")
        if not tasks.is_dir():
            return True
        for task in tasks.iterdir():
            try:
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # A thread that has ended.
            if state not in "TtXZ":
                return False
        return True

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)
