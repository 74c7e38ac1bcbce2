"""Commands in this process, before a coordinator that notes what it was asked."""

import json
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from replicator.cli import files, operating
from replicator.cli.main import app
from replicator.core.errors import InvalidInput, Unsafe

FLOW = {
    "source": "hangzhou", "destination": "shanghai", "state": "running", "queues_by_state": {"running": 4}, "lag_messages": 1234,
    "lag_seconds": None, "copied_total": 5_000_000, "skipped_total": {"loop": 2, "filtered": 3}, "parked": 0, "rate_per_second": 10.0,
    "latency_ms": {"p50": 41.0, "p99": None}, "retention_headroom_seconds": None, "error": "",
}
STATUS = {"observed_at": "2026-11-21T00:00:00Z", "tasks": [{"name": "orders", "mode": "one-way", "state": "running", "flows": [FLOW]}]}
EVENTS = [{"at": "2026-11-21T00:00:00Z", "task": "orders", "kind": "created", "message": "by [someone]", "detail": {}}]


PREVIEW = {
    "task": "orders", "dry_run": True, "given_up_total": 4,
    "queues": [{
        "assignment_id": 17, "source": "a", "destination": "b",
        "source_queue": {"topic": "orders", "broker_name": "b-0", "queue_id": 2},
        "position": 3, "go_on_at": 7, "given_up": 4, "given_up_from": 3, "given_up_to": 6,
    }],
}


TRANSLATED = {
    "status": "skipped", "source_broker": "b-0", "source_queue": 3, "destination_topic": "pay", "destination_broker": "c-0",
    "destination_queue": 1, "destination_offset": 4_000_000_123, "reason": "filtered",
}
TRANSLATE = ("offsets", "translate", "orders", "--source", "a", "--destination", "b", "--topic", "pay", "--queue", "b-0/3", "--offset", "7")


class Coordinator:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, object]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        answers = {"/tasks/orders/resume": PREVIEW, "/status": STATUS, "/tasks/orders/events": EVENTS, "/clusters": [], "/assignments": [],
                   "/tasks/orders/offsets/translate": TRANSLATED, "/tokens": {"token": "rpl_x"}}
        return httpx.Response(200, json=answers.get(path, {"done": path}))


@pytest.fixture
def coordinator(monkeypatch) -> Coordinator:
    made = Coordinator()
    real = httpx.Client

    def with_transport(**arguments):
        return real(**{**arguments, "transport": httpx.MockTransport(made)})

    monkeypatch.setattr(httpx, "Client", with_transport)
    return made


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_status_keeps_every_key_for_programs(coordinator):
    assert json.loads(run("status", "-o", "json")) == STATUS
    assert yaml.safe_load(run("status", "orders", "-o", "yaml")) == STATUS


def test_status_shows_a_dash_where_nothing_is_known(coordinator):
    (row,) = [line for line in run("status").splitlines() if "hangzhou -> shanghai" in line]
    assert " ".join(row.split()) == "orders hangzhou -> shanghai running 1,234 - 10.0 5,000,000 5 0 41.0/- -"


def test_brackets_in_messages_are_text(coordinator):
    assert "by [someone]" in run("events", "orders")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("pause", "orders", "--topic", "pay"),
         ("POST", "/tasks/orders/pause", {"topic": "pay", "source": None, "destination": None})),
        (("resume", "orders", "--source", "a", "--destination", "b"),
         ("POST", "/tasks/orders/resume",
          {"topic": None, "source": "a", "destination": "b", "accept_loss": False, "from_offset": None})),
        (("delete", "tasks", "orders", "--purge"), ("DELETE", "/tasks/orders", None)),
        (("get", "workers"), ("GET", "/workers", None)),
        (("get", "clusters", "a"), ("GET", "/clusters/a", None)),
        (("parked", "list", "orders"), ("GET", "/tasks/orders/parked", None)),
        (("parked", "retry", "orders", "1", "2"), ("POST", "/tasks/orders/parked/retry", {"ids": [1, 2]})),
        (("tokens", "list"), ("GET", "/tokens", None)),
        (("tokens", "revoke", "ci"), ("DELETE", "/tokens/ci", None)),
        (("changes", "--limit", "5"), ("GET", "/changes", None)),
        (("parked", "discard", "orders", "--all"), ("POST", "/tasks/orders/parked/discard", {"all": True})),
    ],
)
def test_a_command_asks_the_coordinator(coordinator, arguments, asked):
    run(*arguments)
    assert coordinator.asked == [asked]


BODY = {"topic": None, "source": None, "destination": None, "accept_loss": True, "from_offset": None}
FIRST = ("POST", "/tasks/orders/resume", {**BODY, "dry_run": True})
THEN = ("POST", "/tasks/orders/resume", BODY)


