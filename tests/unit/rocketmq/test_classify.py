"""What each answer to a send says about the log."""

from __future__ import annotations

import pytest

from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.sink import classify
from replicator.core.connector import NotStored, Stored, Unknown


def answer(code: int, remark: str = "", **fields: str) -> RemotingCommand:
    return RemotingCommand(code, fields, remark=remark or None)


STORED = {"queueId": "0", "queueOffset": "17", "msgId": "A,B,C"}


def test_stored():
    assert classify(answer(0, **STORED), 3, "me") == Stored(17)


@pytest.mark.parametrize("code", [10, 11, 12])
def test_weakly_stored_is_stored(code):
    outcome = classify(answer(code, **STORED), 3, "me")
    assert isinstance(outcome, Stored)
    assert outcome.first_offset == 17
    assert str(code) in outcome.weak


def test_another_number_of_ids_is_in_doubt():
    assert isinstance(classify(answer(0, **STORED), 4, "me"), Unknown)
    assert isinstance(classify(answer(0, queueId="0"), 1, "me"), Unknown)


@pytest.mark.parametrize(
    ("scope", "code", "remark"),
    [
        ("busy", 2, "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while"),
        ("busy", 215, ""),
        ("busy", 1500, ""),
        ("busy", 1, "[PC_SYNCHRONIZED]broker busy, start flow control for a while"),
        ("busy", 1, "broker unable to service, until 2026-11-21 00:00:00"),
        ("record", 13, "the message is illegal"),
        ("record", 1, "java.lang.RuntimeException: message size exceeded"),
        ("moved", 14, "service not available now. It may be caused by one of the following reasons: the broker's disk is full"),
        ("moved", 501, ""),
        ("queue", 16, "the broker[1] sending message is forbidden"),
        ("queue", 17, "topic[x] not exist, apply first please!"),
        ("queue", 29, "request queueId[9] is illegal"),
        ("queue", 1, "request queueId[9] is illegal, topic config Producer: 1"),
        ("queue", 1, "in-sync replicas not enough"),
        ("queue", 1, "create mapped file failed, server is busy or broken."),
        ("queue", 1, "org.apache.rocketmq.acl.common.AclException: signature failed"),
    ],
)
def test_not_stored(scope, code, remark):
    outcome = classify(answer(code, remark), 3, "me")
    assert isinstance(outcome, NotStored)
    assert outcome.scope == scope
    assert str(code) in outcome.detail


@pytest.mark.parametrize(
    ("code", "remark"),
    [
        (1, "UNKNOWN_ERROR"),
        (1, "store putMessage return null"),
        (1, ""),
        (1, "java.lang.NullPointerException, SendMessageProcessor.sendMessage(SendMessageProcessor.java:1): the topic queueId reject"),
        (-1, "rpc failed"),
        (9999, ""),
    ],
)
def test_whatever_is_not_known_is_in_doubt(code, remark):
    outcome = classify(answer(code, remark), 3, "me")
    assert isinstance(outcome, Unknown)
    assert outcome.sender == "me"
