"""Tables: what is in them, what is chosen, and what of a damaged or hostile page never gets in."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from tests.rekeying import rewritten
from tests.storage.samples import environment, sql
from whiteboard.inspection import table
from whiteboard.inspection.table import Omission
from whiteboard.records.packages import Page

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

X = np.random.default_rng(0).normal(size=(5, 3))
MACHS = (0.5, 0.8)
KEPT = ["mach", "x0", "y", "cost_seconds", "version", "fingerprint", "key"]


def drag(x: Any, mach: float = 0.5) -> Any:
    """A function that costs nothing, whose sources are kept because it is told so."""
    return anp.sum(x * x) * mach


def two(x: Any, z: Any, *, y: int = 1, key: str = "a", field: Any = None) -> Any:
    """An op with parameters that are called like columns."""
    return x * z[0] * y


@pytest.fixture(autouse=True)
def _registered() -> None:
    wb.op(keep_sources=True, replace=True)(drag)
    wb.op(keep_sources=True, replace=True)(two)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of ten packages of `drag`, of two parameters."""
    with wb.open(tmp_path / "a.db") as board:
        for mach in MACHS:
            board.call_many("drag", X, params={"mach": mach})
    return tmp_path / "a.db"


def columns(path: Path, *, whole: bool = True, **chosen: Any) -> Any:
    """The table of `drag`."""
    with wb.open(path, readonly=True) as board:
        if whole:
            return board.table("drag", **chosen)
        with pytest.warns(wb.OmissionWarning, match="the table of op 'drag' is not whole"):
            return board.table("drag", **chosen)


def test_every_package_is_a_row(path: Path) -> None:
    """Parameters, sources to the bit, y, cost, version, fingerprint and key, in this order."""
    found = columns(path)
    assert list(found) == KEPT
    assert found["mach"].tolist() == [0.5] * 5 + [0.8] * 5
    assert b"".join(x.tobytes() for x in found["x0"]) == X.tobytes() * 2
    np.testing.assert_array_equal(found["y"], [drag(x, mach) for mach in MACHS for x in X])
    assert (found["cost_seconds"] > 0).all()
    assert set(found["version"]) == {1}
    assert set(found["fingerprint"]) == {(wb.ops.get("drag").fingerprint or b"").hex()}
    with wb.open(path) as board:
        assert found["key"][7] == board.explain("drag", X[2], params={"mach": 0.8}).key
    assert found.omitted == []


def test_it_is_what_pandas_takes(path: Path) -> None:
    """Every column is one-dimensional, whatever lies in it."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(columns(path))
    assert list(frame.columns) == KEPT
    assert frame.y.dtype == np.float64
    assert len(frame[frame.mach > 0.7]) == 5
    np.testing.assert_array_equal(np.stack(frame.x0), np.concatenate([X, X]))


def test_what_was_not_kept_is_none(tmp_path: Path) -> None:
    """Packages of one op with and without sources are rows of one table; of None among numbers it is a list."""
    with wb.open(tmp_path / "a.db") as board:
        wb.op(keep_sources=False, replace=True)(drag)
        board.call("drag", X[0])
        board.call("drag", X[0, 0])
        wb.op(keep_sources=True, replace=True)(drag)
        board.call("drag", X[1])
        board.call("drag", X[1, 0])
        found = board.table(drag)
    by_y = dict(zip(found["y"], found["x0"], strict=True))
    assert by_y[drag(X[0])] is None
    assert by_y[drag(X[0, 0])] is None
    np.testing.assert_array_equal(by_y[drag(X[1])], X[1])
    assert by_y[drag(X[1, 0])] == X[1, 0]


def test_by_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said, sources are kept of bins that cost a millisecond a job, and much for their bytes."""
    clock = [0]
    for module in ("execution", "single"):
        now = SimpleNamespace(perf_counter_ns=lambda: clock[0])
        monkeypatch.setattr(f"whiteboard.evaluation.{module}.time", now)

    def told(x: Any) -> Any:
        clock[0] += int(x[0] * 1e6)
        return 1.0, np.zeros_like(x)

    with wb.open(tmp_path / "a.db") as board:
        wb.op(identity="told", gradient="returned")(told)
        for milliseconds, size in ((0.999, 1), (1.001, 1), (39.0, 10**5), (41.0, 10**5)):
            x = np.zeros(size)
            x[0] = milliseconds
            board.call("told", x)
        found = board.table("told")
    assert [None if x is None else x[0] for x in found["x0"]] == [None, 1.001, None, 41.0]


