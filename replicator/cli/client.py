"""The coordinator's REST API as the commands use it: its errors become ours, with the same exit codes."""

from __future__ import annotations

import os
from typing import Any

import httpx

from replicator.core.errors import InvalidInput, Missing, ReplicatorError, Unsafe
from replicator.observe.outcome import INVALID, MISSING, UNSAFE

DEFAULT_URL = "http://127.0.0.1:8420"
PREFIX = "/api/v1"
CONNECT_SECONDS_MAX = 5.0
ANSWER_SECONDS_MAX = 120.0
"""Applying and checking reach every cluster, some of them far away."""

_ERRORS: dict[int, type[ReplicatorError]] = {INVALID: InvalidInput, MISSING: Missing, UNSAFE: Unsafe}


class Client:
    """``REPLICATOR_URL`` and ``REPLICATOR_TOKEN`` say where and as whom."""

    def __init__(self, url: str | None = None, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url or os.environ.get("REPLICATOR_URL") or DEFAULT_URL).rstrip("/")
        token = token or os.environ.get("REPLICATOR_TOKEN")
        try:
            self._http = httpx.Client(
                base_url=self.url + PREFIX,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
                transport=transport,
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
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ReplicatorError(
                f"the coordinator at {self.url} cannot be reached: {reason}", hint="start it, or set REPLICATOR_URL"
            ) from error
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _error_of(answer)


def _error_of(answer: httpx.Response) -> ReplicatorError:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        return ReplicatorError(f"{answer.request.url} answered {answer.status_code}", hint="is REPLICATOR_URL the coordinator's?")
    kind = _ERRORS.get(problem.get("exit_code", 1), ReplicatorError)
    return kind(str(problem["title"]), hint=str(problem.get("hint", "")))
