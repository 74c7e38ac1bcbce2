"""Our SQL92 filter against the broker's own: the same expressions, the same messages, the same answers.

The messages are sent once; each expression is one pull with the filter in the request, and the offsets that come back
are compared with ours. Validity is asked with CHECK_CLIENT_CONFIG, because a pull with an invalid filter is answered
with every message (the broker's check there is a Java assertion, off in production).
"""

from __future__ import annotations

import json
import random
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from connectors.rocketmq.remoting.command import RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.framing import FrameReader
from connectors.rocketmq.remoting.message import walk
from replicator.core.record import pack_properties
from replicator.core.sql92 import FilterSyntaxError, compile_filter

pytestmark = pytest.mark.rocketmq

PULL_MESSAGE, SEND_MESSAGE_V2, CHECK_CLIENT_CONFIG, UPDATE_AND_CREATE_TOPIC = 11, 310, 46, 17
SUCCESS, PULL_NOT_FOUND, PULL_RETRY_IMMEDIATELY, SUBSCRIPTION_PARSE_FAILED = 0, 19, 20, 23
SUBSCRIPTION_IN_REQUEST = 4
ANSWER_SECONDS = 20
TOPIC = f"sql92-filter-{uuid.uuid4().hex[:8]}"
GROUP = "sql92-filter-group"
EXPRESSION_COUNT = 200
SEED = 20261121

MESSAGES: list[dict[str, str]] = [
    {"none": "x"},
    {"a": "b", "n": "5", "d": "5.5", "t": "true"},
    {"a": "c", "n": "-5", "d": "-0.0", "t": "false"},
    {"a": "abc", "n": "005", "d": "1e3", "t": "TRUE"},
    {"a": "it's", "n": "2147483647", "d": "NaN", "t": "yes"},
    {"a": "5", "n": "2147483648", "d": "-Infinity"},
    {"a": "B", "n": "9223372036854775808", "d": " 7.0 "},
    {"a": "true", "n": "+6", "d": "0x1.8p1"},
    {"n": "five", "d": "1.5f", "t": "FALSE"},
    {"a": "中文", "n": "٥", "d": "inf"},
    {"a": "b ", "d": "1_0", "t": "tru"},
    {"a": "1.5", "n": " 5", "t": "0"},
    {"n": "100", "d": "100"},
    {"a": "5.5", "n": "5.0", "d": ".5"},
]

CONDITIONS = [
    "a = 'b'", "a <> 'b'", "'b' = a", "'b' <> a", "a = t", "a <> t", "m = x", "m <> x", "a = m", "a <> m", "m = 'b'",
    "m <> 'b'", "a = 'it''s'", "a = '中文'", "a", "m", "TRUE", "FALSE", "NULL", "n = 5", "5 = n", "n <> 5", "n = 5L",
    "n = 2147483648", "a = 5", "a = 1.5", "d = 1.5", "d <> 1.5", "d > 1.5", "1.5 >= d", "d < 1E3", "d = .5", "d = 7.",
    "d > n", "n <= d", "a < n", "n > 4", "n >= 5", "n < -4", "n <= - -5", "n > +5", "n > -m", "-n > 5", "-a IS NULL",
    "-(a = 5) IS NULL", "m > -(a = 5)", "n = 9223372036854775807", "5 > 4", "5 = 5.0", "n BETWEEN 5 AND 100",
    "n NOT BETWEEN 5 AND 100", "d BETWEEN -1 AND 6.5", "n BETWEEN 6 AND -6", "m NOT BETWEEN 1 AND 2",
    "n BETWEEN d AND 100", "a IN ('b', 'c')", "a NOT IN ('b', 'c')", "m IN ('b')", "m NOT IN ('b')",
    "n IN ('5', '6', '7', '8', '9')", "a IS NULL", "a IS NOT NULL", "m IS NULL", "m IS NOT NULL", "5 IS NULL",
    "NULL IS NULL", "(a = 'b') IS NULL", "(n > 5) IS NOT NULL", "t = TRUE", "t <> FALSE", "TRUE = t", "TRUE = TRUE",
    "'true' = TRUE", "5 = TRUE", "(a = 'b') = (t = TRUE)", "(a = 'b') <> (m = 'b')", "a CONTAINS 'b'",
    "a NOT CONTAINS 'b'", "m CONTAINS 'b'", "m NOT CONTAINS 'b'", "a CONTAINS ''", "a NOT STARTSWITH ''",
    "a STARTSWITH 'a'", "a NOT STARTSWITH 'a'", "a ENDSWITH 'c'", "a NOT ENDSWITH 'c'", "5 CONTAINS '5'",
    "'abc' CONTAINS 'b'", "(a = 'b') CONTAINS 'b'", "(NOT a) CONTAINS 'b'", "NOT a = 'b'", "NOT a", "NOT m",
    "NOT a CONTAINS 'b'", "a = 'b' = TRUE", "a IS NULL IS NULL", "a /* x */ = -- y\n'b'", "A = 'b'", "$a IS NULL",
    "_a = '1'", "(a) IN ('b')", "+a IN ('b')",
]  # fmt: skip

