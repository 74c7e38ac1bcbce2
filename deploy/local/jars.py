"""RocketMQ's jars, fetched on demand by Maven into a cache directory.

A version's folder appears by one rename, so a folder that exists is complete; a file lock lets two processes that want
the same version fetch it once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.problems import LabProblem

DEFAULT_VERSION = "5.3.3"
VERSIONS = ("4.4.0", "4.9.7", "5.3.3", "5.4.0")
CACHE_VARIABLE = "REPLICATOR_LAB_CACHE"

GROUP_ID = "org.apache.rocketmq"
PROXY_ARTIFACT_IDS = ("rocketmq-proxy",)
ARTIFACT_IDS = ("rocketmq-namesrv", "rocketmq-broker", "rocketmq-tools", "rocketmq-client")
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:{version}:copy-dependencies"
DEPENDENCY_PLUGIN_VERSION = "3.8.1"
FETCH_SECONDS_MAX = 900
ERROR_LINES_MAX = 5


def cache_root() -> Path:
    """The folder for everything fetched or compiled; ``REPLICATOR_LAB_CACHE`` overrides the project's ``.cache``."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override).resolve() if override else Path(__file__).resolve().parents[2] / ".cache"


def java_tool(name: str) -> str:
    """Path of ``java`` or ``javac``: JAVA_HOME's first, then PATH's."""
    home = os.environ.get("JAVA_HOME")
    if home and os.access(Path(home, "bin", name), os.X_OK):
        return str(Path(home, "bin", name))
    found = shutil.which(name)
    if found is None:
        raise LabProblem(
            f"{name} not found: install a JDK 17 (Debian: apt-get install openjdk-17-jdk-headless) or set JAVA_HOME to one."
        )
    return found


def fetch_jars(version: str = DEFAULT_VERSION) -> Path:
    """Folder with all jars of *version*; fetched when it is not there yet. May block for minutes on a cold machine."""
    return _fetched(version, version, ARTIFACT_IDS)


def fetch_proxy_jars(version: str = DEFAULT_VERSION) -> Path:
    """Likewise of the proxy, which 5.x has; apart from the others, since few need it."""
    if version.startswith("4."):
        raise LabProblem(f"RocketMQ {version} has no proxy.")
    return _fetched(version, f"{version}-proxy", PROXY_ARTIFACT_IDS)


def _fetched(version: str, folder: str, artifact_ids: Sequence[str]) -> Path:
    if version not in VERSIONS:
        raise LabProblem(f"RocketMQ {version} is not pinned here; known versions: {', '.join(VERSIONS)}.")
    home = cache_root() / "rocketmq" / folder
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(home.parent / f"{folder}.lock"):
            if not home.is_dir():
                _fetch(version, home, artifact_ids)
    return home / "lib"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock file for the block; waits while another process holds it."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _fetch(version: str, home: Path, artifact_ids: Sequence[str]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise LabProblem(
            f"mvn not found, needed once to fetch RocketMQ {version}: install Maven 3.8 or newer (Debian: apt-get install maven)."
        )
    java_tool("java")
    # Holding the lock makes a partial folder an orphan of a fetch that died.
    partial = home.parent / f"{home.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "lib").mkdir(parents=True)
    (partial / "pom.xml").write_text(pom_of(version, artifact_ids))
    goal = DEPENDENCY_PLUGIN.format(version=DEPENDENCY_PLUGIN_VERSION)
    command = [maven, "-q", "-B", "-f", str(partial / "pom.xml"), goal, f"-DoutputDirectory={partial / 'lib'}", "-DincludeScope=runtime"]
    # Maven remembers a failed look-up; -U makes the second try ask again.
    output = ""
    for attempt in (command, [*command, "-U"]):
        try:
            done = subprocess.run(
                attempt, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=FETCH_SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired as expired:
            raise LabProblem(f"Maven needed more than {FETCH_SECONDS_MAX} s to fetch RocketMQ {version}: check the network.") from expired
        if done.returncode == 0:
            partial.rename(home)
            return
        output = done.stdout
    errors = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines()
    raise LabProblem(f"Maven could not fetch RocketMQ {version}: " + " | ".join(errors[:ERROR_LINES_MAX]))


def pom_of(version: str, artifact_ids: Sequence[str] = ARTIFACT_IDS) -> str:
    """A pom that depends on these parts of one RocketMQ version."""
    dependencies = "\n".join(
        f"    <dependency><groupId>{GROUP_ID}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for artifact in artifact_ids
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>replicator.lab</groupId>
  <artifactId>rocketmq-jars</artifactId>
  <version>{version}</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
