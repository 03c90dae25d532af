"""Results of diskcache and joblib become packages that calls find; nothing wrong is taken, no pickle is trusted."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests.legacy import GOOD, MAPPING, Deadly, Sleepy, diskcache_folder, inputs, joblib_folder, result, unpacked
from tests.processes import run_whiteboard
from tests.storage.moving import assert_whole
from tests.storage.samples import environment
from whiteboard.integration.legacy import wire

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = {"diskcache": "mapping:sources", "joblib": "mapping:of_arguments"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the module that says what the results are of."""
    (tmp_path / "mapping.py").write_text(MAPPING)
    return tmp_path


def command(folder: Path, *options: str, store: str = "a.db", op: str = "mul", sources: str = "") -> list[str]:
    """The command that imports a folder."""
    sources = sources or FUNCTIONS["joblib" if "joblib" in folder.name or "result" in folder.name else "diskcache"]
    return ["import-legacy", str(folder), "--store", store, "--op", op, "--sources", sources, *options]


def run(folder: Path, *options: str, cwd: Path, **named: str) -> subprocess.CompletedProcess[str]:
    """Import a folder, trusting it."""
    arguments = command(folder, "--trust-pickle", "--json", *options, **named)
    return run_whiteboard(*arguments, cwd=cwd)


