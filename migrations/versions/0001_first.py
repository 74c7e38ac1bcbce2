"""First schema.

kind: expand
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = [
    """CREATE TABLE meta (
        id integer CONSTRAINT meta_pkey PRIMARY KEY CONSTRAINT meta_one_row CHECK (id = 1),
        identity text NOT NULL,
        oldest_code integer NOT NULL)""",
    "INSERT INTO meta (id, identity, oldest_code) VALUES (1, replace(gen_random_uuid()::text, '-', ''), 1)",
    """CREATE TABLE clusters (
        name text PRIMARY KEY,
        connector text NOT NULL,
        region text NOT NULL DEFAULT '',
        settings jsonb NOT NULL,
        cluster_id text CONSTRAINT clusters_cluster_id_key UNIQUE)""",
    """CREATE TABLE tasks (
        name text PRIMARY KEY,
        spec jsonb NOT NULL,
        generation integer NOT NULL,
        deleted boolean NOT NULL DEFAULT false)""",
    """CREATE TABLE flows (
        flow_id text PRIMARY KEY,
        task text NOT NULL REFERENCES tasks (name),
        source text NOT NULL,
        destination text NOT NULL,
        paused boolean NOT NULL DEFAULT false,
        deleted boolean NOT NULL DEFAULT false)""",
    "CREATE UNIQUE INDEX flows_living ON flows (task, source, destination) WHERE NOT deleted",
    """CREATE TABLE queue_maps (
        map_id bigserial PRIMARY KEY,
        cluster_a text NOT NULL,
        topic_a text NOT NULL,
        cluster_b text NOT NULL,
        topic_b text NOT NULL,
        CONSTRAINT queue_maps_topics UNIQUE (cluster_a, topic_a, cluster_b, topic_b))""",
    """CREATE TABLE queue_map_entries (
        map_id bigint NOT NULL REFERENCES queue_maps (map_id) ON DELETE CASCADE,
        cluster_id text NOT NULL,
        position integer NOT NULL,
        topic text NOT NULL,
        broker_name text NOT NULL,
        queue_id integer NOT NULL,
        PRIMARY KEY (map_id, cluster_id, position),
        CONSTRAINT queue_map_entries_queue UNIQUE (map_id, cluster_id, topic, broker_name, queue_id))""",
    """CREATE TABLE pairs (
        pair_id bigserial PRIMARY KEY,
        source_cluster_id text NOT NULL,
        source_topic text NOT NULL,
        destination_cluster_id text NOT NULL,
        destination_topic text NOT NULL,
        map_id bigint NOT NULL REFERENCES queue_maps (map_id),
        flow_id text REFERENCES flows (flow_id),
        last_task text NOT NULL,
        source text NOT NULL,
        destination text NOT NULL,
        state text NOT NULL DEFAULT 'active',
        reason text NOT NULL DEFAULT '',
        paused boolean NOT NULL DEFAULT false,
        CONSTRAINT pairs_claim UNIQUE (source_cluster_id, source_topic, destination_cluster_id, destination_topic))""",
    "CREATE INDEX pairs_flow ON pairs (flow_id)",
    "CREATE INDEX pairs_map ON pairs (map_id)",
    """CREATE TABLE assignments (
        assignment_id bigserial PRIMARY KEY,
        pair_id bigint NOT NULL REFERENCES pairs (pair_id) ON DELETE CASCADE,
        source_topic text NOT NULL,
        source_broker text NOT NULL,
        source_queue integer NOT NULL,
        destination_topic text NOT NULL,
        destination_broker text NOT NULL,
        destination_queue integer NOT NULL,
        start_offset bigint NOT NULL,
        token bigint NOT NULL DEFAULT 0,
        holder text NOT NULL DEFAULT '',
        lease_until timestamptz,
        clean boolean NOT NULL DEFAULT true,
        revoked boolean NOT NULL DEFAULT false,
        senders text[] NOT NULL DEFAULT '{}'::text[],
        CONSTRAINT assignments_source_queue UNIQUE (pair_id, source_topic, source_broker, source_queue))
        WITH (fillfactor = 70)""",
    "CREATE INDEX assignments_held ON assignments (holder) WHERE lease_until IS NOT NULL",
    """CREATE TABLE progress (
        assignment_id bigint PRIMARY KEY REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        has_checkpoint boolean NOT NULL DEFAULT false,
        epoch integer NOT NULL DEFAULT 1,
        examined_through bigint NOT NULL DEFAULT 0,
        confirmed_source_offset bigint NOT NULL DEFAULT '-1',
        confirmed_destination_offset bigint NOT NULL DEFAULT '-1',
        identity_offset bigint,
        identity_store_timestamp_ms bigint,
        identity_commit_log_offset bigint,
        identity_body_crc bigint,
        scanned_through bigint NOT NULL DEFAULT 0,
        seen jsonb NOT NULL DEFAULT '{}'::jsonb,
        in_flight boolean NOT NULL DEFAULT false,
        copied_total bigint NOT NULL DEFAULT 0,
        skipped_total jsonb NOT NULL DEFAULT '{}'::jsonb,
        state text NOT NULL DEFAULT 'starting',
        error text NOT NULL DEFAULT '',
        lag_messages bigint,
        lag_seconds double precision,
        rate_per_second double precision,
        latency_p50_ms double precision,
        latency_p99_ms double precision,
        observed_at timestamptz)
        WITH (fillfactor = 60)""",
    """CREATE TABLE runs (
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        source_start bigint NOT NULL,
        destination_start bigint NOT NULL,
        length bigint NOT NULL,
        PRIMARY KEY (assignment_id, epoch, source_start))
        WITH (fillfactor = 90)""",
    "CREATE INDEX runs_destination ON runs (assignment_id, destination_start)",
    """CREATE TABLE holes (
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        source_start bigint NOT NULL,
        length bigint NOT NULL,
        reason text NOT NULL,
        PRIMARY KEY (assignment_id, epoch, source_start))""",
    """CREATE TABLE duplicates (
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        source_offset bigint NOT NULL,
        destination_offset bigint NOT NULL,
        kind text NOT NULL,
        PRIMARY KEY (assignment_id, epoch, source_offset, destination_offset))""",
    """CREATE TABLE parked (
        parked_id bigserial PRIMARY KEY,
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        source_offset bigint NOT NULL,
        reason text NOT NULL,
        size_bytes bigint NOT NULL,
        state text NOT NULL DEFAULT 'parked',
        CONSTRAINT parked_place UNIQUE (assignment_id, epoch, source_offset))""",
    """CREATE TABLE events (
        event_id bigserial PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        task text NOT NULL,
        kind text NOT NULL,
        message text NOT NULL,
        detail jsonb NOT NULL)""",
    "CREATE INDEX events_task ON events (task, event_id)",
    """CREATE TABLE workers (
        holder text PRIMARY KEY,
        info jsonb NOT NULL,
        seen_at timestamptz NOT NULL)""",
    """CREATE TABLE leases (
        name text PRIMARY KEY,
        holder text NOT NULL,
        lease_until timestamptz NOT NULL)""",
]

NAMES = (
    "leases workers events parked duplicates holes runs progress assignments pairs queue_map_entries queue_maps "
    "flows tasks clusters meta"
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute(f"DROP TABLE {', '.join(NAMES.split())}")
