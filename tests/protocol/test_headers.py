from __future__ import annotations

import base64
import inspect
import json

import pytest

from connectors.rocketmq.remoting import acl, headers
from connectors.rocketmq.remoting.codes import (
    REFUSES_QUEUE,
    RESPONSES,
    Kind,
    RequestCode,
    ResponseCode,
    describe,
    kind_of,
    request_name,
)
from connectors.rocketmq.remoting.command import FrameTemplate, RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError

TARGET = headers.SendTarget("P", "orders", 3, 1_700_000_000_000, sys_flag=0x33D)
QUEUES = [("orders", "a-0", 1)]
REQUESTS: list[RemotingCommand] = [
    headers.pull("G", ("orders", 1), 5, 32),
    headers.send_single(TARGET, b"x", b"K\x01v\x02", 1),
    headers.send_batch(TARGET, b"batch"),
    headers.topic_route("orders"),
    headers.cluster_info(),
    headers.topic_list(),
    headers.topics_by_cluster("c"),
    headers.kv_config("ORDER_TOPIC_CONFIG", "orders"),
    headers.delete_topic_in_name_server("orders"),
    headers.query_consumer_offset("G", "orders", 1),
    headers.update_consumer_offset("G", "orders", 1, 7),
    headers.max_offset("orders", 1),
    headers.min_offset("orders", 1),
    headers.search_offset("orders", 1, 99),
    headers.earliest_store_time("orders", 1),
    headers.all_consumer_offsets(),
    headers.all_delay_offsets(),
    headers.consume_stats("G", "orders"),
    headers.reset_offset("G", "orders", 1, 7),
    headers.reset_offset_by_time("G", "orders", -1),
    headers.all_topic_configs(),
    headers.topic_config("orders"),
    headers.create_topic(headers.NewTopic("orders", 4, 4, attributes="+message.type=FIFO")),
    headers.delete_topic_in_broker("orders"),
    headers.all_subscription_groups(),
    headers.create_subscription_group({"groupName": "G"}),
    headers.delete_subscription_group("G"),
    headers.broker_config(),
    headers.update_broker_config({"a": "1"}),
    headers.broker_runtime_info(),
    headers.query_consume_queue("orders", 1, 0, 10),
    headers.view_message(100, "orders"),
    headers.heartbeat("x@1", ["P"]),
    headers.unregister_client("x@1", "P"),
    headers.consumer_list("G"),
    headers.consumer_connections("G"),
    headers.producer_connections("P", "orders"),
    headers.groups_by_topic("orders"),
    headers.lock_queues("G", "x@1", QUEUES),
    headers.unlock_queues("G", "x@1", QUEUES),
]


@pytest.mark.parametrize("command", REQUESTS, ids=lambda command: request_name(command.code))
def test_every_request_survives_the_binary_header(command: RemotingCommand) -> None:
    assert decode_frame(encode_frame(command)[4:]) == command
    assert all(command.ext_fields.values())


