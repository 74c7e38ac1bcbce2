"""The Helm chart: linted, rendered in every shape, held against the schemas of Kubernetes, and against the committed manifests."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path

from deploy.checking.tools import CACHE, ROOT, Missing, Refused, run

CHART = ROOT / "deploy" / "kubernetes" / "chart"
PLAIN = ROOT / "deploy" / "kubernetes" / "plain"
OWN_SCHEMAS = ROOT / "deploy" / "kubernetes" / "schemas"
VERSIONS = ("1.25.0", "1.31.0", "1.37.0")
RELEASE = ("replicator", "--namespace", "replicator")
SHAPES = {
    "plain": (),
    "keda": ("--set", "keda.enabled=true,keda.prometheusAddress=http://prometheus:9090"),
    "everything": (
        "--set", "autoscaling.enabled=true,autoscaling.lagMessagesPerWorker=50000,tls.secretName=",
        "--set", "worker.near={shanghai,beijing},environmentSecrets={accounts},image.digest=sha256:" + "0" * 64,
        "--set-json", 'networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
        "--set-json", 'networkPolicy.apiFrom=[{"namespaceSelector":{}}]',
        "--set-json", 'networkPolicy.to=[{"ports":[{"port":9876,"protocol":"TCP"}]}]',
        "--set-json", 'serviceAccount.annotations={"a":"b"}',
        "--set-json", 'coordinator.podAnnotations={"a":"b"}', "--set-json", 'worker.nodeSelector={"kind":"copy"}',
        "--set-json", 'worker.tolerations=[{"key":"copy","operator":"Exists"}]', "--set-json", 'imagePullSecrets=[{"name":"pull"}]',
    ),
}
WRONG_SHAPES = {
    "both ways of scaling": ("--set", "autoscaling.enabled=true,keda.enabled=true,keda.prometheusAddress=http://prometheus:9090"),
    "KEDA without Prometheus": ("--set", "keda.enabled=true"),
    "a value of a wrong type": ("--set", "coordinator.replicas=many"),
    "a value that does not exist": ("--set", "coordinator.replica=3"),
}
PARTS = {
    "1-migrations.yaml": ("templates/migrations.yaml",),
    "2-replicator.yaml": tuple(f"templates/{name}.yaml" for name in ("serviceaccount", "coordinator", "worker", "networkpolicy")),
}
"""Without Helm nobody runs hooks: the migrations are a file of their own, applied first."""


def render(version: str, *values: str) -> str:
    return run("helm", "template", *RELEASE, CHART, "--kube-version", version, *values)


def plain_manifests() -> dict[str, str]:
    """The committed manifests as they should be, by file name."""
    made = {}
    for name, templates in PARTS.items():
        shown = [argument for template in templates for argument in ("--show-only", template)]
        head = "# Rendered from deploy/kubernetes/chart with its own values by make deploy-render; do not edit.\n"
        made[name] = head + render(VERSIONS[1], *shown)
    return made


def check() -> None:
    run("helm", "lint", "--strict", CHART)
    for what, values in WRONG_SHAPES.items():
        try:
            render(VERSIONS[1], *values)
        except Refused:
            continue
        raise Refused(f"the chart takes {what}")
    schemas = _schemas()
    with tempfile.TemporaryDirectory() as folder:
        for version in VERSIONS:
            for shape, values in SHAPES.items():
                rendered = Path(folder, f"{shape}-{version}.yaml")
                rendered.write_text(render(version, *values))
                _conform(version, schemas, rendered)
        _refuses_faults(schemas, Path(folder))
    stale = [name for name, text in plain_manifests().items() if not (PLAIN / name).exists() or (PLAIN / name).read_text() != text]
    if stale:
        raise Refused(f"deploy/kubernetes/plain/{', '.join(stale)}: not what the chart renders; run make deploy-render")


def write() -> None:
    PLAIN.mkdir(exist_ok=True)
    for name, text in plain_manifests().items():
        (PLAIN / name).write_text(text)


def _conform(version: str, schemas: Path, rendered: Path) -> None:
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    run(
        "kubeconform", "-strict", "-kubernetes-version", version, "-schema-location",
        f"{schemas}/{{{{.NormalizedKubernetesVersion}}}}/{name}", "-schema-location", f"{OWN_SCHEMAS}/{name}", rendered,
    )


def _refuses_faults(schemas: Path, folder: Path) -> None:
    """Schemas that let everything pass would prove nothing."""
    faulty = folder / "faulty.yaml"
    faulty.write_text(render(VERSIONS[1]).replace("\n  replicas: 2\n", "\n  replicas: two\n"))
    try:
        _conform(VERSIONS[1], schemas, faulty)
    except Refused:
        return
    raise Refused("kubeconform lets a Deployment with two written out pass: the schemas are not used")


def _schemas() -> Path:
    """Kubernetes' strict schemas out of the package kubernetes-validate. Its references lead to addresses of its own; here they lead
    to the file beside."""
    target = CACHE / "schemas"
    origin = _schema_package()
    for version in VERSIONS:
        folder = target / f"v{version}"
        if folder.exists():
            continue
        made = folder.with_suffix(".part")
        made.mkdir(parents=True, exist_ok=True)
        for path in (origin / f"v{version}-local-strict").glob("*.json"):
            schema = json.loads(path.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
            schema.pop("$id", None)
            (made / path.name).write_text(json.dumps(schema))
        made.rename(folder)
    return target


def _schema_package() -> Path:
    python = CACHE / "venv" / "bin" / "python"
    if not python.exists():
        found = importlib.util.find_spec("kubernetes_validate")
        if found is None or found.origin is None:
            raise Missing("kubernetes-validate is not installed: make deploy-check installs it from requirements/deploy.txt")
        return Path(found.origin).parent / "kubernetes-json-schema"
    ask = "import kubernetes_validate as k; print(k.__file__)"
    where = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    return Path(where.strip()).parent / "kubernetes-json-schema"
