"""Appends to one broker: which request carries a batch, and what each answer says about the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from connectors.rocketmq.client.client import Client
from connectors.rocketmq.client.errors import Answered, Unreachable, refuses_account
from connectors.rocketmq.client.sending import SENDER_GROUP, Frame, LostInFlight, NeverLeft, PermitEnded, SendingConnection
from connectors.rocketmq.mapping import account_hint, mapped
from connectors.rocketmq.remoting import headers, message
from connectors.rocketmq.remoting.codes import Kind, ResponseCode, describe, kind_of
from connectors.rocketmq.remoting.command import RemotingCommand
from connectors.rocketmq.remoting.errors import ProtocolError
from replicator.core.connector import AppendOutcome, NotStored, SendPermit, Stored, Unknown
from replicator.core.record import AppendBatch, MessageQueue

BATCH_BYTES_MAX = 3_900_000
"""Below the broker's 4 MiB, counted in stored size: what 4.4 to 4.9.3 compare (P§5)."""

RETRY_PREFIX = "%RETRY%"
BUSY_RETRY_SECONDS = 0.1
RETRY_TIMES_MAX = 16
"""``maxReconsumeTimes`` of messages to a retry topic, which 4.4.0 reads without asking whether it is there."""

# Remarks of code 1, and of the codes some versions answer in its place, that say for certain that nothing was stored: texts of
# SendMessageProcessor, AbstractSendMessageProcessor, the fast-failure and access-control code of 4.4.0 to 5.3.3. Any other code 1
# leaves it open.
_BUSY_REMARKS = (
    "[PC_SYNCHRONIZED]", "[PCBUSY_CLEAN_QUEUE]", "[TIMEOUT_CLEAN_QUEUE]", "[REJECTREQUEST]", "[OVERLOAD]", "broker unable to service",
    "timer message is under flow control",
)  # fmt: skip
_REFUSED_REMARKS = (
    "in-sync replicas not enough", "create mapped file failed", "accurate timer message is not enabled", "AclException",
    "is conflict with system reserved words", "] is forbidden", "sending message is forbidden", "request queueId[",
    "[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]",
)  # fmt: skip
_RECORD_REMARKS = (
    "size exceeded", "the message is illegal", "message body size exceeds", "properties length is too long", "length too long",
)  # fmt: skip


