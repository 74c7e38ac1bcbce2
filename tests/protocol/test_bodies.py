from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.rocketmq.remoting import bodies
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.fastjson import DEPTH_MAX
from tests.fakes.state import dump

READERS: list[Callable[[bytes], Any]] = [
    getattr(bodies, name) for name in bodies.__all__ if name.startswith("read_") and name != "read_properties_text"
]
QUEUE = '{"brokerName":"b","queueId":0,"topic":"t"}'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
FIELD_NAMES = st.sampled_from([
    "offsetTable", "topicConfigTable", "subscriptionGroupTable", "table", "topicList", "connectionSet", "subscriptionTable",
    "queueDatas", "brokerDatas", "brokerAddrs", "brokerAddrTable", "clusterAddrTable", "lockOKMQSet", "queueData",
    "topic", "brokerName", "queueId", "topicName", "groupName", "attributes", "consumerIdList", "groupList", "perm",
])  # fmt: skip
SHAPED = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["", "x", "7", "t@g"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELD_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_strict_json_is_read_as_json(value: Any) -> None:
    assert bodies.loads(json.dumps(value).encode()) == value


@given(st.dictionaries(st.integers(-(2**31), 2**31), st.dictionaries(TEXT, st.integers(0, 5), max_size=3), max_size=4))
def test_bare_number_keys_become_text(value: dict[int, Any]) -> None:
    assert bodies.loads(dump(value).encode()) == {str(key): item for key, item in value.items()}


@given(st.dictionaries(st.tuples(TEXT, TEXT, st.integers(0, 9)), JSON, min_size=1, max_size=3))
def test_object_keys_become_pairs(value: dict[tuple[str, str, int], Any]) -> None:
    read = bodies.loads(dump({"1": value}).encode())["1"]
    assert {(queue["topic"], queue["brokerName"], queue["queueId"]): item for queue, item in pairs(read)} == value


def pairs(read: dict[Any, Any]) -> list[tuple[dict[str, Any], Any]]:
    return [(dict(key), item) for key, item in read.items()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{0:"a",-1:"b"}', {"0": "a", "-1": "b"}),
        ('{"a":[{1:2},{3:{4:5}}]}', {"a": [{"1": 2}, {"3": {"4": 5}}]}),
        ('{"{1:2}":"{3:4}","\\"{5:6}":7}', {"{1:2}": "{3:4}", '"{5:6}': 7}),
        ('{"a":{"$ref":"$.b"}}', {"a": {"$ref": "$.b"}}),
        ('{ {"a" : [1.5, true] } : {2 : null}, 3 : [ ] , "x":{}}', {(("a", (1.5, True)),): {"2": None}, "3": [], "x": {}}),
        ('{{"a":{"b":1e3}}:false,{}:-2}', {(("a", (("b", 1000.0),)),): False, (): -2}),
        ('{{}:"tab\there"}', {(): "tab\there"}),
    ],
)
def test_the_dialect(text: str, value: Any) -> None:
    assert bodies.loads(text.encode()) == value


