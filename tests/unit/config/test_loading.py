from __future__ import annotations

from pathlib import Path

import pytest

from replicator.config import FILE_BYTES_MAX, load_documents, load_files
from replicator.core.errors import InvalidInput
from replicator.core.task import Cluster, ProgressSpec, StartPoint, TagRuleSpec

CLUSTER = """\
apiVersion: replicator/v1
kind: Cluster
metadata: {name: hangzhou}
spec:
  connector: rocketmq
  region: cn-hangzhou
  rocketmq:
    name_servers: ["127.0.0.1:9876"]
    access_key: {env: HZ_ACCESS_KEY}
    secret_key: {file: /run/secrets/hz}
    tls: {enabled: true, ca_file: ca.pem}
    address_map: {"10.0.0.5:10911": "hz-b1.example.com:31911"}
"""
TASK = """\
apiVersion: replicator/v1
kind: ReplicationTask
metadata: {name: orders}
spec:
  mode: two-way
  clusters: [hangzhou, shanghai]
  topics:
    include: ["orders", "pay-*"]
    exclude: []
    rename: {}
    create: true
  start: {timestamp: 2026-11-21T00:00:00Z}
  tags:
    - {key: origin, value: "{origin}"}
    - {key: tier, value: gold, when: {topic: "pay-*", property: {name: level, equals: "1"}}}
  filter: "region = 'cn' OR amount > 100"
  delayed: when-delivered
  retry: false
  relay: false
  progress: {groups: {include: ["pay*"], exclude: [pay-x], local: [pay-y]}, sync: manual, interval_seconds: 7}
  limits: {messages_per_second: 10000, bytes_per_second: 50MiB}
  tune_source: false
  on_refused: park
  on_history_change: stop
"""


