"""What reaches a terminal: every command, over stores and arguments made of what a terminal would act on."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

import whiteboard as wb
from tests.readme import commands_of
from whiteboard.cli import status, whiteboard
from whiteboard.cli.options import echo
from whiteboard.cli.terminal import visible

# A title, a colour, a bell, DEL, C1, right to left, an isolate, no width, line and paragraph separators, a soft hyphen,
# a byte order mark, a tag, a filler, a variation selector, markup of rich's, lines and a tabulator.
ODD = "a\x1b]0;owned\x07\x1b[31m\x7f\x9b\u202e\u2066\u200b\u2028\u2029\u00ad\ufeff\U000e0041\u115f\ufe0f[red]\n\r\tz"
KEY = "00" * 16


def is_safe(text: str) -> bool:
    """Whether nothing in a text is acted on by a terminal, or cannot be seen."""
    return all(visible(line) == line for line in text.split("\n"))


def names(command: click.Command, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of a group and of the groups in it."""
    if isinstance(command, click.Group):
        for name, each in commands_of(command).items():
            yield from names(each, (*above, name))
    else:
        yield above


STORE = ("--store", "{store}")
CALLS: dict[tuple[str, ...], list[tuple[str, ...]]] = {
    ("run",): [("europe", "--rounds", "1", *STORE), ("odd.toml", *STORE), ("odd:experiment", *STORE), (ODD, *STORE)],
    ("minimize",): [
        (ODD, "--x0", "1", *STORE),
        ("odd:bowl", "--x0", "1,2", "--name", ODD, *STORE),
        ("odd:bowl", "--x0", "1,2", "--name", "bowl", *STORE),
        ("odd:bowl", "--x0", ODD, *STORE),
    ],
    ("show",): [("s", *STORE), (ODD, *STORE)],
    ("ls",): [STORE],
    ("log",): [("s", *STORE), (ODD, *STORE)],
    ("diff",): [("s@0", "s", *STORE), (ODD, "s", *STORE)],
    ("fork",): [("s", "t", *STORE), ("s", ODD, *STORE)],
    ("info",): [STORE],
    ("table",): [
        ("distance", *STORE),
        ("distance", "--grads", "--columns", "y,g0,key", *STORE),
        ("distance", "--csv", "{new}", *STORE),
        ("distance", "--csv", ODD, *STORE),
        ("distance", "--where", f"y > 0 or key == '{ODD[:1]}'", *STORE),
        ("distance", "--where", ODD, *STORE),
        ("distance", "--columns", ODD, *STORE),
        (ODD, *STORE),
    ],
    ("explain",): [
        ("--system", "s", "--job", "mul", "0", "1", "--attr", "p", *STORE),
        ("--system", ODD, "--job", "mul", "0", *STORE),
        ("--system", "s", "--job", ODD, "0", *STORE),
        ("--key", ODD, *STORE),
        ("--key", "{key}", *STORE),
    ],
    ("export",): [("{store}", "{new}"), ("{store}", ODD), ("{store}", "{new}", "--system", ODD)],
    ("import",): [("{new}", "{store}"), ("{new}", "{archive}")],
    ("merge",): [("{new}", "{store}"), ("{store}", "good.db"), ("{new}", ODD)],
    ("copy",): [("{store}", "{new}"), (ODD, "{new}"), ("{store}", "{new}", "--dry-run")],
    ("import-legacy",): [(ODD, "--store", "{store}"), (".", "--store", "{store}", "--from", "npz", "--name", ODD)],
    ("recompress",): [("{store}", "--level", "3"), ("{store}", "--op", ODD, "--dry-run")],
    ("rekey",): [("--op", "mul", "--list", *STORE), ("--op", ODD, "--list", *STORE), ("--scheme", *STORE)],
    ("verify",): [STORE, ("--repair", *STORE)],
    ("audit",): [STORE, ("--module", ODD, *STORE)],
    ("gc",): [("--max-bytes", "1", *STORE), ("--max-bytes", ODD, *STORE)],
    ("forget",): [("--op", ODD, *STORE), ("--key", ODD, *STORE), ("--older-than", "0", *STORE)],
    ("rm",): [("s", *STORE), (ODD, *STORE)],
    ("ops",): [(), (ODD,), ("--module", "odd")],
    ("db", "current"): [STORE],
    ("db", "upgrade"): [STORE],
    ("db", "downgrade"): [("0002", *STORE), (ODD, *STORE)],
    ("db", "check"): [STORE],
}

