"""Who may ask the API, and who changed what through it.

kind: expand
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = [
    """CREATE TABLE api_tokens (
        name text PRIMARY KEY,
        role text NOT NULL,
        token_hash text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        last_used_at timestamptz,
        revoked_at timestamptz,
        CONSTRAINT api_tokens_hash UNIQUE (token_hash))""",
    """CREATE TABLE api_changes (
        change_id bigserial PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        caller text NOT NULL,
        role text NOT NULL,
        method text NOT NULL,
        route text NOT NULL,
        object text NOT NULL DEFAULT '',
        request jsonb NOT NULL,
        status integer)""",
    "CREATE INDEX api_changes_at ON api_changes (at)",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE api_tokens, api_changes")