def test_parameters_that_are_called_like_columns(tmp_path: Path) -> None:
    """They keep apart from these, and what is known by its digest alone is told as a text."""
    with wb.open(tmp_path / "a.db") as board:
        board.call("two", X[0], X[1], params={"y": 3, "key": "b", "field": np.arange(40.0)})
        board.call("two", X[0], X[1], params={"y": 3, "field": (1, None, [2.5, "a"])})
        found = board.table("two")
        assert board.table("two", where="params.y == 3 and params.key == 'b'")["field"] == found["field"][:1]
    assert list(found)[:5] == ["field", "params.key", "params.y", "x0", "x1"]
    assert found["params.y"].tolist() == [3, 3]
    assert found["params.key"] == ["b", "a"]
    assert found["field"][0].startswith("ndarray ")
    assert found["field"][1] == (1, None, [2.5, "a"])


def test_gradients_and_cotangents(tmp_path: Path) -> None:
    """They are there where they are asked for, each beside its cotangent."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        system.add_nodes([0, 1], theta=X[:2])
        system.commit()
        system.process([wb.Job("two", (0, 1), residual=X[2])])
        assert len(board.table("two")["y"]) == 1
        found = board.table("two", grads=True)
        assert board.table("two", columns=["g0"])["g0"][0].tobytes() == found["g0"][0].tobytes()
        assert board.audit().unchecked == {}
    assert list(found) == [
        "field",
        *("params.key", "params.y", "x0", "x1", "y", "g0", "g1", "cotangent"),
        *("cost_seconds", "src_ids", "versions", "version", "fingerprint", "key"),
    ]
    assert found["cotangent"][0] is None
    np.testing.assert_array_equal(found["cotangent"][1], X[2])
    np.testing.assert_array_equal(found["g0"][0], np.full(3, X[1, 0]))
    np.testing.assert_array_equal(found["g0"][1], X[1, 0] * X[2])
    assert (found["src_ids"], found["versions"]) == ([(0, 1)] * 2, [(0, 0)] * 2)


def test_jacobians_and_no_gradients(tmp_path: Path) -> None:
    """Jacobians are columns of their own name, and an op without gradients has a table too."""
    matrix = np.arange(6.0).reshape(2, 3)

    def affine(x: Any) -> Any:
        return matrix @ x, matrix

    def plain(x: Any) -> Any:
        return np.sum(x)

    wb.op(gradient="jacobian", keep_sources=True, identity="affine")(affine)
    wb.op(gradient="none", keep_sources=True, identity="plain")(plain)
    with wb.open(tmp_path / "a.db") as board:
        board.call("affine", X[0])
        board.call_many("plain", X)
        found = board.table("affine", grads=True)
        assert list(board.table("plain", grads=True)) == KEPT[1:]
        report = board.audit()
        assert (report.checked, report.ops["plain"].kept, report.ops["affine"].kept, report.ok) == (6, 5, 1, True)
        assert board.verify().ok
    assert found["j0"][0].tobytes() == matrix.tobytes()
    assert found["x0"][0].tobytes() == X[0].tobytes()


class Chosen(NamedTuple):
    """What is asked for, the rows that come, and their columns."""

    id: str
    given: dict[str, Any]
    rows: list[int]
    columns: list[str]


CHOSEN = [
    Chosen("where", {"where": "mach > 0.7"}, [5, 6, 7, 8, 9], KEPT),
    Chosen("where-of-a-source", {"where": f"x0[0] == {X[3, 0].item()!r}"}, [3, 8], KEPT),
    Chosen("where-of-y", {"where": f"y >= {drag(X[1]).item()!r} and y <= {drag(X[1]).item()!r}"}, [1], KEPT),
    Chosen("nothing", {"where": "mach > 1"}, [], ["y", "cost_seconds", "version", "fingerprint", "key"]),
    Chosen("columns", {"columns": ["key", "mach"]}, list(range(10)), ["key", "mach"]),
    Chosen("columns-and-where", {"columns": ("y",), "where": "x0[0] != 9 and mach < 0.7"}, [0, 1, 2, 3, 4], ["y"]),
    Chosen("limit", {"limit": 7}, [0, 1, 2, 3, 4, 5, 6], KEPT),
    Chosen("limit-and-where", {"limit": 2, "where": "mach > 0.7"}, [5, 6], KEPT),
    Chosen("limit-of-more", {"limit": 11}, list(range(10)), KEPT),
]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.id)
def test_a_choice(case: Chosen, path: Path) -> None:
    """Rows and columns are those that were asked for, as a table and one by one."""
    whole, found = columns(path), columns(path, **case.given)
    assert list(found) == case.columns
    for name, column in found.items():
        assert [repr(value) for value in column] == [repr(whole[name][row]) for row in case.rows]
    with wb.open(path, readonly=True) as board:
        rows = list(board.each_row("drag", **case.given))
    assert [list(row) for row in rows] == [case.columns] * len(case.rows)
    assert all(
        np.array_equal(row[name], whole[name][at])
        for row, at in zip(rows, case.rows, strict=True)
        for name in case.columns
    )


MISUSE = [
    ({"where": "mahc > 1"}, wb.ParamError, "where: the table of op 'drag' has no column 'mahc'; it has mach, x0, y"),
    ({"where": "mach >"}, wb.ParamError, "where: 'mach >' is no condition"),
    ({"where": "f(mach)"}, wb.ParamError, "is not taken"),
    ({"where": "x0 > 1"}, wb.ParamError, "element by element, as in y"),
    ({"where": lambda row: True}, wb.ParamError, "where: expected a text"),
    ({"columns": ["mahc"]}, wb.ParamError, "columns: the table of op 'drag' has no column 'mahc'"),
    ({"columns": ["mahc"], "limit": 1}, wb.ParamError, "columns: the table of op 'drag' has no column 'mahc'"),
    ({"columns": ["g1"]}, wb.ParamError, "no column 'g1'; it has mach, y, g0"),
    ({"columns": "mach"}, wb.ParamError, "columns: expected a list of names, got 'mach'"),
    ({"columns": []}, wb.ParamError, "columns: expected names of columns, each once"),
    ({"columns": ["y", "y"]}, wb.ParamError, "each once"),
    ({"columns": [1]}, wb.ParamError, "columns: expected names"),
    ({"columns": 3}, wb.ParamError, "columns: expected a list"),
    ({"limit": 0}, wb.ParamError, "limit: expected an int from 1, got 0"),
    ({"limit": -1}, wb.ParamError, "limit"),
    ({"limit": 2.0}, wb.ParamError, "limit"),
    ({"limit": True}, wb.ParamError, "limit"),
]


@pytest.mark.parametrize(("given", "kind", "says"), MISUSE, ids=range(len(MISUSE)))
def test_misuse(given: dict[str, Any], kind: type[Exception], says: str, path: Path) -> None:
    """What cannot be asked for is an error that says what can."""
    with wb.open(path, readonly=True) as board:
        with pytest.raises(kind, match=says):
            board.table("drag", **given)
        with pytest.raises(kind, match=says):
            list(board.each_row("drag", **given))


def test_ops_that_nobody_knows(path: Path) -> None:
    """A name that is neither registered nor stored is an error; one of both kinds alone is none."""
    with wb.open(path) as board:
        with pytest.raises(wb.UnknownOpError, match=r"has no packages of an op 'dragg': .*did you mean 'drag'"):
            board.table("dragg")
        with pytest.raises(wb.ParamError, match="expected the name of an op"):
            board.table(3)  # type: ignore[arg-type]
        assert {name: len(column) for name, column in board.table("tanh").items()} == dict.fromkeys(table.ALWAYS, 0)
        assert board.table("mul", columns=["x7"], where="x7 > 1") == {"x7": []}
        board.call("mul", X[0], X[1])
        assert len(board.table("multiply")["y"]) == len(board.table("mul")["y"]) == 1
        sql(path, "UPDATE page SET op = 'gone' WHERE op = 'drag'")
        with pytest.warns(wb.OmissionWarning):  # the pages still say that they are of drag
            assert not len(board.table("gone")["y"])


def test_an_op_that_is_not_registered_any_more(path: Path) -> None:
    """What is in a table comes from the store alone."""
    from whiteboard.ops import registry

    before = columns(path)
    del registry._entries["drag"]
    after = columns(path)
    assert after["key"] == before["key"]
    assert after["mach"].tolist() == before["mach"].tolist()


def test_what_waits_is_there(tmp_path: Path) -> None:
    """A table is of all that was computed, written or not yet."""
    with wb.open(tmp_path / "a.db") as board:
        board.call("drag", X[0])
        assert len(board.table("drag")["y"]) == 1
        board.call("drag", X[1])
        assert [row["y"] for row in board.each_row("drag")] == [drag(X[0]), drag(X[1])]


def test_a_table_is_its_own(path: Path) -> None:
    """Its arrays are nobody else's: they may be written."""
    found = columns(path)
    found["y"][0] = 7
    found["x0"][0][...] = 7
    assert columns(path)["x0"][0][0] != 7


