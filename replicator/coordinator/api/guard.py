"""What stands before every route: who asks, how much may be asked, and the note of what changed."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replicator.coordinator.access import Callers
from replicator.coordinator.api.limits import Limits, Rate
from replicator.coordinator.api.noting import Note
from replicator.coordinator.api.problems import problem
from replicator.observe.outcome import INVALID
from replicator.store.port import Store, StoreUnavailable

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Asked by machines that have no token; they tell nothing but up or down."""
_HEALTH, _UNKNOWN = "(health)", "(unknown)"
"""Buckets of who has no name; no token can be called so."""
BUSY_SECONDS = 1


class Guard:
    """ASGI middleware. Where ``callers`` needs no token everybody on this machine may enter, but not a foreign web page in a
    browser on it."""

    def __init__(
        self, app: ASGIApp, callers: Callers, store: Store, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._callers = callers
        self._store = store
        self._limits = limits
        self._rate = Rate(limits, clock)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._malformed(scope)
        if refusal is None and scope["path"] in OPEN_PATHS:
            refusal = self._too_often(_HEALTH)
            if refusal is None:
                await self._limited(scope, receive, send)
                return
        if refusal is None:
            refusal = await self._enter(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._noted(scope, receive, send)

    async def _enter(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization", b"")
        try:
            caller = await self._callers.of(authorization)
        except StoreUnavailable as error:
            return problem(503, f"the token cannot be judged now: {error.message}")
        if caller is None:
            refusal = self._too_often(_UNKNOWN) or problem(401, "the token is missing or wrong", hint="set REPLICATOR_TOKEN")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        if not authorization and not _is_local_origin(headers.get(b"origin", b"")):
            return problem(403, "requests of other web pages are refused", hint="set REPLICATOR_TOKEN")
        scope.setdefault("state", {})["note"] = Note(self._store, caller, scope["method"])
        return self._too_often(caller.name)

    async def _noted(self, scope: Scope, receive: Receive, send: Send) -> None:
        note: Note = scope["state"]["note"]
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await note.end(scope, status)
            await send(message)

        try:
            refusal = self._too_large(scope) or self._too_busy()
            if refusal is not None:
                await refusal(scope, receive, noted)
                return
            await self._timed(scope, receive, noted)
        finally:
            await note.end(scope, status)

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        self._under_way += 1
        try:
            async with asyncio.timeout(self._limits.request_seconds_max) as timeout:
                await self._limited(scope, receive, watched)
        except TimeoutError:
            if has_begun or not timeout.expired():
                raise
            log.warning("request took too long", path=scope["path"], seconds=self._limits.request_seconds_max)
            late = problem(
                504, f"not done within {self._limits.request_seconds_max:.0f} s", hint="part of it may be: look before you ask again"
            )
            await late(scope, receive, send)
        finally:
            self._under_way -= 1

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A chunked request tells its size only while it comes in."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limits.body_bytes_max:
                # The one kind of exception that FastAPI does not turn into "error parsing the body".
                raise HTTPException(413, self._size_text())
            return message

        await self._app(scope, counted, send)

    def _malformed(self, scope: Scope) -> JSONResponse | None:
        if len(scope["headers"]) > self._limits.headers_max:
            return problem(431, f"more than {self._limits.headers_max} headers", code=INVALID)
        # Postgres keeps no text that holds one.
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return problem(400, "the address holds a zero byte", code=INVALID)
        return None

    def _too_large(self, scope: Scope) -> JSONResponse | None:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.body_bytes_max:
            return problem(413, self._size_text(), code=INVALID)
        return None

    def _size_text(self) -> str:
        return f"the request is larger than {self._limits.body_bytes_max} bytes"

    def _too_often(self, name: str) -> JSONResponse | None:
        wait_seconds = self._rate.take(name)
        if wait_seconds == 0.0:
            return None
        return _later(429, f"more than {self._limits.requests_per_second_max:.0f} requests a second", wait_seconds)

    def _too_busy(self) -> JSONResponse | None:
        if self._under_way < self._limits.at_once_max:
            return None
        return _later(503, f"{self._under_way} requests are under way already", BUSY_SECONDS)


def _later(status: int, title: str, wait_seconds: float) -> JSONResponse:
    refusal = problem(status, title, hint="ask again a little later")
    refusal.headers["Retry-After"] = str(math.ceil(wait_seconds))
    return refusal


def _is_local_origin(origin: bytes) -> bool:
    """True without the header: only browsers send it."""
    if not origin:
        return True
    try:
        host = urlsplit(origin.decode("latin-1")).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
