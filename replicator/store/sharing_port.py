"""Sharing of assignments among workers, as the engine sees it: part of the port ``Store``.

The coordinator decides (``place``), workers follow: who holds what another was chosen for lets go (``revoked``), the chosen one
takes it (``acquire``). Where no coordinator decides, or the chosen worker is gone, whoever comes first takes what is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Released(NamedTuple):
    """A lease given back. ``clean``: with nothing in flight."""

    assignment_id: int
    token: int
    clean: bool


@dataclass(frozen=True, slots=True)
class Share:
    """An assignment that somebody should copy now: of an active, unpaused pair and flow."""

    assignment_id: int
    destination: str
    chosen: str
    """The worker the coordinator decided for, empty before that."""
    holder: str
    """The worker that holds its lease now, empty for none."""
    rate_per_second: float | None


@dataclass(frozen=True, slots=True)
class Staff:
    """The workers of one moment."""

    near: Mapping[str, str]
    """Those that live: {name: cluster it is near, or empty}."""
    silent: frozenset[str]
    """Those that did not say goodbye and were not heard of for ``WORKER_GONE_SECONDS``."""
    is_settled: bool
    """False while the database has been up for less than that: silence proves nothing then."""
    strays: int
    """Assignments that somebody should copy now and for which no living worker was chosen."""


class Watch(Protocol):
    """Tells that workers, their leases or the choice among them changed."""

    async def changed(self, timeout_seconds: float) -> None:
        """Returns at once if something changed since the last call, else when something does, at the latest after the time given.
        A hint only: a change may go unnoticed where the database was away, and it may be one's own."""
        ...


class SharesAssignments(Protocol):
    def watch(self) -> Watch: ...

    async def staff(self) -> Staff: ...

    async def shares(self) -> Sequence[Share]: ...

    async def place(self, coordinator: str, placed: Mapping[int, str]) -> bool:
        """{assignment: worker}. False, and nothing changed, unless ``coordinator`` holds the lease ``coordinator``."""
        ...

    async def release_all(self, released: Sequence[Released]) -> set[int]:
        """As ``release`` of each, in one transaction: the assignments that were still held with that token."""
        ...

    async def worker_left(self, holder: str) -> None:
        """The worker says goodbye: it takes nothing more, and what it holds it is about to release."""
        ...

    async def drop_coordinator(self, holder: str) -> None:
        """Gives the lease ``coordinator`` back, if held."""
        ...

    async def tell_as_coordinator(self, holder: str, detail: dict[str, Any]) -> bool:
        """Kept with the lease, for the other coordinators to read. False, and nothing kept, unless ``holder`` holds it."""
        ...

    async def told_by_coordinator(self) -> tuple[str, dict[str, Any]]:
        """Who holds the lease, empty for nobody, and what it told."""
        ...
