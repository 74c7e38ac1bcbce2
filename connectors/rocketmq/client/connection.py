"""One connection for everything but sends: requests pipelined by opaque, answers in any order, every wait with a limit."""

from __future__ import annotations

import asyncio
import itertools
import socket
from dataclasses import dataclass
from typing import Protocol, cast

from connectors.rocketmq.client.credentials import Credentials, Security
from connectors.rocketmq.client.errors import Unreachable, not_connected, refuses_account
from connectors.rocketmq.remoting.codes import ResponseCode, request_name
from connectors.rocketmq.remoting.command import FLAG_RESPONSE, RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.framing import FrameReader

CONNECT_TIMEOUT_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 10.0
SWEEP_INTERVAL_SECONDS = 0.5
"""Overdue requests are looked for this often: one timer a connection instead of one a request."""
IN_FLIGHT_MAX = 65_536
"""More unanswered requests than this on one connection mean that the peer no longer reads. Every idle queue of a worker at one broker
has a long poll here."""
IDLE_SECONDS_MAX = 90.0
"""A server closes a connection that is idle for 120 s; closing it before that leaves no request to fall into the gap."""
_END_BEFORE_ANSWER = (
    " before the first answer, as by a server that wants TLS",
    " before the first answer, as by a server that wants another client certificate",
)
"""What a plain connection, and one with TLS, may mean by that."""

_opaques = itertools.count(1)


def next_opaque() -> int:
    """Unique in this process; wraps within 31 bits."""
    return next(_opaques) & 0x7FFFFFFF


class Sink(Protocol):
    """Gets the answer to a request, or the reason why there is none: one call, from the event loop. Must not raise."""

    def answered(self, command: RemotingCommand) -> None: ...

    def failed(self, error: Unreachable) -> None: ...


