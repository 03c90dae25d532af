"""The command line: JSON on stdout, one line on stderr, and the documented exit status."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Bad, Cli, assert_refused
from whiteboard.experiments import draw


def test_run_show_and_run_again(cli: Cli) -> None:
    """A run ends at the known stress, show agrees with it, and the next run resumes at its end and computes nothing."""
    done = cli("run", "europe", "--json")
    assert (done.code, done.err) == (0, "")
    first = json.loads(done.out)
    assert list(first) == [
        *("name", "commit", "rounds", "resumed_from", "digest", "relative_stress"),
        *("misses", "hits_memory", "hits_disk", "seconds"),
    ]
    assert first["relative_stress"] <= 0.0141150
    assert (first["name"], first["resumed_from"], first["rounds"]) == ("europe", None, first["commit"])
    shown = json.loads(cli("show", "europe", "--json").out)
    assert list(shown) == ["name", "commit", "nodes", "digest", "relative_stress", "spec"]
    assert {key: shown[key] for key in ("commit", "digest", "relative_stress")} == {
        key: first[key] for key in ("commit", "digest", "relative_stress")
    }
    again = json.loads(cli("run", "europe", "--json").out)
    assert (again["resumed_from"], again["rounds"], again["digest"]) == (first["commit"], 0, first["digest"])
    other = json.loads(cli("run", "europe", "--name", "other", "--json").out)
    assert (other["misses"], other["digest"], other["name"]) == (0, first["digest"], "other")
    listed = json.loads(cli("ls", "--json").out)["systems"]
    assert [row["name"] for row in listed] == ["europe", "other"]
    info = json.loads(cli("info", "--json").out)
    assert (info["systems"], info["packages"]) == (2, 210 * first["rounds"])


def test_rounds_count_the_whole_life(cli: Cli) -> None:
    """`--rounds` is a total: a run that was stopped and resumed ends where one run would have ended."""
    cli("run", "europe", "--rounds", "3", "--quiet")
    done = cli("run", "europe", "--rounds", "8")
    assert "europe: resumed at commit 3" in done.err
    assert "europe: not done at commit 8" in done.out
    whole = json.loads(cli("run", "europe", "--name", "whole", "--rounds", "8", "--json").out)
    assert json.loads(cli("show", "europe", "--json").out)["digest"] == whole["digest"]


def test_a_seed_is_another_specification(cli: Cli) -> None:
    """A random start differs from the classical one, is the same for one seed, and does not pass for the other."""
    digests = [
        json.loads(cli("run", "europe", "--rounds", "2", "--json", "--name", f"n{i}", *seed).out)["digest"]
        for i, seed in enumerate([(), ("--seed", "1"), ("--seed", "1"), ("--seed", "2")])
    ]
    assert digests[1] == digests[2]
    assert len(set(digests)) == 3
    done = cli("run", "europe", "--name", "n1", "--seed", "2")
    assert (done.code, done.out) == (1, "")
    assert "start is 'random, seed 1', asked for 'random, seed 2'" in done.err


def test_the_log_has_one_line_a_commit(cli: Cli, tmp_path: Path) -> None:
    """`--log` appends each commit with its number and digest."""
    cli("run", "europe", "--rounds", "2", "--quiet", "--log", "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["id"], row["changed"]) for row in rows] == [(0, 21), (1, 21), (2, 21)]


@pytest.mark.parametrize("name", ["map.png", "map.svg", "map.pdf"])
def test_the_map_is_drawn(cli: Cli, tmp_path: Path, name: str) -> None:
    """`--plot` writes the kind of file that its name says."""
    done = cli("run", "europe", "--rounds", "1", "--plot", name)
    assert done.code == 0
    begins = {"map.png": b"\x89PNG", "map.svg": b"<?xml", "map.pdf": b"%PDF"}[name]
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_without_matplotlib_the_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--plot` without matplotlib fails before it starts anything, and names the extra."""
    monkeypatch.setattr(draw, "find_spec", lambda name: None)
    done = cli("run", "europe", "--plot", "map.png")
    assert (done.code, done.err) == (1, "whiteboard: drawing needs matplotlib: pip install 'whiteboard[plot]'\n")
    assert list(tmp_path.iterdir()) == []


LINE = """
name = "line"
measure = "relative_stress"
[[nodes]]
ids = [0, 1]
p = [[0.0, 0.0], [1.0, 0.0]]
[[jobs]]
op = "distance"
src_ids = [[0, 1]]
target = [0.0]
attr = "p"
[rule]
kind = "Relax"
eta = 0.1
[stop]
change = 1e-9
rounds = 3
"""


