"""How the command ends when things go wrong: a line for a person, never a traceback unless asked for."""

import httpx
import pytest

from replicator.cli import files, main
from replicator.cli.client import Client, named
from replicator.cli.options import parse_listen, token_of_environment
from replicator.cli.output import Format, show
from replicator.core.errors import InvalidInput, Missing, ReplicatorError, Unsafe


@pytest.fixture
def ends_with(monkeypatch, capsys):
    """Runs ``main`` on a command line whose command raises ``error``; returns exit code and stderr."""

    def run(error: BaseException, *arguments: str) -> tuple[int, str]:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("replicator.cli.running.print", fail, raising=False)
        monkeypatch.setattr("sys.argv", ["replicator", *arguments, "version"])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Unsafe("no", hint="--force"), 4, "replicator: no (--force)\n"),
        (ValueError("odd"), 1, "replicator: internal error: ValueError: odd (replicator --debug COMMAND shows where)\n"),
        (PermissionError(13, "Permission denied", "data"), 1, "replicator: [Errno 13] Permission denied: 'data'\n"),
        (ValueError("postgresql://u:hunter2@h/d"), 1,
         "replicator: internal error: ValueError: postgresql://u:***@h/d (replicator --debug COMMAND shows where)\n"),
    ],
)
def test_an_error_is_one_line(ends_with, error, code, said):
    assert ends_with(error) == (code, said)


def test_the_traceback_comes_when_asked_for(ends_with):
    code, said = ends_with(ValueError("odd"), "--debug")
    assert code == 1
    assert "Traceback" in said
    assert "ValueError: odd" in said


@pytest.mark.parametrize("token", ["pässword", "two words", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused_unseen(monkeypatch, token):
    monkeypatch.setenv("REPLICATOR_TOKEN", token)
    for read in (token_of_environment, Client):
        with pytest.raises(InvalidInput, match="REPLICATOR_TOKEN") as caught:
            read()
        assert token not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8420", "ftp://host", "http://", "nonsense"])
def test_an_address_that_is_none_is_wrong_use(url):
    with pytest.raises(InvalidInput, match="REPLICATOR_URL"):
        Client(url)


def test_a_web_page_in_place_of_the_coordinator_is_told_as_such():
    client = Client("http://h", transport=httpx.MockTransport(lambda _: httpx.Response(200, text="<html>")))
    with pytest.raises(ReplicatorError, match="is REPLICATOR_URL the coordinator's"):
        client.get("/status")


@pytest.mark.parametrize("name", ["a/b", "../status", "a b", "a?x=1", "", "a\n"])
def test_a_name_never_leads_to_another_path(name):
    with pytest.raises(Missing, match="nothing is named"):
        named(name)
    assert named("orders-2") == "orders-2"


def test_a_port_is_ascii_digits():
    with pytest.raises(InvalidInput, match="--listen"):
        parse_listen("127.0.0.1:²")


@pytest.mark.parametrize("output", Format)
def test_brackets_are_shown_as_they_are(capsys, output):
    show({"error": "[Errno 111] spec.clusters[1] [bold]", "rows": [{"error": "[Errno 111] spec.clusters[1] [bold]"}]}, output)
    shown = capsys.readouterr().out
    assert shown.count("[Errno 111] spec.clusters[1] [bold]") == 2
    assert "\\" not in shown


def test_documents_are_sent_as_they_were_judged(tmp_path):
    """What only looks like a date, a number of base 60 or a tag stays what the validation took it for."""
    (tmp_path / "x.yaml").write_text("name: 2026-13-45\nstart: 2026-11-21T00:00:00Z\n")
    assert files.documents([tmp_path / "x.yaml"]) == [{"name": "2026-13-45", "start": "2026-11-21T00:00:00Z"}]
    (tmp_path / "x.yaml").write_text("a: &x 1\nb: *x\n")
    with pytest.raises(InvalidInput, match="aliases are not allowed"):
        files.documents([tmp_path / "x.yaml"])
