"""The programs of others that judge what is deployed: where they are found, and how to get each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "deploy"
RUN_SECONDS_MAX = 300

WAYS = {
    "promtool": "it comes with Prometheus: Debian's package prometheus has both",
    "prometheus": "Debian's package prometheus",
    "helm": "GOBIN=$PWD/.cache/deploy/bin go install helm.sh/helm/v3/cmd/helm@v3.20.2",
    "kubeconform": "GOBIN=$PWD/.cache/deploy/bin go install github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0",
    "systemd-analyze": "systemd 250 or later",
    "hadolint": "make deploy-check installs it from requirements/deploy.txt",
}


class Missing(Exception):
    """A program is not installed."""


class Refused(Exception):
    """A program ran and found a fault; its own words."""


def find(name: str) -> str:
    path = os.pathsep.join((str(CACHE / "bin"), str(CACHE / "venv" / "bin"), os.environ.get("PATH", "")))
    found = shutil.which(name, path=path)
    if found is None:
        raise Missing(f"{name} is not installed: {WAYS[name]}")
    return found


def run(name: str, *arguments: str | Path, cwd: Path = ROOT) -> str:
    """What it printed. Raises ``Missing``, or ``Refused`` with its output."""
    done = subprocess.run(
        [find(name), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        raise Refused(f"{name} {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