def test_not_a_number_is_tolerated() -> None:
    assert math.isnan(bodies.loads(b'{"tps":NaN}')["tps"])
    assert math.isnan(bodies.loads(b"{{}:NaN}")[()])


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[", "[1", "[1,", "{,}", "{1}", "{1:}", '{"a" 1}', "nul", "'a'", '"abc', "{{}:1", "{{}:1]", "[1}", "1 2", "{}{}",
        "{a:1}", "{{}:--1}", "{{}:1,}", '{{}:"\\x"}', "[" * 100_000, "{{" * 100_000, "{{}:" * (DEPTH_MAX + 2), '{{}:' + "9" * 5000 + "}",
        '"' * 50_001, '"\\' * 50_000, "{1:" * 50_000,
    ],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_what_is_no_json_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        bodies.loads(text.encode())


@given(st.binary(max_size=60) | st.text('{}[]":,0123456789-.eE\\ntrue', max_size=60).map(str.encode))
def test_garbage_raises_only_a_protocol_error(data: bytes) -> None:
    try:
        bodies.loads(data)
    except ProtocolError:
        return


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@given(value=JSON | SHAPED)
def test_readers_refuse_other_shapes_with_a_protocol_error(reader: Callable[[bytes], Any], value: Any) -> None:
    try:
        reader(json.dumps(value).encode())
    except ProtocolError:
        return


def test_route_of_a_4_4_broker() -> None:
    route = bodies.read_topic_route(
        b'{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b","cluster":"c"}],'
        b'"filterServerTable":{},"orderTopicConf":"b:4","queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":4,'
        b'"topicSynFlag":2,"writeQueueNums":8}]}'
    )
    assert route.queues == (bodies.QueueData("b", 4, 8, 6, 2),)
    assert route.brokers == (bodies.BrokerData("c", "b", {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"}),)
    assert route.brokers[0].master == "10.0.0.1:10911"
    assert (route.order_conf, route.is_static, route.brokers[0].lets_slaves_act) == ("b:4", False, False)


def test_route_of_a_broker_whose_slaves_may_act_for_their_master() -> None:
    route = bodies.read_topic_route(
        b'{"brokerDatas":[{"brokerAddrs":{0:"x:1"},"brokerName":"b","cluster":"c","enableActingMaster":true}],"queueDatas":[]}'
    )
    assert route.brokers[0].lets_slaves_act


def test_route_of_a_static_topic_and_of_a_set_without_master() -> None:
    route = bodies.read_topic_route(
        b'{"brokerDatas":[{"brokerAddrs":{"2":"x:1"},"brokerName":"b"}],"queueDatas":null,"topicQueueMappingByBroker":{"b":{"topic":"t"}}}'
    )
    assert route.is_static
    assert route.brokers[0].master is None


def test_cluster_info() -> None:
    info = bodies.read_cluster_info(
        b'{"brokerAddrTable":{"b":{"brokerAddrs":{0:"x:1"},"brokerName":"b","cluster":"c"}},"clusterAddrTable":{"c":["b"]}}'
    )
    assert info == bodies.ClusterInfo({"b": bodies.BrokerData("c", "b", {0: "x:1"})}, {"c": ("b",)})


def test_consumer_offsets_keep_broadcast_groups_apart() -> None:
    body = b'{"dataVersion":{},"offsetTable":{"t@g":{0:12,1:7},"%RETRY%g@g":{0:1},"t@g@broadcast":{0:3}}}'
    assert bodies.read_consumer_offsets(body) == {
        ("t", "g"): {0: 12, 1: 7},
        ("%RETRY%g", "g"): {0: 1},
        ("t", "g@broadcast"): {0: 3},
    }


def test_tables_keyed_by_queues() -> None:
    stats = f'{{"offsetTable":{{{QUEUE}:{{"brokerOffset":5,"consumerOffset":2,"lastTimestamp":9}}}}}}'
    assert bodies.read_consume_stats(stats.encode()) == [bodies.QueueProgress("t", "b", 0, 5, 2, 9)]
    assert bodies.read_queue_offsets(f'{{"offsetTable":{{{QUEUE}:7}}}}'.encode()) == {("t", "b", 0): 7}
    assert bodies.read_locked_queues(f'{{"lockOKMQSet":[{QUEUE}]}}'.encode()) == {("t", "b", 0)}
    assert bodies.read_locked_queues(b'{"lockOKMQSet":[]}') == set()
    with pytest.raises(ProtocolError):
        bodies.read_queue_offsets(b'{"offsetTable":{{"topic":"t"}:7}}')
    with pytest.raises(ProtocolError):
        bodies.read_queue_offsets(b'{"offsetTable":{"t":7}}')


def test_smaller_tables() -> None:
    assert bodies.read_delay_offsets(b'{"offsetTable":{1:5,18:0}}') == {1: 5, 18: 0}
    assert bodies.read_topic_list(b'{"topicList":["a","b"],"brokerAddr":null}') == ("a", "b")
    assert bodies.read_consumer_list(b'{"consumerIdList":["x@1"]}') == ("x@1",)
    assert bodies.read_group_list(b'{"groupList":["g"]}') == ("g",)
    assert bodies.read_runtime_info(b'{"table":{"a":"1","b":2}}') == {"a": "1", "b": "2"}
    index = b'{"maxQueueIndex":9,"minQueueIndex":1,"queueData":[{"physicOffset":100,"physicSize":20,"tagsCode":-5,"eval":true}]}'
    assert bodies.read_consume_queue(index) == (1, 9, [bodies.IndexEntry(100, 20, -5)])


def test_topic_and_group_configurations() -> None:
    topic = (
        b'{"attributes":{"message.type":"FIFO"},"order":true,"perm":6,"readQueueNums":2,"topicFilterType":"MULTI_TAG",'
        b'"topicName":"t","topicSysFlag":1,"writeQueueNums":3}'
    )
    expected = bodies.TopicConfig("t", 2, 3, 6, 1, True, "MULTI_TAG", {"message.type": "FIFO"})
    assert bodies.read_topic_config(topic) == expected
    assert bodies.read_topic_configs(b'{"topicConfigTable":{"t":' + topic + b"}}") == {"t": expected}
    groups = bodies.read_subscription_groups(b'{"subscriptionGroupTable":{"g":{"groupName":"g","consumeEnable":false,"retryMaxTimes":5}}}')
    assert (groups["g"].consume_enabled, groups["g"].fields["retryMaxTimes"]) == (False, 5)


def test_connections() -> None:
    connection = '{"clientAddr":"1.2.3.4:5","clientId":"x@1","language":"JAVA","version":479}'
    expected = bodies.Connection("x@1", "1.2.3.4:5", "JAVA", 479)
    assert bodies.read_producer_connections(f'{{"connectionSet":[{connection}]}}'.encode()) == (expected,)
    consumers = bodies.read_consumer_connections(
        f'{{"connectionSet":[{connection}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY",'
        f'"messageModel":"CLUSTERING","subscriptionTable":{{"t":{{"topic":"t","subString":"a || b"}}}}}}'.encode()
    )
    assert consumers.connections == (expected,)
    assert consumers.subscriptions == {"t": ("a || b", "")}
    assert consumers.message_model == "CLUSTERING"


def test_properties_text() -> None:
    text = b"#written by\nbrokerName=b\nmessageDelayLevel=1s 5s\nempty=\nurl=a=b\nnothing\n"
    assert bodies.read_properties_text(text) == {
        "brokerName": "b", "messageDelayLevel": "1s 5s", "empty": "", "url": "a=b",
    }  # fmt: skip