INVALID = [
    "*", "a = ", "a == 'b'", "a != 'b'", "a = 'b", "a = NULL", "NULL <> a", "a > 'b'", "'b' < a", "a > TRUE",
    "(a = 'b') > 1", "TRUE = 'true'", "FALSE <> 5", "a BETWEEN 5 AND 1", "a BETWEEN 'a' AND 'b'",
    "a NOT BETWEEN NULL AND 5", "TRUE BETWEEN 1 AND 2", "a BETWEEN 1 OR 5", "a IN ()", "a IN (5)", "a IN ('x' 'y')",
    "'a' IN ('a')", "(a = 'b') IN ('a')", "a NOT 'x'", "a IS 5", "a IS NOT 5", "a CONTAINS b", "'a'", "5", "-a",
    "NOT 5", "a = 'b' AND 5", "a = 'b' OR 'c'", "a = 0.0", "a = 1E999", "a = 1E-400", "a = 9223372036854775808",
    "a = -9223372036854775808", "a.b = 'x'", "a = 'b' /* open", "a = 'b';", "(a = 'b'", "AND", "a AND", "a = \"b\"",
    "a = 'b' NOT c", "a = #", "a = é", "a > + ", "a IN 'b'", "BETWEEN = 5",
]  # fmt: skip

# The broker stops reading where an expression is complete; we refuse, so that a typing error cannot change a filter's meaning.
IGNORED_BY_THE_BROKER = ["a LIKE", "a LIKE 'b%'", "a = 'b' )", "a = 'b' 'c'", "a = 007", "a = 'b' -- no line end", "a = 5 5"]


def generated_expressions(count: int, seed: int) -> list[str]:
    """Each condition once, then conditions joined and negated at random, with and without brackets."""
    source = random.Random(seed)

    def nested(depth: int) -> str:
        if depth == 0 or source.random() < 0.2:
            return source.choice(CONDITIONS)
        shape = source.randrange(5)
        if shape == 0:
            return f"NOT ({nested(depth - 1)})"
        if shape == 1:
            return f"({nested(depth - 1)}) IS {source.choice(['', 'NOT '])}NULL"
        word = source.choice(["AND", "OR", "and", "Or"])
        if shape == 2:
            first, second, third = source.choices(CONDITIONS, k=3)
            return f"{first} {word} {second} {source.choice(['AND', 'OR'])} {third}"
        return f"({nested(depth - 1)}) {word} ({nested(depth - 1)})"

    assert count > len(CONDITIONS)
    return [*CONDITIONS, *(nested(3) for _ in range(count - len(CONDITIONS)))]


