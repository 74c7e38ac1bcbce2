"""Could a message reach a cluster twice? Judges the flows of all tasks together, on topic patterns. Pure.

What the copy path guarantees by itself: a flow copies what was born on its source, with ``relay`` also what was copied there,
and never a message that has the flow's destination on its path, its birthplace included. So no message comes back to where it
has been *on its way*, and two-way tasks, meshes and rings without relay are safe: only flows of its birth cluster copy it.

What nobody can see at run time is a *second way*: two different chains of flows that lead from the birth cluster to the same
cluster and both carry the topic. A chain begins with any flow of the birth cluster and goes on with relaying flows only; it
never visits a cluster twice. That covers two tasks that copy one topic between the same clusters, under one name or two, and
diamonds (A→B, A→C, and a relaying B→C). The rule:

    refused is every graph in which two such chains exist whose topics may be the same

and, within one flow, two source topics that arrive under one name. Patterns are compared conservatively: what may overlap
counts as overlapping, unless an ``exclude`` covers one of the patterns. Filters are not looked into.
Many sources into one topic of a destination is fine: these are different messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from replicator.core.patterns import TopicRules, compile_pattern, is_pattern, patterns_may_overlap

CHAINS_MAX = 20_000
"""Of one judgement; a graph with more is refused as too entangled to be judged."""


@dataclass(frozen=True, slots=True)
class GraphFlow:
    """A flow between clusters given by their lasting ids (or, before they have one, by a name of their own)."""

    task: str
    source: str
    destination: str
    rules: TopicRules
    relay: bool = False

    def __str__(self) -> str:
        return f"{self.source}→{self.destination}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to refuse. ``tasks``: one or two names, in order of their names. ``topics``: what both chains may carry."""

    kind: str
    """overlap, diamond, collision, entangled."""
    tasks: tuple[str, ...]
    message: str
    hint: str
    topics: tuple[str, ...] = ()
    flows: tuple[tuple[str, str, str], ...] = ()
    """(task, source, destination) of each flow involved."""


@dataclass(frozen=True, slots=True)
class _Carried:
    """Topics one chain carries: the pattern of their names where they were born, and as they arrive. Once a name is exact it is
    exact in both; a renamed topic is always exact."""

    born: str
    arrives: str
    excludes: tuple[str, ...] = ()

    def may_meet(self, other: _Carried) -> bool:
        if not is_pattern(self.born) and not is_pattern(other.born):
            return self.born == other.born
        return (
            _overlap(self.born, other.born)
            and not _is_covered(self.born, other.excludes)
            and not _is_covered(other.born, self.excludes)
        )


@dataclass(frozen=True, slots=True)
class _Chain:
    flows: tuple[GraphFlow, ...]
    carried: tuple[_Carried, ...]

    @property
    def clusters(self) -> tuple[str, ...]:
        return (self.flows[0].source, *(flow.destination for flow in self.flows))

    def __str__(self) -> str:
        return "→".join(self.clusters)


def judge(flows: Sequence[GraphFlow]) -> list[Finding]:
    """Everything wrong with these flows, none twice; empty if the graph is safe."""
    findings = [finding for flow in flows for finding in _collisions(flow)]
    leaving: dict[str, list[GraphFlow]] = {}
    for flow in flows:
        leaving.setdefault(flow.source, []).append(flow)
    for birthplace in sorted(leaving):
        findings += _second_ways(birthplace, leaving)
    by_cause = {(one.kind, one.tasks, frozenset(one.flows)): one for one in reversed(findings)}
    return [one for one in findings if by_cause[(one.kind, one.tasks, frozenset(one.flows))] is one]


def judge_topic(flows: Sequence[GraphFlow], flow: GraphFlow, topic: str) -> list[Finding]:
    """What is wrong with ``flow`` carrying just this source topic, the others as declared. Findings about others are left out."""
    renamed = {topic: flow.rules.rename[topic]} if topic in flow.rules.rename else {}
    narrowed = replace(flow, rules=TopicRules((topic,), (), renamed))
    key = (flow.task, flow.source, flow.destination)
    return [finding for finding in judge([narrowed if one == flow else one for one in flows]) if key in finding.flows]


def _collisions(flow: GraphFlow) -> Iterator[Finding]:
    """Names given exactly, so certain to collide. What patterns bring in is judged by name, when it is there."""
    rules = flow.rules
    for source, destination in sorted(rules.rename.items()):
        if destination in rules.include and destination not in rules.rename and rules.matches(source) and rules.matches(destination):
            yield Finding(
                "collision", (flow.task,),
                f"task {flow.task}: topics {source} and {destination} would both arrive as {destination} on {flow.destination}",
                f"exclude {destination}, or rename {source} to another name",
                (source, destination), ((flow.task, flow.source, flow.destination),),
            )  # fmt: skip


