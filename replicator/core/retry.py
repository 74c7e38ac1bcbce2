"""Names of the topics that hold what a consumer group failed on, and which of them a task with ``retry: true`` carries.

A failed message waits for its delay in a place that all groups of a broker share, is then delivered into the group's retry topic,
and after its last attempt goes to the group's dead-letter topic. The engine sees the shared place as one topic for each group, the
*waiting* topic: it is read and never written, its copies arrive in the group's retry topic, and a group's progress in it says
which of its failed messages were delivered again *and* processed. The retry topic itself is written and never read: what stands
there has been in the waiting topic before, so nothing is copied twice and nothing can come back.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.patterns import TopicRules, compile_pattern
from replicator.core.subscriptions import never_synced
from replicator.core.task import ProgressSpec, ReplicationTask

WAITING_PREFIX = "%WAITING%"
RETRY_PREFIX = "%RETRY%"
DEAD_LETTER_PREFIX = "%DLQ%"


def waiting_topic(group: str) -> str:
    return WAITING_PREFIX + group


def retry_topic(group: str) -> str:
    return RETRY_PREFIX + group


def dead_letter_topic(group: str) -> str:
    return DEAD_LETTER_PREFIX + group


def is_waiting(topic: str) -> bool:
    return topic.startswith(WAITING_PREFIX)


def group_behind(topic: str) -> str | None:
    """The group whose failed messages are read from this topic, None for any other topic."""
    for prefix in (WAITING_PREFIX, DEAD_LETTER_PREFIX):
        if topic.startswith(prefix):
            return topic.removeprefix(prefix)
    return None


def takes_one_at_a_time(topic: str) -> bool:
    """Each record there has its own count of attempts, which an append carries once."""
    return topic.startswith((RETRY_PREFIX, DEAD_LETTER_PREFIX))


@dataclass(frozen=True)
class RetryRules(TopicRules):
    """Rules that also select the waiting and dead-letter topics of the groups that ``progress`` carries."""

    progress: ProgressSpec = ProgressSpec()

    def matches(self, topic: str) -> bool:
        group = group_behind(topic)
        return super().matches(topic) if group is None else self.carries(group)

    def carries(self, group: str) -> bool:
        if never_synced(group):
            return False
        chosen = self.progress
        included, excluded = (_any(patterns, group) for patterns in (chosen.include, (*chosen.exclude, *chosen.local)))
        return included and not excluded

    def destination_name(self, topic: str) -> str:
        return retry_topic(topic.removeprefix(WAITING_PREFIX)) if is_waiting(topic) else super().destination_name(topic)


def retry_rules_of(task: ReplicationTask) -> RetryRules:
    return RetryRules(task.include, task.exclude, task.rename, task.progress)


def _any(patterns: tuple[str, ...], group: str) -> bool:
    return any(compile_pattern(pattern)(group) for pattern in patterns)
