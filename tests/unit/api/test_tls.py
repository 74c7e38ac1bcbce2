"""The certificate: shown, exchanged while serving, refused where it cannot be used."""

import asyncio
import os
import shutil
import ssl

import pytest

from replicator.coordinator.api.serving import HEADER_BYTES_MAX, listen, serve
from replicator.coordinator.api.tls import Certificate, TlsFiles
from replicator.core.errors import InvalidInput
from tests.certificates import Authority
from tests.unit.api.conftest import Api

SEEN_SECONDS_MAX = 10.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority):
    return authority.issue("first"), authority.issue("second")


@pytest.fixture
def files(pairs, tmp_path):
    made = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    put(pairs[0], made)
    return made


def put(pair, files):
    for source, target in ((pair.cert, files.cert), (pair.key, files.key)):
        fresh = target.with_suffix(".new")
        shutil.copy(source, fresh)
        os.replace(fresh, target)


async def shown(port, authority):
    """Common name of the certificate a new connection sees, which has to be believed."""
    context = ssl.create_default_context(cafile=authority.root.cert)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    ((_, name),) = writer.get_extra_info("peercert")["subject"][0]
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return name


async def test_a_new_certificate_is_shown_without_a_restart(authority, pairs, files, unused_tcp_port, monkeypatch):
    monkeypatch.setattr("replicator.coordinator.api.tls.LOOK_SECONDS", 0.05)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Api().app, "127.0.0.1", unused_tcp_port, stop, listen("127.0.0.1", unused_tcp_port), files))
    assert await shown(unused_tcp_port, authority) == "first"
    files.cert.write_bytes(pairs[1].cert.read_bytes())
    for _ in range(3):
        await asyncio.sleep(0.1)
        assert await shown(unused_tcp_port, authority) == "first"
    put(pairs[1], files)
    async with asyncio.timeout(SEEN_SECONDS_MAX):
        while await shown(unused_tcp_port, authority) != "second":
            pass
    files.cert.unlink()
    await asyncio.sleep(0.1)
    assert await shown(unused_tcp_port, authority) == "second"
    stop.set()
    await asyncio.wait_for(serving, 5)


async def test_who_does_not_know_the_root_does_not_enter(files, unused_tcp_port):
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Api().app, "127.0.0.1", unused_tcp_port, stop, listen("127.0.0.1", unused_tcp_port), files))
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", unused_tcp_port, ssl=ssl.create_default_context())
    stop.set()
    await asyncio.wait_for(serving, 5)


async def test_a_head_without_end_is_refused(unused_tcp_port):
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(Api().app, "127.0.0.1", unused_tcp_port, stop, listen("127.0.0.1", unused_tcp_port)))
    reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (2 * HEADER_BYTES_MAX))
    assert (await reader.readline()).startswith(b"HTTP/1.1 4")
    writer.close()
    stop.set()
    await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize("broken", ["no cert", "no key", "other key", "no pem", "passphrase"])
def test_files_that_cannot_be_used_are_named(files, pairs, broken):
    if broken == "no cert":
        files.cert.unlink()
    elif broken == "no key":
        files.key.unlink()
    elif broken == "other key":
        shutil.copy(pairs[1].key, files.key)
    elif broken == "no pem":
        files.cert.write_text("nothing")
    else:
        files.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(InvalidInput, match=r"key\.pem" if "key" in broken else r"cert\.pem"):
        Certificate(files)
