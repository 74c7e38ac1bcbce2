"""What both stores refuse, in the same words, and what both write into an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replicator.core.errors import Missing
from replicator.store.limits import API_CHANGE_DAYS_MAX, API_TOKENS_MAX
from replicator.store.port import Conflict, Hole


def known_as_another(cluster_id: str, other: str, name: str) -> Conflict:
    return Conflict(f"cluster id {cluster_id} is already known as {other}, so {name} is the same cluster")


def refuse_another_id(name: str, stored: str | None, given: str | None) -> None:
    if given is not None and stored not in (None, given):
        raise Conflict(f"cluster {name} has id {stored}, not {given}: it is another cluster now")


def in_use(cluster: str, task: str) -> Conflict:
    return Conflict(f"cluster {cluster} is used by task {task}")


def refuse_other_flows(task: str, stored: set[tuple[str, str]], wanted: Sequence[tuple[str, str]]) -> None:
    if stored != set(wanted):
        raise Conflict(f"the clusters and the mode of task {task} cannot change", hint="delete it, then apply it again")


def refuse_undeclared(task: str, flows: Sequence[tuple[str, str]], declared: set[str]) -> None:
    missing = sorted({name for flow in flows for name in flow} - declared)
    if missing:
        raise Conflict(f"task {task} names clusters that are not declared: {', '.join(missing)}")


def too_many_tokens() -> Conflict:
    return Conflict(
        f"there are {API_TOKENS_MAX} tokens already", hint=f"those that ended go by themselves after {API_CHANGE_DAYS_MAX} days"
    )


def flow_is_gone(flow_id: str) -> Conflict:
    return Conflict(f"flow {flow_id} does not exist any more")


def pair_is_gone(pair_id: int) -> Conflict:
    return Conflict(f"topic pair {pair_id} does not exist any more")


def not_marked(cluster: str) -> Conflict:
    return Conflict(f"cluster {cluster} has no lasting id yet, so nothing can be claimed on it")


def already_copied(source_topic: str, source: str, destination_topic: str, destination: str, task: str | None) -> Conflict:
    copied = f"topic {source_topic} of {source} is already copied to {destination_topic} of {destination}"
    return Conflict(f"{copied} by task {task}", hint="exclude it there or here")


def move_is_open(task: str) -> Conflict:
    return Conflict(f"a failover or failback of task {task} is under way", hint="failover status shows it; failover abort ends it")


def assignment_is_gone(assignment_id: int) -> Missing:
    return Missing(f"assignment {assignment_id} does not exist")


def refuse_leased(assignment_id: int, leased_to: str | None) -> None:
    """``leased_to``: who holds a lease that has not run out."""
    if leased_to is not None:
        raise Conflict(f"assignment {assignment_id} is leased to {leased_to}", hint="pause it first")


def refuse_epoch(assignment_id: int, epoch: int, current: int, leased_to: str | None) -> None:
    refuse_leased(assignment_id, leased_to)
    if epoch <= current:
        raise Conflict(f"assignment {assignment_id} is in epoch {current}: {epoch} is not a later one")


def refuse_unclean(assignment_id: int, clean: bool) -> None:
    if not clean:
        raise Conflict(
            f"the last holder of assignment {assignment_id} did not end cleanly", hint="a worker has to take it up and let go of it first"
        )


def refuse_unexamined(assignment_id: int, ranges: Sequence[tuple[int, int]], through: int) -> None:
    if ranges[-1][1] > through:
        raise Conflict(f"assignment {assignment_id} has read up to offset {through}, not up to {ranges[-1][1]}, where it is to restore")


def restore_event(
    assignment_id: int, epoch: int, ranges: Sequence[tuple[int, int]], through: int, reason: str
) -> tuple[str, dict[str, Any]]:
    """Message and detail."""
    count = sum(end - start for start, end in ranges)
    detail = {"assignment_id": assignment_id, "epoch": epoch, "examined_through": ranges[0][0], "reason": reason, "restored": count,
              "divergence_offset": through}  # fmt: skip
    return f"epoch {epoch} sends {count} messages back from source offset {ranges[0][0]} on: {reason}", detail


def epoch_event(
    assignment_id: int, epoch: int, examined_through: int, reason: str, given_up: Hole | None, divergence_offset: int
) -> tuple[str, dict[str, Any]]:
    """Message and detail."""
    lost = None if given_up is None else {"epoch": given_up.epoch, "source_start": given_up.source_start, "length": given_up.length}
    detail = {
        "assignment_id": assignment_id, "epoch": epoch, "examined_through": examined_through, "reason": reason, "given_up": lost,
        "divergence_offset": divergence_offset,
    }  # fmt: skip
    return f"epoch {epoch} begins at source offset {examined_through}: {reason}", detail
