"""From what a person declares (YAML files, JSON documents) to ``core.task`` values and back; see ``loading`` and ``specs``."""

from replicator.config.documents import DOCUMENT_DEPTH_MAX, FILE_BYTES_MAX
from replicator.config.loading import Declarations, load_documents, load_files
from replicator.config.schema import json_schema
from replicator.config.specs import task_from_spec, task_to_spec

__all__ = [
    "DOCUMENT_DEPTH_MAX",
    "FILE_BYTES_MAX",
    "Declarations",
    "json_schema",
    "load_documents",
    "load_files",
    "task_from_spec",
    "task_to_spec",
]
