"""The coordinator's REST API as the commands use it: its errors become ours, with the same exit codes."""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Any

from replicator.cli.options import is_loopback, token_of_environment
from replicator.core.errors import InvalidInput, Missing, ReplicatorError, Unsafe
from replicator.observe.outcome import INVALID, MISSING, UNSAFE

if TYPE_CHECKING:
    import httpx  # When a command runs that asks: it takes as long to load as all the rest.

DEFAULT_URL = "http://127.0.0.1:8420"
PREFIX = "/api/v1"
CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 120.0
"""Applying and checking reach every cluster, some of them far away."""
INSECURE_HTTP = "REPLICATOR_INSECURE_HTTP"

_ERRORS: dict[int, type[ReplicatorError]] = {INVALID: InvalidInput, MISSING: Missing, UNSAFE: Unsafe}


def named(name: str) -> str:
    """``name`` as part of a path; raises ``Missing`` for what nothing of ours can be called."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise Missing(f"nothing is named {name!r}", hint="names consist of a-z, 0-9 and -")
    return name


class Client:
    """``REPLICATOR_URL`` and ``REPLICATOR_TOKEN`` say where and as whom, ``REPLICATOR_CA_FILE`` whose certificates are believed.
    Raises ``Unsafe`` rather than to send a token over plain http to another machine."""

    def __init__(self, url: str | None = None, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url or os.environ.get("REPLICATOR_URL") or DEFAULT_URL).rstrip("/")
        token = token or token_of_environment()
        import httpx

        try:
            address = httpx.URL(self.url)
            if address.scheme not in ("http", "https") or not address.host:
                raise InvalidInput(f"REPLICATOR_URL {self.url!r} is not an http address", hint=f"for example {DEFAULT_URL}")
            if token and address.scheme == "http" and not is_loopback(address.host) and not _may_be_read():
                raise Unsafe(
                    f"refusing to send the token to {self.url} with plain http: it could be read on the way",
                    hint=f"https://, or {INSECURE_HTTP}=1 where the way is safe",
                )
            self._http = httpx.Client(
                base_url=self.url + PREFIX,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
                transport=transport,
                verify=_believed() if address.scheme == "https" else False,
                # A proxy for the outside world has no business between us and our coordinator.
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise InvalidInput(f"REPLICATOR_URL {self.url!r}: {error}") from error

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, params={key: value for key, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", path, json={} if body is None else body)

    def delete(self, path: str, **query: Any) -> Any:
        return self._ask("DELETE", path, params=query)

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        import httpx

        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            hint = "set REPLICATOR_CA_FILE" if "CERTIFICATE_VERIFY_FAILED" in reason else "start it, or set REPLICATOR_URL"
            raise ReplicatorError(f"the coordinator at {self.url} cannot be reached: {reason}", hint=hint) from error
        if not answer.is_success:
            raise _error_of(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise _of_somebody_else(answer) from error


def _may_be_read() -> bool:
    return os.environ.get(INSECURE_HTTP, "").lower() not in ("", "0", "false", "no")


def _believed() -> ssl.SSLContext:
    """Certificates of ``REPLICATOR_CA_FILE``, else those the machine believes."""
    path = os.environ.get("REPLICATOR_CA_FILE") or None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise InvalidInput(f"REPLICATOR_CA_FILE {path}: {error.strerror or error}", hint="a file of certificates, PEM") from error


def _of_somebody_else(answer: httpx.Response) -> ReplicatorError:
    return ReplicatorError(f"{answer.request.url} answered {answer.status_code}", hint="is REPLICATOR_URL the coordinator's?")


def _error_of(answer: httpx.Response) -> ReplicatorError:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        return _of_somebody_else(answer)
    kind = _ERRORS.get(problem.get("exit_code", 1), ReplicatorError)
    return kind(str(problem["title"]), hint=str(problem.get("hint", "")))
