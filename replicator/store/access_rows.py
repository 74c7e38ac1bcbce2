"""What the store keeps of who may ask the API, and of who changed what through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ApiToken:
    """Without the token itself and without its hash. ``name`` is not given again while the token can still stand in ``ApiChange``."""

    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """Coarse: noted about once an hour."""
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LivingToken:
    """One that opens the door now. Times are durations from now, by the database's clock."""

    name: str
    role: str
    token_hash: str
    expires_in_seconds: float | None
    unused_seconds: float | None
    """None: never used."""


@dataclass(frozen=True, slots=True)
class ApiChange:
    """A request that may have changed something. ``change_id`` and ``at`` are the store's."""

    caller: str
    """Name of the token, ``environment`` for the one of ``REPLICATOR_TOKEN``, ``local`` where none is needed."""
    role: str
    method: str
    route: str
    object: str
    """What the path names: ``orders``, ``clusters/hangzhou``."""
    request: dict[str, Any] = field(default_factory=dict)
    status: int | None = None
    """None: under way, or nobody lived to see its end."""
    change_id: int = 0
    at: datetime | None = None
