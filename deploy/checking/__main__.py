"""``make deploy-check``: everything under deploy/ judged by the programs it is made for. ``render`` writes the plain manifests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy.checking import chart
from deploy.checking.tools import ROOT, Missing, Refused, run

EXPOSURE_MAX = 15
"""Tenths of systemd's measure: 1.5, of which a process that serves the network cannot do without 1.1."""


def alert_rules() -> None:
    folder = ROOT / "deploy" / "prometheus"
    run("promtool", "check", "rules", folder / "alerts.yaml")
    run("promtool", "test", "rules", folder / "alerts_test.yaml")


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
