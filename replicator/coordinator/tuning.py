"""``tune_source: true``: what a source's brokers return to one read is raised while the task exists, and put back afterwards.

Every change is an event of the task, written before the change is made, so that the values to put back survive everything
but a purge. What the account may not change stays as it is: the flow is slower, not blocked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from replicator.coordinator.connections import Link
from replicator.core.connector import TunesSource
from replicator.core.errors import NotPermitted, Refused, ReplicatorError
from replicator.core.task import ReplicationTask
from replicator.store.port import Store

TUNED, RESTORED, REFUSED = "source-tuned", "source-restored", "source-not-tuned"
LOOKED_SECONDS = 60.0
"""Brokers that are new or were set back are found this often."""
EVENTS_READ_MAX = 10_000

Settings = dict[str, dict[str, tuple[str, str]]]
"""{broker: {setting: (before, after)}}"""


def sources_of(task: ReplicationTask) -> set[str]:
    return {source for source, _ in task.flows}


class Tuner:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._looked: dict[tuple[str, str], tuple[ReplicationTask, float]] = {}
        self._told: dict[tuple[str, str], str] = {}

    async def follow(self, task: ReplicationTask, source: Link, tasks: Iterable[ReplicationTask]) -> None:
        """Tunes or puts back, as the task has it now. Raises ``NotConnected``, ``Throttled`` and ``StoreUnavailable`` only."""
        key, now = (task.name, source.cluster.name), time.monotonic()
        known = self._looked.get(key)
        if known is not None and known[0] == task and (not task.tune_source or now - known[1] < LOOKED_SECONDS):
            return
        self._looked[key] = task, now  # Flows of one task that share a source come here at the same time.
        try:
            if task.tune_source:
                await self._tune(task.name, source)
            else:
                await restore(self._store, task.name, source, tasks)
        except BaseException:
            del self._looked[key]
            raise

    async def _tune(self, task: str, source: Link) -> None:
        connector, cluster = source.connector, source.cluster.name
        if not isinstance(connector, TunesSource):
            await self._tell_once(task, cluster, f"{cluster}: a source of this kind cannot be tuned")
            return
        try:
            for broker, settings in (await source.ask(connector.plan_tuning())).items():
                text = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in settings.items())
                await _record(self._store, task, TUNED, f"{cluster}, broker {broker}: {text}", cluster, broker, settings)
                await source.ask(connector.change_settings(broker, {name: after for name, (_, after) in settings.items()}))
        except (NotPermitted, Refused) as error:
            await self._tell_once(task, cluster, str(error))

    async def _tell_once(self, task: str, cluster: str, reason: str) -> None:
        if self._told.get((task, cluster)) != reason:
            self._told[task, cluster] = reason
            await self._store.record_event(task, REFUSED, reason, {"cluster": cluster})


async def restore(store: Store, task: str, source: Link, others: Iterable[ReplicationTask]) -> list[str]:
    """Puts back what the task changed on a source; where another task wants it so too, that one will. Returns what had to stay."""
    cluster, connector = source.cluster.name, source.connector
    outstanding = await changed_by(store, task, cluster)
    heir = next((one.name for one in others if one.name != task and one.tune_source and cluster in sources_of(one)), None)
    left: list[str] = []
    for broker, settings in outstanding.items():
        if heir is not None:
            await _record(store, heir, TUNED, f"{cluster}, broker {broker}: taken over from task {task}", cluster, broker, settings)
        elif isinstance(connector, TunesSource):
            try:
                now = await source.ask(connector.read_settings(broker))
                # A value that somebody else has set meanwhile is theirs.
                ours = {name: before for name, (before, after) in settings.items() if now.get(name) == after}
                if ours:
                    await source.ask(connector.change_settings(broker, ours))
            except ReplicatorError as error:
                left.append(f"settings of broker {broker} on {cluster}: {error}")
                continue
        await _record(store, task, RESTORED, f"{cluster}, broker {broker}: as before", cluster, broker, settings)
    return left


async def changed_by(store: Store, task: str, cluster: str) -> Settings:
    """What the events of the task say it has changed there and not put back. The first value before counts."""
    found: Settings = {}
    for event in await store.events(task, limit=EVENTS_READ_MAX):
        if event.kind not in (TUNED, RESTORED) or event.detail.get("cluster") != cluster:
            continue
        broker = event.detail["broker"]
        if event.kind == RESTORED:
            found.pop(broker, None)
            continue
        of_broker = found.setdefault(broker, {})
        for name, (before, after) in event.detail["settings"].items():
            of_broker[name] = of_broker[name][0] if name in of_broker else before, after
    return found


async def _record(
    store: Store, task: str, kind: str, message: str, cluster: str, broker: str, settings: Mapping[str, tuple[str, str]]
) -> None:
    values = {name: list(pair) for name, pair in settings.items()}
    await store.record_event(task, kind, message, {"cluster": cluster, "broker": broker, "settings": values})
