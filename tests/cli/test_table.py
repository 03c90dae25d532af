"""The command that shows what a store has of an op: text, CSV and JSON, and what each of them refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from tests.cli.conftest import Bad, Cli, assert_refused
from tests.storage.samples import sql
from whiteboard.cli.cells import exact, plain, shown

X = np.array([[1.0, 0.1], [2.0, np.nan], [-3e-7, 4e12]])


def drag(x: Any, mach: float = 0.5, name: str = "a") -> Any:
    """Two numbers."""
    return x * mach


@pytest.fixture
def store(tmp_path: Path, builtin_ops_only: None) -> Path:
    """A store s.db in the folder, of packages with sources and without, of two parameters and two shapes."""
    wb.op(keep_sources=True, replace=True)(drag)
    wb.op(name="large", keep_sources=True, replace=True)(lambda x: anp.sum(x) + x)
    with wb.open(tmp_path / "s.db") as board:
        board.call_many("drag", X, params={"mach": 0.8})
        board.flush()
        board.call("drag", X[0, 0], params={"name": "b,\n\x1b"})
        board.flush()
        wb.op(keep_sources=False, replace=True)(drag)
        board.call("drag", X[1, :1].repeat(3))
        board.call("large", np.arange(20.0))
    return tmp_path / "s.db"


def test_rows_under_one_another(store: Path, cli: Cli) -> None:
    """Columns are aligned, numbers to the right; short arrays are shown, long ones by shape, odd characters escaped."""
    code, out, err = cli("table", "drag", "--store", "s.db")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["mach", "name", "x0", "y", "cost_seconds", "version", "fingerprint", "key"]
    assert [re.split("  +", line.strip())[:4] for line in lines[1:]] == [
        ["0.8", "a", "[1, 0.1]", "[0.8, 0.08]"],
        ["0.8", "a", "[2, nan]", "[1.6, nan]"],
        ["0.8", "a", "[-3e-07, 4e+12]", "[-2.4e-07, 3.2e+12]"],
        ["0.5", r"b,\n\x1b", "1", "0.5"],
        ["0.5", "a", "-", "[1, 1, 1]"],
    ]
    assert {line.index("a") for line in lines[1:] if " a " in line} == {lines[0].index("name")}
    assert {line.rindex("  ") for line in lines[1:]} == {lines[0].index("  key")}
    assert "float64[20]" in cli("table", "large", "--store", "s.db").out


def test_a_choice_of_rows_and_columns(store: Path, cli: Cli) -> None:
    """A condition chooses rows, names choose columns, a number how many."""
    assert cli(
        "table", "drag", "--store", "s.db", "--where", "mach>0.7", "--columns", "mach, y", "--limit", "2"
    ).out == ("mach  y\n 0.8  [0.8, 0.08]\n 0.8  [1.6, nan]\n")
    assert cli("table", "drag", "--store", "s.db", "--where", "mach > 7", "--columns", "y,mach").out == "y  mach\n"
    assert "g0" in cli("table", "drag", "--store", "s.db", "--grads").out.splitlines()[0]


def test_a_hundred_rows(tmp_path: Path, cli: Cli) -> None:
    """Where nobody says how many, the first hundred are shown, and that there are more."""
    with wb.open(tmp_path / "s.db") as board:
        board.call_many("exp", np.arange(101.0))
    lines = cli("table", "exp", "--store", "s.db").out.splitlines()
    assert len(lines) == 102
    assert lines[-1] == "the first 100 rows; --limit N, --csv FILE and --json show more"
    assert len(cli("table", "exp", "--store", "s.db", "--limit", "101").out.splitlines()) == 102
    assert len(cli("table", "exp", "--store", "s.db", "--json").said["rows"]) == 101


def test_json(store: Path, cli: Cli) -> None:
    """One object, with whole numbers and a row each; what JSON has not is null, and told."""
    said = cli("table", "drag", "--store", "s.db", "--json").said
    assert (said["store"], said["op"], said["omitted"], len(said["rows"])) == ("s.db", "drag", [], 5)
    first, second = said["rows"][:2]
    assert list(first) == ["mach", "name", "x0", "y", "cost_seconds", "version", "fingerprint", "key"]
    assert (first["x0"], first["y"], len(first["key"]), len(first["fingerprint"])) == (
        [1.0, 0.1],
        [0.8, 0.1 * 0.8],
        32,
        32,
    )
    assert (second["x0"], second["not_finite"]) == ([2.0, None], {"x0[1]": "NaN", "y[1]": "NaN"})
    assert said["rows"][3]["name"] == "b,\n\x1b"
    assert cli("table", "large", "--store", "s.db", "--json").said["rows"][0]["y"] == "float64[20]"


def test_csv(store: Path, cli: Cli) -> None:
    """Numbers with all their digits, arrays as a column an element; what a row has not is an empty cell."""
    done = cli("table", "drag", "--store", "s.db", "--csv", "out.csv", "--json")
    assert done.said == {"store": "s.db", "op": "drag", "csv": "out.csv", "rows": 5, "omitted": []}
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = ["x0", "x0[0]", "x0[1]", "y", "y[0]", "y[1]", "y[2]"]
    assert list(rows[0]) == ["mach", "name", *places, "cost_seconds", "version", "fingerprint", "key"]
    assert [[row[place] for place in places] for row in rows] == [
        ["", "1.0", "0.1", "", "0.8", "0.08000000000000002", ""],
        ["", "2.0", "nan", "", "1.6", "nan", ""],
        ["", "-3e-07", "4000000000000.0", "", "-2.4e-07", "3200000000000.0", ""],
        ["1.0", "", "", "0.5", "", "", ""],
        ["", "", "", "", "1.0", "1.0", "1.0"],
    ]
    assert rows[3]["name"] == "b,\n\x1b"
    assert not list(Path().glob("*.part"))


def test_csv_of_chosen_columns(store: Path, cli: Cli) -> None:
    """Columns stand in the order in which they are named, elements of one in theirs; an empty table has its head."""
    assert cli("table", "drag", "--store", "s.db", "--csv", "a.csv", "--columns", "y,mach", "--limit", "1").code == 0
    assert Path("a.csv").read_bytes() == b"y[0],y[1],mach\r\n0.8,0.08000000000000002,0.8\r\n"
    assert (
        cli("table", "drag", "--store", "s.db", "--csv", "b.csv", "--columns", "y,mach", "--where", "mach > 7").code
        == 0
    )
    assert Path("b.csv").read_bytes() == b"y,mach\r\n"
    assert cli("table", "exp", "--store", "s.db", "--csv", "c.csv").code == 0
    assert Path("c.csv").read_bytes() == b"y,cost_seconds,version,fingerprint,key\r\n"


def test_pandas_reads_it(store: Path, cli: Cli) -> None:
    """What is read back is what was computed, to the bit."""
    pandas = pytest.importorskip("pandas")
    cli("table", "drag", "--store", "s.db", "--csv", "a.csv", "--where", "mach > 0.7")
    frame = pandas.read_csv("a.csv")
    np.testing.assert_array_equal(frame[["x0[0]", "x0[1]"]].to_numpy(), X)
    np.testing.assert_array_equal(frame[["y[0]", "y[1]"]].to_numpy(), X * 0.8)


BAD = [
    Bad(("drag", "--where", "mach >"), 2, "where: 'mach >' is no condition"),
    Bad(("drag", "--where", "__import__('os')"), 2, "is not taken"),
    Bad(("drag", "--where", "mahc > 1"), 1, "has no column 'mahc'; it has mach, name, x0, y"),
    Bad(("drag", "--where", "y > 1"), 1, "an array of shape (2,) is compared element by element"),
    Bad(("drag", "--where", "name > 1"), 1, "'a' and 1 cannot be compared"),
    Bad(("drag", "--where", ""), 2, "is no condition"),
    Bad(("drag", "--columns", "mahc"), 1, "columns: the table of op 'drag' has no column 'mahc'"),
    Bad(("drag", "--columns", "y,y"), 2, "each once"),
    Bad(("drag", "--columns", ""), 1, "has no column ''"),
    Bad(("drag", "--limit", "0"), 2, "--limit"),
    Bad(("drag", "--limit", "9" * 30), 2, "--limit"),
    Bad(("dragg",), 1, "has no packages of an op 'dragg'"),
    Bad((), 2, "Missing argument 'OP'"),
    Bad(("drag", "--csv", "s.db"), 1, "cannot write the table s.db: it exists"),
    Bad(("drag", "--csv", "."), 1, "cannot write the table .: it exists"),
    Bad(("drag", "--csv", "/dev/null"), 1, "cannot write the table /dev/null: it exists"),
    Bad(("drag", "--csv", "no/out.csv"), 1, "cannot write the table no/out.csv: No such file"),
    Bad(("drag", "--csv", "s.db/out.csv"), 1, "cannot write the table s.db/out.csv: Not a directory"),
    Bad(("drag", "--csv", "n" * 300), 1, "File name too long"),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_bad_input_is_one_line(bad: Bad, more: tuple[str, ...], store: Path, cli: Cli) -> None:
    """What cannot be shown, chosen or written is one line, and leaves no file."""
    before = {path.name for path in store.parent.iterdir()}
    assert_refused(cli("table", *bad.arguments, "--store", "s.db", *more), bad.code, bad.says)
    assert {path.name for path in store.parent.iterdir()} - {"s.db.lock", "s.db-wal", "s.db-shm"} <= before


def test_no_store(cli: Cli) -> None:
    """A store that is not there is one line, and is not made."""
    assert_refused(cli("table", "mul"), 1, "cannot open the store")
    assert not list(Path().iterdir())


def test_damage_is_told(store: Path, cli: Cli) -> None:
    """What is left out is one line on stderr, or a field, and status 1; the rest is shown."""
    ((n,),) = sql(store, "UPDATE page SET data = x'00' WHERE id = 1 RETURNING n")  # 3, or 1 that was slow
    code, out, err = cli("table", "drag", "--store", "s.db")
    assert (code, len(out.splitlines())) == (1, 1 + 5 - n)
    assert err == (
        f"whiteboard: the table of 'drag' is not whole: of {n} packages on page 1 all is left out: it is damaged; look "
        "with `whiteboard verify`\n"
    )
    done = cli("table", "drag", "--store", "s.db", "--json")
    assert (done.code, len(done.said["rows"]), done.err) == (1, 5 - n, "")
    assert [(each["page"], each["packages"]) for each in done.said["omitted"]] == [(1, n)]
    done = cli("table", "drag", "--store", "s.db", "--csv", "out.csv")
    assert (done.code, len(list(csv.reader(io.StringIO(Path("out.csv").read_text()))))) == (1, 1 + 5 - n)


def test_a_full_disk_leaves_nothing(store: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written whole is not there, nor is a part of it."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(cli("table", "drag", "--store", "s.db", "--csv", "a.csv"), 1, "a.csv: No space left on device")
    assert not list(Path().glob("a.csv*"))


def test_somebody_takes_the_name(store: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that came meanwhile stays as it is."""
    sync = os.fsync

    def late(descriptor: int) -> None:
        Path("a.csv").write_text("mine")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", late)
    assert_refused(cli("table", "drag", "--store", "s.db", "--csv", "a.csv"), 1, "a.csv: it exists by now")
    assert Path("a.csv").read_text() == "mine"


