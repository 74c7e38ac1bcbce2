"""The published JSON Schema of one document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from replicator import registry
from replicator.config.models import ClusterDocument, TaskDocument


def json_schema() -> dict[str, Any]:
    """Draft 2020-12 for one document of a file, with the settings of every connector installed."""
    settings = {kind: registry.load(kind).settings_model for kind in registry.kinds()}
    models: list[type[BaseModel]] = [ClusterDocument, TaskDocument, *settings.values()]
    refs, definitions = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    defs = definitions["$defs"]
    for kind, model in settings.items():
        defs["ClusterSpec"]["properties"][kind] = refs[model, "validation"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Global Replicator document",
        "oneOf": [refs[ClusterDocument, "validation"], refs[TaskDocument, "validation"]],
        "$defs": defs,
    }
