"""The client: errors of the API become ours again, with their exit codes."""

import json

import httpx
import pytest

from replicator.cli.client import DEFAULT_URL, Client
from replicator.core.errors import InvalidInput, Missing, ReplicatorError, Unsafe
from replicator.observe.outcome import exit_code


def client_of(handler, token=None) -> Client:
    return Client("https://coordinator:1/", token, httpx.MockTransport(handler))


@pytest.mark.parametrize(("code", "kind"), [(1, ReplicatorError), (2, InvalidInput), (3, Missing), (4, Unsafe)])
def test_a_problem_comes_back_as_the_error_it_was(code, kind):
    problem = {"title": "no such task", "hint": "try get tasks", "exit_code": code, "status": 400}
    with pytest.raises(kind) as caught:
        client_of(lambda _: httpx.Response(400, json=problem)).get("/tasks/x")
    assert str(caught.value) == "no such task (try get tasks)"
    assert exit_code(caught.value) == code


@pytest.mark.parametrize("answer", [httpx.Response(502, text="<html>"), httpx.Response(500, json=["x"]), httpx.Response(404, json={})])
def test_an_answer_of_somebody_else_is_told_as_such(answer):
    with pytest.raises(ReplicatorError, match=f"answered {answer.status_code}"):
        client_of(lambda _: answer).get("/status")


def test_no_connection_is_one_line_with_a_way_out():
    def refuse(request):
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(ReplicatorError) as caught:
        client_of(refuse).get("/status")
    assert "https://coordinator:1" in str(caught.value)
    assert "REPLICATOR_URL" in str(caught.value)
    assert exit_code(caught.value) == 1


def test_what_is_asked_reaches_the_api():
    seen = []

    def answer(request):
        seen.append((request.method, str(request.url), request.headers.get("authorization"), request.content))
        return httpx.Response(200, json={"ok": True})

    client = client_of(answer, "secret")
    assert client.get("/status", task=None) == {"ok": True}
    client.get("/status", task="a b")
    client.post("/tasks/x/pause", {"topic": "t"})
    client.delete("/tasks/x", force=True, purge=False)
    base = "https://coordinator:1/api/v1"
    assert [entry[:3] for entry in seen] == [
        ("GET", f"{base}/status", "Bearer secret"),
        ("GET", f"{base}/status?task=a+b", "Bearer secret"),
        ("POST", f"{base}/tasks/x/pause", "Bearer secret"),
        ("DELETE", f"{base}/tasks/x?force=true&purge=false", "Bearer secret"),
    ]
    assert json.loads(seen[2][3]) == {"topic": "t"}


def test_where_it_asks_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("REPLICATOR_URL", raising=False)
    assert Client().url == DEFAULT_URL
    monkeypatch.setenv("REPLICATOR_URL", "http://elsewhere:9/")
    assert Client().url == "http://elsewhere:9"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://coordinator:1"])
def test_a_token_goes_where_nobody_can_read_it(monkeypatch, url):
    monkeypatch.delenv("REPLICATOR_INSECURE_HTTP", raising=False)
    assert Client(url, "secret").url == url


@pytest.mark.parametrize("said", [None, "", "0", "false"])
def test_a_token_is_not_sent_in_the_open(monkeypatch, said):
    monkeypatch.delenv("REPLICATOR_INSECURE_HTTP", raising=False)
    if said is not None:
        monkeypatch.setenv("REPLICATOR_INSECURE_HTTP", said)
    with pytest.raises(Unsafe, match="REPLICATOR_INSECURE_HTTP=1") as caught:
        Client("http://coordinator:1", "secret")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("REPLICATOR_INSECURE_HTTP", "1")
    Client("http://coordinator:1", "secret")


def test_a_file_of_authorities_that_is_none_is_named(monkeypatch, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "nowhere.pem"):
        monkeypatch.setenv("REPLICATOR_CA_FILE", str(tmp_path / name))
        with pytest.raises(InvalidInput, match=name):
            Client("https://coordinator:1")
