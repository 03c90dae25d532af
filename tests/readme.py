"""What a README says, checked: its commands against the programs, its names against the library, its output."""

from __future__ import annotations

import inspect
import json
import math
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import whiteboard as wb
from whiteboard.cli import whiteboard
from whiteboard.integration import bridge_v2

ROOT: Final = Path(__file__).resolve().parents[1]

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`]+)`")
_OURS: Final = re.compile(r"(\$ )?(whiteboard|scripts/[\w-]+)(\s|$)")
_NAME: Final = re.compile(r"(wb|board|system|np|whiteboard)((?:\.\w+)+)")
_PATH: Final = re.compile(r"\.?\w[\w.-]*/[\w./-]*")
_ROOTS: Final = {"board": wb.Board, "system": wb.System}
_SIZES: Final = frozenset({"nbytes", "bytes", "bytes_before", "bytes_after"})

_PARSE: Final = """
import argparse, contextlib, io, json, runpy, sys

real = argparse.ArgumentParser.parse_args

def parse(self, args=None, namespace=None):
    real(self, args, namespace)
    raise SystemExit("")

argparse.ArgumentParser.parse_args = parse
for program in json.load(sys.stdin):
    sys.argv, why, err = program, "no program", io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            runpy.run_path(program[0], run_name="__main__")
    except SystemExit as left:
        why = "" if left.code == "" else err.getvalue().strip().split(": error: ")[-1]
    print(json.dumps(why))
"""
"""Asks each program's own parser about its arguments, and runs nothing of it."""


class Block(NamedTuple):
    """A fenced block: python, toml, session (commands and what they print), commands, or output."""

    kind: str
    text: str
    line: int


class Mention(NamedTuple):
    """A command line. A whole one can be run as it stands; another may leave out what is required."""

    line: int
    words: tuple[str, ...]
    whole: bool


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a README in order."""
    found = []
    for match in _FENCE.finditer(text):
        kind, inside = match[1], match[2]
        lines = [line for line in inside.splitlines() if line]
        if not kind:
            kind = "commands" if all(map(_OURS.match, lines)) else "output"
            if any(line.startswith("$ ") for line in lines):
                kind = "session"
        found.append(Block(kind, inside, text.count("\n", 0, match.start()) + 2))
    return found


def shown(text: str, block: Block) -> str | None:
    """Return the output that a README shows of a block: the next one, where that is of output."""
    every = blocks(text)
    at = every.index(block) + 1
    return every[at].text if at < len(every) and every[at].kind == "output" else None


def steps(session: Block) -> list[tuple[tuple[str, ...], str]]:
    """Return each command of a session, with what it prints."""
    parts = re.split(r"^\$ (.*)\n", session.text, flags=re.MULTILINE)
    return [(tuple(shlex.split(line)), output) for line, output in zip(parts[1::2], parts[2::2], strict=True)]


def faults(text: str) -> list[str]:
    """Return one sentence for each command and name in a README that does not exist, or cannot be called so."""
    said = list(mentions(text))
    answers = refusals([mention.words for mention in said if program(mention.words)])
    found = []
    for line, words, whole in said:
        why = answers[words] if program(words) else refused(words, whole=whole)
        if why:
            found.append(f"line {line}: {shlex.join(words)}: {why}")
    for line, span, _ in _spans(text):
        if why := unknown(span):
            found.append(f"line {line}: {span}: {why}")
    return found


def unnamed(text: str) -> list[str]:
    """Return the commands that a README says nothing of."""
    named = {" ".join(_resolved(words[1:])[1]) for _, words, _ in mentions(text) if words[0] == "whiteboard"}
    return sorted(set(every_command()) - named)


# Commands


def mentions(text: str) -> Iterator[Mention]:
    """Yield every command line of a README: those of its blocks, and those in its sentences."""
    for block in blocks(text):
        if block.kind in ("session", "commands"):
            for number, text_line in enumerate(block.text.splitlines(), block.line):
                if text_line and (block.kind == "commands" or text_line.startswith("$ ")):
                    for words in _calls(text_line.removeprefix("$ ")):
                        yield Mention(number, words, whole=True)
    last: dict[int, tuple[str, ...]] = {}  # of each paragraph the program named last, whose options may follow
    for line, span, paragraph in _spans(text):
        words = tuple(span.split())
        if re.fullmatch(r"scripts/[\w-]+", words[0]):
            last[paragraph] = words[: 2 if program(words) else 1]
        elif words[0].startswith("--"):
            if not _takers(words) and paragraph in last:
                words = (*last[paragraph], *words)
        elif words[0] != "whiteboard":
            if words[0] not in commands_of(whiteboard) and not any(word.startswith("--") for word in words):
                continue
            words = ("whiteboard", *words)
        yield Mention(line, words, whole=False)


def _calls(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the command lines in one of a table: ``whiteboard show NAME · db current | check [--store S]  # why``."""
    line = line.partition("  # ")[0]
    first = line.split()[0]
    for part in line.removeprefix(first).split(" · "):
        before: tuple[str, ...] = ()
        for alternative in part.split(" | "):
            words = shlex.split(re.sub(r"[\[\]…]", "", alternative))
            yield (first, *before, *words)
            before = before or tuple(words[:-1])


