"""Logs on stderr: lines for a person, or JSON; structlog's and the standard library's alike, secrets taken out."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from replicator.core.errors import InvalidInput
from replicator.observe.hiding import HIDDEN, without_passwords

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error")
DEPTH_MAX = 6

_SECRET_KEY = re.compile(r"secret|password|passwd|token|access_?key|authorization|credential", re.IGNORECASE)
_CHATTY = ("httpx", "httpcore", "asyncio", "sqlalchemy", "alembic", "uvicorn")


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hides values under keys that name a secret, and passwords inside addresses."""
    return {key: _redacted(key, value, DEPTH_MAX) if key != "event" else _cleaned(value) for key, value in event.items()}


def _redacted(key: str, value: Any, depth: int) -> Any:
    # A fencing token is a number that counts leases: worth reading, and no secret.
    if _SECRET_KEY.search(key) and not isinstance(value, (int, float, type(None))):
        return HIDDEN
    if depth == 0:
        return value
    if isinstance(value, Mapping):
        return {inner: _redacted(str(inner), one, depth - 1) for inner, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(key, one, depth - 1) for one in value]
    return _cleaned(value)


def _cleaned(value: Any) -> Any:
    return without_passwords(value) if isinstance(value, str) else value


def configure(format_name: str | None = None, level: str | None = None, stream: TextIO | None = None) -> None:
    """For the whole process. Left out, they come from ``REPLICATOR_LOG_FORMAT`` and ``REPLICATOR_LOG_LEVEL``."""
    format_name = (format_name or os.environ.get("REPLICATOR_LOG_FORMAT") or FORMATS[0]).lower()
    level = (level or os.environ.get("REPLICATOR_LOG_LEVEL") or "info").lower()
    if format_name not in FORMATS:
        raise InvalidInput(f"REPLICATOR_LOG_FORMAT is {format_name!r}", hint=f"one of: {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise InvalidInput(f"REPLICATOR_LOG_LEVEL is {level!r}", hint=f"one of: {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Tracebacks as text before the redaction, so that addresses inside them are cleaned too; never with local variables.
                structlog.processors.format_exc_info,
                redact,
                _renderer(format_name, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _renderer(format_name: str, stream: TextIO) -> structlog.typing.Processor:
    if format_name == "json":
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
