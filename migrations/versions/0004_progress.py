"""Consumer progress: what is known of groups, every write of their offsets, and a token for the coordinator's lease.

kind: expand
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE leases ADD COLUMN token bigint NOT NULL DEFAULT 0",
    """CREATE TABLE group_states (
        task text NOT NULL,
        consumer_group text NOT NULL,
        cluster_low text NOT NULL,
        cluster_high text NOT NULL,
        state jsonb NOT NULL,
        PRIMARY KEY (task, consumer_group, cluster_low, cluster_high))""",
    """CREATE TABLE group_writes (
        write_id bigserial PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        task text NOT NULL,
        consumer_group text NOT NULL,
        cluster text NOT NULL,
        owner text NOT NULL,
        why text NOT NULL,
        queues jsonb NOT NULL,
        token bigint NOT NULL,
        done boolean NOT NULL DEFAULT false)""",
    "CREATE INDEX group_writes_group ON group_writes (task, consumer_group, write_id)",
    "CREATE INDEX group_writes_at ON group_writes (at)",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE group_writes, group_states")
    op.execute("ALTER TABLE leases DROP COLUMN token")
