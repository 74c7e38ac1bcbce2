"""The command line as a user types it, and how a refusal has to look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND_SECONDS_MAX = 120


def run_command(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A coordinator the caller's environment names is none of the tests' business: only ``environment`` can name one."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("REPLICATOR_")}
    return subprocess.run(
        [sys.executable, "-m", "replicator", *map(str, arguments)],
        capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, env=clean | (environment or {}), check=False,
    )


def refused(result: subprocess.CompletedProcess[str], code: int) -> str:
    """What was said, after checking how it ended."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.strip()
    return result.stderr
