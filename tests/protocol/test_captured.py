"""Answers of real brokers, recorded by ``capture``, mean what their askers knew they must mean."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import kind_of
from connectors.rocketmq.remoting.command import RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.framing import FrameReader
from connectors.rocketmq.remoting.message import walk
from tests.protocol.capture import BROKER, DIRECTORY, GROUP, QUEUE, TOPIC, VERSIONS

ENTRIES = [
    pytest.param(entry, id=f"{version} {number} {entry['view']}")
    for version in VERSIONS
    for number, entry in enumerate(json.loads((DIRECTORY / f"{version}.json").read_text()))
]


def messages(answer: RemotingCommand) -> list[dict[str, Any]]:
    columns = walk(answer.body)
    assert columns.topic == TOPIC.encode()
    assert set(columns.queue_ids) == {QUEUE}
    assert list(columns.body_crcs) == [zlib.crc32(body) & 0x7FFFFFFF for body in columns.bodies]
    assert list(columns.commit_log_offsets) == sorted(columns.commit_log_offsets)
    return [
        {
            "offset": columns.queue_offsets[index],
            "body": bytes(columns.bodies[index]).hex(),
            "flag": columns.flags[index],
            "sys_flag": columns.sys_flags[index],
            "born": columns.born_timestamps_ms[index],
            "properties": {pair.hex() for pair in columns.properties[index].split(b"\x02") if pair},
        }
        for index in range(len(columns))
    ]


def pull(answer: RemotingCommand) -> dict[str, Any]:
    bounds = headers.read_pull(answer)
    return {
        "kind": kind_of(answer.code),
        "next": bounds.next_begin_offset,
        "min": bounds.min_offset,
        "max": bounds.max_offset,
    }


def send(answer: RemotingCommand) -> dict[str, Any]:
    sent = headers.read_send(answer)
    return {"queue_id": sent.queue_id, "queue_offset": sent.queue_offset, "count": sent.count}


def masters(brokers: dict[str, bodies.BrokerData]) -> dict[str, str | None]:
    return {name: broker.master for name, broker in brokers.items()}


def route(answer: RemotingCommand) -> dict[str, Any]:
    read = bodies.read_topic_route(answer.body)
    return {
        "brokers": masters({broker.broker_name: broker for broker in read.brokers}),
        "queues": {queue.broker_name: queue.read_queue_count for queue in read.queues},
        "static": read.is_static,
    }


def cluster(answer: RemotingCommand) -> dict[str, Any]:
    info = bodies.read_cluster_info(answer.body)
    return {"brokers": masters(info.brokers), "clusters": {name: list(names) for name, names in info.clusters.items()}}


def topic(config: bodies.TopicConfig) -> dict[str, Any]:
    return {"read": config.read_queue_count, "write": config.write_queue_count, "perm": config.perm}


def topic_config(answer: RemotingCommand) -> Any:
    return kind_of(answer.code) if answer.code else topic(bodies.read_topic_config(answer.body))


def groups(answer: RemotingCommand) -> dict[str, Any]:
    group = bodies.read_subscription_groups(answer.body)[GROUP]
    return {"enabled": group.consume_enabled, "retryMaxTimes": group.fields["retryMaxTimes"]}


def stats(answer: RemotingCommand) -> list[list[int]]:
    rows = bodies.read_consume_stats(answer.body)
    assert {(row.topic, row.broker_name) for row in rows} == {(TOPIC, BROKER)}
    return sorted([row.queue_id, row.broker_offset, row.consumer_offset] for row in rows)


def producers(answer: RemotingCommand) -> Any:
    if answer.code:
        return kind_of(answer.code)
    return [connection.client_id for connection in bodies.read_producer_connections(answer.body)]


def index(answer: RemotingCommand) -> dict[str, int]:
    low, high, entries = bodies.read_consume_queue(answer.body)
    return {"min": low, "max": high, "entries": len(entries)}


VIEWS: dict[str, Callable[[RemotingCommand], Any]] = {
    "messages": messages,
    "pull": pull,
    "send": send,
    "route": route,
    "cluster": cluster,
    "topics": lambda answer: [name for name in bodies.read_topic_list(answer.body) if name == TOPIC],
    "topic_configs": lambda answer: topic(bodies.read_topic_configs(answer.body)[TOPIC]),
    "topic_config": topic_config,
    "groups": groups,
    "locked": lambda answer: [list(queue) for queue in bodies.read_locked_queues(answer.body)],
    "producers": producers,
    "consumers": lambda answer: kind_of(answer.code),
    "kind": lambda answer: kind_of(answer.code),
    "offset": headers.read_offset,
    "consumer_offsets": lambda answer: {
        str(queue_id): offset for queue_id, offset in bodies.read_consumer_offsets(answer.body)[TOPIC, GROUP].items()
    },
    "stats": stats,
    "delay_offsets": lambda answer: bodies.read_delay_offsets(answer.body)[1],
    "index": index,
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_recorded_answer_means_what_it_must(entry: dict[str, Any]) -> None:
    answer = decode_frame(base64.b64decode(entry["frame"]))
    assert answer.is_response
    assert answer.code == entry["code"]
    seen, expected = VIEWS[entry["view"]](answer), entry["expected"]
    if entry["view"] == "messages":
        # Brokers add properties of their own; those sent must all be there.
        for got, wanted in zip(seen, expected, strict=True):
            assert set(wanted.pop("properties")) <= got.pop("properties")
    assert seen == expected


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_recorded_answer_dripped_and_written_again(entry: dict[str, Any]) -> None:
    frame = base64.b64decode(entry["frame"])
    reader = FrameReader()
    for byte in len(frame).to_bytes(4, "big") + frame:
        assert reader.next_frame() is None
        reader.feed(bytes([byte]))
    assert reader.next_frame() == frame
    answer = decode_frame(frame)
    for binary in (True, False):
        assert decode_frame(encode_frame(answer, binary)[4:]) == answer