# -- pages that are damaged, or hostile


def _sources(change: Callable[[Any], Any]) -> Callable[[Page], Page]:
    return lambda page: replace(page, sources=tuple(map(change, page.sources or ())))


def _said(**fields: Any) -> Callable[[Page], Page]:
    return lambda page: replace(page, lineage=json.dumps({**json.loads(page.lineage or ""), **fields}))


def _other_mach(page: Page) -> Page:
    fields = json.loads(page.lineage or "")
    mach = "0.9"
    encoded = fields["encoded"].replace(np.float64(0.5).tobytes().hex(), np.float64(0.9).tobytes().hex())
    encoded = encoded.replace(np.float64(0.8).tobytes().hex(), np.float64(0.9).tobytes().hex())
    return _said(params={"mach": mach}, encoded=encoded)(page)


class Forgery(NamedTuple):
    """A change to a page with a digest that fits, what a table says of it, and whether its packages are there.

    `audited` is whether an audit proves for itself what their keys are made of: of no parameters, where there are none.
    """

    id: str
    change: Callable[[Page], Page]
    why: str
    stays: bool
    audited: int = 0


FORGERIES = [
    Forgery("other-bytes", _sources(lambda x: x + 1), table.OTHER_SOURCES, True),
    Forgery("a-sign-of-zero", _sources(lambda x: np.copysign(0 * x, -1)), table.OTHER_SOURCES, True),
    Forgery("another-shape", _sources(lambda x: x[:, :2].copy()), table.OTHER_SOURCES, True),
    Forgery("another-order", _sources(lambda x: np.roll(x, 1, axis=0)), table.OTHER_SOURCES, True),
    Forgery("another-dtype", _sources(lambda x: x.astype(np.float32)), table.OTHER_SOURCES, True),
    Forgery("integers", _sources(lambda x: x.view(np.int64)), table.OTHER_SOURCES, True),
    Forgery("one-too-many", lambda p: replace(p, sources=(p.sources or ()) * 2), table.OTHER_SOURCES, True),
    Forgery("fewer-rows", _sources(lambda x: x[:-1].copy()), table.DAMAGED, False),
    Forgery("no-tokens", lambda p: replace(_sources(lambda x: x + 1)(p), tokens=None), table.OTHER_KEY, False),
    Forgery("other-tokens", lambda p: replace(p, tokens=np.zeros_like(p.tokens)), table.OTHER_KEY, False, 10),
    Forgery("other-keys", lambda p: replace(p, keys=np.zeros_like(p.keys)), "", False),
    Forgery("other-params", _other_mach, table.OTHER_KEY, False),
    Forgery("another-version", _said(version=2), table.OTHER_KEY, False),
    Forgery("another-fingerprint", _said(fingerprint="00" * 16), table.OTHER_KEY, False),
    Forgery("no-scheme", _said(scheme="none"), table.UNPROVEN, True, 5),
    Forgery("no-lineage", lambda p: replace(p, lineage=None), table.UNPROVEN, True, 5),
    Forgery("odd-lineage", lambda p: replace(p, lineage="[" * 9999), table.UNPROVEN, True, 5),
    Forgery("odd-params", _said(params={"mach": 3}), table.UNPROVEN, True, 5),
    Forgery("no-y", lambda p: replace(p, arrays={"g0": p.arrays["g0"]}), table.DAMAGED, False, 10),
    Forgery("another-op", lambda p: replace(p, op="mul"), table.DAMAGED, False),
]


