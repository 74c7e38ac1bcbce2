"""Kinds of messaging system, found through the entry points of group ``replicator.connectors``."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points

from pydantic import ValidationError

from replicator.core.connector import Connector, ConnectorContext, ConnectorFactory
from replicator.core.errors import InvalidInput
from replicator.core.task import Cluster

ENTRY_POINT_GROUP = "replicator.connectors"


def kinds() -> list[str]:
    """Names usable as ``spec.connector``, sorted."""
    return sorted(entry_points(group=ENTRY_POINT_GROUP).names)


def load(kind: str) -> ConnectorFactory:
    """The factory of a kind. Raises ``InvalidInput`` where there is none, or where its package cannot be imported."""
    found = tuple(entry_points(group=ENTRY_POINT_GROUP, name=kind))
    if not found:
        known = kinds()
        nearest = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known) or 'none'}"
        raise InvalidInput(f"unknown connector {kind!r}", hint=hint)
    try:
        factory: ConnectorFactory = found[0].load()
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"connector {kind!r} cannot be loaded from {found[0].value}: {error}") from error
    return factory


def connect(cluster: Cluster, instance: str, memory_bytes_max: int | None = None) -> Connector:
    """A connector to ``cluster``, not opened. ``instance`` is unique to this process and start."""
    factory = load(cluster.connector)
    try:
        settings = factory.settings_model.model_validate(cluster.settings)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
        raise InvalidInput(f"cluster {cluster.name}: {cluster.connector} settings: {reasons}") from None
    if memory_bytes_max is None:
        return factory(settings, ConnectorContext(cluster.name, instance))
    return factory(settings, ConnectorContext(cluster.name, instance, memory_bytes_max))