def test_every_builder_is_in_the_table() -> None:
    builders = [
        name
        for name, function in inspect.getmembers(headers, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(function).return_annotation == "RemotingCommand"
    ]
    assert len(builders) == len(REQUESTS)


def test_pull_never_commits_and_suspends_only_when_asked() -> None:
    assert headers.pull("G", ("orders", 1), 5, 32).ext_fields["sysFlag"] == "4"
    held = headers.pull("G", ("orders", 1), 5, 32, suspend_ms=15_000)
    assert held.ext_fields["sysFlag"] == "6"
    mandatory = {
        "consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset",
        "suspendTimeoutMillis", "subVersion",
    }  # fmt: skip
    assert mandatory <= set(held.ext_fields)
    rendered = FrameTemplate(held, headers.PULL_PATCHED).render(9, queueOffset=77, maxMsgNums=16)
    fields = decode_frame(rendered[4:]).ext_fields
    assert (int(fields["queueOffset"]), int(fields["maxMsgNums"])) == (77, 16)


def test_sends_carry_only_the_compression_bits() -> None:
    single, batch = headers.send_single(TARGET, b"x", b"K\x01\xff\x02", 9), headers.send_batch(TARGET, b"y")
    for command in (single, batch):
        assert command.ext_fields["f"] == str(0x301)
        assert set("abcdefgh") <= set(command.ext_fields)
    assert (single.ext_fields["m"], batch.ext_fields["m"]) == ("false", "true")
    assert (single.ext_fields["h"], batch.ext_fields["h"]) == ("9", "0")
    assert single.ext_fields["i"].encode("utf-8", "surrogateescape") == b"K\x01\xff\x02"
    assert "i" not in batch.ext_fields
    retry = headers.SendTarget("P", "%RETRY%G", 0, 1, reconsume_times=2, max_reconsume_times=16)
    fields = headers.send_single(retry, b"x", b"").ext_fields
    assert (fields["j"], fields["l"]) == ("2", "16")


def test_bodies_of_requests() -> None:
    lock = json.loads(bytes(headers.lock_queues("G", "x@1", QUEUES).body))
    assert lock["mqSet"] == [{"topic": "orders", "brokerName": "a-0", "queueId": 1}]
    beat = json.loads(bytes(headers.heartbeat("x@1", ["P"]).body))
    assert (beat["producerDataSet"], beat["consumerDataSet"]) == ([{"groupName": "P"}], [])
    assert headers.update_broker_config({"a": "1", "b": "2"}).body == b"a=1\nb=2\n"
    assert headers.search_offset("t", 0, 5, upper=True).ext_fields["boundaryType"] == "UPPER"
    assert headers.reset_offset_by_time("G", "t", 5).ext_fields["isForce"] == "true"


def test_answers_are_read() -> None:
    pulled = RemotingCommand(0, {"nextBeginOffset": "9", "minOffset": "1", "maxOffset": "12", "offsetDelta": "5"})
    assert headers.read_pull(pulled) == headers.PullBounds(9, 1, 12, 0, 5)
    sent = RemotingCommand(0, {"msgId": "A,B,C", "queueId": "3", "queueOffset": "40"})
    assert headers.read_send(sent) == headers.SendAnswer(3, 40, 3, "A,B,C")
    assert headers.read_send(RemotingCommand(0, {"queueId": "3", "queueOffset": "40"})).count == 0
    assert headers.read_offset(RemotingCommand(0, {"offset": "-1"})) == -1
    for fields in ({}, {"offset": ""}, {"offset": "x"}, {"offset": "9" * 5000}):
        with pytest.raises(ProtocolError):
            headers.read_offset(RemotingCommand(0, fields))


def test_every_response_code_has_a_row_and_a_kind() -> None:
    assert set(RESPONSES) == {int(code) for code in ResponseCode}
    assert all(info.name == ResponseCode(code).name and info.meaning for code, info in RESPONSES.items())
    by_kind = {kind: {code for code in RESPONSES if kind_of(code) == kind} for kind in Kind}
    assert by_kind[Kind.OK] == {0}
    assert by_kind[Kind.STORED_WEAK] == {10, 11, 12}
    assert by_kind[Kind.BUSY] == {2, 215, 1500}
    assert by_kind[Kind.RECORD] == {13}
    assert {14, 501} <= by_kind[Kind.MOVED]
    assert by_kind[Kind.MISSING] == {17, 26}
    assert {1, 16, 17, 29, 501, 14} <= {code for kind in REFUSES_QUEUE for code in by_kind[kind]}
    assert kind_of(4711) == "unknown"


def test_names_for_people() -> None:
    assert describe(13) == "13 MESSAGE_ILLEGAL"
    assert describe(4711) == "4711 (unknown code)"
    assert request_name(RequestCode.PULL_MESSAGE) == "PULL_MESSAGE"
    assert request_name(4711) == "request 4711"


def test_signature_is_hmac_sha1_over_sorted_values_and_body() -> None:
    # Test case 2 of RFC 2202, cut into two fields and a body.
    signature = acl.signature({"b": "ya want ", "a": "what do ", "Signature": "old"}, b"for nothing?", "Jefe")
    assert base64.b64decode(signature).hex() == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"


def test_signing_adds_what_a_server_checks() -> None:
    fields = acl.sign({"topic": "t", "empty": "", "Signature": "old"}, memoryview(b"body"), "worker", "secret", "token")
    assert fields == {
        "topic": "t",
        "AccessKey": "worker",
        "SecurityToken": "token",
        "Signature": acl.signature(fields, b"body", "secret"),
    }
    assert "SecurityToken" not in acl.sign({}, b"", "worker", "secret")
