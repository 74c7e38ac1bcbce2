"""``failover`` and ``failback``: plan, run, status, abort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from replicator.coordinator import declared
from replicator.coordinator.atlas import Atlas
from replicator.coordinator.connections import Connections
from replicator.coordinator.failover.assessing import Assessment, Blocker, Move, find_blockers, find_losses, uncopied
from replicator.coordinator.failover.origins import origin_plans, return_plans
from replicator.coordinator.failover.restoring import Lost, find_lost, relaying, unsettled
from replicator.coordinator.failover.runner import FailoverRunner
from replicator.coordinator.progress.loop import ProgressLoop
from replicator.coordinator.progress.retries import waiting_counts
from replicator.coordinator.progress.scene import look
from replicator.core.errors import InvalidInput, Missing, Unsafe
from replicator.core.failover import FAILBACK, FAILOVER, Course, begin, steps_of
from replicator.core.task import ReplicationTask
from replicator.store.failover_rows import FailoverRow
from replicator.store.port import Assignment, Store

SHOWN_MAX = 20


class FailoverCommands:
    def __init__(self, store: Store, connections: Connections, atlas: Atlas, loop: ProgressLoop, runner: FailoverRunner) -> None:
        self._store = store
        self._atlas = atlas
        self._connections = connections
        self._loop = loop
        self._runner = runner

    async def plan(self, move: Move) -> dict[str, Any]:
        return (await self._assess(await self._resolved(move))).to_json()

    async def run(self, move: Move) -> dict[str, Any]:
        """Begins it; ``status`` shows how it goes. Raises ``Unsafe`` with the blockers, ``Conflict`` while another move is open."""
        move = await self._resolved(move)
        assessed = await self._assess(move)
        if assessed.blocking and not move.options.force:
            texts = "; ".join(one.text for one in assessed.blocking)
            raise Unsafe(
                f"{move.kind} of task {move.task} from {move.left} to {move.target} is blocked: {texts}",
                hint="--force goes on without the groups concerned",
            )
        row = FailoverRow(
            move.task, move.kind, move.failed, move.destination, move.options.to_json(), begin(assessed.steps).to_json()
        )
        failover_id = await self._store.begin_failover(row)
        await self._store.record_event(
            move.task, f"{move.kind}-began", f"{move.kind} {failover_id} from {move.left} to {move.target} began",
            {"options": row.options, "plan": _summary(assessed)},
        )  # fmt: skip
        self._runner.wake()
        return {**_shown(replace(row, failover_id=failover_id)), "plan": _summary(assessed)}

    async def status(self, task: str, kind: str | None = None) -> dict[str, Any]:
        await self._task(task)
        rows = await self._store.failovers(task, limit=SHOWN_MAX)
        return {"moves": [_shown(row) for row in rows if kind in (None, row.kind)]}

    async def abort(self, task: str, kind: str) -> dict[str, Any]:
        rows = [row for row in await self._store.failovers(task, open_only=True) if row.kind == kind]
        if not rows or not await self._store.ask_abort(rows[-1].failover_id):
            raise Missing(f"no {kind} of task {task} is under way")
        self._runner.wake()
        return _shown(rows[-1])

    async def _assess(self, move: Move) -> Assessment:
        task = await self._task(move.task)
        _require_flow(task, move)
        scene = await look(
            self._store, self._connections, self._loop.of(task.name), (move.left, move.target), move.options.group,
            source_may_be_away=move.kind == FAILOVER,
        )  # fmt: skip
        topic = move.options.topic
        if topic is not None and topic not in scene.planner.routes.topics:
            raise Missing(f"task {task.name} does not copy topic {topic} of {move.left}")
        chosen = await scene.plans(back=move.kind == FAILBACK, topic=topic)
        sightings = await self._store.sightings(task.name)
        flow = [one for one in scene.assignments if (one.source, one.destination) == (move.left, move.target)]
        waiting = await uncopied(scene.assignments, scene.source, move.left, move.target, topic)
        if move.kind == FAILBACK and not flow:
            waiting = replace(waiting, messages=None)
        retries = await waiting_counts(scene.source, scene.groups) if scene.source is not None else None
        blockers = find_blockers(move, scene, chosen, waiting, sightings, flow, retries or {})
        steps = steps_of(move.kind, move.options, is_two_way=task.mode == "two-way")
        is_back = move.kind == FAILBACK
        origins = [] if is_back else await origin_plans(scene, topic)
        returns = await return_plans(scene, topic) if is_back else []
        lost: list[Lost] = []
        if is_back:
            lost, blockers = await self._lost(move, task, scene.assignments, blockers)
        return Assessment(move, blockers, chosen, waiting, origins, returns, lost, steps)

    async def _lost(
        self, move: Move, task: ReplicationTask, assignments: Sequence[Assignment], blockers: list[Blocker]
    ) -> tuple[list[Lost], list[Blocker]]:
        topic = move.options.topic
        own = [one for one in assignments if one.task == task.name]
        lost = await find_lost(self._store, self._connections, self._atlas, task.name, move.target, move.left, topic)
        topics = {one.queue.source_queue.topic for one in lost}
        relays = relaying((await declared.load(self._store)).tasks.values(), move.target, topics)
        return lost, [*blockers, *find_losses(move, lost, unsettled(own, move.target, move.left, topic), relays)]

    async def _resolved(self, move: Move) -> Move:
        """A failback names the clusters as the failover before it did. Who names them the other way round, from where to where,
        is understood where a failover was recorded."""
        if move.kind != FAILBACK:
            if move.options.restore:
                raise InvalidInput("only a failback restores: a cluster that failed takes nothing")
            return move
        done = [row for row in await self._store.failovers(move.task) if row.kind == FAILOVER and not row.options.get("rehearse")]
        pairs = [(row.failed, row.destination) for row in done]
        if (move.failed, move.destination) not in pairs and (move.destination, move.failed) in pairs:
            return replace(move, failed=move.destination, destination=move.failed)
        return move

    async def _task(self, name: str) -> ReplicationTask:
        known = await declared.load(self._store)
        if name not in known.tasks:
            raise Missing(f"task {name} does not exist")
        return known.tasks[name]


def _require_flow(task: ReplicationTask, move: Move) -> None:
    for cluster in (move.failed, move.destination):
        if cluster not in task.clusters:
            raise Missing(f"task {task.name} has no cluster {cluster}", hint=f"its clusters: {', '.join(task.clusters)}")
    if move.failed == move.destination:
        raise InvalidInput("the failed cluster and the destination are the same")
    if (move.failed, move.destination) not in task.flows:
        raise InvalidInput(f"task {task.name} copies nothing from {move.failed} to {move.destination}, so nobody can go on there")


def _summary(assessed: Assessment) -> dict[str, Any]:
    answer = assessed.to_json()
    kept = {key: answer[key] for key in ("blockers", "seen_again", "not_copied", "by_origin", "returning")}
    return {**kept, "groups": len({plan.group for plan in assessed.plans})}


def _shown(row: FailoverRow) -> dict[str, Any]:
    course = Course.from_json(row.course)
    steps: Sequence[dict[str, Any]] = [
        {"name": one.name, "state": one.state, "detail": one.detail} for one in course.steps
    ]
    return {
        "id": row.failover_id, "kind": row.kind, "task": row.task, "failed": row.failed, "destination": row.destination,
        "state": course.state, "reason": course.reason, "abort_asked": row.abort_asked, "options": row.options, "steps": list(steps),
        "began_at": row.created_at.isoformat() if row.created_at else None,
        "updated_at": row.updated_at.isoformat() if row.updated_at else None,
    }  # fmt: skip
