"""A RocketMQ proxy in cluster mode for a throw-away cluster: what gRPC clients talk to. It listens on all interfaces."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.asking import is_listening
from deploy.local.cluster import ASK_EVERY_SECONDS, READY_SECONDS_MAX, LocalCluster
from deploy.local.jars import fetch_proxy_jars, java_tool
from deploy.local.ports import PortReservation
from deploy.local.problems import LabProblem
from deploy.local.processes import Child

PROXY_MAIN = "org.apache.rocketmq.proxy.ProxyStartup"
PROXY_MEMORY = ("-Xms128m", "-Xmx384m", "-XX:MaxDirectMemorySize=256m")
REMOTING_PORT, GRPC_PORT = 0, 1


class LocalProxy:
    """``with LocalProxy(cluster) as proxy: connect(proxy.endpoint)``"""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._ports = PortReservation(1)
        self._home = Path(tempfile.mkdtemp(prefix=f"replicator-lab-proxy-{cluster.name}-"))
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._ports.start + GRPC_PORT}"

    @property
    def remoting_endpoint(self) -> str:
        """What clients of the remoting protocol take for a name server and for every broker."""
        return f"127.0.0.1:{self._ports.start + REMOTING_PORT}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> None:
        configuration = self._home / "conf" / "rmq-proxy.json"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(json.dumps({
            "rocketMQClusterName": self._cluster.name,
            "namesrvAddr": self._cluster.name_servers,
            "proxyMode": "CLUSTER",
            "grpcServerPort": self._ports.start + GRPC_PORT,
            "remotingListenPort": self._ports.start + REMOTING_PORT,
        }))  # fmt: skip
        command = [
            java_tool("java"), *PROXY_MEMORY, "-XX:+UseSerialGC", f"-Duser.home={self._home}", f"-Drocketmq.home.dir={self._home}",
            "-cp", f"{fetch_proxy_jars(self._cluster.version)}/*", PROXY_MAIN,
            "-pc", str(configuration), "-pm", "cluster", "-n", self._cluster.name_servers,
        ]  # fmt: skip
        self._child = Child(f"proxy of {self._cluster.name}", command, self._home / "stdout.log")
        end = time.monotonic() + READY_SECONDS_MAX
        while not is_listening(self.endpoint):
            if not self._child.is_running or time.monotonic() > end:
                raise LabProblem(f"{self._child.label} {self._child.condition()}. It said: {self._child.tail()}")
            time.sleep(ASK_EVERY_SECONDS)

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
        self._ports.release()
        shutil.rmtree(self._home, ignore_errors=True)
