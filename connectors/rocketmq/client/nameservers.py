"""Questions to whichever name server answers; the list itself may come from an HTTP address service."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence

from connectors.rocketmq.client.connection import ConnectionPool, ask_signed
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.remoting.codes import ResponseCode, request_name
from connectors.rocketmq.remoting.command import RemotingCommand

ADDRESS_SERVICE_TIMEOUT_SECONDS = 5.0
ADDRESS_SERVICE_BYTES_MAX = 64 * 1024
ADDRESSES_SECONDS = 120.0
"""How long a list from the address service is used; RocketMQ's own clients ask every two minutes."""


class NameServers:
    def __init__(self, pool: ConnectionPool, addresses: Sequence[str], url: str) -> None:
        self._pool = pool
        self._url = url
        self._addresses = list(addresses)
        self._fetched_at = float("-inf")
        self._last_good = ""

    async def ask(self, command: RemotingCommand, expected: Collection[int]) -> RemotingCommand:
        """The one that answered last is asked first; another on every error. Raises ``Unreachable``, ``Answered``."""
        problem: Unreachable | Answered | None = None
        for address in await self._in_order():
            attempt = RemotingCommand(command.code, dict(command.ext_fields), command.body)
            try:
                answer = await ask_signed(self._pool, address, attempt)
            except Unreachable as error:
                problem = error
                continue
            if answer.code in expected:
                self._last_good = address
                return answer
            problem = Answered(address, request_name(command.code), answer.code, answer.remark or "")
        raise problem or Unreachable("name servers", "none is known")

    async def tell_all(self, command: RemotingCommand) -> None:
        """For what name servers do not tell each other. Raises ``Unreachable``, ``Answered`` when one cannot be told."""
        for address in await self._in_order():
            attempt = RemotingCommand(command.code, dict(command.ext_fields), command.body)
            answer = await ask_signed(self._pool, address, attempt)
            if answer.code != ResponseCode.SUCCESS:
                raise Answered(address, request_name(command.code), answer.code, answer.remark or "")

    async def _in_order(self) -> Sequence[str]:
        if self._url and asyncio.get_running_loop().time() - self._fetched_at > ADDRESSES_SECONDS:
            await self._fetch()
        return sorted(self._addresses, key=lambda address: address != self._last_good)

    async def _fetch(self) -> None:
        """A list fetched before serves on while the address service is away."""
        loop = asyncio.get_running_loop()
        try:
            text = await loop.run_in_executor(None, _fetch_text, self._url)
        except Unreachable:
            if not self._addresses:
                raise
            return
        self._addresses = [address.strip() for address in text.split(";") if address.strip()]
        self._fetched_at = loop.time()


def _fetch_text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=ADDRESS_SERVICE_TIMEOUT_SECONDS) as answer:
            return str(answer.read(ADDRESS_SERVICE_BYTES_MAX).decode("ascii", "replace"))
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise Unreachable(url, f"name server address service: {error}") from error
