"""Epochs with their divergence offsets, and a version of each offset map.

Of an epoch begun before this revision no divergence offset was kept: it is taken from the first offset the epoch lists.

kind: expand
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = [
    """CREATE TABLE epochs (
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        divergence_offset bigint NOT NULL,
        start_offset bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (assignment_id, epoch))""",
    """INSERT INTO epochs (assignment_id, epoch, divergence_offset, start_offset)
        SELECT assignment_id, epoch, min(source_start), min(source_start) FROM (
            SELECT assignment_id, epoch, source_start FROM runs WHERE epoch > 1
            UNION ALL SELECT assignment_id, epoch, source_start FROM holes WHERE epoch > 1
            UNION ALL SELECT assignment_id, epoch, examined_through FROM progress WHERE epoch > 1) listed
        GROUP BY assignment_id, epoch""",
    """ALTER TABLE progress
        ADD COLUMN map_version bigint NOT NULL DEFAULT 0,
        ADD COLUMN map_rewritten bigint NOT NULL DEFAULT 0""",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE progress DROP COLUMN map_version, DROP COLUMN map_rewritten")
    op.execute("DROP TABLE epochs")
