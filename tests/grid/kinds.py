"""Every kind of message a version of RocketMQ knows, from the official client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from deploy.local import LocalCluster
from tests.witness.client import Witness

PROPERTIES = [{"region": "cn", "amount": "{i}", "ключ": "значение {i}"}, {"region": "eu", "empty-soon": "x"}, {}]
TAGS = ["TagA", None]
ROLLED_BACK = frozenset({"rollback", "check-rollback"})
CHECKED_SECONDS_MAX = 120.0
"""Until the broker has asked about every transaction that was left open."""

Kind = tuple[str, int, dict[str, object]]
EVERYWHERE: tuple[Kind, ...] = (
    ("normal", 60, {}),
    ("ordered", 60, {}),
    ("batch", 60, {}),
    ("delay", 10, {}),
    ("transaction", 10, {}),
    ("transaction", 5, {"decision": "check"}),
    ("transaction", 5, {"decision": "rollback"}),
    ("transaction", 5, {"decision": "check-rollback"}),
    ("compressed", 20, {}),
)
FROM_5: tuple[Kind, ...] = (
    ("timer", 5, {}),
    ("timer", 5, {"timer": "delay_ms"}),
    ("timer", 5, {"timer": "delay_seconds"}),
    ("compressed", 10, {"compression": "LZ4"}),
    ("compressed", 10, {"compression": "ZSTD"}),
)


def kinds_of(version: str) -> tuple[Kind, ...]:
    return EVERYWHERE if version.startswith("4.") else EVERYWHERE + FROM_5


def produce_every_kind(witness: Witness, cluster: LocalCluster, topic: str, bulk: int) -> int:
    """Sends all of them and ``bulk`` small ones in batches, all with keys of their own; returns how many have to become visible."""

    def send(kind: Kind) -> int:
        name, count, options = kind
        prefix = "-".join((cluster.name, name, *map(str, options.values())))
        witness.produce(
            cluster.name_servers, topic, count, kind=name, prefix=prefix, properties=PROPERTIES, tags=TAGS, with_keys=True, **options
        )
        return 0 if options.get("decision") in ROLLED_BACK else count

    with ThreadPoolExecutor(2) as pool:
        visible = sum(pool.map(send, kinds_of(cluster.version)))
    if bulk:
        witness.bulk(cluster.name_servers, topic, bulk, prefix=f"{cluster.name}-bulk", with_keys=True, body_bytes=128)
    return visible + bulk
