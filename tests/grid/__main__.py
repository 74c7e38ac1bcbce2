"""``make grid``: every supported version as a source of every supported version, judged by the official client.

Four sources run all the while, one destination after the other; one ``replicator run`` for each destination carries all four
flows. Prints a table in Markdown, one row a pair; ends with 1 where a pair is not exact. Arguments: the destinations' versions,
all by default.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from deploy.local import LocalCluster, start_clusters, stop_clusters
from deploy.local.jars import VERSIONS
from tests.acceptance.process import ReplicatorProcess, cluster_yaml
from tests.grid.pair import GRID_BROKER, QUEUES, Outcome, Pair, judge, table_of
from tests.witness.client import Witness, WitnessProblem

BULK = 300
READY_SECONDS_MAX = 300.0
"""Ten JVMs that begin at once on a small machine take their time."""


def name_of(prefix: str, version: str) -> str:
    return f"{prefix}-{version.replace('.', '')}"


def copied_to(version: str, sources: Sequence[LocalCluster], witness: Witness, folder: Path) -> list[Outcome]:
    """Starts a destination of that version and copies to it from every source."""
    with LocalCluster(name_of("to", version), version=version, broker_properties=GRID_BROKER) as destination:
        pairs = [Pair(source, destination) for source in sources]
        for pair in pairs:
            pair.create_topic(witness)
        clusters = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in (*sources, destination)]
        file = folder / f"{destination.name}.yaml"
        file.write_text("---\n".join([*clusters, *(pair.document() for pair in pairs)]))
        process = ReplicatorProcess(file, folder / destination.name)
        process.start()
        try:
            process.wait_ready(READY_SECONDS_MAX)
            outcomes = []
            for pair in pairs:
                try:
                    outcomes.append(judge(pair, witness, process, BULK))
                except (AssertionError, WitnessProblem, subprocess.TimeoutExpired) as problem:
                    print(f"{pair.task}: {problem}\n{process.tail()}", file=sys.stderr, flush=True)
                else:
                    print(outcomes[-1], file=sys.stderr, flush=True)
            process.assert_no_traceback()
            process.stop()
            return outcomes
        finally:
            process.end()


def main(versions: Sequence[str]) -> int:
    sources = [LocalCluster(name_of("from", version), version=version, broker_properties=GRID_BROKER) for version in VERSIONS]
    start_clusters(*sources)
    try:
        with Witness() as witness, tempfile.TemporaryDirectory(prefix="replicator-grid-") as folder:
            outcomes = [outcome for version in versions for outcome in copied_to(version, sources, witness, Path(folder))]
    finally:
        stop_clusters(*sources)
    print(f"{date.today().isoformat()}, official client {witness.version}, one broker a cluster, {QUEUES} queues\n")
    print(table_of(outcomes))
    exact = sum(outcome.is_exact for outcome in outcomes)
    print(f"\n{exact} of {len(versions) * len(VERSIONS)} pairs exact")
    return 0 if exact == len(versions) * len(VERSIONS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or VERSIONS))
