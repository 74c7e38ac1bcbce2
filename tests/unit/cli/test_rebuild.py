"""``rebuild`` before a coordinator that takes a while."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from replicator.cli import rebuild
from replicator.cli.main import app
from replicator.core.errors import InvalidInput, ReplicatorError

QUEUE = {
    "assignment_id": 3, "source": "a", "destination": "b", "copies": 4_000_000, "runs": 17, "epochs": [1, 2], "duplicates": 0,
    "without_copy": 9, "examined_through": 4_000_009, "seconds": 1.5, "source_queue": {}, "destination_queue": {},
}
RUNNING = {
    "task": "orders", "state": "running", "error": "", "now": "reading pay b-0/1 of b", "records_read": 10, "copies_found": 7,
    "seconds": 0.1, "flows": [], "queues": [],
}
DONE = {
    **RUNNING, "state": "done", "now": "", "queues": [QUEUE],
    "flows": [{"source": "a", "destination": "b", "error": ""}, {"source": "b", "destination": "a", "error": "a is away"}],
}


class Coordinator:
    def __init__(self):
        self.asked = []
        self.answers = [RUNNING, RUNNING, RUNNING, DONE]

    def __call__(self, request):
        self.asked.append((request.method, request.url.path, json.loads(request.content) if request.content else None))
        return httpx.Response(200, json=self.answers.pop(0))


@pytest.fixture
def coordinator(monkeypatch):
    made = Coordinator()
    real = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **arguments: real(**{**arguments, "transport": httpx.MockTransport(made)})
    )
    monkeypatch.setattr(rebuild, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(rebuild, "LINE_SECONDS", 0.0)
    return made


def run(*arguments):
    return CliRunner().invoke(app, ["rebuild", "orders", *arguments], catch_exceptions=True)


def test_it_is_begun_once_and_watched_to_its_end(coordinator):
    done = run("--topic", "pay", "--source", "a", "--destination", "b", "--cluster-id", "a=abcdefgh")
    assert done.exit_code == 0, done.output
    body = {"topic": "pay", "source": "a", "destination": "b", "cluster_ids": {"a": "abcdefgh"}}
    path = "/api/v1/tasks/orders/rebuild"
    assert coordinator.asked == [("POST", path, body), *[("GET", path, None)] * 3]
    assert done.stderr.count("10 records, 7 copies, reading pay b-0/1 of b") == 3
    assert "b to a: a is away" in done.stderr
    assert "4000009" in done.stdout


def test_programs_get_all_of_it(coordinator):
    assert json.loads(run("-o", "json").stdout) == DONE


def test_a_failed_one_ends_with_its_reason(coordinator):
    coordinator.answers = [{**RUNNING, "state": "failed", "error": "b is away"}]
    failed = run()
    assert isinstance(failed.exception, ReplicatorError)
    assert "b is away" in str(failed.exception)


@pytest.mark.parametrize("arguments", [("--source", "a"), ("--cluster-id", "a"), ("--cluster-id", "=x")])
def test_half_of_something_is_refused_before_anything_is_asked(coordinator, arguments):
    assert isinstance(run(*arguments).exception, InvalidInput)
    assert coordinator.asked == []
