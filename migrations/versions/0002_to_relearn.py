"""A range of the offset map that is to be learned again from the destination's log.

kind: expand
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE progress ADD COLUMN to_relearn jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE progress DROP COLUMN to_relearn")