class _Waiter:
    """A sink for those who wait for one answer."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[RemotingCommand] = loop.create_future()

    def answered(self, command: RemotingCommand) -> None:
        if not self.future.done():
            self.future.set_result(command)

    def failed(self, error: Unreachable) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True)
class _Pending:
    sink: Sink
    submitted: float
    deadline: float
    what: str


class Connection(asyncio.BufferedProtocol):
    """``open`` it, then ``ask`` or ``submit``. A closed connection stays closed: the pool makes a new one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.credentials: Credentials | None = None
        self.peer_version = ""
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._pending: dict[int, _Pending] = {}
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._received_at = self._used_at = self._loop.time()
        self._is_tls = self._has_received = False
        self._lost = ""

    @classmethod
    async def open(cls, address: str, security: Security) -> Connection:
        """Raises ``Unreachable``."""
        connection = cls(address)
        host, _, port = address.rpartition(":")
        try:
            context = security.tls()
            connection.credentials = security.credentials()
            connection._is_tls = context is not None
            name = (security.server_name or host) if context is not None else None
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await connection._loop.create_connection(
                    lambda: connection, host.strip("[]"), int(port), ssl=context, server_hostname=name
                )
        except (OSError, ValueError, TimeoutError) as error:
            connection.close()
            raise not_connected(address, f"cannot connect: {error or 'no answer in time'}", error) from error
        return connection

    @property
    def is_open(self) -> bool:
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._lost:
            cast(asyncio.Transport, transport).abort()
            return
        # Not asked by isinstance: the transports of other event loops are no asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_SECONDS, self._sweep)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._received_at = self._loop.time()
        self._has_received = True
        try:
            self._reader.buffer_updated(nbytes)
            while (frame := self._reader.next_frame()) is not None:
                self._take(decode_frame(frame))
        except ProtocolError as error:
            self._end(f"not RocketMQ's protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        hint = "" if self._has_received else _END_BEFORE_ANSWER[self._is_tls]
        self._end(f"connection lost{hint}{f': {exc}' if exc else ''}", exc)

    # Requests

    async def ask(self, command: RemotingCommand, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS) -> RemotingCommand:
        """The answer, whatever its code. Raises ``Unreachable``."""
        command.opaque = next_opaque()
        if self.credentials is not None:
            self.credentials.sign(command)
        waiter = _Waiter(self._loop)
        self.submit(encode_frame(command), command.opaque, timeout_seconds, request_name(command.code), waiter)
        try:
            return await waiter.future
        finally:
            self._pending.pop(command.opaque, None)

    def submit(self, frame: bytes, opaque: int, timeout_seconds: float, what: str, sink: Sink) -> None:
        """Writes a frame together with all others of this turn of the event loop; ``sink`` is never called before this returns.
        Give up with ``forget``."""
        if self._lost or self._transport is None:
            self._loop.call_soon(sink.failed, Unreachable(self.address, self._lost or "not connected"))
        elif len(self._pending) >= IN_FLIGHT_MAX:
            self._loop.call_soon(sink.failed, Unreachable(self.address, f"{IN_FLIGHT_MAX} requests are unanswered"))
        else:
            now = self._used_at = self._loop.time()
            self._pending[opaque] = _Pending(sink, now, now + timeout_seconds, what)
            if not self._outgoing:
                self._loop.call_soon(self._flush)
            self._outgoing.append(frame)

    def forget(self, opaque: int) -> None:
        """The answer is not wanted any more."""
        self._pending.pop(opaque, None)

    def close(self) -> None:
        self._end("closed")

    def _flush(self) -> None:
        frames, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._lost:
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _take(self, command: RemotingCommand) -> None:
        if command.flag & FLAG_RESPONSE:
            pending = self._pending.pop(command.opaque, None)
            if pending is not None:
                pending.sink.answered(command)
        elif not command.is_oneway and self._transport is not None:
            # Brokers reach only clients that sent a heartbeat; whatever they ask of us all the same, we do not speak.
            refusal = RemotingCommand(int(ResponseCode.REQUEST_CODE_NOT_SUPPORTED), {}, opaque=command.opaque, flag=FLAG_RESPONSE)
            self._transport.write(encode_frame(refusal))

    def _sweep(self) -> None:
        now = self._loop.time()
        overdue = [opaque for opaque, pending in self._pending.items() if pending.deadline < now]
        if any(self._pending[opaque].submitted > self._received_at for opaque in overdue):
            # Not one byte since an overdue request was written: TCP alone would take a quarter of an hour to notice.
            self._end("no answer in time, and nothing else came either")
            return
        for opaque in overdue:
            pending = self._pending.pop(opaque)
            pending.sink.failed(Unreachable(self.address, f"{pending.what}: no answer in time"))
        if not self._pending and now - self._used_at > IDLE_SECONDS_MAX:
            self._end("closed after a long idle time")
        if not self._lost:
            self._sweeper = self._loop.call_later(SWEEP_INTERVAL_SECONDS, self._sweep)

    def _end(self, why: str, error: Exception | None = None) -> None:
        if self._lost:
            return
        self._lost = why
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._transport is not None:
            self._transport.abort()
        pending, self._pending = self._pending, {}
        for entry in pending.values():
            entry.sink.failed(not_connected(self.address, why, error))


class ConnectionPool:
    """One open connection an address; those who ask together share the attempt."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._connections: dict[str, Connection] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    async def get(self, address: str) -> Connection:
        """Raises ``Unreachable``."""
        connection = self._connections.get(address)
        if connection is not None and connection.is_open:
            return connection
        async with self._opening.setdefault(address, asyncio.Lock()):
            connection = self._connections.get(address)
            if connection is None or not connection.is_open:
                connection = self._connections[address] = await Connection.open(address, self._security)
            return connection

    def renew_credentials(self, refused: Credentials | None) -> bool:
        """Reads the access key again for what is open, after a server refused it. True if it is another one than was refused."""
        credentials = self._security.credentials()
        for connection in self._connections.values():
            connection.credentials = credentials
        return credentials != refused

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


async def ask_signed(
    pool: ConnectionPool, address: str, command: RemotingCommand, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
) -> RemotingCommand:
    """The answer, whatever its code; asked a second time where the account was refused and its key is another one by now.
    Raises ``Unreachable``."""
    connection = await pool.get(address)
    used = connection.credentials
    answer = await connection.ask(command, timeout_seconds)
    if refuses_account(answer) and pool.renew_credentials(used):
        answer = await connection.ask(command, timeout_seconds)
    return answer
