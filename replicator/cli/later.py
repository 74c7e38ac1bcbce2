"""Commands of the contract that this release does not have: they say so, instead of being unknown or doing half."""

from __future__ import annotations

from collections.abc import Callable

import typer

from replicator.core.errors import InvalidInput

COMMANDS = {
    "audit": "proves that both sides are equal, or lists differences",
    "find": "finds a copy",
    "estimate": "estimates cost and time",
}
_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def _refusing(name: str) -> Callable[[typer.Context], None]:
    def refuse(_context: typer.Context) -> None:
        raise InvalidInput(f"{name}: not available in this version")

    return refuse


def register(app: typer.Typer) -> None:
    for name, text in COMMANDS.items():
        app.command(name, help=f"(not available in this version) {text}", context_settings=_ANYTHING)(_refusing(name))