def write(folder: Path, text: str | bytes, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems_of(folder: Path, text: str | bytes, known: tuple[str, ...] | None = None) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(InvalidInput) as raised:
        load_files([write(folder, text)], known)
    return raised.value.message.replace(f"{folder}/", "").splitlines()


def test_the_example_of_the_contract(tmp_path: Path) -> None:
    loaded = load_files([write(tmp_path, f"---\n{CLUSTER}---\n{TASK}---\n")], known_clusters=["shanghai"])
    assert loaded.clusters == [
        Cluster(
            "hangzhou",
            "rocketmq",
            {
                "name_servers": ["127.0.0.1:9876"],
                "access_key": {"env": "HZ_ACCESS_KEY"},
                "secret_key": {"file": "/run/secrets/hz"},
                "tls": {"enabled": True, "ca_file": "ca.pem"},
                "address_map": {"10.0.0.5:10911": "hz-b1.example.com:31911"},
            },
            "cn-hangzhou",
        )
    ]
    (task,) = loaded.tasks
    assert task.flows == (("hangzhou", "shanghai"), ("shanghai", "hangzhou"))
    assert task.include == ("orders", "pay-*")
    assert task.start == StartPoint("timestamp", timestamp_ms=1_795_219_200_000)
    assert task.tags == (TagRuleSpec("origin", "{origin}"), TagRuleSpec("tier", "gold", "pay-*", "level", "1"))
    assert task.filter == "region = 'cn' OR amount > 100"
    assert (task.messages_per_second_max, task.bytes_per_second_max) == (10_000, 50 * 1024 * 1024)
    assert task.progress == ProgressSpec(("pay*",), ("pay-x",), ("pay-y",), "manual", 7)


def test_one_way_over_several_files(tmp_path: Path) -> None:
    shanghai = CLUSTER.replace("hangzhou}", "shanghai}")
    task = TASK.replace("two-way", "one-way").replace("clusters: [hangzhou, shanghai]", "source: hangzhou\n  destinations: [shanghai]")
    task = task.replace("rename: {}", "rename: {orders: orders-hz}")
    paths = [write(tmp_path, CLUSTER, "a"), write(tmp_path, shanghai, "b"), write(tmp_path, task, "c")]
    loaded = load_files(paths, known_clusters=())
    assert [cluster.name for cluster in loaded.clusters] == ["hangzhou", "shanghai"]
    assert loaded.tasks[0].clusters == ("hangzhou", "shanghai")
    assert loaded.tasks[0].rename == {"orders": "orders-hz"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("relay: false", "rellay: false", "f.yaml:19: spec.rellay: unknown key (did you mean relay?)"),
        ("    create: true", "    creat: true", "f.yaml:11: spec.topics.creat: unknown key (did you mean create?)"),
        ("equals: ", "equal: ", "f.yaml:15: spec.tags[1].when.property.equal: unknown key (did you mean equals?)"),
        ("create: true", "create: 1", "f.yaml:11: spec.topics.create: Input should be a valid boolean"),
        ("messages_per_second: 10000", 'messages_per_second: "10"', "messages_per_second: Input should be a valid integer"),
        ("50MiB", "50 monkeys", "f.yaml:21: spec.limits.bytes_per_second: a size is"),
        ("relay: false", "relay: false\n  relay: true", "f.yaml:20: spec.relay: duplicate key, first on line 19"),
        ("replicator/v1", "replicator/v2", "f.yaml:1: apiVersion: unknown; this version knows replicator/v1"),
        ("kind: ReplicationTask", "kind: ReplicatonTask", "f.yaml:2: kind: unknown kind 'ReplicatonTask'"),
        ("name: orders", "name: Orders_1", "f.yaml:3: metadata.name: a name is 1 to 40 characters"),
        ("two-way", "two-wai", "(did you mean two-way?)"),
        ("two-way", "one-way", "f.yaml:6: spec.clusters: has no meaning where mode is one-way"),
        ("[hangzhou, shanghai]", "[hangzhou]", "f.yaml:6: spec.clusters: at least 2 required"),
        ("[hangzhou, shanghai]", "[a,\n   a]", "f.yaml:7: spec.clusters[1]: a is named twice"),
        ("rename: {}", "rename: {a: b}", "f.yaml:10: spec.topics.rename: one-way only"),
        ('"pay-*"', '\n      "pay-?"', "f.yaml:9: spec.topics.include[1]: topic pattern 'pay-?'"),
        ('["orders", "pay-*"]', "[]", "f.yaml:8: spec.topics.include: "),
        ("start: {timestamp: 2026-11-21T00:00:00Z}", "start: earlyest", "f.yaml:12: spec.start: expected latest"),
        ("00:00:00Z", "00:00:00", "f.yaml:12: spec.start: timestamp is ISO 8601 with a time zone"),
        ('"{origin}"', '"{orign}"', "f.yaml:14: spec.tags[0]: value '{orign}': unknown field {orign}"),
        ("key: tier", "key: KEYS", "f.yaml:15: spec.tags[1]: key 'KEYS': RocketMQ uses this property itself"),
        ("amount > 100", "amount >", "f.yaml:16: spec.filter: character 26: expected"),
        ("when-delivered", "ahead", "f.yaml:17: spec.delayed: ahead: not available in this version"),
        ("retry: false", "retry: 1", "f.yaml:18: spec.retry: Input should be a valid boolean"),
        ("sync: manual", "sync: automatically", "f.yaml:20: spec.progress.sync: expected 'automatic' or 'manual'"),
        ("interval_seconds: 7", "interval_seconds: 0", "f.yaml:20: spec.progress.interval_seconds: Input should be greater"),
        ("pay-y", "'pay y'", "f.yaml:20: spec.progress.groups.local[0]: group pattern 'pay y'"),
        ("delayed: when-delivered", 'delayed: "when\\0"', "f.yaml:17: spec.delayed: holds characters that cannot be stored"),
        ("exclude: []", "exclude: !!python/name:os []", "f.yaml:9: spec.topics.exclude: the tag"),
        ("  exclude: []", "  1: []", "f.yaml:9: spec.topics: the key 1 is not text: put it in quotes"),
        ("exclude: []", "exclude: [", "f.yaml:1"),
    ],
)
def test_what_is_wrong_in_a_task_is_told_with_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in TASK
    found = problems_of(tmp_path, TASK.replace(old, new, 1))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{env: HZ_ACCESS_KEY}", "hunter2", "f.yaml:9: spec.rocketmq.access_key: a secret must not stand in the file"),
        ("    name_servers", "    name_server", "f.yaml:8: spec.rocketmq.name_server: unknown key (did you mean name_servers?)"),
        ("ca_file", "cafile", "f.yaml:11: spec.rocketmq.tls.cafile: unknown key (did you mean ca_file?)"),
        ("connector: rocketmq", "connector: rocketm", "f.yaml:5: spec.connector: unknown connector 'rocketm' (did you mean rocketmq?)"),
        ("  rocketmq:\n", "  rocketqm:\n", "f.yaml:7: spec.rocketqm: unknown key (did you mean rocketmq?)"),
        ("region: cn", "regoin: cn", "f.yaml:6: spec.regoin: unknown key (did you mean region?)"),
        ("  connector: rocketmq\n", "", "spec.connector: required"),
    ],
)
def test_what_is_wrong_in_a_cluster_is_told_with_its_line(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in CLUSTER
    found = problems_of(tmp_path, CLUSTER.replace(old, new, 1))
    assert any(problem in line for line in found), found
    assert "hunter2" not in "".join(found)


def test_a_misspelt_connector_is_the_only_problem_told(tmp_path: Path) -> None:
    assert len(problems_of(tmp_path, CLUSTER.replace("connector: rocketmq", "connector: rocketm"))) == 1


def test_every_problem_of_every_document_is_told_at_once(tmp_path: Path) -> None:
    text = CLUSTER.replace("region", "regoin") + "---\n" + TASK.replace("retry: false", "retry: often")
    assert [line.split(": ")[0] for line in problems_of(tmp_path, text)] == ["f.yaml:6", "f.yaml:31"]


def test_a_dangling_cluster_is_told_only_where_all_are_known(tmp_path: Path) -> None:
    assert load_files([write(tmp_path, TASK)]).tasks[0].clusters == ("hangzhou", "shanghai")
    assert problems_of(tmp_path, TASK, ("hangzhou", "shanghai-2")) == [
        "f.yaml:6: spec.clusters[1]: no cluster shanghai (did you mean shanghai-2?)"
    ]


def test_a_name_declared_twice(tmp_path: Path) -> None:
    assert problems_of(tmp_path, f"{TASK}---\n{TASK}") == [
        "f.yaml:28: metadata.name: ReplicationTask orders is declared twice, first at f.yaml:3"
    ]


def test_aliases_depth_and_size_are_bounded(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "a: &x [1]\nb: *x\n") == ["f.yaml:2: aliases are not allowed"]
    assert problems_of(tmp_path, "a:\n  " + "[" * 5000) == ["f.yaml:2: nested deeper than 32 levels"]
    assert problems_of(tmp_path, b"#" * (FILE_BYTES_MAX + 1)) == [f"f.yaml: larger than {FILE_BYTES_MAX} bytes"]


def test_what_is_no_yaml_document(tmp_path: Path) -> None:
    assert problems_of(tmp_path, b"a: b\nc: \xff\n") == ["f.yaml:2: not UTF-8 text"]
    assert problems_of(tmp_path, "a: b\nc: \x07\n") == ["f.yaml:2: a character that cannot stand in YAML"]
    assert problems_of(tmp_path, "# nothing\n") == ["f.yaml:1: holds no document"]
    assert problems_of(tmp_path, "\n- a\n") == ["f.yaml:2: expected a mapping with apiVersion, kind, metadata and spec"]
    with pytest.raises(InvalidInput, match=r"absent\.yaml: cannot be read: No such file"):
        load_files([tmp_path / "absent.yaml"])


def test_json_documents_are_named_by_their_place() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidInput) as raised:
        load_documents([{"apiVersion": "replicator/v1", "kind": "Cluster", "spec": {}}, 7, {"a": deep}])
    lines = raised.value.message.splitlines()
    assert "documents[0]: metadata: required" in lines
    assert "documents[1]: expected a mapping with apiVersion, kind, metadata and spec" in lines
    assert any(line.startswith("documents[2]: a[0][0]: nested deeper") for line in lines)
