"""A remoting server on loopback with a dispatch table and faults to inject; the fake name server and broker build on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto

from connectors.rocketmq.remoting import acl
from connectors.rocketmq.remoting.codes import ResponseCode
from connectors.rocketmq.remoting.command import FLAG_RESPONSE, RemotingCommand, decode_frame, encode_frame
from connectors.rocketmq.remoting.errors import ProtocolError
from connectors.rocketmq.remoting.framing import FrameReader

FRAME_BYTES_MAX = 16 * 1024 * 1024  # as every real server
READ_BYTES = 256 * 1024


class Action(Enum):
    """What a fault does to the next matching request."""

    ANSWER = auto()  # answer a code, do nothing
    DROP_ANSWER = auto()  # do it, answer nothing, stay connected
    CLOSE_BEFORE = auto()  # close the connection, do nothing
    CLOSE_AFTER = auto()  # do it, close instead of answering
    DELAY_BEFORE = auto()  # wait, then do it and answer
    DELAY_ANSWER = auto()  # do it, wait, answer
    CUT_ANSWER = auto()  # do it, write half of the answer's frame, close


@dataclass(slots=True)
class Fault:
    """Applies to the next ``times`` requests whose code is in ``codes`` (all codes when empty)."""

    action: Action
    codes: frozenset[int] = frozenset()
    response_code: int = int(ResponseCode.SYSTEM_BUSY)
    remark: str = "injected"
    seconds: float = 0.0
    times: int = 1


class Refusal(Exception):
    """Raised by a handler to answer a code other than success."""

    def __init__(self, code: int, remark: str = "") -> None:
        super().__init__(code, remark)
        self.code = code
        self.remark = remark


class Connection:
    """One accepted connection; identity matters, it is the key of heartbeat registrations."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.address = "{}:{}".format(*writer.get_extra_info("peername")[:2])

    def write(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    def abort(self) -> None:
        self.writer.transport.abort()


Handler = Callable[[RemotingCommand, Connection], "RemotingCommand | None | Awaitable[RemotingCommand | None]"]


class FakeServer:
    """Accepts, decodes, dispatches; requests of one connection start in order and end in any order."""

    def __init__(self) -> None:
        self.handlers: dict[int, Handler] = {}
        self.counts: Counter[int] = Counter()
        self.faults: list[Fault] = []
        self.secret_keys: dict[str, str] = {}
        """Access key to secret key; when not empty, requests must be signed."""
        self.binary_answers = False
        self.port = 0
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens on a free port, or after a stop on the same one again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Like a killed process: connections are reset, state is kept."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.close_connections()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def close_connections(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def inject(self, action: Action, codes: Collection[int] = (), **settings: object) -> Fault:
        fault = Fault(action, frozenset(map(int, codes)), **settings)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def connection_closed(self, connection: Connection) -> None:
        """For subclasses: the peer is gone."""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        self.connections.add(connection)
        frames = FrameReader(FRAME_BYTES_MAX)
        try:
            while data := await reader.read(READ_BYTES):
                frames.feed(data)
                while (frame := frames.next_frame()) is not None:
                    command = decode_frame(frame)
                    if not command.is_response:
                        self._start(command, connection)
        except (ProtocolError, ConnectionError):
            connection.abort()  # what a real server does with garbage: closes without a word
        finally:
            self.connections.discard(connection)
            self.connection_closed(connection)
            writer.close()

    def _start(self, command: RemotingCommand, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(command, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, command: RemotingCommand, connection: Connection) -> None:
        self.counts[command.code] += 1
        fault = self._take_fault(command.code)
        action = fault.action if fault else None
        if action is Action.CLOSE_BEFORE:
            connection.abort()
            return
        if fault and action is Action.ANSWER:
            self._answer(command, connection, RemotingCommand(fault.response_code, remark=fault.remark))
            return
        if fault and action is Action.DELAY_BEFORE:
            await asyncio.sleep(fault.seconds)
        answer = await self._handle(command, connection)
        if fault and action is Action.DELAY_ANSWER:
            await asyncio.sleep(fault.seconds)
        if action is Action.CLOSE_AFTER:
            connection.abort()
        elif action is Action.CUT_ANSWER and answer is not None:
            data = self._encode(command, answer)
            connection.write(data[: len(data) // 2])
            connection.writer.close()
        elif action is not Action.DROP_ANSWER and answer is not None:
            self._answer(command, connection, answer)

    def _take_fault(self, code: int) -> Fault | None:
        for fault in self.faults:
            if not fault.codes or code in fault.codes:
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    async def _handle(self, command: RemotingCommand, connection: Connection) -> RemotingCommand | None:
        handler = self.handlers.get(command.code)
        if handler is None:
            remark = f" request type {command.code} not supported"
            return RemotingCommand(ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=remark)
        try:
            self._verify(command)
            answer = handler(command, connection)
            return await answer if isinstance(answer, Awaitable) else answer
        except Refusal as refusal:
            return RemotingCommand(refusal.code, remark=refusal.remark)
        except (KeyError, ValueError, ProtocolError) as error:
            # A missing or malformed field: the real ones answer 1 with the exception's text.
            return RemotingCommand(ResponseCode.SYSTEM_ERROR, remark=f"{type(error).__name__}: {error}")

    def _verify(self, command: RemotingCommand) -> None:
        if not self.secret_keys:
            return
        fields = command.ext_fields
        secret = self.secret_keys.get(fields.get(acl.ACCESS_KEY, ""))
        if secret is None or acl.signature(fields, command.body, secret) != fields.get(acl.SIGNATURE):
            raise Refusal(ResponseCode.NO_PERMISSION, "signature check failed")

    def _answer(self, command: RemotingCommand, connection: Connection, answer: RemotingCommand) -> None:
        if not command.is_oneway:
            connection.write(self._encode(command, answer))

    def _encode(self, command: RemotingCommand, answer: RemotingCommand) -> bytes:
        answer.opaque = command.opaque
        answer.flag = FLAG_RESPONSE
        answer.language = "JAVA"
        return encode_frame(answer, self.binary_answers)
