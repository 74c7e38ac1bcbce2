"""What is deployed names only what exists: metrics, runbook sections, files. The tools of others judge the rest: make deploy-check."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from deploy.grafana import dashboard
from replicator.observe.metrics import FlowMetrics
from tests.tidy.test_tree import ROOT
from tests.unit.observe.test_metrics import FIGURE, LEADING, WORKER, samples

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
NOT_OURS = frozenset({"up"})
_METRIC = re.compile(r"\b(?:replicator_[a-z_]+|up\b(?=\{))")
_SELECTED = re.compile(r"\b(replicator_[a-z_]+)\{([^}]*)\}")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")


def shown() -> dict[str, set[str]]:
    """Every metric the product shows, with its labels."""
    metrics = FlowMetrics()
    metrics.update([{**FIGURE, "lag_seconds": 1.0}], {"w-1": WORKER}, LEADING)
    return {name: {label for labels, _ in found for label in labels} for name, found in samples(metrics.render()).items()}


def alerts() -> list[dict]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in dashboard.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    yield "KEDA", (DEPLOY / "kubernetes" / "chart" / "templates" / "scaling.yaml").read_text().partition("query:")[2].partition("\n")[0]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_is_shown(where, expression):
    known = shown()
    named = set(_METRIC.findall(expression)) - NOT_OURS
    assert named or "up{" in expression
    assert named <= known.keys(), f"{where} asks for {named - known.keys()}"
    for metric, selector in _SELECTED.findall(expression):
        assert set(_LABEL.findall(selector)) <= known[metric], f"{where}: {metric}{{{selector}}}"


def test_every_metric_is_looked_at_by_somebody():
    asked = {metric for _, expression in expressions() for metric in _METRIC.findall(expression)}
    parts = {"replicator_latency_seconds_sum", "replicator_latency_seconds_count"}
    # Shown for those who ask for it by hand: uncopied age and rate() say the same without a gap.
    by_hand = {"replicator_lag_seconds", "replicator_copy_rate_messages_per_second", "replicator_build_info"}
    assert shown().keys() - asked - parts == by_hand


def anchors(text: str) -> set[str]:
    """As they are made of headings: lower case, blanks to hyphens, nothing else but letters, digits and hyphens."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w-]", "", heading.strip().lower().replace(" ", "-")) for heading in headings}


def test_every_alert_tells_what_to_do():
    known = anchors((ROOT / "docs" / "operations.md").read_text())
    for rule in alerts():
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (file, anchor) == ("docs/operations.md", rule["alert"].lower())
        assert anchor in known, f"docs/operations.md has no section {rule['alert']}"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_no_section_is_left_of_an_alert_that_is_gone():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^#+ (Replicator\w+)$", text, re.MULTILINE)) == {rule["alert"] for rule in alerts()}


def test_the_committed_dashboard_is_what_the_code_makes():
    assert dashboard.PATH.read_text() == dashboard.text(), "run make deploy-render"


def test_panels_do_not_overlap_and_have_an_identity():
    panels = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < dashboard.WIDTH for x, _ in cells), panel["title"]
        taken |= cells


def settings(unit: str) -> set[str]:
    return {line for line in (DEPLOY / "systemd" / unit).read_text().splitlines() if line and not line.startswith("#")}


def test_both_units_are_confined_alike():
    of = {unit: settings(unit) for unit in ("replicator-coordinator.service", "replicator-worker@.service")}
    common = set.intersection(*of.values())
    assert {"DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "Restart=always"} <= common
    for unit, lines in of.items():
        assert not [line for line in lines if re.match(r"(Environment=.*(TOKEN|DATABASE_URL)=|User=root)", line)], unit
        assert "LoadCredential=database-url:/etc/replicator/credentials/database-url" in lines


def test_the_container_file_takes_along_what_exists_and_runs_as_nobody():
    text = (DEPLOY / "container" / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    ignored = (DEPLOY / "container" / "Containerfile.containerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert {path.split("/")[0] for path in copied} == allowed
    assert text.count("FROM ") == 2
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert text.count("pip install --require-hashes") == 2


def test_the_plain_manifests_are_confined_and_hold_no_secret():
    documents = [one for path in sorted((DEPLOY / "kubernetes" / "plain").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    kinds = [one["kind"] for one in documents]
    assert sorted(kinds) == sorted([
        "Job", "ServiceAccount", "Deployment", "Deployment", "Service", "PodDisruptionBudget", "PodDisruptionBudget", "NetworkPolicy",
    ])  # fmt: skip
    for pod in (one["spec"]["template"]["spec"] for one in documents if one["kind"] in {"Job", "Deployment"}):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            secret = [one for one in container["env"] if one["name"] in {"REPLICATOR_DATABASE_URL", "REPLICATOR_TOKEN"}]
            assert secret
            assert all("secretKeyRef" in one["valueFrom"] for one in secret)
