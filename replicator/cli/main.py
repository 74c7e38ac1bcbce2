"""The command ``replicator``: its commands, and how it ends (exit codes)."""

from __future__ import annotations

import sys

import typer

from replicator.cli import declaring, later, operating, running
from replicator.core.errors import ReplicatorError
from replicator.observe.outcome import FAILED, exit_code

app = typer.Typer(
    name="replicator",
    help="Copies messages between independent RocketMQ clusters, each exactly once and in order.\n\n"
    "Exit codes: 0 done, 1 failed while running, 2 wrong use or invalid file, 3 not found, 4 refused for safety.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (running, declaring, operating, later):
    part.register(app)


def main() -> None:
    try:
        app()
    except ReplicatorError as error:
        print(f"replicator: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(FAILED)
    except BrokenPipeError:
        # The reader of our output (head, less) left: nothing more to say, not even at the interpreter's end.
        sys.stderr.close()
        sys.exit(FAILED)