def _spans(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield the code in a README's sentences, with its line and the number of its paragraph."""
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _SPAN.finditer(prose):
        yield prose.count("\n", 0, match.start()) + 1, match[1], prose.count("\n\n", 0, match.start())


@cache
def commands_of(group: click.Group) -> dict[str, click.Command]:
    """The commands of a group, by name."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def every_command(group: click.Group = whiteboard, above: str = "") -> Iterator[str]:
    """Yield the names of all commands: ``show``, ``db current`` …"""
    for name, command in commands_of(group).items():
        if isinstance(command, click.Group):
            yield from every_command(command, f"{above}{name} ")
        else:
            yield above + name


def _resolved(words: Sequence[str]) -> tuple[click.Command | None, tuple[str, ...]]:
    """Return the command that words begin with, None where there is none, and its name."""
    command: click.Command | None = whiteboard
    path: list[str] = []
    while isinstance(command, click.Group) and len(path) < len(words):
        path.append(words[len(path)])
        command = commands_of(command).get(path[-1])
    return command, tuple(path)


def refused(words: Sequence[str], *, whole: bool) -> str:
    """Say why a command line cannot be called, or return an empty text."""
    if words[0].startswith("--"):
        return "" if _takers(words) else "no command takes this"
    if words[0] != "whiteboard":
        return _script(words, whole=whole)
    command, path = _resolved(words[1:])
    if command is None:
        return "no such command"
    if isinstance(command, click.Group):
        return "" if not whole and len(words) > 1 else "which command?"
    options = {name: param for param in command.params for name in param.opts if isinstance(param, click.Option)}
    rest = list(words[1 + len(path) :])
    arguments = [
        _sample(options.get(before)) if re.fullmatch("[A-Z]+", word) else word
        for before, word in zip(["", *rest], rest, strict=False)
    ]
    while True:
        try:
            command.make_context(path[-1], list(arguments))
        except click.MissingParameter as error:
            if whole or error.param is None:
                return error.format_message()
            option = error.param.opts[:1] if isinstance(error.param, click.Option) else []
            arguments += [*option, _sample(error.param)]
        except click.UsageError as error:
            return error.format_message()
        else:
            return ""


def _takers(words: Sequence[str]) -> list[str]:
    """Return the commands that take an option, with its value where it is given."""
    known = {name: _resolved(name.split())[0] for name in every_command()}
    having = [name for name, command in known.items() if command and any(words[0] in p.opts for p in command.params)]
    if len(words) == 1:
        return having
    return [name for name in having if not refused(("whiteboard", *name.split(), *words), whole=False)]


def _sample(param: click.Parameter | None) -> str:
    """Return a text that a parameter takes, for a word in capitals."""
    if param is None:
        return "1"
    for text in ("1", "1d", "0" * 32, *getattr(param.type, "choices", ())):
        try:
            param.type.convert(text, param, None)
        except click.BadParameter:
            continue
        return str(text)
    msg = f"no text is known that {param.name} takes"
    raise AssertionError(msg)


# Scripts


@cache
def _last_line(script: str) -> str:
    """Return what a script runs in its place, or nothing."""
    path = ROOT / script
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return next((line for line in reversed(lines) if "exec " in line and "$venv" in line), "")


def begins(script: str) -> tuple[str, ...]:
    """Return the words of ours that a script runs, what it is called with left out."""
    match = re.search(r'bin/whiteboard" (.*) "\$@"', _last_line(script))
    return ("whiteboard", *match[1].split()) if match else ()


def program(words: Sequence[str]) -> list[str]:
    """Return the Python program of a script and the arguments that it gets, or nothing."""
    match = re.search(r'"\$(?:root/scripts|here)/([\w/-]+)/(\$kind|\w+)\.py"', _last_line(words[0]))
    if match is None:
        return []
    kind, *rest = words[1:] if match[2] == "$kind" else (match[2], *words[1:])
    return [str(ROOT / "scripts" / match[1] / f"{kind}.py"), *rest]


def refusals(calls: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Say of each call of a script that runs a Python program why its parser refuses it, or an empty text."""
    called = {words: program(words) for words in dict.fromkeys(calls)}
    there = {words: argv for words, argv in called.items() if Path(argv[0]).is_file()}
    if not there:
        return dict.fromkeys(called, "no program of that name")
    done = subprocess.run(
        [sys.executable, "-c", _PARSE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps(list(there.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    said = map(json.loads, done.stdout.splitlines())
    return dict.fromkeys(called, "no program of that name") | dict(zip(there, said, strict=True))


def _script(words: Sequence[str], *, whole: bool) -> str:
    if not (ROOT / words[0]).is_file():
        return "no such script"
    if ours := begins(words[0]):
        return refused((*ours, *words[1:]), whole=whole)
    about = (ROOT / words[0]).read_text("utf-8").partition("\nset -euo")[0]
    with (ROOT / "pyproject.toml").open("rb") as file:
        groups = tomllib.load(file)["dependency-groups"]
    for word in words[1:]:
        if word.startswith("--") and word not in about.split() and f"[{word}]" not in about.split():
            return f"takes no {word}"
        if words[0] == "scripts/setup" and word not in groups:
            return f"no group {word}"
    return ""


# Names


@cache
def _keywords() -> frozenset[str]:
    """Return the parameters of everything that users call."""
    found: set[str] = set()
    for each in (getattr(module, name) for module in (wb, bridge_v2) for name in module.__all__):
        for call in [each, *vars(each).values()] if isinstance(each, type) or inspect.ismodule(each) else [each]:
            if inspect.isroutine(call) or isinstance(call, type):
                found |= _parameters(call)
    return frozenset(found)


def _parameters(call: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # of C, without a signature
        return set()


def unknown(span: str) -> str:
    """Say which name in a piece of code there is not, or return an empty text."""
    if match := _NAME.match(span):
        root, dotted = match[1], match[2]
        if root in _ROOTS:
            name = dotted[1:].split(".")[0]
            return "" if hasattr(_ROOTS[root], name) else f"{_ROOTS[root].__name__} has no {name}"
        try:
            pkgutil.resolve_name({"wb": "whiteboard", "np": "numpy"}.get(root, root) + dotted)
        except (ImportError, AttributeError) as error:
            return str(error)
        return ""
    if match := re.match(r"(\w+)=", span):
        return "" if match[1] in _keywords() else f"nothing takes {match[1]}="
    if _PATH.fullmatch(span) and not (ROOT / span).exists():
        return "no such file or folder"
    return ""


# Output


def difference(expected: str, got: str) -> str:
    """Say where an output is another than the one that is shown, but for digests, times, folders and last digits."""
    wanted, came = expected.splitlines(), got.splitlines()
    for want, line in zip(wanted, came, strict=False):
        if not _alike(_neutral(want), _neutral(line)):
            return f"shown is {want!r}, printed was {line!r}"
    return "" if len(wanted) == len(came) else f"{len(wanted)} lines are shown, {len(came)} were printed:\n{got}"


def _neutral(line: str) -> list[str]:
    line = re.sub(r"\b(?:[0-9a-f]{32}){1,2}\b", lambda match: f"<{len(match[0])} digits>", line)
    line = re.sub(r"\b\d+\.\d+ s\b", "<time>", line)
    return re.sub(r"(?<![\w.])/(?:[^/\s`]+/)*", "/", line).split()


def _alike(want: list[str], got: list[str]) -> bool:
    size = want[:1] == got[:1] and want[:1] and want[0] in _SIZES
    return len(want) == len(got) and all(
        a == b or _near(a, b, 0.1 if size else 1e-8 if "." in a else 0) for a, b in zip(want, got, strict=True)
    )


def _near(a: str, b: str, part: float) -> bool:
    """Whether two numbers are near: compressed bytes depend on the compressor, last digits on the processor."""
    try:
        return math.isclose(float(a.replace(",", "")), float(b.replace(",", "")), rel_tol=part)
    except ValueError:
        return False
