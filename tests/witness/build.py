"""Compiles the witness once for each state of its source and each client version."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from deploy.local.jars import cache_root, exclusive, fetch_jars, java_tool

SOURCES = Path(__file__).with_name("java")


def witness_class_path(version: str) -> str:
    """Class path of the compiled witness; compiles when this source has not been compiled yet."""
    lib = fetch_jars(version)
    sources = sorted(SOURCES.rglob("*.java"))
    digest = hashlib.sha256(version.encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    classes = cache_root() / "witness" / f"{version}-{digest.hexdigest()[:16]}"
    if not classes.is_dir():
        classes.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(classes.parent / "lock"):
            if not classes.is_dir():
                _compile(sources, lib, classes)
    return f"{classes}:{lib}/*"


def _compile(sources: list[Path], lib: Path, classes: Path) -> None:
    partial = classes.with_name(classes.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    command = [java_tool("javac"), "-proc:none", "-nowarn", "-encoding", "UTF-8", "-d", str(partial), "-cp", f"{lib}/*"]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the witness does not compile:\n{done.stderr}")
    partial.rename(classes)
