"""The graph of all tasks: what could reach a cluster twice is refused, what cannot is not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.graph import GraphFlow, judge, judge_topic
from replicator.core.patterns import TopicRules


def flow(task, source, destination, include=("*",), exclude=(), rename=None, relay=False):
    return GraphFlow(task, source, destination, TopicRules(tuple(include), tuple(exclude), rename or {}), relay)


def mesh(task, clusters, relay=False, **rules):
    return [flow(task, a, b, relay=relay, **rules) for a, b in itertools.permutations(clusters, 2)]


def kinds(flows):
    return [finding.kind for finding in judge(flows)]


@pytest.mark.parametrize(
    "flows",
    [
        mesh("two-way", "ab"),
        mesh("mesh", "abcd"),
        [flow("ring", a, b) for a, b in ("ab", "bc", "ca")],
        [flow("relaying-ring", a, b, relay=True) for a, b in ("ab", "bc", "ca")],
        [flow("chain", "a", "b"), flow("chain2", "b", "c", relay=True)],
        [*mesh("one", "ab", relay=True), *mesh("two", "bc", relay=True)],
        [flow("in", "a", "x"), flow("in2", "b", "x"), flow("in3", "c", "x")],
        [flow("one", "a", "b", ["orders"]), flow("two", "a", "b", ["pay-*"])],
        [flow("one", "a", "b", ["*"], ["pay-*"]), flow("two", "a", "b", ["pay-in*"])],
        [flow("one", "a", "b", ["*"], ["orders"]), flow("two", "a", "b", ["orders"])],
        [*mesh("m", "ab"), flow("out", "b", "c")],
        [flow("m", "a", "b", ["x"]), flow("m", "a", "c", ["y"]), flow("n", "b", "c", ["x"], relay=True)],
    ],
)
def test_safe(flows):
    assert judge(flows) == []


def test_two_tasks_on_one_topic():
    (finding,) = judge([flow("one", "a", "b", ["orders", "x"]), flow("two", "a", "b", ["ord*"])])
    assert finding.kind == "overlap"
    assert finding.tasks == ("one", "two")
    assert finding.topics == ("orders",)
    assert "orders" in finding.message
    assert "orders" in finding.hint


def test_two_names_on_one_cluster_are_twice_too():
    assert kinds([flow("one", "a", "b", ["t"]), flow("two", "a", "b", ["t"], rename={"t": "u"})]) == ["overlap"]


def test_diamond():
    (finding,) = judge([flow("fan", "a", "b"), flow("fan", "a", "c"), flow("on", "b", "c", relay=True)])
    assert finding.kind == "diamond"
    assert "a→b→c" in finding.message
    assert "relay: false in on" in finding.hint


def test_relaying_mesh_is_refused_and_plain_mesh_is_not():
    assert set(kinds(mesh("m", "abc", relay=True))) == {"diamond"}
    assert kinds(mesh("m", "abc")) == []


def test_relaying_two_way_ring_of_tasks():
    flows = [*mesh("ab", "ab", relay=True), *mesh("bc", "bc", relay=True), *mesh("ca", "ca", relay=True)]
    assert "diamond" in kinds(flows)


def test_diamond_over_a_rename():
    flows = [
        flow("one", "a", "b", ["t"], rename={"t": "u"}),
        flow("two", "b", "c", ["u"], relay=True),
        flow("three", "a", "c", ["t"]),
    ]
    assert kinds(flows) == ["diamond"]
    flows[1] = flow("two", "b", "c", ["t"], relay=True)
    assert kinds(flows) == []


def test_excludes_of_both_sides_count():
    assert kinds([flow("one", "a", "b", ["*"], ["pay-*"]), flow("two", "a", "b", ["p*"])]) == ["overlap"]


def test_collision_within_a_flow():
    (finding,) = judge([flow("one", "a", "b", ["t", "u"], rename={"t": "u"})])
    assert finding.kind == "collision"
    assert finding.topics == ("t", "u")
    assert judge([flow("one", "a", "b", ["t", "u"], rename={"t": "u", "u": "t"})]) == []


def test_a_topic_alone():
    flows = [flow("one", "a", "b", ["*"], ["x"]), flow("two", "a", "b", ["pay-*"])]
    assert judge_topic(flows, flows[0], "orders") == []
    (finding,) = judge_topic(flows, flows[0], "pay-in")
    assert finding.tasks == ("one", "two")


def test_findings_are_told_once():
    flows = [flow("one", "a", "b", ["x", "y"]), flow("two", "a", "b", ["x", "y"])]
    (finding,) = judge(flows)
    assert finding.topics == ("x", "y")


names = st.sampled_from("abcd")
topics = st.sampled_from(["t", "u", "v"])
patterns = st.sampled_from(["t", "u", "t*", "*", "*u"])


@st.composite
def graphs(draw):
    flows = []
    for i in range(draw(st.integers(1, 6))):
        source, destination = draw(st.lists(names, min_size=2, max_size=2, unique=True))
        rename = draw(st.one_of(st.just({}), st.fixed_dictionaries({"t": st.just("tt")})))
        include, exclude = draw(st.lists(patterns, min_size=1, max_size=2)), draw(st.lists(topics, max_size=1))
        flows.append(flow(f"task-{i}", source, destination, include, exclude, rename, draw(st.booleans())))
    return flows


def copies(flows, birthplace, topic):
    """The replication itself, message by message: (cluster, topic) of every copy."""
    waiting = [((birthplace,), topic)]
    made = []
    while waiting:
        path, name = waiting.pop()
        for one in flows:
            if one.source != path[-1] or one.destination in path or not one.rules.matches(name):
                continue
            if len(path) > 1 and not one.relay:
                continue
            arrives = one.rules.destination_name(name)
            made.append(one.destination)
            waiting.append(((*path, one.destination), arrives))
    return made


@settings(max_examples=300)
@given(graphs(), names, st.sampled_from(["t", "u", "v", "tt", "tu", "w"]))
def test_what_is_not_refused_never_arrives_twice(flows, birthplace, topic):
    if judge(flows):
        return
    made = copies(flows, birthplace, topic)
    assert len(made) == len(set(made))
