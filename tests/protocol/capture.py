"""Records answers of real brokers into ``captured/<version>.json``: ``python -m tests.protocol.capture [version …]``.

What is expected of each answer is written down here from what was sent, never from what our decoder made of it.
``test_captured`` decodes the recorded bytes and compares.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import RequestCode
from connectors.rocketmq.remoting.command import RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.framing import FrameReader
from connectors.rocketmq.remoting.message import SysFlag, encode_batch, walk

VERSIONS = ("4.4.0", "4.9.7", "5.3.3")
SILENT_VERSIONS = ("4.4.0",)  # their brokers never answer a request they do not know
DIRECTORY = Path(__file__).parent / "captured"
ANSWER_SECONDS_MAX = 20.0

CLUSTER, BROKER, TOPIC, GROUP = "captured", "captured-a", "orders", "readers"
QUEUE, EMPTY_QUEUE, QUEUE_COUNT = 1, 0, 2
LOCK = (TOPIC, BROKER, QUEUE)
BORN_MS = 1_700_000_000_123
COMPRESSED = zlib.compress(b"compressed " * 200)
UNTOUCHED = [
    # (body, properties, flag) of a batch: text, bytes that are no text, an empty body, several languages.
    (b"first", b"KEYS\x01k1\x02origin\x01a\x02", 0),
    (b"\x00\xff" * 8, b"", 5),
    (b"", "a\x01漢字\x02TAGS\x01t\x02".encode(), -1),
]
SINGLE = (b"single", b"UNIQ_KEY\x017F00000100001111\x02KEYS\x01k2\x02", 9)
COMMITTED = (b"committed", b"TRAN_MSG\x01true\x02PGROUP\x01writers\x02UNIQ_KEY\x017F00000100002222\x02", 0)
DELAYED = (b"delayed", b"DELAY\x011\x02UNIQ_KEY\x017F00000100003333\x02", 0)


class Peer:
    """A blocking connection that keeps the last answer's bytes."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), ANSWER_SECONDS_MAX)
        self._frames = FrameReader()
        self.frame = b""

    def ask(self, command: RemotingCommand) -> RemotingCommand:
        self._socket.sendall(encode_frame(command))
        while (frame := self._frames.next_frame()) is None:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError(f"closed instead of an answer to {command.code}")
            self._frames.feed(data)
        self.frame = bytes(frame)
        return decode_frame(self.frame)

    def close(self) -> None:
        self._socket.close()


class Recorder:
    """Asks, keeps the answer's bytes with what is expected of them."""

    def __init__(self, *forbidden: str) -> None:
        self._forbidden = [text.encode() for text in forbidden]
        self.entries: list[dict[str, Any]] = []

    def ask(self, peer: Peer, view: str, command: RemotingCommand, expected: Any) -> RemotingCommand:
        answer = peer.ask(command)
        for text in self._forbidden:
            if text in peer.frame:
                raise ValueError(f"answer to {view} names this machine: {text!r}")
        frame = base64.b64encode(peer.frame).decode()
        self.entries.append({"view": view, "code": answer.code, "expected": expected, "frame": frame})
        return answer


def target(sys_flag: int = 0) -> headers.SendTarget:
    return headers.SendTarget("writers", TOPIC, QUEUE, BORN_MS, sys_flag)


def batch(messages: list[tuple[bytes, bytes, int]], sys_flag: int = 0) -> RemotingCommand:
    columns = ([message[part] for message in messages] for part in range(3))
    return headers.send_batch(target(sys_flag), encode_batch(*columns))  # type: ignore[arg-type]


def message(offset: int, sent: tuple[bytes, bytes, int], sys_flag: int = 0) -> dict[str, Any]:
    """What a pulled message is expected to show."""
    return {
        "offset": offset,
        "body": sent[0].hex(),
        "flag": sent[2],
        "sys_flag": sys_flag,
        "born": BORN_MS,
        "properties": sorted(pair.hex() for pair in sent[1].split(b"\x02") if pair),
    }