class RocketMQSender:
    """Implements ``QueueSender`` over one ``SendingConnection`` at a time."""

    def __init__(self, client: Client, broker_name: str, instance: str, cluster: str) -> None:
        self._client = client
        self._broker_name = broker_name
        self._instance = instance
        self._where = f"cluster {cluster}, broker {broker_name}"
        self._connection: SendingConnection | None = None
        self._opening = asyncio.Lock()
        self._is_moved = False
        self.batch_bytes_max = BATCH_BYTES_MAX
        """Stored size of the largest batch; lower where the cluster's own limit is."""
        self._unanswered: dict[MessageQueue, tuple[Frame, str, int]] = {}
        self._closed = False

    @property
    def identity(self) -> str:
        return self._connection.identity if self._connection is not None else ""

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open and not self._is_moved

    async def connect(self) -> str:
        with mapped(self._where):
            return (await self._connected()).identity

    async def append(self, queue: MessageQueue, batch: AppendBatch, permit: SendPermit, timeout_seconds: float) -> AppendOutcome:
        connection = self._connection
        if connection is None or not self.is_open:
            return NotStored("moved", f"{self._where}: not connected")
        try:
            command = self._command(queue, batch)
        except ProtocolError as error:
            return NotStored("record", str(error))
        frame = connection.submit(command, permit.is_valid)
        self._unanswered[queue] = (frame, connection.identity, len(batch))
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await asyncio.shield(frame.answer)
        except TimeoutError:
            return self._after_time_out(queue, connection, frame)
        except PermitEnded as error:
            return self._answered(queue, NotStored("fenced", str(error)))
        except NeverLeft as error:
            return self._answered(queue, NotStored("unreachable", str(error)))
        except LostInFlight as error:
            return Unknown(f"{self._where}: {error}", connection.identity)
        outcome = classify(answer, len(batch), connection.identity)
        if isinstance(outcome, NotStored):
            outcome = self._take_notice(connection, answer, outcome)
        return self._answered(queue, outcome)

    def _take_notice(self, connection: SendingConnection, answer: RemotingCommand, outcome: NotStored) -> NotStored:
        """What a refusal says about the connection itself, and what it comes to: with another key the same append is worth another try."""
        if outcome.scope == "moved":
            self._is_moved = True
            self._client.forget_masters()
        elif refuses_account(answer):
            if connection.renew_credentials():
                return NotStored("busy", outcome.detail, BUSY_RETRY_SECONDS)
            hint = account_hint(Answered(connection.address, "append", answer.code, answer.remark or ""))
            return replace(outcome, detail=f"{outcome.detail} ({hint})")
        return outcome

    def _after_time_out(self, queue: MessageQueue, connection: SendingConnection, frame: Frame) -> AppendOutcome:
        if connection.withdraw(frame):
            return self._answered(queue, NotStored("unreachable", "nothing could be written in time"))
        return Unknown(f"{self._where}: no answer in time", connection.identity)

    def _answered(self, queue: MessageQueue, outcome: AppendOutcome) -> AppendOutcome:
        if not isinstance(outcome, Unknown):
            self._unanswered.pop(queue, None)
        return outcome

    async def late_answer(self, queue: MessageQueue, timeout_seconds: float) -> AppendOutcome | None:
        entry = self._unanswered.get(queue)
        if entry is None:
            return None
        frame, identity, count = entry
        await asyncio.wait([frame.answer], timeout=timeout_seconds)
        if not frame.answer.done():
            return None
        if self._unanswered.get(queue) is entry:
            del self._unanswered[queue]
        try:
            return classify(frame.answer.result(), count, identity)
        except PermitEnded as error:
            return NotStored("fenced", str(error))
        except NeverLeft as error:
            return NotStored("unreachable", str(error))
        except LostInFlight:
            return None

    async def reset(self, identity: str) -> None:
        if self._connection is not None and self._connection.identity == identity:
            self._connection.reset("reset")

    async def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.reset("closed")

    async def barrier_append(self, command: RemotingCommand, may_leave: Callable[[], bool], timeout_seconds: float) -> RemotingCommand:
        """One request of our own on the sending connection. Raises ``Unreachable``, ``Answered``, ``NeverLeft``, ``LostInFlight``."""
        connection = await self._connected()
        frame = connection.submit(command, may_leave)
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await asyncio.shield(frame.answer)
        except TimeoutError as error:
            raise Unreachable(connection.address, "no answer to the barrier in time") from error
        if refuses_account(answer):
            connection.renew_credentials()
        return answer

    async def _connected(self) -> SendingConnection:
        if self._connection is not None and self.is_open:
            return self._connection
        async with self._opening:
            if self._is_moved and self._connection is not None:
                # A new identity, even to the same process: every assignment that appends here has to verify its last copy anew.
                self._connection.reset("the broker said that its role or its queues changed")
            self._is_moved = False
            if self._connection is None or not self._connection.is_open:
                if self._closed:
                    raise Unreachable(self._broker_name, "the sender is closed")
                try:
                    connection = SendingConnection(
                        await self._client.master_address(self._broker_name), self._instance, self._client.security
                    )
                    await connection.open()
                except Unreachable:
                    self._client.forget_masters()
                    raise
                self._connection = connection
            return self._connection

    def _command(self, queue: MessageQueue, batch: AppendBatch) -> RemotingCommand:
        target = headers.SendTarget(
            SENDER_GROUP, queue.topic, queue.queue_id, batch.born_timestamp_ms, batch.encoding & message.SysFlag.CARRIED,
            # A count above the most allowed would send the message to the dead letters.
            batch.reconsume_times, max(RETRY_TIMES_MAX, batch.reconsume_times) if queue.topic.startswith(RETRY_PREFIX) else None,
        )
        if len(batch) == 1 and self._needs_single(queue, batch):
            return headers.send_single(target, bytes(batch.bodies[0]), batch.properties[0], batch.flags[0])
        return headers.send_batch(target, message.encode_batch(batch.bodies, batch.properties, batch.flags))

    def _needs_single(self, queue: MessageQueue, batch: AppendBatch) -> bool:
        """A single send loses the order of properties and empty values, so it carries only what no batch can."""
        if queue.topic.startswith(RETRY_PREFIX):
            return True
        return message.stored_size(queue.topic, len(batch.bodies[0]), len(batch.properties[0])) > self.batch_bytes_max


def classify(answer: RemotingCommand, count: int, identity: str) -> AppendOutcome:
    """What the log holds after this answer (P§5, table of send codes)."""
    kind, remark = kind_of(answer.code), answer.remark or ""
    detail = f"{describe(answer.code)}{': ' + remark if remark else ''}"
    if kind in (Kind.OK, Kind.STORED_WEAK):
        try:
            stored = headers.read_send(answer)
        except ProtocolError as error:
            return Unknown(f"stored, but the answer cannot be read: {error}", identity)
        if stored.count not in (0, count):
            return Unknown(f"{count} records were sent, {stored.count} are said to be stored", identity)
        return Stored(stored.queue_offset, detail if kind is Kind.STORED_WEAK else "")
    if kind is Kind.BUSY:
        return NotStored("busy", detail, BUSY_RETRY_SECONDS)
    if kind is Kind.MOVED:
        return NotStored("moved", detail)
    if kind is Kind.RECORD or _says(remark, _RECORD_REMARKS):
        return NotStored("record", detail)
    if kind in (Kind.PERMISSION, Kind.MISSING, Kind.UNSUPPORTED) or answer.code == ResponseCode.INVALID_PARAMETER:
        return NotStored("queue", detail)
    if _says(remark, _BUSY_REMARKS):
        return NotStored("busy", detail, BUSY_RETRY_SECONDS)
    if _says(remark, _REFUSED_REMARKS):
        return NotStored("queue", detail)
    return Unknown(detail, identity)


def _says(remark: str, texts: tuple[str, ...]) -> bool:
    return any(text in remark for text in texts)

