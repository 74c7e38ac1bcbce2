"""What run is asked to do, before it starts anything."""

import re
from pathlib import Path

import pytest

from replicator.cli.options import database_url, new_instance, parse_listen, refuse_open_door, tls_files
from replicator.coordinator.api.tls import TlsFiles
from replicator.core.errors import InvalidInput, Unsafe


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:8420", ("127.0.0.1", 8420)), (":80", ("0.0.0.0", 80)), ("[::1]:8420", ("::1", 8420)), ("localhost:0", ("localhost", 0))],
)
def test_addresses_to_listen_on(text, expected):
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["8420", "a:", "a:b", "a:65536", "", "a:-1"])
def test_wrong_addresses_to_listen_on(text):
    with pytest.raises(InvalidInput, match="--listen"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    refuse_open_door(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])
def test_any_other_address_does(host):
    refuse_open_door(host, "token", TlsFiles(Path("c"), Path("k")))
    refuse_open_door(host, "token", insecure_http=True)
    with pytest.raises(Unsafe, match="--insecure-http"):
        refuse_open_door(host, "token")
    for token in (None, ""):
        with pytest.raises(Unsafe, match="REPLICATOR_TOKEN"):
            refuse_open_door(host, token, TlsFiles(Path("c"), Path("k")), insecure_http=True)


def test_a_certificate_and_its_key_come_together():
    assert tls_files(None, None) is None
    for cert, key in ((Path("c"), None), (None, Path("k"))):
        with pytest.raises(InvalidInput, match="--tls-key"):
            tls_files(cert, key)


def test_an_instance_is_unique_and_safe_inside_names(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "höst_1.example.com" * 4)
    first, second = new_instance(), new_instance()
    assert first != second
    assert re.fullmatch(r"[A-Za-z0-9-]{1,50}", first)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_spellings_of_a_database_address(scheme):
    assert database_url(f"{scheme}://u:p@h/d") == "postgresql+asyncpg://u:p@h/d"


def test_another_database_is_refused_without_telling_its_password():
    with pytest.raises(InvalidInput) as caught:
        database_url("mysql://u:hunter2@h/d")
    assert "hunter2" not in str(caught.value)
