"""``groups`` before a coordinator that notes what it was asked."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from replicator.cli import groups
from replicator.cli.main import app
from replicator.core.errors import InvalidInput, ReplicatorError, Unsafe

PAIR = ("--source", "a", "--destination", "b")
QUEUE = {
    "source_broker": "a-0", "source_queue": 0, "from": 4, "destination_broker": "b-0", "destination_queue": 1, "to": 17,
    "action": "move", "seen_again": 3, "exact": True, "reason": "offset 4 is not processed",
}
GROUP = {"group": "pay", "kind": "push", "owner": "a", "topic": "orders", "queues": [QUEUE]}
PLAN = {"groups": [GROUP], "seen_again": 3}
DONE = {"groups": [{**GROUP, "failed": []}], "seen_again": 3, "moved": 1, "refused": 0, "failed": 0}
RESET = {"group": "pay", "queues": [{"queue": "orders b-0/1", "from": 1, "to": 2}], "done": False}


class Coordinator:
    def __init__(self):
        self.asked = []
        self.done = DONE

    def __call__(self, request):
        path = request.url.path.removeprefix("/api/v1/tasks/orders/groups")
        body = json.loads(request.content) if request.content else dict(request.url.params)
        self.asked.append((request.method, path, body))
        answers = {"": {"groups": []}, "/plan": PLAN, "/sync": self.done, "/reset": {**RESET, "done": True, "failed": 0}}
        return httpx.Response(200, json=RESET if body.get("dry_run") else answers[path])


@pytest.fixture
def coordinator(monkeypatch):
    made = Coordinator()
    real = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **arguments: real(**{**arguments, "transport": httpx.MockTransport(made)})
    )
    monkeypatch.setattr(groups, "is_terminal", lambda: False)
    return made


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_plan_is_kept_as_it_came_for_programs(coordinator):
    assert json.loads(run("groups", "plan", "orders", *PAIR, "-o", "json")) == PLAN
    assert "seen again in all: 3" in run("groups", "plan", "orders", *PAIR)
    assert run("groups", "list", "orders", *PAIR).strip() == "no groups"


@pytest.mark.parametrize("command", [("groups", "sync"), ("quick-sync",)])
def test_sync_shows_the_preview_and_sends_its_number(coordinator, command):
    said = run(*command, "orders", *PAIR, "--group", "pay")
    assert said.index("seen again in all: 3") < said.index("moved: 1 queues")
    assert coordinator.asked[-1] == (
        "POST", "/sync", {"source": "a", "destination": "b", "group": "pay", "seen_again": 3, "back": False, "running": False}
    )


def test_a_dry_run_and_a_no_change_nothing(coordinator, monkeypatch):
    assert json.loads(run("groups", "sync", "orders", *PAIR, "--dry-run", "-o", "json")) == PLAN
    monkeypatch.setattr(groups, "is_terminal", lambda: True)
    with pytest.raises(Unsafe, match="nothing was changed"):
        CliRunner().invoke(app, ["groups", "sync", "orders", *PAIR], input="n\n", catch_exceptions=False)
    assert [path for _, path, _ in coordinator.asked] == ["/plan", "/plan"]


@pytest.mark.parametrize(
    ("outcome", "error", "text"),
    [
        ({"moved": 0, "refused": 2}, Unsafe, "everything was refused"),
        ({"moved": 1, "failed": 1, "groups": [{**GROUP, "failed": ["orders b-0/1: gone"]}]}, ReplicatorError, "orders b-0/1: gone"),
    ],
)
def test_what_was_not_done_is_no_success(coordinator, outcome, error, text):
    coordinator.done = {**DONE, **outcome}
    with pytest.raises(error, match=text):
        CliRunner().invoke(app, ["groups", "sync", "orders", *PAIR, "-o", "json"], catch_exceptions=False)


def test_reset_shows_the_preview_first(coordinator):
    said = run("groups", "reset", "orders", *PAIR, "--group", "pay", "--topic", "orders", "--queue", "b-0/1", "--offset", "2")
    assert "reset: 1 queues of pay on b" in said
    (_, _, preview), (_, _, body) = coordinator.asked
    assert preview == {**body, "dry_run": True}
    assert (body["broker"], body["queue"], body["offset"]) == ("b-0", 1, 2)
    with pytest.raises(InvalidInput, match="--queue"):
        CliRunner().invoke(app, ["groups", "reset", "orders", *PAIR, "--group", "g", "--queue", "x"], catch_exceptions=False)
