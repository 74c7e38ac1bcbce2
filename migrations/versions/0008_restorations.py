"""What an epoch sends back to a destination that has lost it.

kind: expand
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""CREATE TABLE restorations (
        assignment_id bigint NOT NULL REFERENCES assignments (assignment_id) ON DELETE CASCADE,
        epoch integer NOT NULL,
        source_start bigint NOT NULL,
        length bigint NOT NULL,
        PRIMARY KEY (assignment_id, epoch, source_start))""")


def downgrade() -> None:
    op.execute("DROP TABLE restorations")
