"""Command lines and configuration files of RocketMQ's servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.jars import fetch_jars, java_tool

NAME_SERVER_MAIN = "org.apache.rocketmq.namesrv.NamesrvStartup"
BROKER_MAIN = "org.apache.rocketmq.broker.BrokerStartup"
# A name server does too little for the second compiler to pay.
NAME_SERVER_MEMORY = ("-Xms64m", "-Xmx128m", "-XX:TieredStopAtLevel=1")
BROKER_MEMORY = ("-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m")
COMMIT_LOG_FILE_BYTES = 64 * 1024 * 1024
CONSUME_QUEUE_FILE_BYTES = 600_000

LOGBACK_FILES = ("logback_namesrv.xml", "logback_broker.xml", "logback_tools.xml")


def java_flags(version: str) -> list[str]:
    """What a version needs to run on Java 17: 4.x unmaps files by reflection, at the latest when it recovers from a crash."""
    if not version.startswith("4."):
        return []
    return ["--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED"]


def server_command(version: str, main: str, home: Path, memory: Sequence[str], jvm_options: Sequence[str]) -> list[str]:
    """The command line of a server whose configuration file is ``home/server.conf``."""
    lib = fetch_jars(version)
    return [
        java_tool("java"),
        *memory,
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-Xshare:auto",
        *java_flags(version),
        *jvm_options,
        f"-Duser.home={home}",
        f"-Drocketmq.home.dir={home}",
        "-cp",
        ":".join(str(jar) for jar in sorted(lib.glob("*.jar"))),
        main,
        "-c",
        str(home / "server.conf"),
    ]


def write_home(home: Path, version: str, properties: Mapping[str, object]) -> None:
    """Writes a server's home folder; an existing one keeps its store."""
    (home / "conf").mkdir(parents=True, exist_ok=True)
    (home / "server.conf").write_text("".join(f"{key}={_text(value)}\n" for key, value in properties.items()))
    if version.startswith("4."):
        # 4.x refuses to start without them and does not carry them in its jars.
        for name in LOGBACK_FILES:
            (home / "conf" / name).write_text(_logback(home / "logs" / name.replace("logback_", "").replace(".xml", ".log")))


def name_server_properties(port: int) -> dict[str, object]:
    return {"listenPort": port, "bindAddress": "127.0.0.1"}


def controller_properties(port: int, store: Path) -> dict[str, object]:
    """A controller of one, inside the name server (5.x)."""
    return {
        "enableControllerInNamesrv": True,
        "controllerDLegerGroup": "controllers",
        "controllerDLegerPeers": f"n0-127.0.0.1:{port}",
        "controllerDLegerSelfId": "n0",
        "controllerStorePath": store,
        "scanNotActiveBrokerInterval": 1_000,
    }


def role(replica: int) -> dict[str, object]:
    """Master, or a slave that may be read while its master is away."""
    if replica == 0:
        return {"brokerId": 0, "brokerRole": "ASYNC_MASTER"}
    return {"brokerId": replica, "brokerRole": "SLAVE", "slaveReadEnable": True}


def controlled_role(controller_port: int) -> dict[str, object]:
    """Whichever the controller gives it; it is told of a dead master within seconds."""
    return {
        "enableControllerMode": True,
        "controllerAddr": f"127.0.0.1:{controller_port}",
        "controllerHeartBeatTimeoutMills": 3_000,
    }


def broker_defaults(store: Path) -> dict[str, object]:
    """A small broker that admits SQL92 filters, delivers timers sharply and asks about transactions soon."""
    return {
        "flushDiskType": "ASYNC_FLUSH",
        "brokerIP1": "127.0.0.1",
        "brokerIP2": "127.0.0.1",
        "bindAddress": "127.0.0.1",
        "storePathRootDir": store,
        "storePathCommitLog": store / "commitlog",
        "enablePropertyFilter": True,
        # 4.x and 5.x spell these differently; an unknown key is ignored.
        "mapedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES,
        "mappedFileSizeCommitLog": COMMIT_LOG_FILE_BYTES,
        "mapedFileSizeConsumeQueue": CONSUME_QUEUE_FILE_BYTES,
        "mappedFileSizeConsumeQueue": CONSUME_QUEUE_FILE_BYTES,
        "diskMaxUsedSpaceRatio": 95,
        "timerPrecisionMs": 100,
        # The default second costs up to half a core in an idle broker: each flush copies the whole 38 MB wheel.
        "timerFlushIntervalMs": 10_000,
        "transactionCheckInterval": 2_000,
        "transactionTimeOut": 2_000,
        "registerNameServerPeriod": 10_000,
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _logback(file: Path) -> str:
    return f"""<configuration>
  <appender name="file" class="ch.qos.logback.core.FileAppender"><file>{file}</file>
    <encoder><pattern>%d %p %t - %m%n</pattern></encoder></appender>
  <root level="INFO"><appender-ref ref="file"/></root>
</configuration>
"""
