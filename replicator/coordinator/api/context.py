"""What every route needs: the coordinator, the store, and whether the files given at start have been applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request

from replicator.coordinator.access import Callers
from replicator.coordinator.failover.assessing import Move
from replicator.coordinator.progress.commands import Ask, Place
from replicator.core.task import Cluster, ReplicationTask
from replicator.observe.metrics import FlowMetrics
from replicator.store.port import Store

PREFIX = "/api/v1"


class Operations(Protocol):
    """The coordinator's operations as the API calls them; results are JSON values or dataclasses."""

    async def apply(
        self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask], dry_run: bool, lost: Sequence[str] = ()
    ) -> Any: ...

    async def check(self, clusters: Sequence[Cluster], tasks: Sequence[ReplicationTask]) -> Any: ...

    async def get(self, kind: str, name: str | None) -> Any: ...

    async def delete(self, kind: str, name: str, force: bool, purge: bool) -> Any: ...

    async def set_paused(self, task: str, paused: bool, topic: str | None, source: str | None, destination: str | None) -> Any: ...

    async def resume(
        self,
        task: str,
        topic: str | None,
        source: str | None,
        destination: str | None,
        accept_loss: bool,
        from_offset: int | None,
        dry_run: bool,
    ) -> Any: ...

    async def status(self, task: str | None) -> Any: ...

    async def figures(self) -> Sequence[Mapping[str, Any]]: ...

    async def leading(self) -> Mapping[str, Any]: ...

    async def events(self, task: str) -> Any: ...

    async def parked_list(self, task: str) -> Any: ...

    async def parked_retry(self, task: str, ids: Sequence[int] | None) -> Any: ...

    async def parked_discard(self, task: str, ids: Sequence[int] | None) -> Any: ...

    async def translate(self, task: str, source: str, destination: str, topic: str, queue: str, offset: int) -> Any: ...

    async def rebuild(
        self, task: str, topic: str | None, source: str | None, destination: str | None, cluster_ids: Mapping[str, str]
    ) -> Any: ...

    async def rebuild_progress(self, task: str) -> Any: ...

    async def groups_list(self, ask: Ask) -> Any: ...

    async def groups_plan(self, ask: Ask, back: bool, running: bool) -> Any: ...

    async def groups_sync(self, ask: Ask, seen_again: int | None, back: bool, running: bool) -> Any: ...

    async def groups_reset(self, ask: Ask, place: Place, dry_run: bool) -> Any: ...

    async def failover_plan(self, move: Move) -> Any: ...

    async def failover_run(self, move: Move) -> Any: ...

    async def failover_status(self, task: str, kind: str | None = None) -> Any: ...

    async def failover_abort(self, task: str, kind: str) -> Any: ...


@dataclass(slots=True)
class Readiness:
    """``applied`` turns true when the files given to ``run`` have been applied; without files it is true at once."""

    applied: bool = True
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    coordinator: Operations
    store: Store
    callers: Callers
    readiness: Readiness = field(default_factory=Readiness)
    metrics: FlowMetrics = field(default_factory=FlowMetrics)


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


Given = Annotated[Services, Depends(services_of)]
