"""``make demo``: two real clusters, a two-way task, real producers on both sides, one cluster lost, and what came of it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from deploy.local.cluster import LocalCluster, start_clusters, stop_clusters
from deploy.local.problems import LabProblem
from tests.acceptance.process import TWO_WAY, ReplicatorProcess, cluster_yaml, task_yaml
from tests.acceptance.truth import stamp_of
from tests.witness.client import Witness
from tests.witness.rows import Seen

TOPIC = "orders"
MESSAGES = 5_000
CATCH_UP_SECONDS_MAX = 120
LATE = 500
POLL_SECONDS = 0.5
QUIET_SECONDS = 30  # a push consumer that misses its first rebalance gets its queues up to 20 s later


def say(text: str) -> None:
    print(text, flush=True)


def produce(witness: Witness, cluster: LocalCluster) -> int:
    """Ordinary, ordered, delayed and transactional messages from official clients; returns how many become visible."""
    servers, name = cluster.name_servers, cluster.name
    witness.bulk(servers, TOPIC, MESSAGES, prefix=f"{name}-bulk", with_keys=True)
    witness.produce(servers, TOPIC, 100, kind="ordered", prefix=f"{name}-ordered")
    witness.produce(servers, TOPIC, 10, kind="delay", prefix=f"{name}-delayed")
    witness.produce(servers, TOPIC, 20, kind="transaction", prefix=f"{name}-committed")
    witness.produce(servers, TOPIC, 10, kind="transaction", prefix=f"{name}-rolled-back", decision="rollback")
    return MESSAGES + 130


def judge(rows: list[Seen], name: str, expected: dict[str, int]) -> list[str]:
    """What is wrong with what stands in a cluster; empty where all is right."""
    problems = []
    doubled = sum(count - 1 for count in Counter(row.keys for row in rows).values())
    copies = [row for row in rows if stamp_of(row) is not None]
    other = next(each for each in expected if each != name)
    if doubled:
        problems.append(f"{name}: {doubled} messages stand there twice")
    if len(copies) != expected[other] or len(rows) != sum(expected.values()):
        wanted = f"{sum(expected.values())} and {expected[other]}"
        problems.append(f"{name}: {len(rows)} messages, {len(copies)} of them copies, instead of {wanted}")
    if any(row.user_properties.get("origin") != other for row in copies):
        problems.append(f"{name}: copies without their origin tag")
    by_place: dict[tuple[str, int], int] = {}
    for row in copies:
        stamp = stamp_of(row)
        assert stamp is not None
        source = (stamp.hop.place.queue.broker_name, stamp.hop.place.queue.queue_id)
        if stamp.hop.offset <= by_place.get(source, -1):
            problems.append(f"{name}: order broken at {row.keys}")
        by_place[source] = stamp.hop.offset
    return problems


def lose_a_region(witness: Witness, process: ReplicatorProcess, lost: LocalCluster, kept: LocalCluster, total: int) -> list[str]:
    """A group works in one cluster, the cluster dies, the group goes on in the other. What is wrong with what it saw."""
    group = "billing"
    with witness.start_consumer(lost.name_servers, TOPIC, group) as consumer:
        consumer.wait(expect=total, timeout_seconds=CATCH_UP_SECONDS_MAX)
        wait_for(lambda: committed(process, lost, kept, group, "source") == total, "the group's last commit")
        # In a two-way task a group is carried once its members were seen: before, it may be one for local messages only.
        wait_for(lambda: is_carried(process, lost, kept, group), "what the group subscribes to")
    processed = {row.keys for row in consumer.seen}
    say(f"  group {group} has processed {len(processed)} messages in {lost.name}; {LATE} more arrive, and nobody processes them …")
    witness.bulk(lost.name_servers, TOPIC, LATE, prefix="late", with_keys=True)
    process.wait_caught_up(CATCH_UP_SECONDS_MAX)
    wait_for(lambda: committed(process, lost, kept, group, "destination") is not None, "the group's progress over there")
    lost.kill_broker()
    lost.kill_name_server()
    say(f"… {lost.name} is gone (kill -9). `replicator failover run orders --failed {lost.name} --destination {kept.name}`:")
    done = process.command("failover", "run", "orders", "--failed", lost.name, "--destination", kept.name, "--yes")
    say("".join(f"    {line}\n" for line in (done.stdout + done.stderr).splitlines()).rstrip())
    seen = [row.keys for row in witness.take(kept.name_servers, TOPIC, group, total + LATE)]
    again = len(set(seen) & processed)
    missing = LATE - len(set(seen) - processed)
    say(f"  group {group} goes on in {kept.name}: {len(seen)} messages, {missing} missing, {again} seen again")
    return [f"failover: {len(seen)} messages, {missing} missing, {again} seen again"] if missing or again or len(seen) != LATE else []


def committed(process: ReplicatorProcess, lost: LocalCluster, kept: LocalCluster, group: str, side: str) -> int | None:
    """The sum of the group's offsets on one side (``source`` or ``destination``), None before its first."""
    answer = process.answer_of("groups", "list", "orders", "--source", lost.name, "--destination", kept.name)
    offsets = [sum(row[f"{side}_offsets"].values()) for row in answer["groups"] if row["group"] == group and row[f"{side}_offsets"]]
    return sum(offsets) if offsets else None


