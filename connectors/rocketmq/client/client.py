"""Name servers and brokers of one cluster: who is where, and one question at a time to any of them."""

from __future__ import annotations

import asyncio
import fnmatch
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from connectors.rocketmq.client.connection import REQUEST_TIMEOUT_SECONDS, Connection, ConnectionPool
from connectors.rocketmq.client.credentials import Security
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode, request_name
from connectors.rocketmq.remoting.command import RemotingCommand

CLUSTER_INFO_SECONDS = 15.0
"""How long an answer about who is master is believed without being asked again."""
ADDRESS_SERVICE_TIMEOUT_SECONDS = 5.0
ADDRESS_SERVICE_BYTES_MAX = 64 * 1024
OK = (int(ResponseCode.SUCCESS),)


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """How to find a cluster. ``cluster_name``: only where one name server serves several."""

    name_servers: Sequence[str] = ()
    name_server_url: str = ""
    cluster_name: str = ""
    address_map: Mapping[str, str] | None = None


class Client:
    def __init__(self, address: ClusterAddress, security: Security) -> None:
        self.pool = ConnectionPool(security)
        self.security = security
        self._address = address
        self._brokers: dict[str, bodies.BrokerData] = {}
        self._cluster_names: tuple[str, ...] = ()
        self._asked_at = float("-inf")
        self._refreshing = asyncio.Lock()

    # Name servers

    async def ask_name_server(self, command: RemotingCommand, expected: Collection[int] = OK) -> RemotingCommand:
        """The first name server that answers as expected; another is asked on every error. Raises ``Unreachable``, ``Answered``."""
        problem: Unreachable | Answered | None = None
        for address in await self._name_servers():
            attempt = RemotingCommand(command.code, dict(command.ext_fields), command.body)
            try:
                connection = await self.pool.get(address)
                return _expect(address, attempt, await connection.ask(attempt), expected)
            except (Unreachable, Answered) as error:
                problem = error
        raise problem or Unreachable("name servers", "none is known")

    async def _name_servers(self) -> Sequence[str]:
        if not self._address.name_server_url:
            return self._address.name_servers
        text = await asyncio.get_running_loop().run_in_executor(None, _fetch_text, self._address.name_server_url)
        return [address.strip() for address in text.split(";") if address.strip()]

    async def route(self, topic: str) -> bodies.TopicRoute | None:
        """None where the name server does not know the topic."""
        answer = await self.ask_name_server(headers.topic_route(topic), (*OK, int(ResponseCode.TOPIC_NOT_EXIST)))
        return bodies.read_topic_route(answer.body) if answer.code == ResponseCode.SUCCESS else None

    async def brokers(self, *, fresh: bool = False) -> Mapping[str, bodies.BrokerData]:
        """Replica groups of this cluster by broker name, asked again when the last answer is old."""
        loop = asyncio.get_running_loop()
        async with self._refreshing:
            if fresh or loop.time() - self._asked_at > CLUSTER_INFO_SECONDS:
                info = bodies.read_cluster_info((await self.ask_name_server(headers.cluster_info())).body)
                wanted = self._address.cluster_name
                if wanted and wanted not in info.clusters:
                    raise Unreachable("name servers", f"no cluster is named {wanted}, only {', '.join(sorted(info.clusters)) or 'none'}")
                self._cluster_names = (wanted,) if wanted else tuple(info.clusters)
                self._brokers = {
                    name: broker for name, broker in info.brokers.items() if not wanted or name in info.clusters.get(wanted, ())
                }
                self._asked_at = loop.time()
        return self._brokers

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """RocketMQ's own cluster names, known after ``brokers``."""
        return self._cluster_names

    # Brokers

    async def master_address(self, broker_name: str) -> str:
        """Raises ``Unreachable`` while the replica group has no master."""
        brokers = await self.brokers()
        if broker_name not in brokers or brokers[broker_name].master is None:
            brokers = await self.brokers(fresh=True)
        master = brokers[broker_name].master if broker_name in brokers else None
        if master is None:
            raise Unreachable(broker_name, "the name server knows no master of it")
        return self._mapped(master)

    def forget_masters(self) -> None:
        """The next question asks the name server again who is master."""
        self._asked_at = float("-inf")

    async def connect(self, broker_name: str) -> Connection:
        try:
            return await self.pool.get(await self.master_address(broker_name))
        except Unreachable:
            self.forget_masters()
            raise

    async def ask(
        self, broker_name: str, command: RemotingCommand, expected: Collection[int] = OK, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> RemotingCommand:
        """One question to a master. Raises ``Unreachable``, ``Answered`` for a code not expected."""
        connection = await self.connect(broker_name)
        return _expect(f"{broker_name} ({connection.address})", command, await connection.ask(command, timeout_seconds), expected)

    def _mapped(self, address: str) -> str:
        """``address_map``: an exact "ip:port" first, then patterns such as "10.0.0.*:10911"."""
        table = self._address.address_map or {}
        if address in table:
            return table[address]
        return next((target for pattern, target in table.items() if "*" in pattern and fnmatch.fnmatchcase(address, pattern)), address)

    def close(self) -> None:
        self.pool.close()


def _expect(where: str, command: RemotingCommand, answer: RemotingCommand, expected: Collection[int]) -> RemotingCommand:
    if answer.code not in expected:
        raise Answered(where, request_name(command.code), answer.code, answer.remark or "")
    return answer


def _fetch_text(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=ADDRESS_SERVICE_TIMEOUT_SECONDS) as answer:
            return str(answer.read(ADDRESS_SERVICE_BYTES_MAX).decode("ascii", "replace"))
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise Unreachable(url, f"name server address service: {error}") from error
