"""Migrations, versions, and what becomes of driver errors."""

import asyncio
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from replicator.core.offset_map import Epoch
from replicator.store import migrating, schema
from replicator.store.embedded import EmbeddedPostgres
from replicator.store.port import ClusterRow, Conflict, StoreUnavailable
from replicator.store.postgres import PostgresStore
from replicator.store.tables import metadata

pytestmark = pytest.mark.postgres


async def execute(url, *statements):
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def open_store(url):
    store = PostgresStore(url)
    try:
        await store.open()
    finally:
        await store.close()


async def test_the_tables_are_those_of_the_migrations(postgres_url):
    def differences(connection):
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    engine = create_async_engine(postgres_url, poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_down_to_nothing_and_up_again_twice_at_once(postgres_url):
    await open_store(postgres_url)
    await migrating.downgrade(postgres_url, "base")
    with pytest.raises(schema.SchemaTooOld, match=f"schema none, this release needs {schema.head()}"):
        await open_store(postgres_url)
    await asyncio.gather(migrating.upgrade(postgres_url), migrating.upgrade(postgres_url))
    await open_store(postgres_url)


async def test_a_newer_schema_is_refused_unless_it_only_expanded(postgres_url):
    await execute(postgres_url, "UPDATE alembic_version SET version_num = '9000'")
    await open_store(postgres_url)
    await execute(postgres_url, "UPDATE meta SET oldest_code = 8999")
    with pytest.raises(schema.SchemaTooNew, match=f"schema 9000, this release knows {schema.head()}"):
        await open_store(postgres_url)


async def test_an_emptied_database_has_another_identity(postgres_url):
    store = PostgresStore(postgres_url)
    before = await store.identity()
    await migrating.downgrade(postgres_url, "base")
    await migrating.upgrade(postgres_url)
    assert await store.identity() != before
    await store.close()


async def test_an_outage_is_one_error_and_passes(tmp_path):
    async with EmbeddedPostgres(tmp_path / "data", durable=False) as postgres:
        await migrating.upgrade(postgres.url)
        store = PostgresStore(postgres.url)
        await store.open()
        await store.put_cluster(ClusterRow("a", "memory", "", {}))
        await postgres.stop()
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.clusters()
            assert postgres.url.split(":")[2].split("@")[0] not in str(caught.value)
        await postgres.start()
        assert [row.name for row in await store.clusters()] == ["a"]
        await store.close()


async def test_a_host_that_does_not_answer_is_unavailable_in_bounded_time():
    """A listener that never speaks Postgres: the connection is made, then nothing."""
    done = asyncio.Event()

    async def silent(reader, writer):
        await done.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = PostgresStore(f"postgresql+asyncpg://u:secret@127.0.0.1:{port}/d")
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await store.open()
    assert time.monotonic() - begin < 8
    assert "secret" not in str(caught.value)
    done.set()
    await store.close()
    server.close()
    await server.wait_closed()


async def test_claims_made_at_the_same_moment_end_in_one_winner(postgres_url):
    store = PostgresStore(postgres_url)
    puts = [store.put_cluster(ClusterRow(name, "memory", "", {}, "same-id")) for name in ("a", "b", "c")]
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert results.count("created") == 1
    assert sum(isinstance(result, Conflict) for result in results) == 2
    assert len(await store.clusters()) == 1
    await store.close()


async def test_a_statement_that_breaks_a_rule_of_ours_is_not_taken_for_an_outage(postgres_url):
    store = PostgresStore(postgres_url)
    await execute(postgres_url, "DROP TABLE clusters CASCADE")
    with pytest.raises(Exception, match="does not exist") as caught:
        await store.clusters()
    assert not isinstance(caught.value, StoreUnavailable)
    await store.close()


async def test_epochs_begun_before_they_were_kept_get_a_divergence_offset(postgres_url):
    await migrating.downgrade(postgres_url, "0002")
    await execute(
        postgres_url,
        """INSERT INTO queue_maps (map_id, cluster_a, topic_a, cluster_b, topic_b) VALUES (1, 'a', 't', 'b', 't')""",
        """INSERT INTO pairs (pair_id, source_cluster_id, source_topic, destination_cluster_id, destination_topic, map_id, last_task,
            source, destination) VALUES (1, 'a', 't', 'b', 't', 1, 'task', 'a', 'b')""",
        """INSERT INTO assignments (assignment_id, pair_id, source_topic, source_broker, source_queue, destination_topic,
            destination_broker, destination_queue, start_offset)
            SELECT n, 1, 't', 'x', n, 't', 'y', n, 0 FROM generate_series(1, 3) n""",
        """INSERT INTO progress (assignment_id, has_checkpoint, epoch, examined_through)
            VALUES (1, true, 3, 50), (2, true, 2, 70), (3, true, 1, 90)""",
        """INSERT INTO runs VALUES (1, 1, 0, 0, 20), (1, 2, 18, 20, 5), (1, 3, 40, 25, 10), (3, 1, 0, 30, 90)""",
        """INSERT INTO holes VALUES (1, 2, 12, 6, 'history'), (3, 1, 90, 1, 'loop')""",
    )
    await migrating.upgrade(postgres_url)
    store = PostgresStore(postgres_url)
    await store.open()
    assert [list(await store.epochs(n)) for n in (1, 2, 3)] == [
        [Epoch(1), Epoch(2, 12, 12), Epoch(3, 40, 40)], [Epoch(1), Epoch(2, 70, 70)], [Epoch(1)],
    ]
    assert {(one.version, one.rewritten) for one in (await store.map_versions([1, 2, 3])).values()} == {(0, 0)}
    await store.close()


def test_the_last_file_is_the_head_that_alembic_finds():
    """And there is one line of revisions only."""
    config = Config()
    config.set_main_option("script_location", str(schema.migrations()))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head()]
