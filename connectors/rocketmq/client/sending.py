"""The sending connection of one broker, apart from all other traffic, and what its answers mean.

Its writes are its own: a raw non-blocking socket, so that the permit is asked immediately before every system call that
could complete a frame. SO_LINGER(1, 0) makes every close a reset, by ``close`` or by the kernel after kill -9: bytes that
have not left are dropped. TCP_USER_TIMEOUT ends a connection whose bytes nobody acknowledges. An incomplete frame is never
executed by a broker, so a frame whose permit runs out half-way is given up by resetting the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.rocketmq.client.connection import CONNECT_TIMEOUT_SECONDS, next_opaque
from connectors.rocketmq.client.credentials import Security
from connectors.rocketmq.client.errors import Answered, Unreachable, UnusableFile, not_connected, refuses_account
from connectors.rocketmq.remoting import headers
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.command import RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.framing import FrameReader

SENDER_GROUP = "replicator-sender"
USER_TIMEOUT_MS = 3_000
"""Bytes unacknowledged for longer than this end the connection instead of arriving late."""
HEARTBEAT_INTERVAL_SECONDS = 30.0
HEARTBEAT_TIMEOUT_SECONDS = 10.0
TLS_CHUNK_BYTES = 64 * 1024

_connections_made = itertools.count(1)


@dataclass(slots=True)
class Frame:
    """One request on its way. ``lost`` says what is known when its connection ends before the answer."""

    data: memoryview
    opaque: int
    may_leave: Callable[[], bool]
    answer: asyncio.Future[RemotingCommand]
    sent_bytes: int = 0
    encrypted: bool = False

    @property
    def is_complete(self) -> bool:
        return self.sent_bytes == len(self.data)


class NeverLeft(Exception):
    """The frame is not at the broker and never will be: nothing of it left, or its connection was reset before its end."""


class PermitEnded(NeverLeft):
    """... because the permit was no longer valid."""


class LostInFlight(Exception):
    """The whole frame left, and the connection ended without an answer."""


@dataclass(slots=True)
class _Tls:
    incoming: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    session: ssl.SSLObject | None = None


class SendingConnection:
    """``open``, ``submit``, ``reset``. ``identity`` is the client id the broker lists while it holds the channel."""

    def __init__(self, address: str, instance: str, security: Security) -> None:
        self.address = address
        self.identity = f"{instance}@{next(_connections_made)}"
        self._security = security
        self._credentials = security.credentials()
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._tls: _Tls | None = None
        self._reader = FrameReader()
        self._waiting: deque[Frame] = deque()
        self._unanswered: dict[int, Frame] = {}
        self._writer_added = False
        self._heartbeats: asyncio.Task[None] | None = None
        self._lost = ""
        self._lost_by: OSError | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None and not self._lost

    async def open(self) -> None:
        """Connects and registers at the broker, so that it can list us before the first append. Raises ``Unreachable``, ``Answered``."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._connect()
        except (OSError, ValueError, TimeoutError) as error:
            self.reset("cannot connect")
            raise not_connected(self.address, f"cannot connect: {error or 'no answer in time'}", error) from error
        except BaseException:
            self.reset("given up while connecting")
            raise
        assert self._socket is not None
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        try:
            await self._heartbeat()
        except BaseException:
            self.reset("not registered")
            raise
        self._heartbeats = asyncio.create_task(self._keep_registered(), name=f"heartbeat {self.identity}")

    async def _connect(self) -> None:
        host, _, port = self.address.rpartition(":")
        found = await self._loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, target = found[0]
        raw = socket.socket(family, kind, protocol)
        self._socket = raw
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._loop.sock_connect(raw, target)
        context = self._security.tls()
        if context is not None:
            await self._handshake(context, self._security.server_name or host)

    async def _handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        tls = _Tls()
        tls.session = context.wrap_bio(tls.incoming, tls.outgoing, server_hostname=server_name)
        assert self._socket is not None
        while True:
            try:
                tls.session.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._loop.sock_sendall(self._socket, tls.outgoing.read())
                data = await self._loop.sock_recv(self._socket, TLS_CHUNK_BYTES)
                if not data:
                    raise OSError("closed during the TLS handshake") from None
                tls.incoming.write(data)
        if tls.outgoing.pending:
            await self._loop.sock_sendall(self._socket, tls.outgoing.read())
        self._tls = tls

    def submit(self, command: RemotingCommand, may_leave: Callable[[], bool]) -> Frame:
        """Queues one request; ``frame.answer`` gets the answer, ``NeverLeft`` or ``LostInFlight``."""
        command.opaque = next_opaque()
        if self._credentials is not None:
            self._credentials.sign(command)
        frame = Frame(memoryview(encode_frame(command)), command.opaque, may_leave, self._loop.create_future())
        if not self.is_open:
            frame.answer.set_exception(NeverLeft(self._lost or "not connected"))
            return frame
        self._waiting.append(frame)
        if not self._writer_added:
            self._flush()
        return frame

    def renew_credentials(self) -> bool:
        """Reads the access key again, after the broker refused it. True if it is another one; where it cannot be read, the old one
        stays, and the refusal is what there is to show."""
        used = self._credentials
        with contextlib.suppress(UnusableFile):
            self._credentials = self._security.credentials()
        return self._credentials != used

    def withdraw(self, frame: Frame) -> bool:
        """Takes back a frame of which nothing has left. False if something has."""
        if frame.sent_bytes or frame.encrypted or frame not in self._waiting:
            return False
        self._waiting.remove(frame)
        return True

    def reset(self, why: str, error: OSError | None = None) -> None:
        """Ends the connection by RST. Idempotent. ``error``: what ended it, where the network did."""
        if self._lost:
            return
        self._lost, self._lost_by = why, error
        if self._heartbeats is not None:
            self._heartbeats.cancel()
        if self._socket is not None:
            with contextlib.suppress(ValueError, OSError):  # never registered with the loop, or closed by the peer already
                self._loop.remove_reader(self._socket.fileno())
                self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        for frame in self._waiting:
            _fail(frame, NeverLeft(why))
        for frame in self._unanswered.values():
            _fail(frame, LostInFlight(why))
        self._waiting.clear()
        self._unanswered.clear()

    # Writing

    def _flush(self) -> None:
        """Sends what the socket takes now. The permit stands before every ``send``."""
        while self._waiting and self._socket is not None and not self._lost:
            frame = self._waiting[0]
            if self._tls is not None and not frame.encrypted and frame.may_leave():
                self._encrypt(frame, self._tls)
            if not frame.may_leave():
                self._waiting.popleft()
                _fail(frame, PermitEnded("the right to send ended before the frame was complete"))
                if frame.sent_bytes or frame.encrypted:
                    self.reset("a frame was given up half-way")
                continue
            try:
                frame.sent_bytes += self._socket.send(frame.data[frame.sent_bytes :])
            except (BlockingIOError, InterruptedError):
                self._want_writable(True)
                return
            except OSError as error:
                self.reset(f"connection lost: {error}")
                return
            if frame.is_complete:
                self._waiting.popleft()
                self._unanswered[frame.opaque] = frame
                frame.data = memoryview(b"")
                frame.sent_bytes = 0
        self._want_writable(False)

    @staticmethod
    def _encrypt(frame: Frame, tls: _Tls) -> None:
        """From here on the frame is part of the connection's cipher stream: it is completed, or the connection is reset."""
        assert tls.session is not None
        tls.session.write(frame.data)
        frame.data = memoryview(tls.outgoing.read())
        frame.encrypted = True

    def _want_writable(self, wanted: bool) -> None:
        if wanted == self._writer_added or self._socket is None or self._lost:
            return
        self._writer_added = wanted
        if wanted:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    # Reading

    def _on_readable(self) -> None:
        assert self._socket is not None
        try:
            if self._tls is None:
                count = self._socket.recv_into(self._reader.get_buffer())
                if count == 0:
                    self.reset("closed by the broker")
                    return
                self._reader.buffer_updated(count)
            elif not self._read_tls():
                return
            while (frame := self._reader.next_frame()) is not None:
                self._take(decode_frame(frame))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.reset(f"connection lost: {error}", error)
        except ProtocolError as error:
            self.reset(f"not RocketMQ's protocol: {error}")

    def _read_tls(self) -> bool:
        assert self._tls is not None and self._tls.session is not None and self._socket is not None  # noqa: PT018
        data = self._socket.recv(TLS_CHUNK_BYTES)
        if not data:
            self.reset("closed by the broker")
            return False
        self._tls.incoming.write(data)
        while True:
            try:
                plain = self._tls.session.read(TLS_CHUNK_BYTES)
            except ssl.SSLWantReadError:
                return True
            if not plain:
                self.reset("closed by the broker")
                return False
            self._reader.feed(plain)

    def _take(self, command: RemotingCommand) -> None:
        if not command.is_response:
            return  # A broker may ask producers about transactions; we have none, and these requests want no answer.
        frame = self._unanswered.pop(command.opaque, None)
        if frame is not None and not frame.answer.done():
            frame.answer.set_result(command)

    # Registration

    async def _heartbeat(self) -> None:
        frame = self.submit(headers.heartbeat(self.identity, [SENDER_GROUP]), lambda: True)
        try:
            async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS):
                answer = await frame.answer
        except (TimeoutError, NeverLeft, LostInFlight) as error:
            raise not_connected(self.address, f"heartbeat: {error or 'no answer in time'}", self._lost_by) from error
        if refuses_account(answer):
            raise Answered(self.address, "HEART_BEAT", answer.code, answer.remark or "")
        if answer.code != ResponseCode.SUCCESS:
            raise Unreachable(self.address, f"heartbeat refused with code {answer.code}: {answer.remark}")

    async def _keep_registered(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)
            try:
                await self._heartbeat()
            except Answered:
                # A channel is given up after 120 s without a heartbeat: the next one may have the new key.
                self.renew_credentials()
            except Unreachable as error:
                self.reset(str(error))
                return


def _fail(frame: Frame, error: Exception) -> None:
    if not frame.answer.done():
        frame.answer.set_exception(error)
        frame.answer.exception()  # Marks it as seen: whoever timed out before no longer asks.
