"""Documents to clusters and tasks. Everything wrong is told in one ``InvalidInput``, a line each: ``FILE:LINE: path: what``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from replicator import registry
from replicator.config.documents import check_values, read_file
from replicator.config.models import API_VERSION, ClusterDocument, TaskDocument
from replicator.config.problems import Document, Path, Problems, findings_of, nearest_text
from replicator.config.specs import findings_in, to_task, unavailable_in
from replicator.core.errors import InvalidInput
from replicator.core.task import Cluster, ReplicationTask

KINDS = ("Cluster", "ReplicationTask")


@dataclass(frozen=True)
class Declarations:
    """In the order of the documents."""

    clusters: list[Cluster] = field(default_factory=list)
    tasks: list[ReplicationTask] = field(default_factory=list)


def load_files(paths: Iterable[str | FilePath], known_clusters: Collection[str] | None = None) -> Declarations:
    """All documents of all files. ``known_clusters``: those declared elsewhere; with None, names of clusters that these
    files do not declare are not judged. Raises ``InvalidInput``."""
    problems = Problems()
    documents = [document for path in paths for document in read_file(FilePath(path), problems)]
    return _load(documents, known_clusters, problems)


def load_documents(documents: Sequence[Any], known_clusters: Collection[str] | None = None) -> Declarations:
    """As ``load_files``, for documents that are JSON values already; places read ``documents[0]``."""
    return _load([Document(f"documents[{i}]", value) for i, value in enumerate(documents)], known_clusters, Problems())


def _load(documents: Sequence[Document], known_clusters: Collection[str] | None, problems: Problems) -> Declarations:
    declarations = Declarations()
    tasks: list[tuple[Document, ReplicationTask]] = []
    declared: dict[tuple[str, str], Document] = {}
    for document in documents:
        kind = _kind(document, problems)
        if kind is None:
            continue
        _note_name(document, kind, declared, problems)
        if kind == "Cluster":
            if (cluster := _cluster(document, problems)) is not None:
                declarations.clusters.append(cluster)
        elif (task := _task(document, problems)) is not None:
            tasks.append((document, task))
            declarations.tasks.append(task)
    if known_clusters is not None:
        # A cluster whose document is wrong counts as declared: its own problem is told already.
        known = {name for kind, name in declared if kind == "Cluster"} | set(known_clusters)
        for document, task in tasks:
            _check_references(document, task, known, problems)
    problems.raise_if_any()
    return declarations


def _kind(document: Document, problems: Problems) -> str | None:
    """The kind, None where the document cannot be judged further."""
    problems_before = len(problems)
    check_values(document, problems)
    if len(problems) > problems_before:
        return None
    value = document.value
    if not isinstance(value, dict):
        problems.add(document, (), "expected a mapping with apiVersion, kind, metadata and spec")
        return None
    version = value.get("apiVersion")
    if version != API_VERSION:
        what = "required" if version is None else f"unknown; this version knows {API_VERSION}"
        problems.add(document, ("apiVersion",), what)
    kind = value.get("kind")
    if kind not in KINDS:
        shown = kind if isinstance(kind, str) else ""
        what = "required: " if kind is None else f"unknown kind {shown!r}: "
        problems.add(document, ("kind",), f"{what}{' or '.join(KINDS)}{nearest_text(shown, KINDS)}")
    return kind if len(problems) == problems_before else None


def _note_name(document: Document, kind: str, declared: dict[tuple[str, str], Document], problems: Problems) -> None:
    metadata = document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        return
    path = ("metadata", "name")
    first = declared.setdefault((kind, name), document)
    if first is not document:
        problems.add(document, path, f"{kind} {name} is declared twice, first at {first.place(path)}")


def _cluster(document: Document, problems: Problems) -> Cluster | None:
    problems_before = len(problems)
    spec = document.value.get("spec")
    connector = spec.get("connector") if isinstance(spec, dict) else None
    value = dict(document.value)
    settings: dict[str, Any] | None = None
    if isinstance(spec, dict) and isinstance(connector, str):
        # The connector's block is judged by its own model; where the connector is misspelt, its block is not a second error.
        kinds = registry.kinds()
        value["spec"] = {key: inner for key, inner in spec.items() if key != connector or key in ("connector", "region")}
        if connector not in kinds:
            value["spec"] = {key: inner for key, inner in value["spec"].items() if key not in kinds}
        settings = _settings(document, connector, spec.get(connector, {}), problems)
    try:
        parsed = ClusterDocument.model_validate(value)
    except ValidationError as error:
        problems.add_all(document, _cluster_findings(error, connector))
        return None
    if settings is None or len(problems) > problems_before:
        return None
    return Cluster(parsed.metadata.name, parsed.spec.connector, settings, parsed.spec.region)


def _cluster_findings(error: ValidationError, connector: str | None) -> list[tuple[Path, str]]:
    """With the connector's own block among the names that may have been meant."""
    findings: list[tuple[Path, str]] = []
    for path, what in findings_of(error, ClusterDocument):
        if what == "unknown key" and len(path) == 2 and path[0] == "spec" and connector is not None:
            what += nearest_text(str(path[1]), [connector])
        findings.append((path, what))
    return findings


def _settings(document: Document, connector: str, block: Any, problems: Problems) -> dict[str, Any] | None:
    try:
        model = registry.load(connector).settings_model
    except InvalidInput as error:
        problems.add(document, ("spec", "connector"), str(error))
        return None
    try:
        settings = model.model_validate(block)
    except ValidationError as error:
        problems.add_all(document, findings_of(error, model), ("spec", connector))
        return None
    # Only what differs from a default: the same wish is the same value, however it was written.
    dumped: dict[str, Any] = settings.model_dump(mode="json", exclude_defaults=True)
    return dumped


def _task(document: Document, problems: Problems) -> ReplicationTask | None:
    try:
        parsed = TaskDocument.model_validate(document.value)
    except ValidationError as error:
        problems.add_all(document, findings_of(error, TaskDocument))
        return None
    findings = [*unavailable_in(parsed.spec), *findings_in(parsed.spec)]
    problems.add_all(document, findings, ("spec",))
    return None if findings else to_task(parsed.metadata.name, parsed.spec)


def _check_references(document: Document, task: ReplicationTask, known: Collection[str], problems: Problems) -> None:
    for i, name in enumerate(task.clusters):
        if name in known:
            continue
        path: Path = ("spec", "clusters", i)
        if task.mode == "one-way":
            path = ("spec", "source") if i == 0 else ("spec", "destinations", i - 1)
        problems.add(document, path, f"no cluster {name}{nearest_text(name, known)}")
