"""What a deleted task leaves on the clusters: its read positions, its queue locks and the settings it raised go with it, as far as
they can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from replicator.coordinator.connections import Connections, Link
from replicator.coordinator.declared import Declared
from replicator.coordinator.tuning import restore
from replicator.core.connector import FencesSource, RemovesGroups
from replicator.core.errors import ReplicatorError
from replicator.core.record import MessageQueue
from replicator.core.task import lock_group, position_group
from replicator.store.port import Assignment, Flow, Store, StoreUnavailable

LET_GO_SECONDS_MAX = 20.0
"""Longer than a lease lives after its holder died."""
LET_GO_POLL_SECONDS = 0.2
LEFT = "left-behind"


@dataclass(frozen=True, slots=True)
class Belongings:
    """Taken down before the task is deleted: afterwards nobody knows."""

    task: str
    flows: Sequence[Flow]
    assignments: Sequence[Assignment]


async def belongings(store: Store, task: str) -> Belongings:
    flows = [flow for flow in await store.flows() if flow.task == task]
    return Belongings(task, flows, await store.assignments(task=task))


async def clear(store: Store, connections: Connections, known: Declared, belongings: Belongings) -> list[str]:
    """Returns, and records as an event, what had to stay and why. Begins when the workers have let go: until then they would make
    the group anew. Never raises for what a cluster can do."""
    left = []
    others = [task for name, task in known.tasks.items() if name != belongings.task]
    restored: set[str] = set()
    if not await _let_go(store, belongings.task):
        left.append(f"a worker still held queues of task {belongings.task} after {LET_GO_SECONDS_MAX:g} s")
    for flow in belongings.flows:
        try:
            link = await connections.get(known.cluster(flow.source), at_once=True)
            if flow.source not in restored:
                restored.add(flow.source)
                left += await restore(store, belongings.task, link, others)
            await _remove_positions(store, link, flow)
            await _unlock(store, link, known, flow, belongings.assignments)
        except StoreUnavailable:
            raise
        except ReplicatorError as error:
            left.append(f"group {position_group(flow.task, flow.destination)} on {flow.source}: {error}")
    if left:
        await store.record_event(belongings.task, LEFT, "; ".join(left), {"left": left})
    return left


async def _let_go(store: Store, task: str) -> bool:
    retrying = AsyncRetrying(
        retry=retry_if_result(bool),
        wait=wait_fixed(LET_GO_POLL_SECONDS),
        stop=stop_after_delay(LET_GO_SECONDS_MAX),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else 1,
    )
    return not await retrying(store.leased_count, task)


async def _remove_positions(store: Store, link: Link, flow: Flow) -> None:
    group = position_group(flow.task, flow.destination)
    # Task "a" to "b-c" and task "a-b" to "c" share a name.
    used = {position_group(one.task, one.destination) for one in await store.flows() if one.source == flow.source}
    if group not in used and isinstance(link.connector, RemovesGroups):
        await link.ask(link.connector.remove_group(group))


async def _unlock(store: Store, link: Link, known: Declared, flow: Flow, before: Sequence[Assignment]) -> None:
    """A worker that let go has unlocked its queues itself; for one that died, its locks need not run out first."""
    cluster_id = known.rows[flow.destination].cluster_id
    if cluster_id is None or not isinstance(link.connector, FencesSource):
        return
    taken_over = {one.source_queue for one in await store.assignments() if (one.source, one.destination) == (flow.source, flow.destination)}
    by_holder: dict[str, list[MessageQueue]] = {}
    for one in before:
        if one.flow_id == flow.flow_id and one.holder and one.source_queue not in taken_over:
            by_holder.setdefault(one.holder, []).append(one.source_queue)
    for holder, queues in by_holder.items():
        await link.ask(link.connector.unlock_queues(lock_group(cluster_id), holder, queues))
