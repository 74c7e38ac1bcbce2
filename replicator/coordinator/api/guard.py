"""What stands before every route: the bearer token and a limit to the size of a request."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replicator.coordinator.api.problems import problem
from replicator.observe.outcome import FAILED, INVALID

REQUEST_BYTES_MAX = 4 * 1024 * 1024
TOO_LARGE = f"the request is larger than {REQUEST_BYTES_MAX} bytes"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Asked by machines that have no token; they tell nothing but up or down."""


class Guard:
    """ASGI middleware. ``token`` None lets everybody on this machine in, but not a foreign web page in a browser on it."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self._may_enter(scope["path"], headers.get(b"authorization", b"")):
            refusal = problem(401, "the token is missing or wrong", code=FAILED, hint="set REPLICATOR_TOKEN")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            await refusal(scope, receive, send)
            return
        if self._token is None and not _is_local_origin(headers.get(b"origin", b"")):
            await problem(403, "requests of other web pages are refused", hint="set REPLICATOR_TOKEN")(scope, receive, send)
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > REQUEST_BYTES_MAX:
            await problem(413, TOO_LARGE, code=INVALID)(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A chunked request tells its size only while it comes in."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > REQUEST_BYTES_MAX:
                # The one kind of exception that FastAPI does not turn into "error parsing the body".
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)

    def _may_enter(self, path: str, authorization: bytes) -> bool:
        if self._token is None or path in OPEN_PATHS:
            return True
        scheme, _, value = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(), self._token)


def _is_local_origin(origin: bytes) -> bool:
    """True without the header: only browsers send it."""
    if not origin:
        return True
    try:
        host = urlsplit(origin.decode("latin-1")).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