class Broker:
    """One connection, one request at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._opaque = 0

    def request(self, code: int, ext_fields: Mapping[str, object], body: bytes = b"") -> RemotingCommand:
        self._opaque += 1
        fields = {name: str(value) for name, value in ext_fields.items()}
        self._connection.sendall(encode_frame(RemotingCommand(code, fields, body, opaque=self._opaque)))
        while True:
            frame = self._frames.next_frame()
            if frame is None:
                received = self._connection.recv(65536)
                assert received, "the broker closed the connection"
                self._frames.feed(received)
                continue
            answer = decode_frame(frame)
            if answer.is_response and answer.opaque == self._opaque:
                return answer

    def create_topic(self, topic: str) -> None:
        answer = self.request(UPDATE_AND_CREATE_TOPIC, {
            "topic": topic, "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false",
        })  # fmt: skip
        assert answer.code == SUCCESS, answer.remark

    def send(self, topic: str, properties: Mapping[str, str]) -> int:
        answer = self.request(SEND_MESSAGE_V2, {
            "a": "sql92-producers", "b": topic, "c": "TBW102", "d": 1, "e": 0, "f": 0, "g": 1, "h": 0,
            "i": pack_properties(dict(properties)).decode(), "j": 0, "k": "false", "m": "false",
        }, b"body")  # fmt: skip
        assert answer.code == SUCCESS, answer.remark
        return int(answer.ext_fields["queueOffset"])

    def offsets_matching(self, expression: str, end: int) -> set[int]:
        """Offsets of ``[0, end)`` whose messages the broker delivers."""
        offsets: set[int] = set()
        position = 0
        while position < end:
            answer = self.request(PULL_MESSAGE, {
                "consumerGroup": GROUP, "topic": TOPIC, "queueId": 0, "queueOffset": position, "maxMsgNums": 32,
                "sysFlag": SUBSCRIPTION_IN_REQUEST, "commitOffset": 0, "suspendTimeoutMillis": 0, "subVersion": 0,
                "subscription": expression, "expressionType": "SQL92",
            })  # fmt: skip
            assert answer.code in (SUCCESS, PULL_RETRY_IMMEDIATELY, PULL_NOT_FOUND), (answer.code, answer.remark)
            if answer.code == SUCCESS:
                offsets.update(walk(answer.body).queue_offsets)
            following = int(answer.ext_fields["nextBeginOffset"])
            assert following > position, "the pull did not move"
            position = following
        return offsets

    def is_valid(self, expression: str) -> bool:
        subscription = {
            "classFilterMode": False, "topic": TOPIC, "subString": expression, "tagsSet": [], "codeSet": [], "subVersion": 0,
            "expressionType": "SQL92",
        }  # fmt: skip
        body = json.dumps({"clientId": "sql92@test", "group": GROUP, "subscriptionData": subscription}).encode()
        answer = self.request(CHECK_CLIENT_CONFIG, {}, body)
        assert answer.code in (SUCCESS, SUBSCRIPTION_PARSE_FAILED), (answer.code, answer.remark)
        return answer.code == SUCCESS


@contextmanager
def connected(address: str) -> Iterator[Broker]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        yield Broker(connection)


@pytest.fixture(scope="module")
def broker(two_clusters: Any) -> Iterator[Broker]:
    with connected(two_clusters[0].broker_addresses[0]) as opened:
        opened.create_topic(TOPIC)
        offsets = [opened.send(TOPIC, properties) for properties in MESSAGES]
        assert offsets == list(range(len(MESSAGES)))
        yield opened


def is_accepted(expression: str) -> bool:
    try:
        compile_filter(expression)
    except FilterSyntaxError:
        return False
    return True


def test_same_messages_as_the_broker(broker: Broker) -> None:
    expressions = generated_expressions(EXPRESSION_COUNT, SEED)
    assert len(expressions) == EXPRESSION_COUNT
    differing: list[str] = []
    matched_counts: set[int] = set()
    for expression in expressions:
        assert broker.is_valid(expression), expression
        ours = {offset for offset, properties in enumerate(MESSAGES) if compile_filter(expression).matches(properties)}
        theirs = broker.offsets_matching(expression, len(MESSAGES))
        matched_counts.add(len(theirs))
        if ours != theirs:
            differing.append(f"{expression!r}: ours {sorted(ours)}, the broker's {sorted(theirs)}")
    assert not differing, "\n".join(differing)
    # The comparison would prove little if every expression matched everything or nothing.
    assert len(matched_counts) > len(MESSAGES) // 2


def test_same_expressions_are_invalid(broker: Broker) -> None:
    assert [text for text in INVALID if broker.is_valid(text)] == []
    assert [text for text in INVALID if is_accepted(text)] == []


def test_what_only_we_refuse(broker: Broker) -> None:
    assert [text for text in IGNORED_BY_THE_BROKER if not broker.is_valid(text)] == []
    assert [text for text in IGNORED_BY_THE_BROKER if is_accepted(text)] == []
