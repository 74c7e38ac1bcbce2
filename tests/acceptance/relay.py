"""A TCP relay that can hold what clients sent, and deliver it later even when the client is long gone: the harshest middlebox."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

CHUNK_BYTES = 256 * 1024
POLL_SECONDS = 0.01


class _Way:
    """One relayed connection. ``held``: bytes taken from the client and not yet given to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        self.held = bytearray()
        self.holding = False
        self.client_gone = False
        self.lock = threading.Lock()


class Relay:
    def __init__(self, target: str, listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(listen)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._ways: list[_Way] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """From now on nothing of the present connections reaches the broker; later connections pass."""
        for way in self._ways:
            with way.lock:
                way.holding = True

    def wait_held(self, marker: bytes, timeout_seconds: float) -> None:
        """Until bytes with ``marker`` in them are held."""
        deadline = time.monotonic() + timeout_seconds
        while not any(marker in way.held for way in self._ways):
            assert time.monotonic() < deadline, f"nothing with {marker!r} came to be held"
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Delivers what was held; connections whose client is gone are closed behind it."""
        for way in self._ways:
            with way.lock:
                way.holding = False
                self._deliver(way)

    def cut(self) -> None:
        """Ends the present connections on both sides; later ones pass."""
        ways, self._ways = self._ways, []
        for way in ways:
            for end in (way.client, way.broker):
                with contextlib.suppress(OSError):  # gone already
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # A listener that is merely closed takes one more connection: the one it waits for.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for way in self._ways:
            way.client.close()
            way.broker.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._target)
            except OSError:
                continue
            way = _Way(client, broker)
            self._ways.append(way)
            threading.Thread(target=self._upstream, args=(way,), daemon=True).start()
            threading.Thread(target=self._downstream, args=(way,), daemon=True).start()

    def _upstream(self, way: _Way) -> None:
        while True:
            try:
                data = way.client.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            with way.lock:
                way.client_gone = way.client_gone or not data
                way.held += data
                if not way.holding:
                    self._deliver(way)
            if not data:
                return

    def _deliver(self, way: _Way) -> None:
        with contextlib.suppress(OSError):  # the broker may have given the connection up meanwhile
            way.broker.sendall(way.held)
        way.held.clear()
        if way.client_gone:
            # A close alone would wait for the other thread's recv: the broker would not hear of it.
            with contextlib.suppress(OSError):
                way.broker.shutdown(socket.SHUT_RDWR)
            way.broker.close()

    def _downstream(self, way: _Way) -> None:
        while True:
            try:
                data = way.broker.recv(CHUNK_BYTES)
                if not data:
                    break
                way.client.sendall(data)
            except OSError:
                if way.client_gone or way.broker.fileno() < 0:
                    return
                break
        with contextlib.suppress(OSError):
            way.client.shutdown(socket.SHUT_RDWR)
