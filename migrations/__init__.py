"""Alembic revisions of the store's schema, each marked expand or contract; run by ``replicator.store.schema``."""
