"""One pair of clusters: everything is sent at the source, copied by the product, and judged at the destination by the official client."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.local import LocalCluster
from tests.acceptance.process import ReplicatorProcess, one_way, task_yaml
from tests.acceptance.truth import Comparison, compare
from tests.grid.kinds import CHECKED_SECONDS_MAX, produce_every_kind
from tests.integration.conftest import PATIENT
from tests.witness.client import Witness
from tests.witness.rows import Seen

QUEUES = 4
LOCAL = 20
"""Born at the destination in the end: what a consumer of the origin's messages must not see."""
TAKEN = (0, 1, 37, 1_000_000)
"""How many messages of each queue the stopped group has processed at the source; the last: all of them."""
COPIED_SECONDS_MAX = 180.0
SQL92_SECONDS_MAX = 120.0
CHECKED_ONCE = {"transactionCheckInterval": 15_000}
"""5.x notes down what became of a transaction up to 3 s later: asked again before that, it commits a second time."""
GRID_BROKER = PATIENT | CHECKED_ONCE
MANUAL = "  progress: {sync: manual}\n"


@dataclass(slots=True)
class Pair:
    source: LocalCluster
    destination: LocalCluster
    topic: str = field(default_factory=lambda: f"grid-{uuid.uuid4().hex[:8]}")

    @property
    def task(self) -> str:
        return f"{self.source.name}-{self.destination.name}"

    @property
    def group(self) -> str:
        return f"{self.topic}-stopped"

    def create_topic(self, witness: Witness) -> None:
        """At the source, ``QUEUES`` in all; the other side's is the product's to create."""
        witness.create_topic(self.source.name_servers, self.topic, queues=QUEUES // len(self.source.broker_names))

    def document(self) -> str:
        return task_yaml(self.task, self.topic, one_way(self.source.name, self.destination.name) + MANUAL)


@dataclass(frozen=True, slots=True)
class Outcome:
    source: str
    destination: str
    sent: int
    compared: Comparison
    parked: int
    left: int
    """What the stopped group had not processed at the source."""
    seen_again: int
    not_seen: int
    """Of these, what it was not given at the destination."""
    filtered: int
    """What a consumer of ``origin = '<source>'`` saw wrongly or not at all."""

    @property
    def is_exact(self) -> bool:
        flaws = (self.compared, self.parked, self.seen_again, self.not_seen, self.filtered)
        return self.sent > 0 and self.left > 0 and flaws == (Comparison(0, 0, 0, 0, 0), 0, 0, 0, 0)


HEADINGS = (
    "source", "destination", "messages", "missing", "doubled", "out of order", "different", "parked",
    "SQL92 on origin: wrong", "stopped group: left", "seen again", "skipped",
)  # fmt: skip


def row_of(outcome: Outcome) -> str:
    compared = outcome.compared
    cells = (
        outcome.source, outcome.destination, outcome.sent, compared.missing, compared.doubled + compared.strange, compared.disordered,
        compared.different, outcome.parked, outcome.filtered, outcome.left, outcome.seen_again, outcome.not_seen,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def table_of(outcomes: Sequence[Outcome]) -> str:
    head = ("| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS))
    return "\n".join((*head, *map(row_of, outcomes)))


def judge(pair: Pair, witness: Witness, process: ReplicatorProcess, bulk: int) -> Outcome:
    """Sends, waits, judges. The process runs, and has this pair's task."""
    source, destination = pair.source, pair.destination
    process.wait_topic(witness, destination.name_servers, pair.topic)
    sent = produce_every_kind(witness, source, pair.topic, bulk)
    born = _drained(witness, source, pair.topic, sent)
    flow = process.wait_flow(
        f"caught up: {pair.task}", lambda flow: flow["copied_total"] >= len(born) and flow["lag_messages"] == 0, COPIED_SECONDS_MAX,
        source=source.name,
    )
    copies = _drained(witness, destination, pair.topic, len(born))
    left, seen_again, not_seen = _stopped_group(pair, witness, process, born)
    return Outcome(
        source.version, destination.version, len(born), compare(born, copies, {"origin": source.name}), flow["parked"],
        left, seen_again, not_seen, _filtered(pair, witness, born),
    )


def _drained(witness: Witness, cluster: LocalCluster, topic: str, expect: int) -> list[Seen]:
    return witness.drain(cluster.name_servers, topic, expect=expect, timeout_seconds=CHECKED_SECONDS_MAX)


def _stopped_group(pair: Pair, witness: Witness, process: ReplicatorProcess, born: Sequence[Seen]) -> tuple[int, int, int]:
    """Processes a part at the source, stops, has its progress carried over, and goes on at the destination."""
    source, destination = pair.source, pair.destination
    witness.create_group(source.name_servers, pair.group)
    processed: Counter[str | None] = Counter()
    for index, (broker, queue) in enumerate(sorted(witness.offsets(source.name_servers, pair.topic))):
        taken = witness.take(source.name_servers, pair.topic, pair.group, TAKEN[index], broker=broker, queue=queue)
        processed.update(row.keys for row in taken)
    done = process.command(
        "groups", "sync", pair.task, "--source", source.name, "--destination", destination.name, "--group", pair.group, "--yes"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rest = Counter(row.keys for row in witness.take(destination.name_servers, pair.topic, pair.group, 2 * len(born)))
    left = Counter(row.keys for row in born) - processed
    return left.total(), (rest - left).total(), (left - rest).total()


def _filtered(pair: Pair, witness: Witness, born: Sequence[Seen]) -> int:
    """A push consumer of what was born at the source, among messages that were not."""
    destination = pair.destination
    witness.produce(destination.name_servers, pair.topic, LOCAL, prefix="local", with_keys=True)
    seen = witness.consume(
        destination.name_servers, pair.topic, f"{pair.topic}-filtered", expect=len(born), quiet_seconds=20,
        timeout_seconds=SQL92_SECONDS_MAX, expression=f"origin = '{pair.source.name}'", expression_type="SQL92",
    )
    expected = {(row.keys, row.sha256) for row in born}
    return len({(row.keys, row.sha256) for row in seen} ^ expected)
