"""Brokers of one cluster: who is master where, and one question at a time to any of them."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from connectors.rocketmq.client.connection import REQUEST_TIMEOUT_SECONDS, Connection, ConnectionPool, ask_signed
from connectors.rocketmq.client.credentials import Security
from connectors.rocketmq.client.errors import Answered, Unreachable
from connectors.rocketmq.client.nameservers import NameServers
from connectors.rocketmq.remoting import bodies, headers
from connectors.rocketmq.remoting.codes import ResponseCode, request_name
from connectors.rocketmq.remoting.command import RemotingCommand

CLUSTER_INFO_SECONDS = 15.0
"""How long an answer about who is master is believed without being asked again."""
CLUSTER_INFO_RETRY_SECONDS = 2.0
"""While no name server answers, what is known is believed on, and a name server asked this often."""
BROKER_CONFIG_SECONDS = 60.0
MASTER_ID = 0
PULL_RECORDS_DEFAULT = 32
PULL_BYTES_DEFAULT = 256 * 1024
FIRST_SAMPLE_SECONDS_MAX = 5.0
FIRST_SAMPLE_POLL_SECONDS = 0.1
OK = (int(ResponseCode.SUCCESS),)


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """How to find a cluster. ``cluster_name``: only where one name server serves several."""

    name_servers: Sequence[str] = ()
    name_server_url: str = ""
    cluster_name: str = ""
    address_map: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PullLimits:
    """What a broker puts into one answer to a pull at most; the first record always passes. ``records`` 0: it would not say."""

    records: int = 0
    size_bytes: int = PULL_BYTES_DEFAULT


@dataclass(frozen=True, slots=True)
class Place:
    """A process of a replica group."""

    broker_name: str
    address: str
    is_master: bool


class Client:
    def __init__(self, address: ClusterAddress, security: Security) -> None:
        self.pool = ConnectionPool(security)
        self.security = security
        self._address = address
        self._name_servers = NameServers(self.pool, address.name_servers, address.name_server_url)
        self._brokers: dict[str, bodies.BrokerData] = {}
        self._cluster_names: tuple[str, ...] = ()
        self._ask_after = float("-inf")
        self._refreshing = asyncio.Lock()
        self._limits: dict[str, tuple[float, PullLimits]] = {}
        self._asking_limits: dict[str, asyncio.Lock] = {}

    # Name servers

    async def ask_name_server(self, command: RemotingCommand, expected: Collection[int] = OK) -> RemotingCommand:
        """The first name server that answers as expected; another is asked on every error. Raises ``Unreachable``, ``Answered``."""
        return await self._name_servers.ask(command, expected)

    async def tell_name_servers(self, command: RemotingCommand) -> None:
        """Every one of them. Raises ``Unreachable``, ``Answered``."""
        await self._name_servers.tell_all(command)

    async def route(self, topic: str) -> bodies.TopicRoute | None:
        """None where the name server does not know the topic."""
        answer = await self.ask_name_server(headers.topic_route(topic), (*OK, int(ResponseCode.TOPIC_NOT_EXIST)))
        return bodies.read_topic_route(answer.body) if answer.code == ResponseCode.SUCCESS else None

    async def brokers(self, *, fresh: bool = False) -> Mapping[str, bodies.BrokerData]:
        """Replica groups of this cluster by broker name, asked again when the last answer is old. Without ``fresh`` an old answer
        serves while no name server is to be had."""
        loop = asyncio.get_running_loop()
        async with self._refreshing:
            if fresh or loop.time() > self._ask_after:
                try:
                    await self._refresh_brokers()
                    self._ask_after = loop.time() + CLUSTER_INFO_SECONDS
                except (Unreachable, Answered):
                    if fresh or not self._brokers:
                        raise
                    self._ask_after = loop.time() + CLUSTER_INFO_RETRY_SECONDS
        return self._brokers

    async def _refresh_brokers(self) -> None:
        info = bodies.read_cluster_info((await self.ask_name_server(headers.cluster_info())).body)
        wanted = self._address.cluster_name
        if wanted and wanted not in info.clusters:
            raise Unreachable("name servers", f"no cluster is named {wanted}, only {', '.join(sorted(info.clusters)) or 'none'}")
        self._cluster_names = (wanted,) if wanted else tuple(info.clusters)
        self._brokers = {name: broker for name, broker in info.brokers.items() if not wanted or name in info.clusters.get(wanted, ())}

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """RocketMQ's own cluster names, known after ``brokers``."""
        return self._cluster_names

    # Brokers

    async def master_address(self, broker_name: str) -> str:
        """Raises ``Unreachable`` while the replica group has no master."""
        return (await self.place(broker_name)).address

    async def place(self, broker_name: str, *, any_replica: bool = False) -> Place:
        """The master; while the name server knows none and any replica will do, that with the lowest id. Raises ``Unreachable``."""
        brokers = await self.brokers()
        if broker_name not in brokers or brokers[broker_name].master is None:
            brokers = await self.brokers(fresh=True)
        addresses = brokers[broker_name].addresses if broker_name in brokers else {}
        if MASTER_ID not in addresses and not (addresses and any_replica):
            raise Unreachable(broker_name, "the name server knows no master of it")
        lowest = min(addresses)
        return Place(broker_name, self._mapped(addresses[lowest]), lowest == MASTER_ID)

    def forget_masters(self) -> None:
        """The next question asks the name server again who is master."""
        self._ask_after = float("-inf")

    async def connect_to(self, place: Place) -> Connection:
        """Raises ``Unreachable``."""
        try:
            return await self.pool.get(place.address)
        except Unreachable:
            self.forget_masters()
            raise

    async def ask(
        self,
        broker_name: str,
        command: RemotingCommand,
        expected: Collection[int] = OK,
        timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        *,
        any_replica: bool = False,
    ) -> RemotingCommand:
        """One question to a master, or as ``place`` has it. Raises ``Unreachable``, ``Answered`` for a code not expected."""
        return await self.ask_at(await self.place(broker_name, any_replica=any_replica), command, expected, timeout_seconds)

    async def ask_at(
        self, place: Place, command: RemotingCommand, expected: Collection[int] = OK, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> RemotingCommand:
        """As ``ask``."""
        try:
            answer = await ask_signed(self.pool, place.address, command, timeout_seconds)
        except Unreachable:
            self.forget_masters()
            raise
        if answer.code not in expected:
            raise Answered(f"{place.broker_name} ({place.address})", request_name(command.code), answer.code, answer.remark or "")
        return answer

    async def pull_limits(self, broker_name: str) -> PullLimits:
        """As the broker's configuration has them, asked again now and then since they can be changed while it runs."""
        loop = asyncio.get_running_loop()
        async with self._asking_limits.setdefault(broker_name, asyncio.Lock()):
            asked_at, limits = self._limits.get(broker_name, (float("-inf"), PullLimits()))
            if loop.time() - asked_at >= BROKER_CONFIG_SECONDS:
                limits = await self._ask_limits(broker_name)
                self._limits[broker_name] = (loop.time(), limits)
        return limits

    async def _ask_limits(self, broker_name: str) -> PullLimits:
        try:
            config = bodies.read_properties_text((await self.ask(broker_name, headers.broker_config(), any_replica=True)).body)
            return PullLimits(
                int(config.get("maxTransferCountOnMessageInMemory", PULL_RECORDS_DEFAULT)),
                max(int(config.get(f"maxTransferBytesOnMessageIn{place}", PULL_BYTES_DEFAULT)) for place in ("Memory", "Disk")),
            )
        except (Answered, ValueError):
            return PullLimits()  # Not every account may read the configuration; readers then learn by trying.

    async def version(self, broker_name: str) -> str:
        """``V5_3_3``; asked once for each connection, since an upgrade ends it."""
        connection = await self.connect_to(await self.place(broker_name, any_replica=True))
        if not connection.peer_version:
            connection.peer_version = (await self.runtime_info(broker_name)).get("brokerVersionDesc", "unknown")
        return connection.peer_version

    async def runtime_info(self, broker_name: str) -> Mapping[str, str]:
        """A broker answers with an exception until its statistics have their first sample, about a second after it began to listen."""
        deadline = asyncio.get_running_loop().time() + FIRST_SAMPLE_SECONDS_MAX
        while True:
            try:
                return bodies.read_runtime_info((await self.ask(broker_name, headers.broker_runtime_info(), any_replica=True)).body)
            except Answered as error:
                is_starting = error.code == ResponseCode.SYSTEM_ERROR and "NoSuchElementException" in error.remark
                if not is_starting or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(FIRST_SAMPLE_POLL_SECONDS)

    def _mapped(self, address: str) -> str:
        """``address_map``: an exact "ip:port" first, then patterns such as "10.0.0.*:10911"."""
        table = self._address.address_map or {}
        if address in table:
            return table[address]
        return next((target for pattern, target in table.items() if "*" in pattern and fnmatch.fnmatchcase(address, pattern)), address)

    def close(self) -> None:
        self.pool.close()
