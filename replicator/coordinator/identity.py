"""Lasting ids: a cluster marks itself once, at its first apply, and is known by that mark ever after. Addresses prove nothing."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from replicator.coordinator.connections import Link
from replicator.core.errors import Unsafe

CLUSTER_ID_LENGTH = 8
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def make_cluster_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(CLUSTER_ID_LENGTH))


async def read_id(link: Link) -> str | None:
    """The mark of the cluster, None before its first. ``Unsafe`` where it carries more than one: its history was mixed."""
    marks = sorted(set(await link.ask(link.connector.read_marks())))
    if len(marks) > 1:
        raise Unsafe(
            f"cluster {link.cluster.name} carries {len(marks)} marks ({', '.join(marks)}): it was restored from, or joined with, another",
            hint="remove the marks that are not its own",
        )
    return marks[0] if marks else None


async def ensure_id(link: Link) -> str:
    """The mark, written now where there is none."""
    found = await read_id(link)
    if found is not None:
        return found
    await link.ask(link.connector.write_mark(make_cluster_id()))
    # Read back: another coordinator may have marked it in the same moment, which is then seen as two marks.
    found = await read_id(link)
    if found is None:
        raise Unsafe(f"cluster {link.cluster.name} took its mark and does not show it")
    return found


def refuse_other_cluster(name: str, declared_id: str | None, found_id: str | None, ids: Mapping[str, str]) -> None:
    """``Unsafe`` where the cluster reached is not the one known as ``name``. ``ids``: declared names by id."""
    if declared_id is not None and found_id != declared_id:
        seen = f"carries the mark {found_id}" if found_id else "carries no mark"
        raise Unsafe(
            f"cluster {name} is known as {declared_id}, but the cluster reached now {seen}: it is another one, or was wiped",
            hint="declare it under a new name",
        )
    known_as = ids.get(found_id, name) if found_id is not None else name
    if known_as != name:
        raise Unsafe(f"{name} is the cluster already declared as {known_as} (mark {found_id})", hint=f"use the name {known_as}")
