"""What a flow would meet: the topics it selects, what is on both sides, what would be created and copied. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from replicator.coordinator.connections import Link
from replicator.coordinator.declared import rules_of
from replicator.coordinator.starting import QueueStart, find_starts
from replicator.core.queues import ordered_refusal
from replicator.core.record import TopicDescription
from replicator.core.task import ReplicationTask


@dataclass(frozen=True, slots=True)
class TopicSurvey:
    topic: str
    destination_topic: str
    starts: tuple[QueueStart, ...]
    must_create: bool
    problem: str = ""
    """Why this topic would be blocked, or empty."""


@dataclass(frozen=True, slots=True)
class FlowSurvey:
    source: str
    destination: str
    topics: tuple[TopicSurvey, ...] = ()
    missing: tuple[str, ...] = ()
    """Exact names of ``include`` that the source does not have."""
    collisions: dict[str, list[str]] = field(default_factory=dict)


async def survey_flow(
    task: ReplicationTask, source: Link, destination: Link, only: Collection[str] | None = None
) -> FlowSurvey:
    """``only``: of the selected topics just these."""
    rules = rules_of(task)
    names = await source.topics()
    chosen = [topic for topic in rules.select(names) if only is None or topic in only]
    surveys = await asyncio.gather(*(_survey_topic(task, source, destination, topic) for topic in chosen))
    found = tuple(survey for survey in surveys if survey is not None)
    return FlowSurvey(source.cluster.name, destination.cluster.name, found, tuple(rules.missing(names)), rules.collisions(names))


async def _survey_topic(task: ReplicationTask, source: Link, destination: Link, topic: str) -> TopicSurvey | None:
    described = await source.describe(topic)
    if described is None:
        return None
    arrives = rules_of(task).destination_name(topic)
    there = await destination.describe(arrives)
    starts = await find_starts(source, task.start, described.queues)
    problem = refusal(described, there, arrives, destination.cluster.name, create=task.create)
    without = next((one.queue for one in starts if one.offset is None), None)
    if not problem and without is not None:
        problem = f"group {task.start.consumer_group} has no progress on {without} of {source.cluster.name} to start from"
    return TopicSurvey(topic, arrives, tuple(starts), there is None and task.create and not described.unsupported, problem)


def refusal(
    source: TopicDescription,
    there: TopicDescription | None,
    arrives: str,
    destination: str,
    *,
    create: bool,
    is_running: bool = False,
) -> str:
    """Why ``source`` cannot be copied into topic ``arrives`` (``there``, None: it does not exist) of ``destination``, or empty.
    ``is_running``: its first queues have their places, and a growth of one side concerns new queues only."""
    if source.unsupported:
        return f"topic {source.name} cannot be replicated: {source.unsupported}"
    if not source.readable or not source.queues:
        return f"topic {source.name} cannot be read on the source"
    if there is None:
        return "" if create else f"topic {arrives} does not exist on {destination}, and the task does not create topics"
    if there.unsupported:
        return f"topic {arrives} of {destination} cannot take copies: {there.unsupported}"
    if not there.writable or not there.queues:
        return f"topic {arrives} of {destination} cannot be written to"
    if (source.ordered or there.ordered) and not is_running:
        return ordered_refusal(len(source.queues), len(there.queues))
    return ""