def _second_ways(birthplace: str, leaving: dict[str, list[GraphFlow]]) -> Iterator[Finding]:
    arrived: dict[str, list[_Chain]] = {}
    waiting = [_Chain((flow,), _begin(flow.rules)) for flow in reversed(leaving[birthplace])]
    chains = 0
    while waiting:
        chain = waiting.pop()
        if not chain.carried:
            continue
        chains += 1
        if chains > CHAINS_MAX:
            tasks = tuple(sorted({flow.task for flows in leaving.values() for flow in flows if flow.relay}))
            yield Finding("entangled", tasks, f"more than {CHAINS_MAX} ways lead out of {birthplace}", "relay in fewer tasks")
            return
        others = arrived.setdefault(chain.flows[-1].destination, [])
        findings = [finding for other in others if (finding := _meeting(other, chain)) is not None]
        if findings:
            yield from findings
            continue
        others.append(chain)
        waiting += [
            _Chain((*chain.flows, flow), carried)
            for flow in reversed(leaving.get(chain.clusters[-1], []))
            if flow.relay and flow.destination not in chain.clusters and (carried := _go_on(chain.carried, flow.rules))
        ]


def _meeting(one: _Chain, other: _Chain) -> Finding | None:
    topics = tuple(sorted({_narrower(a.born, b.born) for a in one.carried for b in other.carried if a.may_meet(b)}))
    if not topics:
        return None
    different = [flow for flow in (*one.flows, *other.flows) if (flow in one.flows) != (flow in other.flows)]
    tasks = tuple(sorted({flow.task for flow in different}))
    named = ", ".join(topics)
    birthplace, destination = one.clusters[0], one.clusters[-1]
    flows = tuple(dict.fromkeys((flow.task, flow.source, flow.destination) for flow in (*one.flows, *other.flows)))
    if len(one.flows) == len(other.flows) == 1:
        message = f"tasks {' and '.join(tasks)} both copy {named} from {birthplace} to {destination}"
        return Finding("overlap", tasks, message, f"exclude {named} in one of them", topics, flows)
    message = (
        f"messages of {named} born on {birthplace} would reach {destination} twice: by {one} ({_tasks_of(one)})"
        f" and by {other} ({_tasks_of(other)})"
    )
    relaying = sorted({flow.task for chain in (one, other) for flow in chain.flows[1:]})
    hint = f"set relay: false in {' or '.join(relaying)}, or exclude {named} on one of the two ways"
    return Finding("diamond", tasks, message, hint, topics, flows)


def _tasks_of(chain: _Chain) -> str:
    return ", ".join(dict.fromkeys(f"task {flow.task}" for flow in chain.flows))


def _begin(rules: TopicRules) -> tuple[_Carried, ...]:
    whole = (_Carried("*", "*"),)
    return _go_on(whole, rules)


def _go_on(carried: Iterable[_Carried], rules: TopicRules) -> tuple[_Carried, ...]:
    """What of ``carried`` goes through a flow with these rules, and how it comes out."""
    out: dict[_Carried, None] = {}
    for item in carried:
        if not is_pattern(item.arrives):
            if rules.matches(item.arrives):
                out[replace(item, arrives=rules.destination_name(item.arrives))] = None
            continue
        for name in (*rules.rename, *(pattern for pattern in rules.include if not is_pattern(pattern))):
            if rules.matches(name) and _overlap(name, item.arrives) and not _is_covered(name, item.excludes):
                out[_Carried(name, rules.destination_name(name))] = None
        excludes = (*item.excludes, *rules.exclude, *rules.rename)
        for pattern in rules.include:
            if is_pattern(pattern) and _overlap(pattern, item.arrives):
                both = _narrower(pattern, item.arrives)
                if not _is_covered(both, excludes):
                    out[_Carried(both, both, tuple(dict.fromkeys(excludes)))] = None
    return tuple(out)


def _narrower(a: str, b: str) -> str:
    """A pattern for the names that match both, or the first where no simple one is known: then it stands for more than both."""
    return b if _is_covered(b, (a,)) else a


@lru_cache(maxsize=65536)
def _overlap(a: str, b: str) -> bool:
    if not is_pattern(a):
        return compile_pattern(b)(a)
    if not is_pattern(b):
        return compile_pattern(a)(b)
    return patterns_may_overlap(a, b)


def _is_covered(pattern: str, by: Iterable[str]) -> bool:
    """True if every name of ``pattern`` matches one and the same pattern of ``by``: a star is a character only a star can match."""
    return any(_covers(cover, pattern) for cover in by)


@lru_cache(maxsize=65536)
def _covers(cover: str, pattern: str) -> bool:
    return compile_pattern(cover)(pattern)
