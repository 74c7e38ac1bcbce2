"""The documents' shape, key by key. Strict: text is not a number, and nothing unknown is accepted."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from replicator.config.problems import nearest_text
from replicator.core.sql92 import FILTER_CHARACTERS_MAX
from replicator.core.tags import TAG_RULES_MAX
from replicator.core.task import POP_BOUND_DEFAULT, StartPoint

API_VERSION = "replicator/v1"
NAME_CHARACTERS_MAX = 40
REGION_CHARACTERS_MAX = 128
GROUP_CHARACTERS_MAX = 255
RATE_MAX = 2**53 - 1  # whole numbers every JSON reader keeps exactly

NAME_PATTERN = rf"^[a-z0-9-]{{1,{NAME_CHARACTERS_MAX}}}$"
SIZE_PATTERN = r"^[0-9]{1,16} ?(B|KB|MB|GB|KiB|MiB|GiB)$"
_UNIT_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_START_KINDS = ("latest", "earliest", "timestamp", "consumer_group")


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN[1:-1], value):
        raise ValueError(f"a name is 1 to {NAME_CHARACTERS_MAX} characters of a-z, 0-9 and -")
    return value


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(SIZE_PATTERN[1:-1], value, re.ASCII):
        raise ValueError(f"a size is a whole number of bytes, or one with a unit of {', '.join(_UNIT_BYTES)}, such as 50MiB")
    digits = re.match(r"[0-9]+", value)
    assert digits is not None
    return int(digits[0]) * _UNIT_BYTES[value[digits.end() :].strip()]


def _start(value: Any) -> StartPoint:
    if isinstance(value, StartPoint):
        return value
    if value == "latest" or value == "earliest":
        return StartPoint(value)
    if isinstance(value, dict) and len(value) == 1:
        kind, given = next(iter(value.items()))
        if kind == "timestamp":
            return StartPoint("timestamp", timestamp_ms=_timestamp_ms(given))
        if kind == "consumer_group":
            if not isinstance(given, str) or not 1 <= len(given) <= GROUP_CHARACTERS_MAX:
                raise ValueError(f"consumer_group is the name of a group, at most {GROUP_CHARACTERS_MAX} characters")
            return StartPoint("consumer_group", consumer_group=given)
        nearest = nearest_text(str(kind), _START_KINDS)
    else:
        nearest = nearest_text(value, _START_KINDS) if isinstance(value, str) else ""
    raise ValueError("expected latest, earliest, {timestamp: …} or {consumer_group: …}" + nearest)


def _timestamp_ms(value: Any) -> int:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("timestamp is ISO 8601 with a time zone, such as 2026-11-21T00:00:00Z")
    if moment < _EPOCH:
        raise ValueError("timestamp is before 1970")
    return (moment - _EPOCH) // _MILLISECOND


def timestamp_text(timestamp_ms: int) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return (_EPOCH + timestamp_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_START_SCHEMA: dict[str, Any] = {
    "description": "Where flows begin on topics that exist already; never applies to topics and queues that appear later.",
    "oneOf": [
        {"enum": ["latest", "earliest"]},
        {
            "type": "object",
            "properties": {"timestamp": {"type": "string", "format": "date-time"}},
            "required": ["timestamp"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"consumer_group": {"type": "string", "minLength": 1, "maxLength": GROUP_CHARACTERS_MAX}},
            "required": ["consumer_group"],
            "additionalProperties": False,
        },
    ],
}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": RATE_MAX}, {"type": "string", "pattern": SIZE_PATTERN}, {"type": "null"}],
    "default": None,
    "description": "Bytes, or text such as 50MiB.",
}

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
Rate = Annotated[int, Field(ge=1, le=RATE_MAX)]
Size = Annotated[Rate | None, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)]
Start = Annotated[StartPoint, PlainValidator(_start), WithJsonSchema(_START_SCHEMA)]
NotEmpty = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metadata(_Model):
    name: Name


class ClusterSpec(_Model):
    """``spec`` of a cluster without the block of its connector, which that connector's own model judges."""

    connector: str
    region: str = Field(default="", max_length=REGION_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f]*$")


class ClusterDocument(_Model):
    api_version: Literal["replicator/v1"] = Field(alias="apiVersion")
    kind: Literal["Cluster"]
    metadata: Metadata
    spec: ClusterSpec


class Topics(_Model):
    include: list[str] = Field(min_length=1, description="Exact names, or patterns with *.")
    exclude: list[str] = []
    rename: dict[str, str] = Field(default={}, description="Source topic: destination topic. One-way only.")
    create: bool = Field(default=True, description="True: create missing topics like the source's; false: they must exist.")


class PropertyCondition(_Model):
    name: NotEmpty
    equals: NotEmpty


class TagCondition(_Model):
    topic: NotEmpty | None = None
    property: PropertyCondition | None = None


class TagRule(_Model):
    key: str
    value: str = Field(description="Text with {origin} {source} {destination} {task} {topic} {region}.")
    when: TagCondition = TagCondition()


class Groups(_Model):
    include: list[str] = Field(default=["*"], description="Consumer groups whose progress is carried: exact names, or patterns with *.")
    exclude: list[str] = []
    local: list[str] = Field(default=[], description="Groups that consume only what was born on their own cluster.")


class Progress(_Model):
    groups: Groups = Groups()
    sync: Literal["automatic", "manual"] = "automatic"
    interval_seconds: int = Field(default=5, ge=1, le=86_400)
    pop_bound: int = Field(
        default=POP_BOUND_DEFAULT, ge=0, le=RATE_MAX,
        description="Messages of a queue that a popping group may have been handed and not acknowledged: it starts so many earlier.",
    )


class Limits(_Model):
    messages_per_second: Rate | None = None
    bytes_per_second: Size = None


class TaskSpec(_Model):
    """``spec`` of a replication task. What depends on several keys is judged by ``specs.findings_in``."""

    mode: Literal["one-way", "two-way"]
    source: Name | None = Field(default=None, description="One-way only.")
    destinations: list[Name] | None = Field(default=None, description="One-way only.")
    clusters: list[Name] | None = Field(default=None, description="Two-way only: each ordered pair is a flow.")
    topics: Topics
    start: Start
    tags: list[TagRule] = Field(default=[TagRule(key="origin", value="{origin}")], max_length=TAG_RULES_MAX)
    filter: str = Field(default="", max_length=FILTER_CHARACTERS_MAX, description="SQL92 on properties.")
    delayed: Literal["when-delivered", "ahead"] = Field(default="when-delivered", description="ahead: not available in this version.")
    retry: bool = Field(default=False, description="true: what groups failed on, waiting for a retry or given up, is carried too.")
    relay: bool = False
    progress: Progress = Progress()
    limits: Limits = Limits()
    tune_source: bool = Field(default=False, description="true: not available in this version.")
    on_refused: Literal["park", "stop"] = "park"
    on_history_change: Literal["stop", "continue"] = "stop"


class TaskDocument(_Model):
    api_version: Literal["replicator/v1"] = Field(alias="apiVersion")
    kind: Literal["ReplicationTask"]
    metadata: Metadata
    spec: TaskSpec
