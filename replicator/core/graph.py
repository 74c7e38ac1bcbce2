"""May this set of tasks bring a message to a cluster twice?

Rule: without ``relay`` a flow copies only what was born on its source, so a message reaches each cluster by at most one flow,
whatever rings and meshes there are, as long as no two flows write the same topic between the same two clusters. With
``relay`` a message travels on, and two ways from one cluster to another (a diamond, or a short cut beside a chain) would bring
it twice: such a graph is refused. Patterns are judged conservatively: what may overlap counts as overlapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replicator.core.patterns import TopicRules, patterns_may_overlap
from replicator.core.task import ReplicationTask

WAYS_MAX = 10_000
"""Ways looked at before a graph counts as too tangled to be judged."""


@dataclass(frozen=True, slots=True)
class FlowEdge:
    task: str
    source: str
    destination: str
    rules: TopicRules
    includes: tuple[str, ...]
    relay: bool

    def __str__(self) -> str:
        return f"{self.task} ({self.source} -> {self.destination})"


def edges_of(tasks: Sequence[ReplicationTask]) -> list[FlowEdge]:
    return [
        FlowEdge(task.name, source, destination, TopicRules(task.include, task.exclude, task.rename), task.include, task.relay)
        for task in tasks
        for source, destination in task.flows
    ]


def judge(tasks: Sequence[ReplicationTask]) -> list[str]:
    """Findings, each a sentence naming the tasks and what to change; empty where the graph is safe."""
    edges = edges_of(tasks)
    return [*_double_writers(edges), *_two_ways(edges)]


def _double_writers(edges: Sequence[FlowEdge]) -> Iterator[str]:
    for index, first in enumerate(edges):
        for second in edges[index + 1 :]:
            if (first.source, first.destination) != (second.source, second.destination):
                continue
            names = {name for name in (*first.includes, *second.includes) if "*" not in name}
            both = sorted(name for name in names if first.rules.matches(name) and second.rules.matches(name))
            if both:
                yield (
                    f"topic {', '.join(both)} from {first.source} to {first.destination} would be written by two tasks, "
                    f"{first.task} and {second.task}: exclude it in one of them"
                )


def _two_ways(edges: Sequence[FlowEdge]) -> Iterator[str]:
    """Two ways from one cluster to another on which the same topic may travel; beyond the first flow each has to relay."""
    if not any(edge.relay for edge in edges):
        return
    ways: dict[tuple[str, str], list[list[FlowEdge]]] = {}
    count = 0
    for first in edges:
        for way in _ways_from([first], edges):
            count += 1
            if count > WAYS_MAX:
                yield f"more than {WAYS_MAX} ways for a message through these tasks: too many to be judged; use fewer relays"
                return
            ways.setdefault((way[0].source, way[-1].destination), []).append(way)
    for (source, destination), found in ways.items():
        clash = next(((a, b) for i, a in enumerate(found) for b in found[i + 1 :] if _may_carry_the_same(a[0], b[0])), None)
        if clash is not None:
            yield (
                f"a message born on {source} could reach {destination} twice: by {_text(clash[0])} and by {_text(clash[1])}; "
                "take relay from one of them, or exclude the topics"
            )


def _ways_from(way: list[FlowEdge], edges: Sequence[FlowEdge]) -> Iterator[list[FlowEdge]]:
    yield way
    passed = {way[0].source, *(edge.destination for edge in way)}
    for edge in edges:
        if edge.relay and edge.source == way[-1].destination and edge.destination not in passed and way[-1].rules.may_feed(edge.rules):
            yield from _ways_from([*way, edge], edges)


def _may_carry_the_same(first: FlowEdge, second: FlowEdge) -> bool:
    return any(patterns_may_overlap(a, b) for a in first.includes for b in second.includes)


def _text(way: Sequence[FlowEdge]) -> str:
    return ", ".join(str(edge) for edge in way)