CHANGES: dict[str, str] = {
    "as it is": "SELECT ?1",
    "name": "UPDATE system SET name = ?1 WHERE name = 't'",
    "every name": "UPDATE system SET name = name || ?1",
    "name in no encoding": "UPDATE system SET name = CAST(x'ff1b9bfe' AS TEXT) WHERE name = ?1 OR name = 't'",
    "uuid": "UPDATE system SET uuid = ?1",
    "spec": "UPDATE system SET spec = json_object(?1, ?1, 'measure', ?1, 'list', json_array(?1))",
    "spec that is none": "UPDATE system SET spec = ?1",
    "digest": "UPDATE commit_log SET digest = ?1",
    "op": "UPDATE page SET op = ?1",
    "header": "UPDATE page SET header = ?1",
    "reason": "INSERT INTO eviction VALUES (?1, 1, 3, 5, 7)",
    "host": "INSERT INTO writer VALUES ('s', ?1, ?1, ?1, 7, 7)",
    "revision": "UPDATE whiteboard_alembic_version SET version_num = ?1",
    "table": 'CREATE TABLE "{odd}" (x)',
    "trigger": 'CREATE TRIGGER "{odd}" AFTER INSERT ON page BEGIN SELECT 1; END',
}

MODULE = f"""
import autograd.numpy as anp
import numpy as np
import whiteboard as wb
from whiteboard.experiments import Experiment, Stop

def bowl(x):
    return anp.sum(x * x)

def setup(system):
    system.add_nodes([0, 1], p=np.eye(2))

def experiment():
    jobs = wb.JobBatch("distance", [[0, 1]], target=np.ones(1), attr="p")
    return Experiment({ODD!r}, setup, jobs, wb.rules.Relax(0.1, 1e-3, 1e-3), Stop(1e-3, 1), notes={ODD!r})
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, its archive and experiments, to copy from."""
    folder = tmp_path_factory.mktemp("made")
    with wb.open(folder / "good.db") as board:
        for name in ("s", "t"):
            system = board.system(name, {ODD: [ODD, {ODD: ODD}], "measure": "mse"})
            system.add_nodes([0, 1], p=np.eye(2))
            system.commit()
            system.process(wb.JobBatch("distance", [[0, 1]], target=np.ones(1), attr="p"))
            system.commit(wb.rules.StressDescent(omega=0.5))
    assert status(("export", str(folder / "good.db"), str(folder / "good.wba"))) == 0
    for what, statement in CHANGES.items():
        (folder / "stores").mkdir(exist_ok=True)
        changed(Path(shutil.copy(folder / "good.db", folder / "stores" / what)), statement)
    (folder / "odd.py").write_text(MODULE, "utf-8")
    (folder / "odd.toml").write_text(f"name = {json.dumps(ODD)}\n{json.dumps(ODD)} = 1\n")
    return folder


def changed(store: Path, statement: str) -> None:
    """Write into a store what its own commands refuse."""
    connection = sqlite3.connect(store)
    with connection:
        odd = ODD.replace('"', '""')
        if "{odd}" in statement:
            connection.execute(statement.format(odd=odd))
        else:
            connection.execute(statement, (ODD,))
    connection.close()


def test_every_command_has_a_call() -> None:
    """A command that is added gets its row here."""
    assert set(CALLS) == set(names(whiteboard))


