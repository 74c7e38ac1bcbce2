"""Moves of consumers between clusters, and when the progress of each cluster was last seen.

kind: expand
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = [
    """CREATE TABLE failovers (
        failover_id bigserial PRIMARY KEY,
        task text NOT NULL,
        kind text NOT NULL,
        failed text NOT NULL,
        destination text NOT NULL,
        options jsonb NOT NULL,
        course jsonb NOT NULL,
        is_open boolean NOT NULL,
        abort_asked boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now())""",
    "CREATE UNIQUE INDEX failovers_open ON failovers (task) WHERE is_open",
    "CREATE INDEX failovers_task ON failovers (task, failover_id)",
    """CREATE TABLE cluster_sightings (
        task text NOT NULL,
        cluster text NOT NULL,
        info jsonb NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (task, cluster))""",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE failovers, cluster_sightings")
