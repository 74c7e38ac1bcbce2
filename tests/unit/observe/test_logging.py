"""Logs: both sources in one shape, secrets out, tracebacks without values."""

import io
import json
import logging

import pytest
import structlog

from replicator.core.errors import InvalidInput
from replicator.observe import logging as observe_logging


@pytest.fixture
def restored():
    """The process's logging as it was: other tests have their own."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.fixture
def stream(restored) -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_of_both_loggers_have_one_shape(stream):
    observe_logging.configure("json", "info", stream)
    structlog.get_logger("ours").info("copied", count=3)
    logging.getLogger("theirs").warning("%s is slow", "it")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["level"], ours["logger"], ours["count"]) == ("copied", "info", "ours", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("it is slow", "warning", "theirs")
    assert ours["timestamp"].endswith("Z")
    assert theirs["timestamp"].endswith("Z")


@pytest.mark.parametrize("key", ["secret_key", "password", "token", "access_key", "security_token", "Authorization"])
def test_values_under_secret_keys_are_hidden(stream, key):
    observe_logging.configure("json", "info", stream)
    structlog.get_logger("ours").info("connecting", **{key: "hunter2", "deep": {"list": [{key: "hunter2"}]}})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0][key] == observe_logging.HIDDEN


def test_passwords_inside_addresses_are_hidden_everywhere(stream):
    observe_logging.configure("json", "info", stream)
    address = "postgresql+asyncpg://user:hunter2@127.0.0.1/db"
    try:
        raise ValueError(address)
    except ValueError:
        structlog.get_logger("ours").exception(f"no {address}", url=address)
    assert "hunter2" not in stream.getvalue()
    assert f"user:{observe_logging.HIDDEN}@127.0.0.1" in lines(stream)[0]["url"]


def test_a_fencing_token_stays_readable(stream):
    observe_logging.configure("json", "info", stream)
    structlog.get_logger("ours").info("leased", token=17)
    assert lines(stream)[0]["token"] == 17


@pytest.mark.parametrize("format_name", observe_logging.FORMATS)
def test_a_traceback_shows_no_values_of_variables(stream, format_name):
    observe_logging.configure(format_name, "info", stream)
    try:
        hidden = "".join(("hun", "ter2"))
        raise ValueError("on purpose")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    text = stream.getvalue()
    assert "ValueError: on purpose" in text
    assert hidden not in text


def test_the_level_holds_for_both(stream):
    observe_logging.configure("json", "warning", stream)
    structlog.get_logger("ours").info("quiet")
    logging.getLogger("theirs").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("variable", "value"), [("REPLICATOR_LOG_FORMAT", "xml"), ("REPLICATOR_LOG_LEVEL", "loud")])
def test_a_wrong_setting_is_named(monkeypatch, restored, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=f"{variable} is '{value}'"):
        observe_logging.configure()