def produce(recorder: Recorder, broker: Peer) -> list[dict[str, Any]]:
    """Messages of every kind into one queue; returns what a pull must show."""
    recorder.ask(broker, "send", batch(UNTOUCHED), {"queue_id": QUEUE, "queue_offset": 0, "count": 3})
    squeezed = (COMPRESSED, b"KEYS\x01z\x02", 0)
    recorder.ask(broker, "send", batch([squeezed], 0x301), {"queue_id": QUEUE, "queue_offset": 3, "count": 1})
    single = headers.send_single(target(), *SINGLE)
    recorder.ask(broker, "send", single, {"queue_id": QUEUE, "queue_offset": 4, "count": 1})
    half = headers.read_send(broker.ask(headers.send_single(target(), *COMMITTED)))
    end = RemotingCommand(
        RequestCode.END_TRANSACTION,
        {
            "producerGroup": "writers",
            "tranStateTableOffset": str(half.queue_offset),
            "commitLogOffset": str(int(half.message_ids[16:], 16)),
            "commitOrRollback": str(SysFlag.TRANSACTION_COMMIT),
            "fromTransactionCheck": "false",
            "msgId": "7F00000100002222",
            "transactionId": "7F00000100002222",
            "topic": TOPIC,
        },
    )
    broker.ask(end)
    wait_for_max_offset(broker, 6)
    broker.ask(headers.send_single(target(), *DELAYED))
    wait_for_max_offset(broker, 7)
    return [
        *(message(offset, sent) for offset, sent in enumerate(UNTOUCHED)),
        message(3, squeezed, 0x301),
        message(4, SINGLE),
        message(5, COMMITTED, SysFlag.TRANSACTION_COMMIT),
        message(6, DELAYED),
    ]


def wait_for_max_offset(broker: Peer, wanted: int) -> None:
    end = time.monotonic() + ANSWER_SECONDS_MAX
    while headers.read_offset(broker.ask(headers.max_offset(TOPIC, QUEUE))) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"queue did not reach {wanted}")
        time.sleep(0.05)


def capture_broker(recorder: Recorder, broker: Peer, version: str) -> None:
    modern = version.startswith("5")
    attributes = "+message.type=NORMAL" if modern else ""
    broker.ask(headers.create_topic(headers.NewTopic(TOPIC, QUEUE_COUNT, QUEUE_COUNT, attributes=attributes)))
    broker.ask(headers.create_subscription_group({"groupName": GROUP, "consumeEnable": True, "retryMaxTimes": 3}))
    messages = produce(recorder, broker)
    capture_pulls(recorder, broker, messages, version)
    capture_offsets(recorder, broker)
    topic = {"read": QUEUE_COUNT, "write": QUEUE_COUNT, "perm": 6}
    recorder.ask(broker, "topic_configs", headers.all_topic_configs(), topic)
    if version not in SILENT_VERSIONS:
        recorder.ask(broker, "topic_config", headers.topic_config(TOPIC), topic if modern else "unsupported")
        recorder.ask(broker, "kind", RemotingCommand(9999), "unsupported")
    recorder.ask(broker, "groups", headers.all_subscription_groups(), {"enabled": True, "retryMaxTimes": 3})
    recorder.ask(broker, "locked", headers.lock_queues(GROUP, "first", [LOCK]), [list(LOCK)])
    recorder.ask(broker, "locked", headers.lock_queues(GROUP, "second", [LOCK]), [])
    broker.ask(headers.unlock_queues(GROUP, "first", [LOCK]))
    recorder.ask(broker, "locked", headers.lock_queues(GROUP, "second", [LOCK]), [list(LOCK)])
    recorder.ask(broker, "producers", headers.producer_connections("writers", TOPIC), "queue")
    broker.ask(headers.heartbeat("127.0.0.1@capture", ["writers"]))
    recorder.ask(broker, "producers", headers.producer_connections("writers", TOPIC), ["127.0.0.1@capture"])
    recorder.ask(broker, "consumers", headers.consumer_connections(GROUP), "offline")
    check_unrecorded(broker)


def capture_pulls(recorder: Recorder, broker: Peer, messages: list[dict[str, Any]], version: str) -> None:
    def pull(offset: int, queue_id: int = QUEUE, topic: str = TOPIC) -> RemotingCommand:
        return headers.pull(GROUP, (topic, queue_id), offset, 32)

    bounds = {"next": 7, "min": 0, "max": 7}
    recorder.ask(broker, "messages", pull(0), messages)
    recorder.ask(broker, "messages", pull(5), messages[5:])
    recorder.ask(broker, "pull", pull(0), {"kind": "ok", **bounds})
    recorder.ask(broker, "pull", pull(7), {"kind": "not_found", **bounds})
    recorder.ask(broker, "pull", pull(0, EMPTY_QUEUE), {"kind": "not_found", "next": 0, "min": 0, "max": 0})
    recorder.ask(broker, "kind", pull(9), "offset_moved")
    recorder.ask(broker, "kind", pull(0, 7), "queue")
    recorder.ask(broker, "kind", pull(0, topic="nothing"), "missing")
    command = pull(0)
    command.ext_fields["subscription"] = "other"
    recorder.ask(broker, "pull", command, {"kind": "retry", **bounds})
    # 4.4.0 encodes this answer before it fills it in.
    index = {"min": 0, "max": 0, "entries": 0} if version == "4.4.0" else {"min": 0, "max": 7, "entries": 2}
    recorder.ask(broker, "index", headers.query_consume_queue(TOPIC, QUEUE, 4, 2), index)
    commit_log_offset = walk(broker.ask(pull(4)).body).commit_log_offsets[0]
    recorder.ask(broker, "messages", headers.view_message(commit_log_offset, TOPIC), messages[4:5])


