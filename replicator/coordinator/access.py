"""Who may ask: roles, tokens, and telling from a token who it is.

A token is 256 bits from the system's random source, so its plain SHA-256 is kept and nothing slower or salted: there is nothing to
guess and no second token with the same hash, while a password hash would cost tens of milliseconds of every request. Looking a hash
up takes no secret-dependent time that would help anybody: who does not know the token cannot choose its hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from replicator.core.roles import Role
from replicator.store.access_rows import ApiChange
from replicator.store.port import Conflict, Store, StoreUnavailable

log = structlog.get_logger(__name__)

TOKEN_PREFIX = "rpl_"
"""By which scanners of repositories and logs know one."""
TOKEN_RANDOM_BYTES = 32
TOKENS_FRESH_SECONDS = 2.0
"""So long a revoked token may still work, and a new one not yet, at another coordinator than the one that was told."""
USED_NOTED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    role: Role


LOCAL = Caller("local", Role.ADMIN)
ENVIRONMENT = Caller("environment", Role.ADMIN)
DATABASE = Caller("database", Role.ADMIN)
"""Somebody at the database itself."""
RESERVED_NAMES = frozenset({LOCAL.name, ENVIRONMENT.name, DATABASE.name})


def hash_of(token: str | bytes) -> str:
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).hexdigest()


async def create_token(store: Store, name: str, role: Role, expires_in_days: int | None) -> str:
    """The token, which nobody can look up again. Raises ``Conflict`` where the name is taken."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_RANDOM_BYTES)
    is_free = name not in RESERVED_NAMES
    if not is_free or not await store.add_api_token(name, role.value, hash_of(token), expires_in_days):
        raise Conflict(
            f"the name {name} is taken", hint="another one; that of a token that ended stays its own while changes may name it"
        )
    return token


async def create_first_token(store: Store, name: str, role: Role, expires_in_days: int | None) -> str:
    """Without an API: for who holds the database anyway. Noted like any other change."""
    request = {"name": name, "role": role.value, "expires_in_days": expires_in_days}
    change = ApiChange(DATABASE.name, DATABASE.role.value, "", "tokens create --database", name, request)
    change_id = await store.begin_api_change(change)
    token = await create_token(store, name, role, expires_in_days)
    await store.finish_api_change(change_id, 201)
    return token


@dataclass(slots=True)
class _Known:
    caller: Caller
    ends_at: float | None
    note_use_at: float


class Callers:
    """``token``: the one of the environment, None where this machine needs none. While the database is away the tokens read last
    stay good: what changes anything needs the database itself."""

    def __init__(self, store: Store, token: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._token = token.encode() if token else None
        self._clock = clock
        self._known: Mapping[str, _Known] = {}
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self._reading = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Who brings no token is ``LOCAL``."""
        return self._token is None

    def forget(self) -> None:
        """The next question reads the tokens anew."""
        self._asked_at = None

    async def of(self, authorization: bytes) -> Caller | None:
        """None: not known. Raises ``StoreUnavailable`` where that cannot be told."""
        if not authorization and self.is_open:
            return LOCAL
        scheme, _, value = authorization.partition(b" ")
        token = value.strip()
        if scheme.lower() != b"bearer" or not token:
            return None
        if self._token is not None and hmac.compare_digest(token, self._token):
            return ENVIRONMENT
        await self._refresh()
        known = self._known.get(hash_of(token))
        now = self._clock()
        if known is None or (known.ends_at is not None and known.ends_at <= now):
            return None
        if known.note_use_at <= now:
            known.note_use_at = now + USED_NOTED_SECONDS
            await self._note_use(known.caller.name)
        return known.caller

    async def _refresh(self) -> None:
        async with self._reading:
            now = self._clock()
            if self._asked_at is not None and now - self._asked_at < TOKENS_FRESH_SECONDS:
                if self._read_at is None:
                    raise StoreUnavailable("the database is away, so the token cannot be judged")
                return
            self._asked_at = now
            try:
                rows = await self._store.living_api_tokens()
            except StoreUnavailable:
                if self._read_at is None:
                    raise
                log.warning("tokens not read, those read before stay good", age_seconds=round(now - self._read_at))
                return
            self._read_at = now
            self._known = {
                row.token_hash: _Known(
                    Caller(row.name, Role(row.role)),
                    None if row.expires_in_seconds is None else now + row.expires_in_seconds,
                    now if row.unused_seconds is None else now + USED_NOTED_SECONDS - row.unused_seconds,
                )
                for row in rows
            }

    async def _note_use(self, name: str) -> None:
        try:
            await self._store.api_token_used(name)
        except StoreUnavailable as error:
            log.warning("use of a token not noted", name=name, error=str(error))
