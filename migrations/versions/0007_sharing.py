"""Which worker is to hold an assignment, as the coordinator decided; and what the coordinator that reconciles has met.

kind: expand
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE assignments ADD COLUMN worker text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE leases ADD COLUMN detail jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    op.execute("ALTER TABLE leases DROP COLUMN detail")
    op.execute("ALTER TABLE assignments DROP COLUMN worker")