@pytest.mark.parametrize(
    ("arguments", "at_terminal", "answer", "asked"),
    [
        ((), False, "", [FIRST, THEN]),
        ((), True, "y\n", [FIRST, THEN]),
        ((), True, "n\n", [FIRST]),
        (("--yes",), True, "", [FIRST, THEN]),
        (("--dry-run",), True, "", [FIRST]),
    ],
)
def test_what_is_given_up_is_shown_before_it_is(coordinator, monkeypatch, arguments, at_terminal, answer, asked):
    monkeypatch.setattr(operating, "is_terminal", lambda: at_terminal)
    result = CliRunner().invoke(app, ["resume", "orders", "--accept-loss", *arguments], input=answer)
    assert "assignment 17, queue orders/b-0/2: goes on at 7, gives up offsets 3 to 6 (4)" in result.output
    assert "given up in all: 4 offsets of 1 queues" in result.output
    assert coordinator.asked == asked
    assert isinstance(result.exception, Unsafe) == (answer == "n\n")


def test_one_answer_of_the_offset_map(coordinator):
    assert json.loads(run(*TRANSLATE, "-o", "json")) == TRANSLATED
    assert yaml.safe_load(run(*TRANSLATE, "-o", "yaml")) == TRANSLATED
    (row,) = [line for line in run(*TRANSLATE).splitlines() if "skipped" in line]
    assert row.split() == ["skipped", "b-0", "3", "pay", "c-0", "1", "4000000123", "filtered"]
    assert [method for method, path, _ in coordinator.asked if path == "/tasks/orders/offsets/translate"] == ["GET"] * 3


@pytest.mark.parametrize("left_out", ["--source", "--destination", "--topic", "--queue", "--offset"])
def test_a_translation_needs_all_of_the_question(coordinator, left_out):
    at = TRANSLATE.index(left_out)
    result = CliRunner().invoke(app, [*TRANSLATE[:at], *TRANSLATE[at + 2:]])
    assert (result.exit_code, coordinator.asked) == (2, [])


@pytest.mark.parametrize("arguments", [(), ("1", "--all")])
def test_all_parked_messages_are_never_meant_by_accident(coordinator, arguments):
    result = CliRunner().invoke(app, ["parked", "discard", "orders", *arguments])
    assert isinstance(result.exception, InvalidInput)
    assert coordinator.asked == []


def test_a_new_token_is_printed_alone_so_that_a_script_can_take_it(coordinator):
    arguments = ("tokens", "create", "grafana", "--role", "read", "--expires-days", "30")
    assert run(*arguments) == "rpl_x\n"
    assert json.loads(run(*arguments, "-o", "json")) == {"name": "grafana", "role": "read", "token": "rpl_x"}
    assert coordinator.asked == [("POST", "/tokens", {"name": "grafana", "role": "read", "expires_in_days": 30})] * 2


@pytest.mark.parametrize("arguments", [("ci",), ("ci", "--role", "root"), ("ci", "--role", "read", "--expires-days", "0")])
def test_a_token_needs_a_role_and_a_time_to_come(coordinator, arguments):
    result = CliRunner().invoke(app, ["tokens", "create", *arguments])
    assert (result.exit_code, coordinator.asked) == (2, [])


def test_the_first_token_needs_a_database(coordinator, monkeypatch):
    monkeypatch.delenv("REPLICATOR_DATABASE_URL", raising=False)
    result = CliRunner().invoke(app, ["tokens", "create", "boss", "--role", "admin", "--database"])
    assert isinstance(result.exception, InvalidInput)
    assert coordinator.asked == []


def test_both_schemas_are_published():
    assert "oneOf" in json.loads(run("schema"))
    assert "/api/v1/status" in json.loads(run("schema", "--openapi"))["paths"]


def test_documents_become_json_values(tmp_path):
    file = Path(tmp_path / "x.yaml")
    file.write_text("a: {timestamp: 2026-11-21T00:00:00Z}\n---\n---\nb: [1, 2026-11-21]\n")
    assert files.documents([file]) == [{"a": {"timestamp": "2026-11-21T00:00:00Z"}}, {"b": [1, "2026-11-21"]}]


def test_every_command_has_help_with_an_example():
    for command in ("run", "check", "apply", "get", "delete", "pause", "resume", "status", "events", "schema", "version", "changes"):
        assert "Example: replicator" in " ".join(run(command, "--help").split())
    for command in ("create", "list", "revoke"):
        assert "Example: replicator" in " ".join(run("tokens", command, "--help").split())
    assert "Example: replicator" in " ".join(run("offsets", "translate", "--help").split())
