"""Frames and stored messages written out by hand from RocketMQ's layouts, with the values they mean."""

from __future__ import annotations

import struct

from connectors.rocketmq.remoting.command import RemotingCommand


def frame(header_type: int, header: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">iI", 4 + len(header) + len(body), header_type << 24 | len(header)) + header + body


JSON_ROUTE_REQUEST = (
    b'{"code":105,"extFields":{"topic":"orders"},"flag":0,"language":"PYTHON","opaque":7,"serializeTypeCurrentRPC":"JSON","version":433}'
)
JSON_PULL_ANSWER = (
    b'{"code":19,"extFields":{"suggestWhichBrokerId":"0","nextBeginOffset":"12","minOffset":"0","maxOffset":"12"},'
    b'"flag":1,"language":"JAVA","opaque":-3,"remark":"OFFSET_OVERFLOW_ONE","serializeTypeCurrentRPC":"JSON","version":479}'
)
BINARY_PULL = bytes.fromhex(
    "000b 03 01b1 00000007 00000000"  # code 11, PYTHON, version 433, opaque, flag
    "00000000 0000001f"  # no remark, 31 bytes of fields
    "0005 746f706963 00000006 6f7264657273"  # topic orders
    "0007 71756575654964 00000001 33"  # queueId 3
)
BINARY_ANSWER = bytes.fromhex("ffff 00 01df 7fffffff 00000001 00000003 e6bca2 00000000")

COMMANDS: dict[str, tuple[bytes, RemotingCommand, bool]] = {
    "request, JSON header": (
        frame(0, JSON_ROUTE_REQUEST),
        RemotingCommand(105, {"topic": "orders"}, opaque=7),
        False,
    ),
    "answer, JSON header, remark and body": (
        frame(0, JSON_PULL_ANSWER, b"\x00\xff"),
        RemotingCommand(
            19,
            {"suggestWhichBrokerId": "0", "nextBeginOffset": "12", "minOffset": "0", "maxOffset": "12"},
            b"\x00\xff",
            opaque=-3,
            flag=1,
            language="JAVA",
            version=479,
            remark="OFFSET_OVERFLOW_ONE",
        ),
        False,
    ),
    "request, binary header": (
        frame(1, BINARY_PULL),
        RemotingCommand(11, {"topic": "orders", "queueId": "3"}, opaque=7),
        True,
    ),
    "answer, binary header, negative code, remark and body": (
        frame(1, BINARY_ANSWER, b"body"),
        RemotingCommand(-1, {}, b"body", opaque=0x7FFFFFFF, flag=1, language="JAVA", version=479, remark="漢"),
        True,
    ),
}

# total, magic, crc, queue id, flag, queue offset, commit log offset, sys flag, born, born host, store, store host,
# reconsume, prepared, body, topic, properties
STORED_V1 = bytes.fromhex(
    "00000070" "daa320a7" "3610a686" "00000002" "00000009" "000000000000000c" "0000000000001000" "00000001"
    "0000018bcfe56800" "7f00000100001f90" "0000018bcfe56801" "7f00000100002a9f" "00000003" "0000000000000000"
    "00000005" "68656c6c6f" "06" "6f7264657273" "000a" "544147530161024b0176"
)  # fmt: skip
STORED_V2_HOSTS_V6 = bytes.fromhex(
    "0000007a" "daa320ab" "00000000" "00000002" "00000000" "000000000000000d" "0000000000001070" "00000030"
    "0000018bcfe56800" "00000000000000000000000000000001" "00001f90"
    "0000018bcfe56802" "00000000000000000000000000000001" "00002a9f" "00000000" "0000000000000007"
    "00000000" "0006" "6f7264657273" "0000"
)  # fmt: skip
BATCH = bytes.fromhex(
    "0000001d" "00000000" "00000000" "00000009" "00000005" "68656c6c6f" "0002" "0102"
    "00000016" "00000000" "00000000" "ffffffff" "00000000" "0000"
)  # fmt: skip
