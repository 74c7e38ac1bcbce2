"""Errors as ``application/problem+json`` in the words of the command line, with the exit code a command would end with."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from replicator.core.errors import ReplicatorError
from replicator.observe.outcome import FAILED, INVALID, MISSING, exit_code, http_status

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_NOT_THE_REQUEST = frozenset({401, 403, 429, *range(500, 600)})
"""Statuses that say nothing against the request itself."""


def problem(status: int, title: str, *, code: int = FAILED, hint: str = "") -> JSONResponse:
    content: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "exit_code": code}
    if hint:
        content["hint"] = hint
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE)


async def _on_purpose(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ReplicatorError)
    return problem(http_status(error), error.message, code=exit_code(error), hint=error.hint)


async def _invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return problem(400, "; ".join(lines), code=INVALID)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = MISSING if error.status_code == 404 else FAILED if error.status_code in _NOT_THE_REQUEST else INVALID
    answer = problem(error.status_code, str(error.detail), code=code)
    answer.headers.update(error.headers or {})
    allowed = request.app.state.allowed(request.url.path)
    if error.status_code == 405 and allowed:
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return problem(500, f"internal error: {type(error).__name__}", hint="the log of the coordinator has the details")


def install(app: FastAPI) -> None:
    app.add_exception_handler(ReplicatorError, _on_purpose)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
