"""``run``, the services ``coordinator`` and ``worker``, ``db upgrade`` and ``version``."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import replicator
from replicator.cli import files
from replicator.cli.options import (
    RunOptions,
    ServiceOptions,
    database_url,
    parse_listen,
    parse_near,
    refuse_open_door,
    tls_files,
    token_of_environment,
)
from replicator.core.errors import InvalidInput

DEFAULT_DATA_DIR = Path("replicator-data")
DEFAULT_LISTEN = "127.0.0.1:8420"
DEFAULT_WORKER_LISTEN = "127.0.0.1:8421"
NO_LISTEN = "none"

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the embedded Postgres keeps its data.")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", envvar="REPLICATOR_TLS_CERT_FILE", help="Speak TLS with it (PEM).")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", envvar="REPLICATOR_TLS_KEY_FILE", help="Its key (PEM).")]
InsecureHttp = Annotated[
    bool,
    typer.Option("--insecure-http", envvar="REPLICATOR_INSECURE_HTTP", help="Plain http beyond this machine: a proxy speaks TLS."),
]
Files = Annotated[list[Path] | None, typer.Option("-f", "--file", help="A file of documents; may be given several times.")]
MoreFiles = Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files, as in: -f *.yaml", show_default=False)]

Lost = Annotated[
    list[str] | None,
    typer.Option("--lost", metavar="CLUSTER", help="A declared cluster that is gone: do not wait for it. May be given several times."),
]


def _database_url() -> str:
    given = os.environ.get("REPLICATOR_DATABASE_URL", "")
    return database_url(given) if given else ""


def run(
    file: Files = None,
    more: MoreFiles = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT of the REST API.")] = DEFAULT_LISTEN,
    lost: Lost = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure_http: InsecureHttp = False,
) -> None:
    """Everything in one process: Postgres (unless REPLICATOR_DATABASE_URL is set), coordinator, one worker, the API.

    Applies the files and runs until SIGTERM or Ctrl-C. Example: replicator run -f orders.yaml
    """
    from replicator.observe import logging

    logging.configure()
    host, port = parse_listen(listen)
    options = RunOptions(
        files=(*(file or []), *(more or [])),
        data_dir=data_dir,
        host=host,
        port=port,
        token=token_of_environment(),
        database_url=_database_url(),
        lost=tuple(lost or ()),
        tls=tls_files(tls_cert, tls_key),
    )
    refuse_open_door(host, options.token, options.tls, insecure_http=insecure_http)
    if options.files:
        files.load(options.files, None)
    # Server, database and web framework: loaded only where they run, and only for input that makes sense.
    from replicator.cli import wiring

    wiring.run(options)


def coordinator(
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT of the REST API.")] = DEFAULT_LISTEN,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure_http: InsecureHttp = False,
) -> None:
    """The coordinator as a process of its own; any number of them. The database is that of REPLICATOR_DATABASE_URL.

    All answer people; one of them, which holds a lease, decides and reconciles. Example: replicator coordinator --listen 127.0.0.1:8420
    """
    options = replace(_service_options(parse_listen(listen)), tls=tls_files(tls_cert, tls_key))
    refuse_open_door(options.host, options.token, options.tls, insecure_http=insecure_http)
    from replicator.cli import services

    services.run_coordinator(options)


def worker(
    near: Annotated[str, typer.Option("--near", help="The cluster it runs beside: flows to there come to it first.")] = "",
    listen: Annotated[
        str, typer.Option("--listen", help=f"HOST:PORT of /healthz, /readyz and /metrics, or {NO_LISTEN}.")
    ] = DEFAULT_WORKER_LISTEN,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure_http: InsecureHttp = False,
) -> None:
    """A worker as a process of its own; any number of them. The database is that of REPLICATOR_DATABASE_URL.

    It takes its share of the queues, and hands them over when it stops. Example: replicator worker --near shanghai
    """
    address = ("", 0) if listen == NO_LISTEN else parse_listen(listen)
    options = replace(_service_options(address, parse_near(near)), tls=tls_files(tls_cert, tls_key))
    if options.host:
        refuse_open_door(options.host, options.token, options.tls, insecure_http=insecure_http)
    from replicator.cli import services

    services.run_worker(options)


def _service_options(address: tuple[str, int], near: str = "") -> ServiceOptions:
    from replicator.observe import logging

    logging.configure()
    url = _database_url()
    if not url:
        raise InvalidInput("REPLICATOR_DATABASE_URL is not set: services meet in a database", hint="without one: replicator run")
    host, port = address
    return ServiceOptions(url, host, port, token_of_environment(), near)


def upgrade(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Brings the database to this release's schema. Example: replicator db upgrade"""
    from replicator.cli import wiring

    asyncio.run(wiring.upgrade_database(_database_url(), data_dir))
    print("the database has this release's schema")


def version() -> None:
    """The version of this program. Example: replicator version"""
    print(replicator.__version__)


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(coordinator)
    app.command()(worker)
    database = typer.Typer(help="The database of the replicator.", no_args_is_help=True)
    database.command("upgrade")(upgrade)
    # A group with a single command would swallow its name without a callback.
    database.callback()(lambda: None)
    app.add_typer(database, name="db")
    app.command()(version)
