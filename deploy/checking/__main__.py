"""``make deploy-check``: everything under deploy/ judged by the programs it is made for. ``render`` writes the plain manifests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from deploy.checking import chart
from deploy.checking.tools import ROOT, Missing, Refused, run
from deploy.grafana import dashboard

EXPOSURE_MAX = 15
"""Tenths of systemd's measure: 1.5, of which a process that serves the network cannot do without 1.1."""


def alert_rules() -> None:
    folder = ROOT / "deploy" / "prometheus"
    run("promtool", "check", "rules", folder / "alerts.yaml")
    run("promtool", "test", "rules", folder / "alerts_test.yaml")


def dashboard_expressions() -> None:
    """Grafana says nothing about an expression before somebody opens the page: as rules, promtool judges them now."""
    panels = dashboard.dashboard()["panels"]
    expressions = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel.get("targets", ())]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "dashboard.yaml")
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        run("promtool", "check", "rules", file)


def units() -> None:
    """In a folder of their own, since they are judged by name together with what lies beside them."""
    with tempfile.TemporaryDirectory() as folder:
        for unit in sorted((ROOT / "deploy" / "systemd").glob("*.service")):
            copy = Path(shutil.copy(unit, folder))
            run("systemd-analyze", "verify", "--man=no", copy, cwd=Path(folder))
            run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", copy, cwd=Path(folder))


def container_file() -> None:
    run("hadolint", "--failure-threshold", "info", ROOT / "deploy" / "container" / "Containerfile")


CHECKS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("alert rules", alert_rules),
    ("dashboard", dashboard_expressions),
    ("units of systemd", units),
    ("container file", container_file),
    ("chart and manifests", chart.check),
)


def main() -> int:
    if sys.argv[1:] == ["render"]:
        chart.write()
        return 0
    failed = 0
    for name, check in CHECKS:
        try:
            check()
            print(f"{name}: ok")
        except (Missing, Refused) as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
