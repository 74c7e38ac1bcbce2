"""``python -m deploy.local fetch VERSION…`` and ``python -m deploy.local up --clusters hangzhou,shanghai``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from deploy.local.cluster import LocalCluster, start_clusters, stop_clusters
from deploy.local.jars import DEFAULT_VERSION, VERSIONS, fetch_jars
from deploy.local.problems import LabProblem

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "fetch":
            for version in options.versions:
                print(fetch_jars(version))
        else:
            _up(options)
    except LabProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="RocketMQ on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="fetch RocketMQ's jars into the cache")
    fetch.add_argument("versions", nargs="*", default=[DEFAULT_VERSION], metavar="VERSION", help=", ".join(VERSIONS))
    up = commands.add_parser("up", help="run clusters until a signal; prints their addresses as one line of JSON")
    up.add_argument("--clusters", default="hangzhou,shanghai", help="names, separated by commas")
    up.add_argument("--version", default=DEFAULT_VERSION, help=", ".join(VERSIONS))
    up.add_argument("--brokers", type=int, default=1, help="brokers of each cluster")
    up.add_argument("--directory", type=Path, help="keep stores and logs below this folder (default: temporary)")
    up.add_argument("--auto-create-topics", action="store_true", help="let brokers create topics on first use")
    return parser


def _up(options: argparse.Namespace) -> None:
    # A signal during the start is remembered and ends things tidily once everything stands.
    stopping = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    clusters = [
        LocalCluster(
            name,
            version=options.version,
            brokers=options.brokers,
            directory=options.directory / name if options.directory else None,
            auto_create_topics=options.auto_create_topics,
        )
        for name in options.clusters.split(",")
    ]
    start_clusters(*clusters)
    try:
        print(json.dumps({cluster.name: _described(cluster) for cluster in clusters}), flush=True)
        stopping.wait()
    finally:
        stop_clusters(*clusters)


def _described(cluster: LocalCluster) -> dict[str, object]:
    return {
        "name_servers": cluster.name_servers,
        "brokers": dict(zip(cluster.broker_names, cluster.broker_addresses, strict=True)),
        "pids": cluster.pids,
        "directory": str(cluster.directory),
    }


if __name__ == "__main__":
    sys.exit(main())
