"""Code of before the newest migration, as git has it, copies on the newest schema: processes may be exchanged one after the other."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from replicator.store import migrating, schema
from tests.tidy.test_tree import ROOT

pytestmark = [pytest.mark.postgres, pytest.mark.long]

WORK = ROOT / "tests" / "upgrade" / "work.py"
WORK_SECONDS_MAX = 120


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def commit_before(revision: str) -> str:
    """The last commit without the migration."""
    (path,) = (ROOT / "migrations" / "versions").glob(f"{revision}_*.py")
    added = git("log", "--format=%H", "--diff-filter=A", "-1", "--", str(path.relative_to(ROOT))).decode().strip()
    assert added, f"{path.name} is not committed, or this clone has no history"
    return git("rev-parse", f"{added}^").decode().strip()


def test_the_code_before_the_newest_migration_works_on_its_schema(postgres_url, tmp_path):
    files = git("archive", commit_before(schema.head()), "replicator", "connectors", "migrations")
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(tmp_path, filter="data")
    assert not list((tmp_path / "migrations" / "versions").glob(f"{schema.head()}_*.py"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, WORK, postgres_url], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=WORK_SECONDS_MAX
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/replicator/__init__.py 50"


async def test_an_upgrade_leaves_the_schema_of_a_later_release_alone(postgres_url):
    engine = create_async_engine(postgres_url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await migrating.upgrade(postgres_url)
    async with engine.begin() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"
        await schema.check(connection)
    await engine.dispose()
