"""The embedded server: start, stop, sudden death of either side, one process a data directory."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from replicator.store import embedded
from replicator.store.embedded import DataDirInUse, EmbeddedPostgres, PostgresFailed, find_binaries

pytestmark = pytest.mark.postgres

STOP_SECONDS_MAX = 5.0
END_SECONDS_MAX = 10.0

PARENT = """
import asyncio, sys
from replicator.store.embedded import EmbeddedPostgres
async def main():
    async with EmbeddedPostgres(sys.argv[1], durable=False) as postgres:
        print(postgres.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def ask(url, statement):
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def ended(pid):
    deadline = time.monotonic() + END_SECONDS_MAX
    while is_running(pid):
        assert time.monotonic() < deadline, f"pid {pid} still runs"
        await asyncio.sleep(0.01)


def start_parent(data_dir):
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(data_dir)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def start_stranger():
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


async def test_data_outlives_a_stop_and_nothing_runs_after_it(data_dir):
    postgres = EmbeddedPostgres(data_dir)
    await postgres.start()
    await postgres.start()
    pid = postgres.pid
    await ask(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    begin = time.monotonic()
    await postgres.stop()
    assert time.monotonic() - begin < STOP_SECONDS_MAX
    assert postgres.pid is None
    assert not is_running(pid)
    await postgres.stop()
    async with EmbeddedPostgres(data_dir) as again:
        assert await ask(again.url, "SELECT answer FROM kept") == 42


async def test_a_stop_does_not_wait_for_open_connections(data_dir):
    postgres = EmbeddedPostgres(data_dir, durable=False)
    await postgres.start()
    engine = create_async_engine(postgres.url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        begin = time.monotonic()
        await postgres.stop()
        assert time.monotonic() - begin < STOP_SECONDS_MAX
        await connection.invalidate()
    await engine.dispose()


async def test_the_password_is_secret_and_needed(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        password = data_dir / "postgres.password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        secret = password.read_text().strip()
        assert len(secret) >= 24
        assert secret.encode() not in command_line(postgres.pid)
        with pytest.raises(Exception, match="password authentication failed"):
            await ask(postgres.url.replace(secret, "wrong"), "SELECT 1")


async def test_permissions_of_folders_that_were_there_stay_and_a_closed_parent_is_no_obstacle(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with EmbeddedPostgres(closed / "data", durable=False) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


async def test_a_folder_that_was_closed_or_opened_between_two_starts(tmp_path):
    tmp_path.chmod(0o700)
    data_dir = tmp_path / "data"
    for mode in (0o700, 0o711, 0o700):
        data_dir.mkdir(exist_ok=True)
        data_dir.chmod(mode)
        async with EmbeddedPostgres(data_dir, durable=False) as postgres:
            assert await ask(postgres.url, "SELECT 1") == 1


async def test_a_second_process_is_told_who_uses_the_data_directory(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False):
        with pytest.raises(DataDirInUse, match=f"already in use by pid {os.getpid()}"):
            await EmbeddedPostgres(data_dir).start()


async def test_a_killed_server_is_started_again_at_once_under_the_same_address(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        url = postgres.url
        await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(postgres.pid, signal.SIGKILL)
        assert await postgres.wait() == -signal.SIGKILL
        await postgres.start()
        assert postgres.url == url
        assert await ask(url, "SELECT answer FROM kept") == 42


async def test_kill_9_of_the_parent_leaves_nothing_running(data_dir):
    parent, pid = start_parent(data_dir)
    with parent:
        parent.kill()
    await ended(pid)
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1


async def test_a_new_parent_may_start_the_moment_the_old_one_was_killed(data_dir):
    for _ in range(3):
        parent, pid = start_parent(data_dir)
        with parent:
            parent.kill()
        async with EmbeddedPostgres(data_dir, durable=False) as postgres:
            assert not is_running(pid)
            assert await ask(postgres.url, "SELECT 1") == 1


async def test_a_server_that_did_not_notice_the_death_of_its_parent_is_ended(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False) as first:
        pid = first.pid
        second = EmbeddedPostgres(data_dir, durable=False)
        # As if the kernel had not told the server: its parent's lock is gone, the server lives.
        os.close(first._lock_fd)
        first._lock_fd = -1
        async with second:
            assert not is_running(pid)
            assert await ask(second.url, "SELECT 1") == 1


async def test_a_pid_file_naming_a_stranger_is_no_obstacle_and_the_stranger_lives(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False):
        content = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    stranger = start_stranger()
    try:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        pid_file.write_text("\n".join([str(stranger.pid), *content[1:]]) + "\n")
        async with EmbeddedPostgres(data_dir, durable=False) as postgres:
            assert await ask(postgres.url, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


async def test_half_an_initdb_is_thrown_away(data_dir):
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        assert await ask(postgres.url, "SELECT 1") == 1
    assert not (data_dir / "postgres.new").exists()


async def test_a_lost_password_and_a_foreign_version_are_said_plainly(data_dir):
    async with EmbeddedPostgres(data_dir, durable=False):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(PostgresFailed, match="incompatible with server"):
        await EmbeddedPostgres(data_dir).start()
    (data_dir / "postgres.password").unlink()
    with pytest.raises(PostgresFailed, match="cannot be opened"):
        await EmbeddedPostgres(data_dir).start()


def test_without_any_binaries_the_error_says_what_to_do(monkeypatch):
    assert (find_binaries() / "initdb").exists()
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(embedded.Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(PostgresFailed, match="REPLICATOR_DATABASE_URL"):
        find_binaries()