BAD = {
    "experiment": Bad(("run", "atlantis"), 2, "no experiment 'atlantis'; built in: europe"),
    "command": Bad(("fly",), 2, "No such command 'fly'"),
    "option": Bad(("run", "europe", "--fast"), 2, "No such option"),
    "rounds": Bad(("run", "europe", "--rounds", "-1"), 2, "--rounds"),
    "rounds text": Bad(("run", "europe", "--rounds", "many"), 2, "'many' is not a valid integer"),
    "argument": Bad(("run",), 2, "Missing argument 'EXPERIMENT'"),
    "plot format": Bad(("run", "europe", "--plot", "map.txt"), 1, "cannot draw map.txt: expected a file name"),
    "plot folder": Bad(("run", "europe", "--plot", "no/map.png"), 1, "there is no folder"),
    "log folder": Bad(("run", "europe", "--log", "no/log.jsonl"), 1, "cannot write results to no/log.jsonl"),
    "store folder": Bad(("run", "europe", "--store", "no/x.db"), 1, "no/x.db"),
    "show nothing": Bad(("show", "europe"), 1, "whiteboard.db"),
    "info nothing": Bad(("info",), 1, "whiteboard.db"),
    "db nothing": Bad(("db", "current"), 1, "whiteboard.db"),
    "not sqlite": Bad(("run", "europe", "--store", "text.db"), 1, "text.db"),
    "truncated": Bad(("run", "europe", "--store", "truncated.db"), 1, "truncated.db"),
    "foreign": Bad(("run", "europe", "--store", "foreign.db"), 1, "foreign.db"),
    "newer": Bad(("run", "europe", "--store", "newer.db"), 1, "newer"),
    "no schema": Bad(("run", "europe", "--store", "older.db"), 1, "older.db: it has no whiteboard schema"),
    "folder": Bad(("run", "europe", "--store", "."), 1, "it is a folder"),
    "unknown system": Bad(("show", "asia", "--store", "good.db"), 1, "good.db has no system 'asia'; it has europe"),
    "plot of nothing": Bad(("run", "line.toml", "--plot", "map.png"), 1, "'line' draws nothing: leave --plot"),
    "fork without a name": Bad(("fork", "europe", "", "--store", "good.db"), 1, "system name: expected printable"),
    "fork in no store": Bad(("fork", "europe", "b", "--store", "none.db"), 1, "does not exist"),
    "fork with a line": Bad(("fork", "europe", "a\nb", "--store", "good.db"), 1, "system name: expected printable"),
    "bad name": Bad(("run", "europe", "--store", "good.db", "--name", ""), 1, "system name"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_changes_nothing(cli: Cli, four_rounds: Path, tmp_path: Path, bad: Bad) -> None:
    """Each mistake is one line on stderr that names the thing, with its status; no file changes or appears."""
    (tmp_path / "line.toml").write_text(LINE)
    good = four_rounds.read_bytes()
    (tmp_path / "good.db").write_bytes(good)
    (tmp_path / "text.db").write_text("not a database at all, but longer than a header" * 10)
    (tmp_path / "truncated.db").write_bytes(good[: len(good) // 2])
    for name, revision in (("newer", "9999"), ("older", None)):
        (tmp_path / f"{name}.db").write_bytes(good)
        with sqlite3.connect(tmp_path / f"{name}.db") as raw:
            table = "whiteboard_alembic_version"
            raw.execute(
                f"UPDATE {table} SET version_num = ?" if revision else f"DELETE FROM {table}",
                (revision,) * bool(revision),
            )
        raw.close()
    with sqlite3.connect(tmp_path / "foreign.db") as raw:
        raw.execute("CREATE TABLE recipe (id INTEGER)")
    raw.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_refused(cli(*bad.arguments), bad.code, bad.says)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ignored = {name for name in after if name.endswith((".lock", "-wal", "-shm"))}
    ignored |= {"good.db"} & set(bad.arguments)  # a store that may be opened counts the opening
    assert {name: after[name] for name in after if name not in ignored} == {
        name: before[name] for name in before if name not in ignored
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read-only")
def test_a_read_only_store_is_shown_and_not_run(cli: Cli, tmp_path: Path) -> None:
    """A store that cannot be written is an error for run, and fine for show."""
    cli("run", "europe", "--rounds", "1", "--quiet")
    (tmp_path / "whiteboard.db").chmod(0o400)
    assert cli("show", "europe").code == 0
    done = cli("run", "europe")
    assert (done.code, "whiteboard.db" in done.err) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_after_the_commit_and_says_how_to_go_on(cli: Cli, tmp_path: Path, number: int) -> None:
    """Ctrl-C ends a run at a whole commit with status 130; the next run goes on from it to the same end."""
    run = ("run", "europe", "--rounds", "100", "--store", "x.db")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "whiteboard", *run, "--log", "log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (log.exists() and log.stat().st_size > 2000) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    stopped = json.loads(log.read_text().splitlines()[-1])["id"]
    assert process.returncode == 130
    assert f"not done at commit {stopped}" in out
    assert f"stopped at commit {stopped}; the same command goes on from there" in err
    first, second = cli(*run, "--name", "whole", "--json").said, cli(*run, "--json").said
    assert second["resumed_from"] == stopped
    assert (second["commit"], second["digest"]) == (first["commit"], first["digest"])
