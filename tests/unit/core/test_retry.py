"""Which topics of groups a task with ``retry: true`` selects, and where they arrive."""

from __future__ import annotations

import pytest

from replicator.core.retry import RetryRules, group_behind, takes_one_at_a_time
from replicator.core.task import ProgressSpec

RULES = RetryRules(("orders",), (), {"orders": "orders-b"}, ProgressSpec(include=("pay*",), exclude=("pay-x",), local=("pay-y",)))


@pytest.mark.parametrize(
    ("topic", "is_selected"),
    [
        ("orders", True), ("other", False), ("%WAITING%pay", True), ("%DLQ%pay", True), ("%WAITING%ship", False), ("%WAITING%pay-x", False),
        ("%DLQ%pay-y", False), ("%RETRY%pay", False), ("%WAITING%replicator-t-b", False), ("%DLQ%CID_RMQ_SYS_TRANS", False),
    ],
)  # fmt: skip
def test_selected_are_topics_of_carried_groups(topic: str, is_selected: bool) -> None:
    assert RULES.matches(topic) is is_selected


def test_own_groups_never() -> None:
    everything = RetryRules(("*",))
    assert everything.matches("%WAITING%pay")
    assert not everything.matches("%WAITING%replicator-t-b")


def test_what_waits_arrives_in_the_retry_topic() -> None:
    assert RULES.destination_name("%WAITING%pay") == "%RETRY%pay"
    assert RULES.destination_name("%DLQ%pay") == "%DLQ%pay"
    assert RULES.destination_name("orders") == "orders-b"


def test_names() -> None:
    assert group_behind("%WAITING%pay") == group_behind("%DLQ%pay") == "pay"
    assert group_behind("%RETRY%pay") is group_behind("orders") is None
    assert [takes_one_at_a_time(topic) for topic in ("%RETRY%pay", "%DLQ%pay", "%WAITING%pay", "orders")] == [True, True, False, False]
