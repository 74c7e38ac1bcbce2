"""The few questions that tell whether a server is ready, asked over a plain socket."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct

UPDATE_BROKER_CONFIG = 25
GET_BROKER_RUNTIME_INFO = 28
GET_BROKER_CLUSTER_INFO = 106
SUCCESS = 0
SYSTEM_ERROR, NO_PERMISSION = 1, 16
"""How 4.x and 5.x brokers answer somebody without an account, where they want one."""
CLIENT_VERSION = 401
ANSWER_SECONDS_MAX = 3.0


def ask(address: str, code: int, body: bytes = b"", tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Answer code and body of a request without fields. Raises OSError where nobody answers in time."""
    header = json.dumps(
        {"code": code, "language": "PYTHON", "version": CLIENT_VERSION, "opaque": 1, "flag": 0, "extFields": {}}
    ).encode()
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS_MAX))
        if tls is not None:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=host))
        connection.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        (length,) = struct.unpack(">I", _read(connection, 4))
        frame = _read(connection, length)
    header_length = struct.unpack(">I", frame[:4])[0] & 0xFFFFFF
    answer = json.loads(frame[4 : 4 + header_length])
    return answer["code"], frame[4 + header_length :]


def _read(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionError("closed in the middle of an answer")
        received += piece
    return bytes(received)


def is_name_server_ready(address: str, tls: ssl.SSLContext | None = None) -> bool:
    try:
        return ask(address, GET_BROKER_CLUSTER_INFO, tls=tls)[0] == SUCCESS
    except OSError:
        return False


def is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS_MAX):
            return True
    except OSError:
        return False


def is_broker_ready(address: str, broker_name: str, name_server: str, tls: ssl.SSLContext | None = None, registered: str = "") -> bool:
    """True when the name server's route shows the broker, and it answers, if only that it wants an account. ``registered``: the address
    in the route, where that is another one."""
    try:
        code, routes = ask(name_server, GET_BROKER_CLUSTER_INFO, tls=tls)
        # The body is not strict JSON (number keys stand unquoted), so look for the two strings only.
        if code != SUCCESS or f'"{broker_name}"'.encode() not in routes or f'"{registered or address}"'.encode() not in routes:
            return False
        return ask(address, GET_BROKER_RUNTIME_INFO, tls=tls)[0] in (SUCCESS, SYSTEM_ERROR, NO_PERMISSION)
    except OSError:
        return False


def ask_to_register(address: str, tls: ssl.SSLContext | None = None) -> None:
    """Makes a broker register with its name servers now: setting its permission, here to what it is, does that."""
    with contextlib.suppress(OSError):  # it may not answer yet; the caller asks again
        ask(address, UPDATE_BROKER_CONFIG, b"brokerPermission=6\n", tls)
