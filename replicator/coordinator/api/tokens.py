"""Tokens: giving them out once, listing them, revoking them; and who changed what with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from replicator.coordinator.access import create_token
from replicator.coordinator.api.answers import ChangeObject, TokenMade, TokenObject, TokenRevoked, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.fields import LISTED_MAX, OFFSET_MAX, Body, Text
from replicator.coordinator.api.roles import ADMIN, READ
from replicator.core.errors import Missing
from replicator.core.roles import DAYS_MAX, Role
from replicator.store.access_rows import ApiToken

router = APIRouter(tags=["access"])

CHANGES_SHOWN = 100


class TokenBody(Body):
    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    role: Role = Field(strict=False)
    expires_in_days: int | None = Field(default=None, ge=1, le=DAYS_MAX)


@router.post("/tokens", status_code=201, dependencies=[ADMIN], responses=answer(TokenMade, 201))
async def create(body: TokenBody, given: Given) -> Any:
    """The token is told in this answer only."""
    token = await create_token(given.store, body.name, body.role, body.expires_in_days)
    given.callers.forget()
    return {**body.model_dump(mode="json"), "token": token}


@router.get("/tokens", dependencies=[ADMIN], responses=answer(list[TokenObject]))
async def listing(given: Given) -> Any:
    """Revoked and expired ones too, as long as the changes made with them are kept."""
    now = datetime.now(UTC)
    return [_token(row, now) for row in await given.store.api_tokens()]


@router.delete("/tokens/{name}", dependencies=[ADMIN], responses=answer(TokenRevoked))
async def revoke(name: Text, given: Given) -> Any:
    """Every coordinator refuses it within seconds."""
    if not await given.store.revoke_api_token(name):
        raise Missing(f"there is no living token {name}")
    given.callers.forget()
    return {"name": name, "result": "revoked"}


@router.get("/changes", dependencies=[READ], responses=answer(list[ChangeObject]))
async def changes(
    given: Given,
    before: Annotated[int | None, Query(ge=1, le=OFFSET_MAX, description="Id; left out: the newest.")] = None,
    limit: Annotated[int, Query(ge=1, le=LISTED_MAX)] = CHANGES_SHOWN,
) -> Any:
    """Who changed what, in the order it was asked for; requests that were refused too."""
    return [
        {
            "id": one.change_id, "at": _time(one.at), "caller": one.caller, "role": one.role, "method": one.method,
            "route": one.route, "object": one.object, "request": one.request, "status": one.status,
        }
        for one in await given.store.api_changes(before, limit)
    ]  # fmt: skip


def _token(row: ApiToken, now: datetime) -> dict[str, Any]:
    is_expired = row.expires_at is not None and row.expires_at <= now
    return {
        "name": row.name,
        "role": row.role,
        "state": "revoked" if row.revoked_at else "expired" if is_expired else "living",
        "created_at": _time(row.created_at),
        "expires_at": _time(row.expires_at),
        "last_used_at": _time(row.last_used_at),
        "revoked_at": _time(row.revoked_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