def capture_offsets(recorder: Recorder, broker: Peer) -> None:
    broker.ask(headers.update_consumer_offset(GROUP, TOPIC, QUEUE, 3))
    recorder.ask(broker, "offset", headers.query_consumer_offset(GROUP, TOPIC, QUEUE), 3)
    recorder.ask(broker, "offset", headers.max_offset(TOPIC, QUEUE), 7)
    recorder.ask(broker, "offset", headers.min_offset(TOPIC, QUEUE), 0)
    recorder.ask(broker, "offset", headers.search_offset(TOPIC, QUEUE, 1), 0)
    recorder.ask(broker, "consumer_offsets", headers.all_consumer_offsets(), {str(QUEUE): 3})
    recorder.ask(broker, "stats", headers.consume_stats(GROUP, TOPIC), [[EMPTY_QUEUE, 0, 0], [QUEUE, 7, 3]])
    recorder.ask(broker, "delay_offsets", headers.all_delay_offsets(), 1)


def check_unrecorded(broker: Peer) -> None:
    """Answers full of this machine's paths are only looked at."""
    config = bodies.read_properties_text(broker.ask(headers.broker_config()).body)
    info = bodies.read_runtime_info(broker.ask(headers.broker_runtime_info()).body)
    if config["brokerName"] != BROKER or "brokerVersionDesc" not in info:
        raise ValueError("broker configuration or runtime information was not understood")


def capture_name_server(recorder: Recorder, name_server: Peer, address: str) -> None:
    route = {"brokers": {BROKER: address}, "queues": {BROKER: QUEUE_COUNT}, "static": False}
    recorder.ask(name_server, "route", headers.topic_route(TOPIC), route)
    old = headers.topic_route(TOPIC)
    old.version = 293
    del old.ext_fields["acceptStandardJsonOnly"]
    recorder.ask(name_server, "route", old, route)
    cluster = {"brokers": {BROKER: address}, "clusters": {CLUSTER: [BROKER]}}
    recorder.ask(name_server, "cluster", headers.cluster_info(), cluster)
    recorder.ask(name_server, "topics", headers.topic_list(), [TOPIC])
    recorder.ask(name_server, "kind", headers.topic_route("nothing"), "missing")
    recorder.ask(name_server, "kind", headers.kv_config("ORDER_TOPIC_CONFIG", TOPIC), "not_found")


def capture(version: str) -> list[dict[str, Any]]:
    from deploy.local import LocalCluster

    with LocalCluster(CLUSTER, version=version, brokers=[BROKER]) as cluster:
        recorder = Recorder(str(cluster.directory), socket.gethostname())
        address = cluster.broker_addresses[0]
        peers = [Peer(address), Peer(cluster.name_servers)]
        try:
            capture_broker(recorder, peers[0], version)
            wait_for_route(peers[1])
            capture_name_server(recorder, peers[1], address)
        finally:
            for peer in peers:
                peer.close()
    return recorder.entries


def wait_for_route(name_server: Peer) -> None:
    end = time.monotonic() + ANSWER_SECONDS_MAX
    while name_server.ask(headers.topic_route(TOPIC)).code != 0:
        if time.monotonic() > end:
            raise TimeoutError("the topic did not reach the name server")
        time.sleep(0.05)


def main(versions: list[str], note: Callable[[str], None] = print) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for version in versions or list(VERSIONS):
        entries = capture(version)
        text = json.dumps(entries, indent=1, ensure_ascii=False)
        (DIRECTORY / f"{version}.json").write_text(text + "\n")
        note(f"{version}: {len(entries)} answers")


if __name__ == "__main__":
    main(sys.argv[1:])