@pytest.mark.parametrize("command", CALLS, ids=" ".join)
def test_nothing_reaches_a_terminal_raw(
    command: tuple[str, ...],
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Over every store, as text and as JSON: each character that comes out can be seen, and JSON is JSON in ASCII."""
    for file in made.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = set()
    for number, what in enumerate(CHANGES):
        for count, call in enumerate(CALLS[command]):
            for as_json in ((), ("--json",)):
                place = f"{number}-{count}-{len(as_json)}"
                # The path is odd too, but for the longest part of what a file system takes.
                store = tmp_path / f"{place}{ODD}.db"
                shutil.copy(made / "stores" / what, store)
                told = {
                    "store": str(store),
                    "new": str(tmp_path / f"new-{place}{ODD}"),
                    "archive": "good.wba",
                    "key": KEY,
                }
                arguments = [part.format(**told) if part.startswith("{") else part for part in call]
                code = status((*command, *arguments, *as_json))
                out, err = capfd.readouterr()
                assert code in (0, 1, 2), (what, arguments)
                assert is_safe(out), (what, arguments, out)
                assert is_safe(err), (what, arguments, err)
                assert "Traceback" not in err
                assert err.count("\n") <= 2 or code == 0
                shown.add(bool(out))
                if as_json and out:
                    assert out.isascii()
                    json.loads(out, parse_constant=pytest.fail)
    assert shown >= {True} or command == ("import-legacy",)


@pytest.mark.parametrize("command", CALLS, ids=" ".join)
def test_a_usage_error_repeats_nothing_raw(command: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    """An option that there is not is told in one line that can be seen."""
    assert status((*command, f"--{ODD}")) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), is_safe(err)) == ("", 1, True)
    assert r"\x1b]0;owned" in err


def on_a_terminal(*arguments: str, folder: Path) -> str:
    """What a command writes on a terminal, without the sequences by which rich draws."""
    pty = pytest.importorskip("pty")
    mine, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "whiteboard", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        written = b""
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:
                break
            if not part:
                break
            written += part
        process.wait()
    os.close(mine)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).replace("\r", "")


@pytest.mark.parametrize(
    "arguments",
    [("run", "odd:experiment", "--rounds", "3", "--store", "odd\x9b\u202e.db"), ("export", "good.db", "\x9b\u202e")],
    ids=["run", "export"],
)
def test_progress_on_a_terminal(arguments: tuple[str, ...], made: Path, tmp_path: Path) -> None:
    """A bar, and what is said around it, have no odd character of anybody's, and no markup is read."""
    for file in made.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "odd.py").write_text(MODULE.replace(f"Experiment({ODD!r}", "Experiment('[red]odd'"), "utf-8")
    written = on_a_terminal(*arguments, folder=tmp_path)
    assert is_safe(written)
    assert "Traceback" not in written
    assert ("[red]odd" if arguments[0] == "run" else r"\x9b\u202e") in written


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        pytest.param("plain text, ~!", "plain text, ~!", id="ascii"),
        pytest.param("Σσ²/n 東京 é €", "Σσ²/n 東京 é €", id="letters"),
        pytest.param("a\nb\tc\x7f", r"a\nb\tc\x7f", id="controls"),
        pytest.param("\x80\x9b", r"\x80\x9b", id="C1"),
        pytest.param("\u200e\u202e\u2066\u2069", r"\u200e\u202e\u2066\u2069", id="direction"),
        pytest.param("\u200b\u200d\u2060\ufeff\u00ad", r"\u200b\u200d\u2060\ufeff\xad", id="no width"),
        pytest.param("\u2028\u2029\x85", r"\u2028\u2029\x85", id="lines"),
        pytest.param("\ud800\udcff", r"\ud800\udcff", id="surrogates"),
        pytest.param("\U000e0041\u3164\u115f\ufe0f\u2800", r"\U000e0041\u3164\u115f\ufe0f\u2800", id="no ink"),
        pytest.param("\u00a0\u3000", r"\xa0\u3000", id="spaces"),
    ],
)
def test_what_is_visible(text: str, seen: str) -> None:
    """Each kind of character that cannot be seen is written out; every other stays."""
    assert visible(text) == seen


def test_tables_stand_under_one_another(capfd: pytest.CaptureFixture[str]) -> None:
    """What is wide takes two columns, a mark none; two names that are seen as one are two lines."""
    echo({"a": 1, "東京": 2, "e\u0301": 3, "\x1b": 4, r"\x1b": 5}, as_json=False)
    out, _ = capfd.readouterr()
    assert out.splitlines() == ["a     1", "東京  2", "e\u0301     3", r"\x1b  4", r"\x1b  5"]
