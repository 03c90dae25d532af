"""The command line: ``whiteboard COMMAND``, a file a command. An error is one line on stderr, with status 2 or 1.

`options` are what several commands take, `terminal` is the one way out for text, `progress` the bar of what takes long,
`conflicts` what came into a store, `cells` the values of a table. A new command is a file here, its name below, and its
calls in `tests/cli/test_terminal.py`, where a test misses it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import click

from whiteboard.cli.terminal import crashed, finish, keep_descriptors, logged, say, warned
from whiteboard.errors import SinkError, UnknownExperimentError, WhiteboardError

COMMANDS = (
    "run minimize show ls log diff fork info table explain export import_ merge copy import_legacy recompress rekey "
    "verify audit gc forget rm ops db"
).split()
"""The commands: a file each, and in it one of this name."""


class _Commands(click.Group):
    """A group that imports a command where it is called, or its help asked for: one of them, not all."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(map(_called, COMMANDS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        name = next((name for name in COMMANDS if _called(name) == cmd_name), None)
        if name is None:
            return None
        command: click.Command = getattr(import_module(f"whiteboard.cli.{name}"), name)
        return command


def _called(name: str) -> str:
    """What a command is called by: Python has words of its own, and no hyphens in names."""
    return name.rstrip("_").replace("_", "-")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="whiteboard")
@click.option("-v", "--verbose", count=True, help="Log on stderr what happens; twice, in detail.")
def whiteboard(verbose: int) -> None:
    """Differentiable operations over versioned nodes: computed once, cached for good, never lost."""
    if verbose:
        logged(detailed=verbose > 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    keep_descriptors()
    warnings.showwarning = warned
    sys.excepthook = crashed
    sys.exit(status(sys.argv[1:] if arguments is None else arguments))


def status(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    try:
        code = _run(arguments)
        finish()
    except click.exceptions.Exit as gone:
        return gone.exit_code
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except click.Abort:
        return _fail("interrupted", 130)
    except UnknownExperimentError as error:
        return _fail(str(error), 2)
    except WhiteboardError as error:
        return _fail(str(error), 1)
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _fail(f"{where}{error.strerror or error}", 1)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        result = whiteboard.main(list(arguments), prog_name="whiteboard", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        for line in help_wanted.ctx.get_help().split("\n"):
            say(line)
        return 2
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    with suppress(SinkError, click.exceptions.Exit):
        finish()
    say(f"whiteboard: {' '.join(message.split())}", err=True)
    return code