VALUES = [
    (None, "-", "", None),
    (True, "True", "True", True),
    (3, "3", "3", 3),
    (0.1 + 0.2, "0.3", "0.30000000000000004", 0.1 + 0.2),
    (np.float32(0.1), "0.1000000015", "0.1", float(np.float32(0.1))),
    (np.int8(3), "3", "3", 3),
    (np.array(0.5), "0.5", "0.5", 0.5),
    (np.zeros((2, 2)), "[[0, 0], [0, 0]]", "float64[2, 2]", [[0.0, 0.0], [0.0, 0.0]]),
    (np.zeros(17, np.float32), "float32[17]", "float32[17]", "float32[17]"),
    (np.array([1 + 2j]), "[(1+2j)]", "complex128[1]", ["(1+2j)"]),
    ("text", "text", "text", "text"),
    (b"raw", "b'raw'", "b'raw'", "b'raw'"),
    (1j, "1j", "1j", "1j"),
    ((1, [2.5, None]), "(1, [2.5, None])", "(1, [2.5, None])", [1, [2.5, None]]),
    ({"a": 1}, "{'a': 1}", "{'a': 1}", "{'a': 1}"),
    (np.complex64(1), "(1+0j)", "(1+0j)", "(1+0j)"),
]


@pytest.mark.parametrize(("value", "text", "digits", "in_json"), VALUES, ids=range(len(VALUES)))
def test_cells(value: Any, text: str, digits: str, in_json: Any) -> None:
    """Each kind of value is shown, written and said in one way, and JSON takes it."""
    assert (shown("a", value), exact(value), plain(value)) == (text, digits, in_json)
    json.dumps(plain(value))
