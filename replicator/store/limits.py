"""Limits and names both stores share."""

from __future__ import annotations

FIGURES_SECONDS_MAX = 15.0
"""An older figure is shown as unknown."""
EVENTS_PER_TASK_MAX = 10_000
PARKED_ROWS_MAX = 10_000
"""Of one listing."""
MAP_PAGE_ROWS_MAX = 100_000
"""Rows of a map that one statement fetches."""
WORKER_DAYS_MAX = 1
"""A worker not seen for longer is forgotten."""
GROUP_WRITE_DAYS_MAX = 7
"""An older write of a group's offsets is forgotten."""
API_TOKENS_MAX = 1000
"""Ended ones included, until they are forgotten."""
API_CHANGE_DAYS_MAX = 365
"""An older note of who changed what is forgotten, and a token that ended so long ago with it."""
API_CHANGES_MAX = 1_000_000
WORKER_GONE_SECONDS = 6.0
"""A worker tells of itself every second; one not heard of for longer gets nothing more, and what it was chosen for goes to others.
Not before its leases have run out (5 s): till then nobody could take over from it."""
COORDINATOR_LEASE = "coordinator"
SKIP_REASONS = ("filtered", "loop", "refused", "expired", "history")
STICKY_STATES = ("blocked", "stopped-history-change", "failed")
"""What a holder reported and what stays true after it let go: only a person or a new holder's report changes it."""

CHECK_SECONDS_MAX = 30.0
"""A check that a worker has not answered by then is over."""
