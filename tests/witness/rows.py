"""What the witness reports, one object a message or queue."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as it was sent and where the broker says it went.

    For delayed, timed and transactional messages the broker reports its own internal queue: only the index, the keys
    and the body's hash tie them to what is read later. *problem* is set, and the place is not, where sending failed.
    """

    index: int
    keys: str | None
    tags: str | None
    sha256: str
    body_bytes: int
    status: str | None
    broker: str | None
    queue: int | None
    offset: int | None
    problem: str | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        values: dict[str, Any] = {name: row.get(name) for name in cls.__slots__}
        return cls(**values)

    @property
    def place(self) -> tuple[str, int, int]:
        assert self.problem is None, self.problem
        assert self.broker is not None
        assert self.queue is not None
        assert self.offset is not None
        return self.broker, self.queue, self.offset


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as an official client read it.

    *sha256* and *body_bytes* are of the body as the client hands it over, decompressed unless it was asked not to.
    *properties* are all of them except those the client adds at reading; empty where they were not asked for.
    """

    topic: str
    broker: str
    queue: int
    offset: int
    sha256: str
    body_bytes: int
    keys: str | None
    tags: str | None
    sys_flag: int
    flag: int
    born_ms: int
    stored_ms: int
    reconsume_times: int
    properties: dict[str, str]
    user_properties: dict[str, str]
    body: bytes | None
    seen_ms: int | None

    @classmethod
    def of(cls, row: dict[str, Any], system_properties: frozenset[str]) -> Self:
        properties = row.get("properties") or {}
        body = row.get("body")
        fields: dict[str, Any] = {
            **row,
            "properties": properties,
            "user_properties": {name: value for name, value in properties.items() if name not in system_properties},
            "body": None if body is None else base64.b64decode(body),
        }
        values: dict[str, Any] = {name: fields.get(name) for name in cls.__slots__}
        return cls(**values)

    @property
    def place(self) -> tuple[str, int, int]:
        return self.broker, self.queue, self.offset


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """One line of ``mqadmin consumerProgress``."""

    topic: str
    broker: str
    queue: int
    broker_offset: int
    consumer_offset: int
    diff: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Filled:
    """What a bulk run put into one queue, back to back from *first_offset*."""

    broker: str
    queue: int
    first_offset: int
    count: int
