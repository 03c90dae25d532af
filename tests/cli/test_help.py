"""The help of every command: it ends with an example, and the example can be called so."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from tests.readme import commands_of
from whiteboard.cli import whiteboard


def leaves(command: click.Command, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command of a group with its path."""
    if isinstance(command, click.Group):
        for name, each in commands_of(command).items():
            yield from leaves(each, (*above, name))
    else:
        yield above, command


COMMANDS = {" ".join(path): (path, command) for path, command in leaves(whiteboard)}


@pytest.mark.parametrize(("path", "command"), COMMANDS.values(), ids=COMMANDS)
def test_an_example_that_can_be_called(path: tuple[str, ...], command: click.Command) -> None:
    """Its arguments are parsed by the very command; nothing is run."""
    said, example = (command.epilog or "").split(": ", 1)
    words = shlex.split(example)
    assert (said, words[0], tuple(words[1 : 1 + len(path)])) == ("For example", "whiteboard", path)
    command.make_context(" ".join(path), words[1 + len(path) :])
