"""``spec`` of a replication task: judged as a whole, made into a ``ReplicationTask``, and back into canonical JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from replicator.config.models import TagRule, TaskSpec, timestamp_text
from replicator.config.problems import Document, Finding, Problems, findings_of
from replicator.core.errors import InvalidInput
from replicator.core.patterns import TopicRules, validate_pattern
from replicator.core.sql92 import compile_filter
from replicator.core.tags import validate_tag_rules
from replicator.core.task import ProgressSpec, ReplicationTask, StartPoint, TagRuleSpec

NOT_AVAILABLE = "not available in this version"


def task_from_spec(name: str, spec: Mapping[str, Any]) -> ReplicationTask:
    """The task that ``task_to_spec`` dumped. Raises ``InvalidInput``."""
    document = Document(f"task {name}", spec)
    problems = Problems()
    try:
        parsed = TaskSpec.model_validate(spec)
    except ValidationError as error:
        problems.add_all(document, findings_of(error, TaskSpec))
        problems.raise_if_any()
        raise
    problems.add_all(document, findings_in(parsed))
    problems.raise_if_any()
    return to_task(name, parsed)


def task_to_spec(task: ReplicationTask) -> dict[str, Any]:
    """Canonical JSON of ``spec``: equal for equal tasks, and accepted again in a file."""
    if task.mode == "one-way":
        who: dict[str, Any] = {"source": task.clusters[0], "destinations": list(task.clusters[1:])}
    else:
        who = {"clusters": list(task.clusters)}
    limits = {"messages_per_second": task.messages_per_second_max, "bytes_per_second": task.bytes_per_second_max}
    spec = {
        "mode": task.mode,
        **who,
        "topics": {
            "include": list(task.include),
            "exclude": list(task.exclude),
            "rename": dict(task.rename),
            "create": task.create,
        },
        "start": _start_json(task.start),
        "tags": [_tag_json(rule) for rule in task.tags],
        "filter": task.filter,
        "relay": task.relay,
        "limits": {key: value for key, value in limits.items() if value is not None},
        "tune_source": task.tune_source,
        "on_refused": task.on_refused,
        "on_history_change": task.on_history_change,
    }
    if task.retry:
        spec["retry"] = True
    if progress := _progress_json(task.progress):
        spec["progress"] = progress
    return spec


def to_task(name: str, spec: TaskSpec) -> ReplicationTask:
    """``spec`` has passed ``findings_in``."""
    clusters = spec.clusters if spec.mode == "two-way" else [spec.source or "", *(spec.destinations or [])]
    groups = spec.progress.groups
    return ReplicationTask(
        name=name,
        mode=spec.mode,
        clusters=tuple(clusters or ()),
        include=tuple(spec.topics.include),
        start=spec.start,
        exclude=tuple(spec.topics.exclude),
        rename=dict(spec.topics.rename),
        create=spec.topics.create,
        tags=tuple(map(_tag_rule, spec.tags)),
        filter=spec.filter,
        relay=spec.relay,
        messages_per_second_max=spec.limits.messages_per_second,
        bytes_per_second_max=spec.limits.bytes_per_second,
        retry=spec.retry,
        tune_source=spec.tune_source,
        on_refused=spec.on_refused,
        on_history_change=spec.on_history_change,
        progress=ProgressSpec(
            include=tuple(groups.include),
            exclude=tuple(groups.exclude),
            local=tuple(groups.local),
            sync=spec.progress.sync,
            interval_seconds=spec.progress.interval_seconds,
            pop_bound=spec.progress.pop_bound,
        ),
    )


def findings_in(spec: TaskSpec) -> list[Finding]:
    """What no single key shows: paths are relative to ``spec``."""
    return [*_cluster_findings(spec), *_topic_findings(spec), *_tag_findings(spec), *_filter_findings(spec), *_group_findings(spec)]


def unavailable_in(spec: TaskSpec) -> list[Finding]:
    """Keys whose feature is not built yet. Judged on what a person writes, not on what is stored."""
    findings: list[Finding] = []
    if spec.delayed == "ahead":
        findings.append((("delayed",), f"ahead: {NOT_AVAILABLE}"))
    return findings


def _cluster_findings(spec: TaskSpec) -> Iterator[Finding]:
    wanted = ("clusters",) if spec.mode == "two-way" else ("source", "destinations")
    for key in ("source", "destinations", "clusters"):
        is_given = getattr(spec, key) is not None
        if key in wanted and not is_given:
            yield (key,), f"required where mode is {spec.mode}"
        if key not in wanted and is_given:
            yield (key,), f"has no meaning where mode is {spec.mode}; that takes {' and '.join(wanted)}"
    listed_key, listed = ("clusters", spec.clusters) if spec.mode == "two-way" else ("destinations", spec.destinations)
    at_least = 2 if spec.mode == "two-way" else 1
    if listed is not None and len(listed) < at_least:
        yield (listed_key,), f"at least {at_least} required"
    seen = {spec.source} if spec.mode == "one-way" else set()
    for i, name in enumerate(listed or ()):
        if name in seen:
            yield (listed_key, i), f"{name} is named twice"
        seen.add(name)


def _topic_findings(spec: TaskSpec) -> Iterator[Finding]:
    topics = spec.topics
    if topics.rename and spec.mode != "one-way":
        yield ("topics", "rename"), "one-way only"
    is_sound = True
    for key, patterns in (("include", topics.include), ("exclude", topics.exclude)):
        for i, pattern in enumerate(patterns):
            try:
                validate_pattern(pattern)
            except InvalidInput as error:
                is_sound = False
                yield ("topics", key, i), str(error)
    if not is_sound:
        return
    try:
        TopicRules(tuple(topics.include), tuple(topics.exclude), topics.rename)
    except InvalidInput as error:
        yield ("topics", "rename"), re.sub(r"^topics\.rename:? ?", "", str(error))


def _tag_findings(spec: TaskSpec) -> Iterator[Finding]:
    for i, rule in enumerate(spec.tags):
        try:
            validate_tag_rules([_tag_rule(rule)])
        except InvalidInput as error:
            yield ("tags", i), re.sub(r"^tags\[0\]\.?", "", str(error))


def _filter_findings(spec: TaskSpec) -> Iterator[Finding]:
    if not spec.filter:
        return
    try:
        compile_filter(spec.filter)
    except InvalidInput as error:
        yield ("filter",), re.sub(r"^filter[,:] ?", "", str(error))


def _group_findings(spec: TaskSpec) -> Iterator[Finding]:
    groups = spec.progress.groups
    for key, patterns in (("include", groups.include), ("exclude", groups.exclude), ("local", groups.local)):
        for i, pattern in enumerate(patterns):
            try:
                validate_pattern(pattern, "group pattern")
            except InvalidInput as error:
                yield ("progress", "groups", key, i), str(error)


def _tag_rule(rule: TagRule) -> TagRuleSpec:
    condition = rule.when.property
    return TagRuleSpec(
        key=rule.key,
        value=rule.value,
        when_topic=rule.when.topic or "",
        when_property_name=condition.name if condition else "",
        when_property_equals=condition.equals if condition else "",
    )


def _tag_json(rule: TagRuleSpec) -> dict[str, Any]:
    when: dict[str, Any] = {}
    if rule.when_topic:
        when["topic"] = rule.when_topic
    if rule.when_property_name:
        when["property"] = {"name": rule.when_property_name, "equals": rule.when_property_equals}
    return {"key": rule.key, "value": rule.value, **({"when": when} if when else {})}


def _start_json(start: StartPoint) -> str | dict[str, str]:
    if start.kind == "timestamp":
        return {"timestamp": timestamp_text(start.timestamp_ms)}
    if start.kind == "consumer_group":
        return {"consumer_group": start.consumer_group}
    return start.kind


def _progress_json(progress: ProgressSpec) -> dict[str, Any]:
    given, default = asdict(progress), asdict(ProgressSpec())
    chosen = {key: value for key, value in given.items() if value != default[key]}
    groups = {key: list(chosen.pop(key)) for key in ("include", "exclude", "local") if key in chosen}
    return {**({"groups": groups} if groups else {}), **chosen}