def taken(folder: Path, *options: str, cwd: Path, status: int = 0, **named: str) -> dict[str, Any]:
    """Import a folder, and return what was said."""
    done = run(folder, *options, cwd=cwd, **named)
    assert done.returncode == status, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def refused(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """Return the one line that a failed import said."""
    assert (done.returncode, done.stdout) == (status, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1 or status == 2, done.stderr
    return lines[-1]


def hits(path: Path, seeds: range = GOOD) -> list[int]:
    """Which results a later call finds; each is what the old cache had."""
    found = []
    with wb.open(path, readonly=True) as board:
        for seed in seeds:
            answer = board.call("mul", *inputs(seed))
            y, grads = result(seed)
            np.testing.assert_array_equal(answer.y, y)
            np.testing.assert_array_equal(answer.grads, grads)
            if answer.hit != "miss":
                found.append(seed)
    return found


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "diskcache-frozen": lambda folder: unpacked("diskcache", folder),
    "joblib-frozen": lambda folder: unpacked("joblib", folder),
    "diskcache-here": lambda folder: diskcache_folder(folder / "cache"),
    "joblib-here": lambda folder: joblib_folder(folder / "memory"),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_a_later_call_hits(make: Callable[[Path], Path], place: Path) -> None:
    """What the real libraries wrote is found by calls with the same sources, and a second import adds nothing."""
    for library in ("diskcache", "joblib"):
        pytest.importorskip(library)
    folder = make(place)
    planned = taken(folder, "--dry-run", cwd=place)
    assert not (place / "a.db").exists()
    assert taken(folder, cwd=place) == planned
    assert (planned["added"], planned["verified"], planned["largest_ulps"]) == (len(GOOD), 10, 0)
    assert hits(place / "a.db", range(30)) == list(GOOD)
    again = taken(folder, cwd=place)
    assert (again["added"], again["present"], again["bytes"]) == (0, len(GOOD), 0)
    assert_whole(place / "a.db")
    with sqlite3.connect(place / "a.db") as connection:
        assert connection.execute("SELECT count(*), sum(n) FROM page").fetchone() == (3, len(GOOD))
    connection.close()


def test_no_pickle_is_read_untrusted(place: Path) -> None:
    """Without --trust-pickle it is a wrong usage: nothing is unpickled, and no store is made."""
    folder = unpacked("diskcache", place)
    for options in ((), ("--trust",)):
        done = run_whiteboard(*command(folder, *options), cwd=place)
        assert ("--trust" if options else "which run code: see --help, --trust-pickle") in refused(done, 2)
    assert not (place / "a.db").exists()


def test_only_one_program_reads_pickles() -> None:
    """No file of the library or the scripts reads pickles but the one that is started for it, and benchmarks.

    Workers and their board send each other pickles, which nobody else writes, and which lie nowhere.
    """
    named = []
    for folder in ("whiteboard", "storage", "migrations", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text("utf-8")
            if any(word in text for word in ("import pickle", "import joblib", "allow_pickle=True", "pickle.loads")):
                named.append(path.relative_to(ROOT).as_posix())
    left = [name for name in named if "benching" not in name and "/workers/" not in name]
    assert left == ["whiteboard/integration/legacy/unpickler.py"]


def test_large_values_and_shards(place: Path) -> None:
    """Values that diskcache keeps in files, and the shards of a FanoutCache, are read."""
    diskcache = pytest.importorskip("diskcache")
    (place / "mapping.py").write_text(
        MAPPING + "\n\ndef large(key):\n    return [np.full(10_000, float(key)), np.ones(10_000)]\n"
    )
    with diskcache.FanoutCache(str(place / "cache"), shards=4) as cache:
        for number in range(12):
            x, one = np.full(10_000, float(number)), np.ones(10_000)
            cache[number] = (x * one, [one, x])
    assert taken(place / "cache", cwd=place, sources="mapping:large")["added"] == 12
    with wb.open(place / "a.db", readonly=True) as board:
        assert board.call("mul", np.full(10_000, 7.0), np.ones(10_000)).hit == "disk"


def test_parameters_and_ops_of_the_user(place: Path) -> None:
    """The function may return parameters, and its module may register the op; keys are those of a call."""
    diskcache = pytest.importorskip("diskcache")
    (place / "mapping.py").write_text(
        MAPPING
        + "\n\nimport whiteboard as wb\n\n\n@wb.op(kind='elementwise')\ndef cube(x, k=1.0):\n    return k * x * x * x\n"
        "\n\ndef of_cube(key):\n    return [inputs(key)[0]], {'k': 2.0}\n"
    )
    with diskcache.Cache(str(place / "sums")) as cache:
        for seed in range(5):
            x = inputs(seed)[0]
            cache["sum", seed, 0] = (x.sum(0), (np.ones_like(x),))
    assert taken(place / "sums", cwd=place, op="sum", sources="mapping:of_axis")["added"] == 5
    with wb.open(place / "a.db", readonly=True) as board:
        assert board.call("sum", inputs(3)[0], params={"axis": 0}).hit == "disk"
    with diskcache.Cache(str(place / "cubes")) as cache:
        for seed in range(5):
            x = inputs(seed)[0]
            cache[seed] = (2.0 * x * x * x, 6.0 * x * x)
    said = taken(place / "cubes", "--rtol", "1e-14", cwd=place, op="cube", sources="mapping:of_cube")
    assert (said["added"], said["verified"]) == (5, 5)
    code = (
        "import mapping, whiteboard as wb\n"
        "with wb.open('a.db') as board:\n"
        "    print(board.call('cube', mapping.inputs(2)[0], params={'k': 2.0}).hit)"
    )
    asked = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert asked.stdout == "disk\n"


class Bad(NamedTuple):
    """An entry that cannot be taken, and a word of the reason; None where it is left out on purpose."""

    key: Any
    value: Any
    word: str | None


A, B = inputs(100)
BAD = [
    Bad(("mul", 100), Deadly(), "ended its process with status 3"),
    Bad(("mul", 101), "text", "not (y, grads)"),
    Bad(("mul", 102), (A * B,), "not (y, grads)"),
    Bad(("mul", 103), (np.ones(2), inputs(103)), "y: expected shape (4,), got (2,)"),
    Bad(("mul", 104), (np.ones(5, np.float32), inputs(104)), "y: expected dtype float64"),
    Bad(("mul", 105), (np.ones(3), [np.ones(3)]), "one gradient for each of 2 sources, got 1"),
    Bad(("mul", 106), (np.ones(4), [np.ones(4), np.ones((4, 1))]), "grads[1]: expected shape (4,)"),
    Bad(("mul", 107), (np.array([None]), [A, B]), "dtype object"),
    Bad("raise", (A * B, [B, A]), "ValueError: not mine"),
    Bad("skip", (A * B, [B, A]), None),
    Bad(5, (A * B, [B, A]), "TypeError"),
    Bad(("mul", 108), Sleepy(), "took longer than 2 s"),
    Bad(("mul", 109), 12.5, "not (y, grads)"),
]


def test_a_bad_entry_harms_no_other(place: Path) -> None:
    """Each entry that cannot be taken, or kills its reader, is counted and told with its reason; others are taken."""
    diskcache = pytest.importorskip("diskcache")
    folder = diskcache_folder(place / "cache", GOOD[:12])
    with diskcache.Cache(str(folder)) as cache:
        for number, bad in enumerate(BAD):
            cache[bad.key] = bad.value
            cache["mul", 12 + number] = result(12 + number)
        cache["mul", 110] = cache["mul", 111] = result(110)
    with sqlite3.connect(folder / "cache.db") as connection:
        connection.execute("UPDATE Cache SET expire_time = 1 WHERE rowid = (SELECT max(rowid) - 1 FROM Cache)")
        connection.execute("UPDATE Cache SET value = x'80059563' WHERE rowid = (SELECT max(rowid) FROM Cache)")
    connection.close()
    said = taken(folder, "--patience", "2", cwd=place, status=1)
    good = 12 + len(BAD)
    assert (said["entries"], said["added"]) == (good + len(BAD) + 2, good)
    assert (said["failed"], said["left"]) == (len(BAD) - 1 + 1, 2)
    assert said["reasons"] == {"the function returned None": 1, "expired": 1}
    assert hits(place / "a.db", range(good)) == list(range(good))
    assert_whole(place / "a.db")
    told = dict(zip([bad.key for bad in BAD if bad.word], said["examples"], strict=False))
    for bad in BAD:
        if bad.word is not None:
            assert bad.word in told[bad.key], said["examples"]


def _scaled(factor: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        diskcache = pytest.importorskip("diskcache")
        with diskcache.Cache(str(diskcache_folder(folder / "cache", range(12)))) as cache:
            y, grads = result(3)
            cache["mul", 3] = (y * factor, grads)
        return folder / "cache"

    return make


@pytest.mark.parametrize(
    ("factor", "rtol", "near"), [(1 + 2e-16, "1e-12", True), (1 + 1e-9, "1e-12", False), (-1.0, "0.1", False)]
)
def test_what_the_op_does_not_compute_is_refused(factor: float, rtol: str, near: bool, place: Path) -> None:
    """A sample with other bits writes nothing; all takes the right ones, rtol the near ones, none each."""
    folder = _scaled(factor)(place)
    line = refused(run(folder, "--sample", "1", cwd=place))
    assert "1 of 12 results that were computed again are not what op 'mul' computes" in line
    assert "('mul', 3)" in line
    assert not (place / "a.db").exists()
    done = run(folder, "--sample", "1", "--rtol", rtol, cwd=place, store="near.db")
    assert done.returncode == (0 if near else 1)
    assert (place / "near.db").exists() is near
    said = taken(folder, "--verify", "all", cwd=place, status=1)
    assert (said["added"], said["different"], said["verified"]) == (11, 1, 12)
    assert said["largest_ulps"] > 0
    assert hits(place / "a.db", range(12)) == [seed for seed in range(12) if seed != 3]
    assert taken(folder, "--verify", "none", cwd=place, store="all.db")["added"] == 12


def test_what_the_store_has_stays(place: Path) -> None:
    """A key that the store holds keeps its package, whatever the folder says."""
    with wb.open(place / "a.db") as board:
        board.call("mul", *inputs(3))
    said = taken(_scaled(-1.0)(place), "--verify", "none", cwd=place)
    assert (said["added"], said["present"]) == (11, 1)
    assert hits(place / "a.db", range(12)) == list(range(12))


def test_a_full_disk_is_one_line(place: Path) -> None:
    """Where the store may not grow, the error is one line, what is there is whole, and with room the next call ends."""
    folder = unpacked("diskcache", place)
    wb.open(place / "a.db").close()
    # Enough for SQLite's index of its log, and for little of the log.
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (34_000, 34_000))\n"
        "runpy.run_module('whiteboard', run_name='__main__')"
    )
    program = [sys.executable, "-c", code, *command(folder, "--trust-pickle")]
    done = subprocess.run(program, cwd=place, env=environment(), capture_output=True, text=True, check=False)
    assert "no room" in refused(done) or "refused to read or write" in done.stderr
    assert_whole(place / "a.db")
    assert taken(folder, cwd=place)["added"] == len(GOOD)


class Wrong(NamedTuple):
    """Arguments, a word of the one line, and the status."""

    options: dict[str, str]
    word: str
    status: int
    id: str


WRONG = [
    Wrong({"op": "no_such"}, "unknown op 'no_such'", 1, "op"),
    Wrong({"sources": "mapping:nothing"}, "has no function 'nothing'", 1, "function"),
    Wrong({"sources": "nowhere:f"}, "cannot import nowhere", 1, "module"),
    Wrong({"sources": "mapping"}, "expected module:function", 1, "no-colon"),
    Wrong({"store": "nowhere/a.db"}, "does not exist", 1, "store"),
    Wrong({"store": "postgresql://host/x"}, "postgresql", 1, "backend"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_a_wrong_argument_is_one_line(case: Wrong, place: Path) -> None:
    """What cannot be is told in one line with the status, and no store is made."""
    done = run(unpacked("diskcache", place), cwd=place, **case.options)
    assert case.word in refused(done, case.status)
    assert not (place / "a.db").exists()


def test_a_wrong_folder_is_one_line(place: Path) -> None:
    """A folder of nothing, of both, of several functions, and one that is none are told, as is a missing option."""
    (place / "empty").mkdir()
    assert "holds no epoch_<number>.npz" in refused(run(place / "empty", cwd=place))
    assert "is no folder" in refused(run(place / "none", cwd=place))
    (place / "text").mkdir()
    (place / "text" / "cache.db").write_text("text" * 100)
    assert "cannot be read as a cache of diskcache" in refused(run(place / "text", cwd=place))
    for name in ("f", "g"):
        (place / "two" / name / "0").mkdir(parents=True)
        (place / "two" / name / "0" / "output.pkl").touch()
    assert "several functions" in refused(run(place / "two", cwd=place))
    (place / "two" / "cache.db").touch()
    assert "looks like diskcache and joblib: say which with --from" in refused(run(place / "two", cwd=place))
    done = run_whiteboard("import-legacy", "empty", "--from", "diskcache", "--store", "a.db", cwd=place)
    assert "needs --op and --sources" in refused(done, 2)


def test_joblib_is_named_where_it_is_missing(place: Path) -> None:
    """Results of joblib cannot be read without it, and the line says what to install."""
    (place / "joblib.py").write_text("raise ImportError('no module of that name')")
    assert "pip install joblib" in refused(run(unpacked("joblib", place), cwd=place))
    assert not (place / "a.db").exists()


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "objects": lambda data: data.replace(b'"<f8"', b'"|O8"'),
    "a longer shape": lambda data: data.replace(b"[3]", b"[4]"),
    "a shorter shape": lambda data: data.replace(b"[3]", b"[2]"),
    "a negative size": lambda data: data.replace(b"[3]", b"-3 "),
    "no JSON": lambda data: data.replace(b'{"', b'x"'),
    "a huge header": lambda data: b"\xff\xff\xff\xff" + data[4:],
    "a huge body": lambda data: data[:4] + b"\xff" * 8 + data[12:],
}


@pytest.mark.parametrize("change", FRAMES.values(), ids=FRAMES)
def test_what_comes_over_the_wire_is_checked(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """A frame that lies about its arrays is refused, whole ones come through, and the end is the end."""
    with (tmp_path / "frames").open("w+b") as file:
        wire.send(file, {"state": "package"}, [np.arange(3.0)])
        file.seek(0)
        data = file.read()
        file.write(change(data))
        file.write(data[:-1])
        file.seek(0)
        receiver = wire.Receiver(file.fileno(), 1.0)
        whole = receiver.receive()
        assert whole is not None
        assert whole[0] == {"state": "package"}
        np.testing.assert_array_equal(whole[1][0], np.arange(3.0))
        with pytest.raises(wire.WireError):
            receiver.receive()


def test_a_silent_wire_is_given_up() -> None:
    """Nothing for longer than the patience is an error, and a frame that is cut short is the end."""
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        wire.Receiver(reading, 0.01).receive()
    with os.fdopen(writing, "wb") as file:
        file.write(b"\x01\x00")
    assert wire.Receiver(reading, 1.0).receive() is None
    os.close(reading)
