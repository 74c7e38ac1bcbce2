"""The command ``replicator``: its commands, and how it ends (exit codes)."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from replicator.cli import declaring, failover, groups, later, offsets, operating, rebuild, running, tokens
from replicator.core.errors import ReplicatorError
from replicator.observe.hiding import without_passwords
from replicator.observe.outcome import FAILED, exit_code

_debug = False

app = typer.Typer(
    name="replicator",
    help="Copies messages between independent RocketMQ clusters, each exactly once and in order.\n\n"
    "Exit codes: 0 done, 1 failed while running, 2 wrong use or invalid file, 3 not found, 4 refused for safety.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug


for part in (running, declaring, operating, offsets, groups, failover, rebuild, tokens, later):
    part.register(app)


def main() -> None:
    try:
        app()
    except ReplicatorError as error:
        _tell(error, str(error))
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(FAILED)
    except BrokenPipeError:
        # The reader of our output (head, less) left: nothing more to say, not even at the interpreter's end.
        sys.stderr.close()
        sys.exit(FAILED)
    except OSError as error:
        _tell(error, str(error))
        sys.exit(FAILED)
    except Exception as error:  # A bug of ours; a person gets a line all the same.
        _tell(error, f"internal error: {type(error).__name__}: {error} (replicator --debug COMMAND shows where)")
        sys.exit(FAILED)


def _tell(error: Exception, text: str) -> None:
    if _debug:
        traceback.print_exception(error)
    print(f"replicator: {without_passwords(text)}", file=sys.stderr)