@pytest.mark.parametrize("case", FORGERIES, ids=lambda case: case.id)
def test_hostile_pages(case: Forgery, path: Path) -> None:
    """A page whose sources, tokens, parameters or keys are others is never shown as if they were right."""
    before = columns(path)
    rewritten(path, case.change, "drag")
    found = columns(path, whole=not case.why)
    pages = [row[0] for row in sql(path, "SELECT id FROM page ORDER BY id")]
    assert found.omitted == [Omission(page, 5, case.why) for page in pages if case.why]
    assert len(found["y"]) == 10 * case.stays
    if case.stays:
        assert found["y"].tolist() == before["y"].tolist()
        assert set(found.get("x0", [None])) == {None}
    with wb.open(path, readonly=True) as board:
        report = board.audit()
    assert (report.checked, report.unchecked.total()) == (case.audited, 10 - case.audited)
    assert len(report.differences) == (10 if case.id == "no-y" else 0)


def test_columns_that_no_page_has(path: Path) -> None:
    """An array under the name of a source beside the results is none."""

    def change(page: Page) -> Page:
        return replace(page, arrays={**page.arrays, "x0": page.arrays["y"], "key": page.arrays["y"]}, sources=None)

    rewritten(path, change, "drag")
    assert list(columns(path)) == [name for name in KEPT if name != "x0"]


