from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config import json_schema, load_documents, task_from_spec, task_to_spec
from replicator.core.errors import InvalidInput
from replicator.core.task import ProgressSpec, ReplicationTask, StartPoint, TagRuleSpec

words = st.text("abcxyz-019", min_size=1, max_size=12)
names = st.lists(words, min_size=2, max_size=4, unique=True).map(tuple)
rates = st.none() | st.integers(1, 2**53 - 1)
starts = st.one_of(
    st.sampled_from([StartPoint("latest"), StartPoint("earliest")]),
    st.integers(0, 4_000_000_000_000).map(lambda ms: StartPoint("timestamp", timestamp_ms=ms)),
    words.map(lambda group: StartPoint("consumer_group", consumer_group=group)),
)
tag_rules = st.one_of(
    st.builds(TagRuleSpec, words, st.just("{origin}"), st.just("") | words),
    st.builds(TagRuleSpec, words, words, st.just(""), words, words),
)
progress = st.builds(
    ProgressSpec,
    include=st.lists(words, max_size=2).map(tuple),
    local=st.lists(words, max_size=2).map(tuple),
    sync=st.sampled_from(["automatic", "manual"]),
    interval_seconds=st.integers(1, 86_400),
)
one_way = st.fixed_dictionaries({"mode": st.just("one-way"), "rename": st.dictionaries(words, words, max_size=1)})
two_way = st.fixed_dictionaries({"mode": st.just("two-way")})


@st.composite
def replication_tasks(draw: st.DrawFn) -> ReplicationTask:
    return ReplicationTask(
        name=draw(words),
        clusters=draw(names),
        include=tuple(draw(st.lists(words, min_size=1, max_size=3))),
        exclude=tuple(draw(st.lists(words.map("{}*".format), max_size=2))),
        start=draw(starts),
        tags=tuple(draw(st.lists(tag_rules, max_size=3))),
        filter=draw(st.sampled_from(["", "region = 'cn' OR amount > 100"])),
        create=draw(st.booleans()),
        relay=draw(st.booleans()),
        tune_source=draw(st.booleans()),
        messages_per_second_max=draw(rates),
        bytes_per_second_max=draw(rates),
        progress=draw(progress),
        **draw(one_way | two_way),
    )


@given(replication_tasks())
def test_a_task_survives_its_canonical_json(task: ReplicationTask) -> None:
    spec = json.loads(json.dumps(task_to_spec(task)))
    again = task_from_spec(task.name, spec)
    assert again == task
    assert task_to_spec(again) == spec


def test_the_canonical_json_of_a_plain_task_is_accepted_in_a_file() -> None:
    task = ReplicationTask("t", "two-way", ("a", "b"), ("*",), StartPoint("latest"), progress=ProgressSpec(sync="manual"))
    document = {"apiVersion": "replicator/v1", "kind": "ReplicationTask", "metadata": {"name": "t"}, "spec": task_to_spec(task)}
    assert load_documents([document]).tasks == [task]
    jsonschema.validate(document, json_schema())


def test_equal_wishes_have_equal_json() -> None:
    short = {"mode": "two-way", "clusters": ["a", "b"], "topics": {"include": ["x"]}, "start": {"timestamp": "2026-11-21T08:00:00+08:00"}}
    long = {**short, "start": {"timestamp": "2026-11-21T00:00:00.000Z"}, "relay": False, "limits": {}, "filter": ""}
    assert task_to_spec(task_from_spec("t", short)) == task_to_spec(task_from_spec("t", long))


def test_a_wrong_spec_names_the_task_and_the_key() -> None:
    with pytest.raises(InvalidInput) as raised:
        task_from_spec("t", {"mode": "two-way", "clusters": ["a", "b"]})
    assert raised.value.message.splitlines() == ["task t: topics: required", "task t: start: required"]


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    cluster = {"apiVersion": "replicator/v1", "kind": "Cluster", "metadata": {"name": "a"}}
    jsonschema.validate({**cluster, "spec": {"connector": "memory", "memory": {"cluster": "m"}}}, schema)
    for spec in ({"connector": "memory", "memory": {"clustr": "m"}}, {"connector": "memory", "surprise": 1}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**cluster, "spec": spec}, schema)
