"""Drives the witness: one JVM for a whole test run, since starting one costs seconds."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from deploy.local.jars import DEFAULT_VERSION, java_tool
from tests.witness.build import witness_class_path
from tests.witness.rows import Filled, QueueProgress, Seen, Sent

ANSWER_SECONDS_MAX = 280.0
CLOSE_SECONDS_MAX = 10.0
MEMORY = ("-Xms128m", "-Xmx1g", "-XX:MaxDirectMemorySize=512m")


class WitnessProblem(Exception):  # noqa: N818
    """The official client refused or failed; the message is its exception."""


class Witness:
    """Official producers, consumers and administration for any number of clusters, named by their name servers.

    Every method blocks until done and may be called from several threads at once; :meth:`submit` starts a command and
    returns its future. *keys* of message ``i`` are ``<prefix>-<i>``, and its body begins with the same text. With an
    *account* (access key, secret key) every request is signed.
    """

    def __init__(
        self, version: str = DEFAULT_VERSION, account: tuple[str, str] | None = None, jvm_options: Sequence[str] = ()
    ) -> None:
        self.version = version
        self._account = [f"-Dwitness.accessKey={account[0]}", f"-Dwitness.secretKey={account[1]}"] if account else []
        self._jvm_options = tuple(jvm_options)
        self.system_properties: frozenset[str] = frozenset()
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="replicator-witness-")
        home = self._folder.name
        self._errors = Path(home, "errors.log").open("wb")
        command = [java_tool("java"), *MEMORY, "-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Duser.home={home}", f"-Drocketmq.home.dir={home}"]
        command += [*self._account, *self._jvm_options, "-cp", witness_class_path(self.version), "witness.Main"]
        # The witness ends when its input does, so it cannot outlive us however we end.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read_answers, name="witness-answers", daemon=True)
        self._reader.start()
        self.system_properties = frozenset(self.call("hello")["system_properties"])
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        if self._errors is not None:
            self._errors.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _read_answers(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["id"])
            if "problem" in answer:
                waiting.set_exception(WitnessProblem(answer["problem"]))
            else:
                waiting.set_result(answer["result"])
        with self._lock:
            left, self._waiting = self._waiting, {}
        for waiting in left.values():
            waiting.set_exception(WitnessProblem(f"the witness ended: {self.errors()[-2000:]}"))

    def errors(self) -> str:
        """What the JVM printed besides its answers."""
        assert self._folder is not None
        return Path(self._folder.name, "errors.log").read_text(errors="replace")

    def submit(self, command: str, **arguments: Any) -> Future[Any]:
        assert self._process is not None, "the witness has not been started"
        assert self._process.stdin is not None
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._ids)
            self._waiting[number] = future
            self._process.stdin.write(json.dumps({"id": number, "command": command, "arguments": arguments}).encode() + b"\n")
            self._process.stdin.flush()
        return future

    def call(self, command: str, **arguments: Any) -> Any:
        """Runs a command and returns its result; raises WitnessProblem with the client's own exception."""
        return self.submit(command, **arguments).result(ANSWER_SECONDS_MAX)

    def _call_for_rows(self, command: str, **arguments: Any) -> list[dict[str, Any]]:
        assert self._folder is not None
        rows_file = Path(self._folder.name, f"rows-{next(self._ids)}.jsonl")
        try:
            self.call(command, rows_file=str(rows_file), **arguments)
            with rows_file.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        finally:
            rows_file.unlink(missing_ok=True)

    def produce(
        self,
        name_servers: str,
        topic: str,
        count: int,
        *,
        kind: str = "normal",
        prefix: str = "m",
        first: int = 0,
        tags: str | Sequence[str | None] | None = None,
        properties: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        **options: Any,
    ) -> list[Sent]:
        """Sends messages ``first … first+count-1`` one after another, spread over the queues in turn.

        *kind*: ``normal``, ``ordered`` (*ordering_keys*, default 3; property ``ordering_key``), ``batch`` (*batch_size*, 10),
        ``delay`` (*delay_level*, 1), ``timer`` (*after_ms*, 1000; *timer*: ``deliver_at``, ``delay_ms``, ``delay_seconds``),
        ``transaction`` (*decision*: ``commit``, ``rollback``, or ``check``, ``check-rollback``: decided when the broker asks),
        ``compressed`` (*compression*: ``ZLIB``, ``LZ4``, ``ZSTD``; 8 KiB unless *body_bytes* says otherwise).
        Lists of *tags* and *properties* are gone through in turn; ``{i}`` in a property's value becomes the index.
        Further options: *body_bytes*, *with_keys*, *broker* and *queue* (send only there), *per_second* (pace),
        *keep_going* (note a failed send and go on instead of raising). The client refuses empty bodies.
        """
        defaults = {"ordering_keys": 3, "batch_size": 10, "delay_level": 1, "after_ms": 1000, "timer": "deliver_at"}
        defaults |= {"decision": "commit", "compression": "ZLIB", "body_bytes": 8192 if kind == "compressed" else 0}
        arguments = {
            **defaults,
            **options,
            "tags": [tags] if isinstance(tags, str) else list(tags or []),
            "properties": [dict(properties)] if isinstance(properties, Mapping) else [dict(each) for each in properties or []],
        }
        rows = self._call_for_rows(
            "produce", name_servers=name_servers, topic=topic, count=count, kind=kind, prefix=prefix, first=first, **arguments
        )
        return [Sent.of(row) for row in rows]

    def bulk(
        self, name_servers: str, topic: str, count: int, *, body_bytes: int = 0, batch_size: int = 32, prefix: str = "b", **options: Any
    ) -> list[Filled]:
        """Fills all queues fast with batches, message ``i`` into queue ``i mod n``, in order; bodies ``prefix-i`` and dots.

        Options: *first*, *with_keys* (default off), *broker*, *queue*.
        """
        arguments = {"body_bytes": body_bytes, "batch_size": batch_size, "prefix": prefix, "first": 0, **options}
        result = self.call("bulk", name_servers=name_servers, topic=topic, count=count, **arguments)
        return [Filled(**queue) for queue in result["queues"] if queue["count"]]

    def drain(self, name_servers: str, topic: str, *, expect: int = 0, timeout_seconds: float = 30.0, **options: Any) -> list[Seen]:
        """Everything each queue keeps, sorted by (broker, queue, offset); commits nothing.

        Reads again until *expect* messages are there or the time is over; check the length of what comes back.
        Options: *with_properties* (default on), *with_body* (off), *decompress* (on), *broker*, *queue*.
        """
        rows = self._call_for_rows(
            "drain", name_servers=name_servers, topic=topic, expect=expect, timeout_seconds=timeout_seconds, **options
        )
        return sorted((self._seen(row) for row in rows), key=lambda seen: seen.place)

    def consume(
        self,
        name_servers: str,
        topic: str,
        group: str,
        *,
        expect: int = 0,
        quiet_seconds: float = 3.0,
        timeout_seconds: float = 60.0,
        **options: Any,
    ) -> list[Seen]:
        """A push consumer until *expect* messages, *quiet_seconds* without one, or *timeout_seconds*; in order of arrival.

        What it saw is acknowledged and may be more than expected. Options as for :meth:`start_consumer`.
        """
        with self.start_consumer(name_servers, topic, group, timeout_seconds=timeout_seconds, **options) as consumer:
            consumer.wait(expect=expect, quiet_seconds=quiet_seconds, timeout_seconds=timeout_seconds)
        return consumer.seen

    def start_consumer(
        self, name_servers: str, topic: str, group: str, *, expression: str = "*", expression_type: str = "TAG", **options: Any
    ) -> PushConsumer:
        """Starts a push consumer and returns once it holds queues. *expression_type*: ``TAG`` or ``SQL92``.

        Options: *from_first* (default on), *orderly*, *fail_until_attempt* (answers RECONSUME_LATER until a message has
        been retried that often), *fail_by_tag* (so does each message tagged ``fail-N``, N times), *attempts_max*,
        *broadcast* (offsets stay in a file of the client), *with_properties*, *with_body*, *timeout_seconds* (for the queues).
        """
        handle = f"consumer-{next(self._ids)}"
        arguments = {"timeout_seconds": 60.0, **options, "expression": expression, "expression_type": expression_type}
        self.call("consumer_start", handle=handle, name_servers=name_servers, topic=topic, group=group, **arguments)
        return PushConsumer(self, handle)

    def take(
        self,
        name_servers: str,
        topic: str,
        group: str,
        count: int,
        *,
        expression: str = "*",
        expression_type: str = "TAG",
        **options: Any,
    ) -> list[Seen]:
        """Reads at most *count* messages from where *group* stands, queue after queue, and commits exactly those."""
        rows = self._call_for_rows(
            "take",
            name_servers=name_servers,
            topic=topic,
            group=group,
            count=count,
            expression=expression,
            expression_type=expression_type,
            **options,
        )
        return [self._seen(row) for row in rows]

    def create_topic(self, name_servers: str, topic: str, *, queues: int = 4, **options: Any) -> dict[str, str]:
        """Creates or changes a topic and waits until the route shows it; returns the addresses of its brokers by name.

        Options: *broker* (only there), *perm* (6), *order*, *message_type* (5.x: ``NORMAL``, ``FIFO``, ``DELAY``, ``TRANSACTION``).
        """
        brokers: dict[str, str] = self.call("create_topic", name_servers=name_servers, topic=topic, queues=queues, **options)["brokers"]
        return brokers

    def delete_topic(self, name_servers: str, topic: str) -> None:
        self.call("delete_topic", name_servers=name_servers, topic=topic)

    def create_group(self, name_servers: str, group: str) -> None:
        self.call("create_group", name_servers=name_servers, group=group)

    def topics(self, name_servers: str) -> list[str]:
        return list(self.call("topics", name_servers=name_servers))

    def offsets(self, name_servers: str, topic: str) -> dict[tuple[str, int], tuple[int, int]]:
        """``(min_offset, max_offset)`` by (broker, queue)."""
        rows = self.call("offsets", name_servers=name_servers, topic=topic)
        return {(row["broker"], row["queue"]): (row["min"], row["max"]) for row in rows}

    def consumer_progress(self, name_servers: str, group: str, topic: str | None = None) -> list[QueueProgress]:
        """As ``mqadmin consumerProgress``. Raises WitnessProblem for a group that the brokers do not know.

        Name the *topic* for a group that has offsets but never had a consumer: it has no retry topic to find it by.
        """
        return [QueueProgress(**row) for row in self.call("consumer_progress", name_servers=name_servers, group=group, topic=topic)]

    def set_progress(self, name_servers: str, topic: str, group: str, offset: int, **narrowed: Any) -> None:
        """Sets the group's offset in all queues, or in those of *broker* and *queue*."""
        self.call("set_progress", name_servers=name_servers, topic=topic, group=group, offset=offset, **narrowed)

    def mqadmin(self, *words: str) -> str:
        """Runs one command of the official mqadmin and returns what it prints; it fails in words only."""
        return str(self.call("mqadmin", words=list(words)))

    def _seen(self, row: dict[str, Any]) -> Seen:
        return Seen.of(row, self.system_properties)


class PushConsumer:
    """A running consumer of the witness; :attr:`seen` is filled by :meth:`stop`."""

    def __init__(self, witness: Witness, handle: str) -> None:
        self._witness = witness
        self._handle = handle
        self._is_running = True
        self.seen: list[Seen] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait(self, *, expect: int = 0, quiet_seconds: float = 0.0, timeout_seconds: float = 60.0) -> int:
        """Waits for a total of *expect* messages, a quiet time, or the limit; returns how many there are."""
        limits = {"expect": expect, "quiet_seconds": quiet_seconds, "timeout_seconds": timeout_seconds}
        return int(self._witness.call("consumer_wait", handle=self._handle, **limits)["count"])

    def stop(self) -> list[Seen]:
        """Shuts the consumer down in good order (its offsets are committed) and returns what it saw, as it came."""
        if self._is_running:
            self._is_running = False
            rows = self._witness._call_for_rows("consumer_stop", handle=self._handle)
            self.seen = [self._witness._seen(row) for row in rows]
        return self.seen