def test_damage_is_told_and_the_rest_is_there(path: Path) -> None:
    """Of a page that fails its digest nothing is shown; the error says on which page, and how many."""
    (first, _) = (row[0] for row in sql(path, "SELECT id FROM page ORDER BY id"))
    sql(path, "UPDATE page SET data = substr(data, 1, 50) WHERE id = ?", first)
    found = columns(path, whole=False)
    assert found["mach"].tolist() == [0.8] * 5
    assert found.omitted == [Omission(first, 5, table.DAMAGED)]
    omitted: list[Omission] = []
    with wb.open(path, readonly=True) as board:
        assert len(list(board.each_row("drag", omitted=omitted))) == 5
    assert omitted == found.omitted


@pytest.mark.parametrize("change", [case.change for case in FORGERIES[:9]], ids=[case.id for case in FORGERIES[:9]])
def test_hits_do_not_know_of_sources(change: Callable[[Page], Page], path: Path) -> None:
    """Whatever a page keeps as sources, its packages are the answers that they were."""
    rewritten(path, change, "drag")
    with wb.open(path, readonly=True) as board:
        done = board.call_many("drag", X, params={"mach": 0.8})
        assert set(done.hit) == {2}
        np.testing.assert_array_equal(done.y, [drag(x, 0.8) for x in X])
        np.testing.assert_array_equal(done.grads[0], 2 * X * 0.8)


# -- what a kill leaves

_SWEEP = """
import sys, time
import numpy as np
import whiteboard as wb

@wb.op(gradient="returned", ignore=("time",))
def slow(x):
    time.sleep(0.03)
    return float(np.sum(x)), np.ones_like(x)

with wb.open(sys.argv[1]) as board:
    for number in range(40):
        done = board.call("slow", np.array([float(number), 1.0]))
        print(number, done.hit, flush=True)
"""


def test_a_killed_sweep_goes_on_and_its_table_is_whole(tmp_path: Path) -> None:
    """After each kill -9 the table has all finished evaluations but the last, with sources; in the end all, once."""
    program, path = tmp_path / "sweep.py", tmp_path / "a.db"
    program.write_text(_SWEEP)
    computed = 0
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, program, path], env=environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            lines = []
            assert process.stdout is not None
            stop = random.randrange(3, 12) if turn < 3 else 10**6
            for line in process.stdout:
                lines.append(line.split())
                if sum(hit == "miss" for _, hit in lines) == stop:
                    time.sleep(random.uniform(0, 0.03))
                    process.kill()
        assert process.returncode == (-signal.SIGKILL if turn < 3 else 0)
        computed += sum(hit == "miss" for _, hit in lines)
        with wb.open(path, readonly=True) as board:
            found = board.table("slow")
            assert board.audit().unchecked.total() == len(found["y"])  # there is no such op here
        assert len(lines) - 1 <= len(found["y"]) <= len(lines) + 1
        assert [x.tolist() for x in found["x0"]] == [[y - 1, 1.0] for y in found["y"]]
        assert len(set(found["key"])) == len(found["key"])
    assert sorted(found["y"]) == [number + 1.0 for number in range(40)]
    assert computed <= 40 + 3
