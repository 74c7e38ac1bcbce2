"""The two questions that tell whether a server is ready, asked over a plain socket."""

from __future__ import annotations

import json
import socket
import struct

GET_BROKER_RUNTIME_INFO = 28
GET_BROKER_CLUSTER_INFO = 106
SUCCESS = 0
CLIENT_VERSION = 401
ANSWER_SECONDS_MAX = 3.0


def ask(address: str, code: int) -> tuple[int, bytes]:
    """Answer code and body of a request without fields. Raises OSError where nobody answers in time."""
    header = json.dumps(
        {"code": code, "language": "PYTHON", "version": CLIENT_VERSION, "opaque": 1, "flag": 0, "extFields": {}}
    ).encode()
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS_MAX) as connection:
        connection.sendall(struct.pack(">II", 4 + len(header), len(header)) + header)
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


def is_name_server_ready(address: str) -> bool:
    try:
        return ask(address, GET_BROKER_CLUSTER_INFO)[0] == SUCCESS
    except OSError:
        return False


def is_broker_ready(address: str, broker_name: str, name_server: str) -> bool:
    """True when the broker answers and the name server's route shows it at that address."""
    try:
        if ask(address, GET_BROKER_RUNTIME_INFO)[0] != SUCCESS:
            return False
        code, routes = ask(name_server, GET_BROKER_CLUSTER_INFO)
    except OSError:
        return False
    # The body is not strict JSON (number keys stand unquoted), so look for the two strings only.
    return code == SUCCESS and f'"{broker_name}"'.encode() in routes and f'"{address}"'.encode() in routes
