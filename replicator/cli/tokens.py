"""``tokens create|list|revoke`` and ``changes``: who may ask the coordinator, and who changed what."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from replicator.cli.client import Client, named
from replicator.cli.options import database_url
from replicator.cli.output import Format, Output, show
from replicator.core.errors import InvalidInput
from replicator.core.roles import DAYS_MAX, Role

ExpiresInDays = Annotated[int | None, typer.Option("--expires-days", min=1, max=DAYS_MAX, help="Left out: it does not expire.")]


def create(
    name: str,
    role: Annotated[Role, typer.Option("--role", help="Each may do what the ones before it may.")],
    expires_in_days: ExpiresInDays = None,
    database: Annotated[bool, typer.Option("--database", help="Write straight into REPLICATOR_DATABASE_URL.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Makes a token and prints it, this once. Example: replicator tokens create grafana --role read --expires-days 365

    read looks; operate pauses, resumes, moves groups; admin declares, deletes and makes tokens. With --database no coordinator is
    needed: for the first token.
    """
    named(name)
    if database:
        token = _create_in_database(name, role, expires_in_days)
    else:
        body = {"name": name, "role": role.value, "expires_in_days": expires_in_days}
        token = Client().post("/tokens", body)["token"]
    if output is Format.TABLE:
        print(token)
    else:
        show({"name": name, "role": role.value, "token": token}, output)


def _create_in_database(name: str, role: Role, expires_in_days: int | None) -> str:
    given = os.environ.get("REPLICATOR_DATABASE_URL", "")
    if not given:
        raise InvalidInput("--database needs REPLICATOR_DATABASE_URL")
    url = database_url(given)
    # Only this command needs them: every other one starts faster without.
    from replicator.coordinator.access import create_first_token
    from replicator.store.postgres import PostgresStore

    async def make() -> str:
        store = PostgresStore(url)
        try:
            await store.open()
            return await create_first_token(store, name, role, expires_in_days)
        finally:
            await store.close()

    return asyncio.run(make())


def listing(output: Output = Format.TABLE) -> None:
    """All tokens, without the tokens themselves. Example: replicator tokens list"""
    show(Client().get("/tokens"), output, empty="no tokens")


def revoke(name: str, output: Output = Format.TABLE) -> None:
    """Ends a token within seconds, on every coordinator. Example: replicator tokens revoke grafana"""
    answer = Client().delete(f"/tokens/{named(name)}")
    show(answer, output)


def changes(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")] = 100,
    before: Annotated[int | None, typer.Option("--before", min=1, help="Only those with a smaller id.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Who changed what through the coordinator, and who was refused. Example: replicator changes --limit 20"""
    show(Client().get("/changes", limit=limit, before=before), output, empty="no changes")


def register(app: typer.Typer) -> None:
    tokens = typer.Typer(help="Who may ask the coordinator.", no_args_is_help=True)
    tokens.command("create")(create)
    tokens.command("list")(listing)
    tokens.command("revoke")(revoke)
    app.add_typer(tokens, name="tokens")
    app.command()(changes)
