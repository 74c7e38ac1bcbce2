"""One throw-away RocketMQ cluster on loopback: a name server and brokers, with replicas where a test wants them."""

from __future__ import annotations

import shutil
import ssl
import string
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import launch
from deploy.local.asking import ask_to_register, is_broker_ready, is_listening, is_name_server_ready
from deploy.local.jars import DEFAULT_VERSION, fetch_jars
from deploy.local.ports import BLOCK_SIZE, PortReservation
from deploy.local.problems import LabProblem
from deploy.local.processes import Child

READY_SECONDS_MAX = 300.0
ASK_EVERY_SECONDS = 0.05
REMIND_AFTER_SECONDS = 0.5
# Inside a broker's block of ten: its port, the fast one two below it (always) and the replication one above it.
BROKER_PORT, REPLICATION_PORT, NAME_SERVER_PORT, CONTROLLER_PORT = 2, 3, 8, 9
NAME_SERVER = "name-server"


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """Where one broker lives; the same for all its starts. ``replica``: 0 is the master, where no controller decides."""

    name: str
    replica: int
    port: int
    replication_port: int
    home: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def label(self) -> str:
        return self.home.name


class Reminder:
    """A 5.x broker that has not yet connected when it wants to register skips that silently for ten seconds: remind it."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls
        self._remind_at: float | None = None

    def broker_missing(self) -> None:
        """Called while the broker is not in the route."""
        now = time.monotonic()
        if self._remind_at is None:
            if is_listening(self._address):
                self._remind_at = now + REMIND_AFTER_SECONDS
        elif now >= self._remind_at:
            ask_to_register(self._address, self._tls)
            self._remind_at = now + REMIND_AFTER_SECONDS


class LocalCluster:
    """A name server and one or more broker masters of one RocketMQ version.

    *brokers* is a count (names become ``<name>-a``, ``<name>-b`` …) or the broker names. Each has *replicas* processes: a master
    and slaves, which may be read, or (*controlled*, 5.x) whatever a controller inside the name server says. *directory* holds homes, stores
    and logs; a given one is kept, a temporary one (the default) goes with :meth:`stop`. Ports are chosen once and stay
    until :meth:`stop`, after which the object is finished. A broker is named by its position in the methods below: all replicas
    of the first one, then those of the next. *tls*: how to ask servers whether they are ready, where *jvm_options* make them want it.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = DEFAULT_VERSION,
        brokers: int | Sequence[str] = 1,
        replicas: int = 1,
        controlled: bool = False,
        directory: Path | None = None,
        broker_properties: Mapping[str, object] | None = None,
        auto_create_topics: bool = False,
        jvm_options: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.version = version
        names = [f"{name}-{letter}" for letter in string.ascii_lowercase[:brokers]] if isinstance(brokers, int) else list(brokers)
        if not names:
            raise ValueError("a cluster needs a broker")
        self._controlled = controlled
        self._jvm_options = tuple(jvm_options)
        self._tls = tls
        self._overrides = {"autoCreateTopicEnable": auto_create_topics, **(broker_properties or {})}
        self._keeps_directory = directory is not None
        self.directory = directory.resolve() if directory else Path(tempfile.mkdtemp(prefix=f"replicator-lab-{name}-"))
        places = [(broker_name, replica) for broker_name in names for replica in range(replicas)]
        self._ports = PortReservation(len(places))
        self._name_server_port = self._ports.start + NAME_SERVER_PORT
        self._controller_port = self._ports.start + CONTROLLER_PORT
        self._brokers = [self._place(index, *place) for index, place in enumerate(places)]
        self._children: dict[str, Child] = {}

    def _place(self, index: int, broker_name: str, replica: int) -> BrokerPlace:
        block = self._ports.start + index * BLOCK_SIZE
        home = self.directory / (f"{broker_name}-replica-{replica}" if replica else broker_name)
        return BrokerPlace(broker_name, replica, block + BROKER_PORT, block + REPLICATION_PORT, home)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def name_servers(self) -> str:
        return f"127.0.0.1:{self._name_server_port}"

    @property
    def broker_names(self) -> list[str]:
        return list(dict.fromkeys(broker.name for broker in self._brokers))

    @property
    def broker_addresses(self) -> list[str]:
        return [broker.address for broker in self._brokers]

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by broker name (replicas after the first: ``<name>-replica-<n>``); the name server's is under
        ``name-server``."""
        return {label: child.pid for label, child in self._children.items() if child.is_running}

    @property
    def log_directories(self) -> dict[str, Path]:
        """Where each server logs (``stdout.log`` and the server's own files below it)."""
        return {NAME_SERVER: self.directory / NAME_SERVER, **{broker.label: broker.home for broker in self._brokers}}

    def start(self) -> Self:
        """Starts what is not running and returns when every broker is in the name server's route."""
        try:
            self.start_name_server()
            with ThreadPoolExecutor(len(self._brokers)) as starts:
                list(starts.map(self.start_broker, range(len(self._brokers))))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kills everything this object started, gives the ports back and removes a temporary directory."""
        for child in self._children.values():
            child.kill()
        self._children.clear()
        self._ports.release()
        if not self._keeps_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def start_name_server(self) -> None:
        """Starts the name server; returns when it answers and shows every running broker."""
        if NAME_SERVER in self.pids:
            return
        home = self.directory / NAME_SERVER
        controller = launch.controller_properties(self._controller_port, home / "controller") if self._controlled else {}
        launch.write_home(home, self.version, launch.name_server_properties(self._name_server_port) | controller)
        child = self._launch(NAME_SERVER, launch.NAME_SERVER_MAIN, home, launch.NAME_SERVER_MEMORY)
        self._wait_until(lambda: is_name_server_ready(self.name_servers, self._tls), child)
        for broker in self._brokers:
            if broker.label in self.pids:
                self._wait_for_registration(broker)

    def kill_name_server(self) -> None:
        self._children[NAME_SERVER].kill()

    def start_broker(self, index: int = 0) -> None:
        """Starts a broker on its port and store; returns when clients can find it. A running one is left alone."""
        broker = self._brokers[index]
        if broker.label in self.pids:
            return
        roles = launch.controlled_role(self._controller_port) if self._controlled else launch.role(broker.replica)
        properties = {
            **launch.broker_defaults(broker.home / "store"),
            **roles,
            "brokerClusterName": self.name,
            "brokerName": broker.name,
            "namesrvAddr": self.name_servers,
            "listenPort": broker.port,
            "haListenPort": broker.replication_port,
            **self._overrides,
        }
        launch.write_home(broker.home, self.version, properties)
        self._launch(broker.label, launch.BROKER_MAIN, broker.home, launch.BROKER_MEMORY)
        self._wait_for_registration(broker)

    def stop_broker(self, index: int = 0) -> None:
        """Stops a broker in good order, which takes it 4 to 20 seconds."""
        self._child(index).terminate()

    def kill_broker(self, index: int = 0) -> None:
        """Kills a broker; its store stays as the crash left it."""
        self._child(index).kill()

    def restart_broker(self, index: int = 0, *, graceful: bool = False) -> None:
        """Stops or kills a broker and starts it on the same port and store."""
        if graceful:
            self.stop_broker(index)
        else:
            self.kill_broker(index)
        self.start_broker(index)

    def freeze_broker(self, index: int = 0) -> None:
        """Makes a broker fall silent with its connections open, until :meth:`thaw_broker`."""
        self._child(index).freeze()

    def thaw_broker(self, index: int = 0) -> None:
        self._child(index).thaw()

    def _child(self, index: int) -> Child:
        return self._children[self._brokers[index].label]

    def _launch(self, label: str, main: str, home: Path, memory: Sequence[str]) -> Child:
        command = launch.server_command(self.version, main, home, memory, self._jvm_options)
        child = Child(f"{label} of {self.name} ({self.version})", command, home / "stdout.log")
        self._children[label] = child
        return child

    def _wait_for_registration(self, broker: BrokerPlace) -> None:
        reminder = Reminder(broker.address, self._tls)

        # Where clients are sent: behind address translation that is another place.
        registered = f"{self._overrides.get('brokerIP1', '127.0.0.1')}:{broker.port}"

        def is_ready() -> bool:
            if is_broker_ready(broker.address, broker.name, self.name_servers, self._tls, registered):
                return True
            reminder.broker_missing()
            return False

        self._wait_until(is_ready, self._children[broker.label])

    def _wait_until(self, is_ready: Callable[[], bool], child: Child) -> None:
        end = time.monotonic() + READY_SECONDS_MAX
        while not is_ready():
            if not child.is_running or time.monotonic() > end:
                self._keeps_directory = True
                raise LabProblem(f"{child.label} {child.condition()}; its logs stay in {self.directory}. It said: {child.tail()}")
            time.sleep(ASK_EVERY_SECONDS)


def start_clusters(*clusters: LocalCluster) -> None:
    """Starts clusters side by side; when one fails, none is left running."""
    for version in {cluster.version for cluster in clusters}:
        fetch_jars(version)
    try:
        with ThreadPoolExecutor(len(clusters)) as starts:
            # All are waited for before any is undone: a start that is under way could not be stopped from outside.
            started = [starts.submit(cluster.start) for cluster in clusters]
        for future in started:
            future.result()
    except BaseException:
        stop_clusters(*clusters)
        raise


def stop_clusters(*clusters: LocalCluster) -> None:
    for cluster in clusters:
        cluster.stop()


@contextmanager
def running_clusters(*clusters: LocalCluster) -> Iterator[None]:
    """Side by side for the block, and gone after it."""
    start_clusters(*clusters)
    try:
        yield
    finally:
        stop_clusters(*clusters)