def is_carried(process: ReplicatorProcess, lost: LocalCluster, kept: LocalCluster, group: str) -> bool:
    answer = process.answer_of("groups", "list", "orders", "--source", lost.name, "--destination", kept.name)
    return any(row["group"] == group and row["carried"] == "synced" for row in answer["groups"])


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
    while not is_so():
        if time.monotonic() > deadline:
            raise LabProblem(f"{what} did not come within {CATCH_UP_SECONDS_MAX} s")
        time.sleep(POLL_SECONDS)


def demonstrate(folder: Path) -> int:
    began = time.monotonic()
    clusters = [LocalCluster("hangzhou"), LocalCluster("shanghai")]
    say("Starting two RocketMQ clusters (the first time their jars are fetched by Maven) …")
    start_clusters(*clusters)
    process: ReplicatorProcess | None = None
    try:
        with Witness() as witness:
            witness.create_topic(clusters[0].name_servers, TOPIC, queues=8)
            file = folder / "demo.yaml"
            documents = [cluster_yaml(cluster.name, cluster.name_servers) for cluster in clusters]
            file.write_text("---\n".join([*documents, task_yaml("orders", TOPIC, TWO_WAY)]))
            say(f"Clusters are up after {time.monotonic() - began:.0f} s. The task:\n\n{file.read_text()}")
            process = ReplicatorProcess(file, folder / "data")
            process.start()
            process.wait_ready()
            process.wait_topic(witness, clusters[1].name_servers, TOPIC)
            say("`replicator run` is ready, with Postgres embedded. Official Java producers write on both sides …")
            expected = {cluster.name: produce(witness, cluster) for cluster in clusters}
            say("… now the replicator is killed (kill -9) and started again …")
            process.kill()
            process.start()
            process.wait_ready()
            total = sum(expected.values())
            status = process.wait_caught_up(CATCH_UP_SECONDS_MAX, copied_at_least=total)
            for flow in status["tasks"][0]["flows"]:
                say(
                    f"  {flow['source']:>9} -> {flow['destination']:<9} {flow['state']}, lag {flow['lag_messages']}, "
                    f"copied {flow['copied_total']}, not sent back {flow['skipped_total']['loop']}"
                )
            problems = []
            for cluster in clusters:
                rows = witness.drain(cluster.name_servers, TOPIC, expect=total)
                problems += judge(rows, cluster.name, expected)
                say(f"  {cluster.name}: {len(rows)} messages, read by the official Java client")
            for expression, count in (("origin = 'hangzhou'", expected["hangzhou"]), ("origin IS NULL", expected["shanghai"])):
                seen = witness.consume(
                    clusters[1].name_servers, TOPIC, f"demo-{len(expression)}", expect=count, expression=expression,
                    expression_type="SQL92", from_first=True, quiet_seconds=QUIET_SECONDS,
                )
                say(f"  a consumer in shanghai with \"{expression}\" sees {len({row.keys for row in seen})} of {count}")
                if len({row.keys for row in seen}) != count:
                    problems.append(f"consumer with {expression}: {len(seen)} instead of {count}")
            problems += lose_a_region(witness, process, clusters[0], clusters[1], total)
            say(f"Stopped in {process.stop():.1f} s.")
    finally:
        if process is not None:
            process.end()
        stop_clusters(*clusters)
    for problem in problems:
        say(f"WRONG: {problem}")
    well = "Every message is on the other side once, in order, with its origin, none came back; consumers went on exactly where they were"
    verdict = "Something is wrong" if problems else well
    say(f"{verdict}. {time.monotonic() - began:.0f} s in all.")
    return 1 if problems else 0


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="replicator-demo-") as folder:
            return demonstrate(Path(folder))
    except LabProblem as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
