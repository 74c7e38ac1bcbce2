"""What a ``check`` asks workers, and what they answer.

kind: expand
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = [
    """CREATE TABLE checks (
        check_id bigserial PRIMARY KEY,
        asked_at timestamptz NOT NULL DEFAULT now(),
        clusters jsonb NOT NULL)""",
    """CREATE TABLE check_answers (
        check_id bigint NOT NULL REFERENCES checks (check_id) ON DELETE CASCADE,
        worker text NOT NULL,
        clusters jsonb NOT NULL,
        PRIMARY KEY (check_id, worker))""",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE check_answers")
    op.execute("DROP TABLE checks")
