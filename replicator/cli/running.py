"""``run``, ``db upgrade`` and ``version``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

import replicator
from replicator.cli import files
from replicator.cli.options import RunOptions, database_url, parse_listen, refuse_open_door, tls_files, token_of_environment

DEFAULT_DATA_DIR = Path("replicator-data")
DEFAULT_LISTEN = "127.0.0.1:8420"

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
    database = typer.Typer(help="The database of the replicator.", no_args_is_help=True)
    database.command("upgrade")(upgrade)
    # A group with a single command would swallow its name without a callback.
    database.callback()(lambda: None)
    app.add_typer(database, name="db")
    app.command()(version)
