"""A TOML file of any shape is an experiment that runs to its end, or one line that names the file."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status
from whiteboard.errors import ExperimentError
from whiteboard.experiments import load

GOOD = {
    "name": '"line"',
    "measure": '"relative_stress"',
    "nodes.ids": "[0, 1]",
    "nodes.p": "[[0.0, 0.0], [1.0, 0.5]]",
    "nodes.theta": "[[1.0], [2.0]]",
    "nodes.fixed": "[false, true]",
    "jobs.op": '"distance"',
    "jobs.src_ids": "[[0, 1]]",
    "jobs.target": "[0.5]",
    "jobs.attr": '"p"',
    "jobs.scale": "[1.0]",
    "jobs.params": "{}",
    "jobs.weight": "",
    "jobs.residual": "",
    "jobs.out_ids": "",
    "rule.kind": '"Relax"',
    "rule.eta": "0.1",
    "rule.rtol": "1e-3",
    "rule.atol": "1e-3",
    "stop.change": "1e-9",
    "stop.rounds": "3",
    "stop.relative": "false",
    "options.memory_bytes": "1000000",
    "options.max_bytes": "",
    "options.persist": '"auto"',
    "options.durability": '"normal"',
}
"""Keys and values of a file that runs; without a value the key is left out."""

DESCENT = {key: value for key, value in GOOD.items() if not key.startswith("rule.")}
DESCENT |= {"rule.kind": '"StressDescent"', "rule.omega": "0.9"}
WHOLE = ("nodes", "jobs", "rule", "stop", "options", "x")
"""Tables, where a value may stand in the place of all their keys, and a key that there is not."""

KEYS = (*GOOD, "rule.omega", *WHOLE)

NUMBERS = ["1", "-1", "0", "1.5", "2.5", "1e400", "nan", "inf", "-inf", "9" * 30, "-" + "9" * 30, "9" * 5000, "true"]
TEXTS = ['"x"', '""', r'"\u0000"', r'"\u0000\u001b\u202e"', "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00"]
LISTS = ["[]", "[[]]", "[[1, 2], [3]]", '[1, "x"]', '["a", "b"]', "[{}]", "[1979-05-27]", f"[{'9' * 30}]", "[nan]"]
LISTS += [
    "[[1], [1, 2]]",
    '[1.5, "x"]',
    '["a"]',
    "[0, 0]",
    "[-5, 7]",
    "[[0, 7]]",
    "[[1, 0], [0, 1]]",
    "[[1e308, 1e308], [-1e308, -1e308]]",
    "[" * 90 + "]" * 90,
]
DEEP = ["[" * 90 + "]" * 90, "[" * 2000 + "]" * 2000, "{a=" * 500 + "1" + "}" * 500]
CSV = [f'{{csv = "{name}", columns = "a"}}' for name in ("none.csv", "edges.csv", "pipe", "folder", "bytes")]
CSV += [
    '{csv = "edges.csv", columns = 5}',
    '{csv = "edges.csv", columns = []}',
    '{csv = 5, columns = "a"}',
    "{csv = 1}",
    '{csv = "x"}',
    '{csv = "x", columns = 1}',
    '{csv = "/", columns = "a"}',
    "{a = 1}",
    "{}",
]
FILES_OF_NUMPY = ("none.npy", "bytes", "pipe", "huge.npy", "objects.npy", "/", "/dev/null")
NPY = [*(f'{{npy = "{name}"}}' for name in FILES_OF_NUMPY), "{npy = 1}", "{npy = [1]}"]
RANDOM = [f"{{random = {value}}}" for value in ("1", "{}", '{shape = "x"}', "{shape = [-1]}", "{shape = 2}")]
RANDOM += [f"{{random = {{shape = {shape}}}}}" for shape in ("[99999999999, 99999999]", '["x"]', "[1e3]")]
RANDOM += [
    f"{{random = {{shape = [2, 2], {more}}}}}"
    for more in ("seed = 1", "seed = -1", 'seed = "q"', "scale = []", "scale = -1.0", "sead = 1")
]
RANDOM += ["{random = {shape = [9999999999999]}}"]
ODD = [*NUMBERS, *TEXTS, *LISTS, *DEEP, *CSV, *NPY, *RANDOM]

FILES = {
    "empty": b"",
    "deep": b"a = " + b"[" * 100_000,
    "every byte": bytes(range(256)),
    "Latin 1": b"name = '\xe9'",
    "nothing": b"\0",
    "UTF-16": b"\xff\xfe",
}
"""Files that are no experiment, whatever a key of theirs may be."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of every kind, to work in."""
    monkeypatch.chdir(tmp_path)
    Path("edges.csv").write_text("a,b\n0,1\n1,x\n")
    Path("bytes").write_bytes(bytes(range(256)) * 4)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }".ljust(117) + "\n"
    Path("huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    np.save("objects.npy", np.array([1, "x"], dtype=object), allow_pickle=True)
    wb.open("empty.db").close()
    return tmp_path


def text(values: dict[str, str]) -> str:
    """The file with these values."""
    parts: dict[str, str] = defaultdict(str)
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        if value:
            parts[table] += f"{name} = {value}\n"
    heads = {"": "", "nodes": "[[nodes]]\n", "jobs": "[[jobs]]\n"}
    return "".join(heads.get(table, f"[{table}]\n") + lines for table, lines in parts.items())


def with_value(key: str, value: str) -> bytes:
    """The file with another value of a key, or with a value in the place of a table."""
    good = DESCENT if key == "rule.omega" else GOOD
    return text({name: each for name, each in good.items() if not name.startswith(f"{key}.")} | {key: value}).encode()


def runs(content: bytes, capfd: pytest.CaptureFixture[str]) -> bool:
    """Whether a file runs; where it does not, it has to say so in one line."""
    Path("x.toml").write_bytes(content)
    for left in Path().glob("s.db*"):
        left.unlink()
    shutil.copy("empty.db", "s.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, on numbers without measure
        code = status(("run", "x.toml", "--store", "s.db", "--rounds", "2", "--json"))
    out, err = capfd.readouterr()
    assert code in (0, 1)
    assert (bool(out), err.count("\n")) == (code == 0, code), err
    return code == 0


def test_the_file_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As it is, with the other rule, and with a byte order mark, which editors of other systems write."""
    for content in (text(GOOD).encode(), text(DESCENT).encode(), b"\xef\xbb\xbf" + text(GOOD).encode()):
        assert runs(content, capfd)
        assert load("x.toml").name == "line"


@pytest.mark.parametrize("key", KEYS)
def test_every_value_of_a_key(key: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a key has for a value, or none: a run, or one line."""
    done = [runs(with_value(key, value), capfd) for value in ("", *ODD)]
    assert not all(done)


@pytest.mark.parametrize("content", [*FILES.values(), 2 * text(GOOD).encode()], ids=[*FILES, "twice"])
def test_a_file_that_is_no_experiment(content: bytes, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Files that are empty, no TOML or no text are told in one line, by name."""
    assert not runs(content, capfd)


def test_a_file_is_named_by_what_reads_it(folder: Path) -> None:
    """Wrong types at every key, and tables that are none: never another error, and hardly anything is taken."""
    path = folder / "x.toml"
    refused = taken = 0
    keys = [key for key in KEYS if key != "stop.relative" and not key.startswith("options.")]  # those are read later
    for key in keys:
        for value in ODD:
            path.write_bytes(with_value(key, value))
            try:
                load(str(path))
                taken += 1
            except ExperimentError as error:
                refused += str(error).startswith(f"{path}:")
            except Exception as error:
                pytest.fail(f"{key} = {value}: {type(error).__name__}: {error}")
    assert refused + taken == len(keys) * len(ODD)
    assert refused > 0.9 * len(keys) * len(ODD)
