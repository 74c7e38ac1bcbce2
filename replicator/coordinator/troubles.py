"""What keeps the coordinator from doing its part, as far as no row of the store can show it. Kept by the one that reconciles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FlowKey = tuple[str, str, str]
"""(task, source, destination)"""
WHOLE_FLOW = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    state: str
    reason: str


@dataclass(slots=True)
class Troubles:
    _known: dict[FlowKey, dict[str, Trouble]] = field(default_factory=dict)
    _waiting: dict[FlowKey, str] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As JSON, for the coordinators that do not reconcile."""
        return {
            "known": [[*flow, topic, one.state, one.reason] for flow, known in self._known.items() for topic, one in known.items()],
            "waiting": [[*flow, text] for flow, text in self._waiting.items()],
        }

    @classmethod
    def heard(cls, told: Mapping[str, Any]) -> Troubles:
        """What another coordinator told."""
        made = cls()
        for task, source, destination, topic, state, reason in told.get("known", ()):
            made.set((task, source, destination), topic, Trouble(state, reason))
        for task, source, destination, text in told.get("waiting", ()):
            made.wait_for((task, source, destination), text)
        return made

    def set(self, flow: FlowKey, topic: str, trouble: Trouble) -> bool:
        """``topic``: a source topic, or ``WHOLE_FLOW``. True if it is news."""
        of_flow = self._known.setdefault(flow, {})
        is_news = of_flow.get(topic) != trouble
        of_flow[topic] = trouble
        return is_news

    def clear(self, flow: FlowKey, topic: str) -> Trouble | None:
        """What is over now."""
        return self._known.get(flow, {}).pop(topic, None)

    def keep_topics(self, flow: FlowKey, topics: Iterable[str]) -> None:
        """Forgets the other topics of the flow."""
        kept = {WHOLE_FLOW, *topics}
        self._known[flow] = {topic: trouble for topic, trouble in self._known.get(flow, {}).items() if topic in kept}

    def wait_for(self, flow: FlowKey, text: str) -> None:
        """A remark that is no trouble; empty takes it back."""
        if text:
            self._waiting[flow] = text
        else:
            self._waiting.pop(flow, None)

    def keep_flows(self, flows: Iterable[FlowKey]) -> None:
        kept = set(flows)
        self._known = {flow: known for flow, known in self._known.items() if flow in kept}
        self._waiting = {flow: text for flow, text in self._waiting.items() if flow in kept}

    def of(self, flow: FlowKey) -> list[Trouble]:
        return list(self._known.get(flow, {}).values())

    def waiting(self, flow: FlowKey) -> str:
        return self._waiting.get(flow, "")
