"""Explain: a hit names its package, a miss the nearest one and the first thing that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import database_of, transaction
from whiteboard.ops import registry
from whiteboard.records.packages import Page
from whiteboard.storage.page.format import Blob, decode_page, encode_page
from whiteboard.systems.system import System


@pytest.fixture
def board(tmp_path: Path) -> Iterator[wb.Board]:
    with wb.open(tmp_path / "a.db") as board:
        yield board


@pytest.fixture
def system(board: wb.Board) -> System:
    """A system of four nodes, and packages of the product of the first two and the sum of the third."""
    system = board.system("a")
    system.add_nodes(range(4), theta=np.arange(12.0).reshape(4, 3))
    system.commit()
    system.process([wb.Job("mul", (0, 1)), wb.Job("sum", (2,))])
    return system


def test_a_hit_names_its_package(board: wb.Board, system: System) -> None:
    """A job that was computed is a hit, and the explanation names its key, nodes and versions."""
    found = board.explain(wb.Job("mul", (0, 1)))
    assert found.hit
    assert found.package is not None
    assert (found.package.src_ids, found.package.versions) == ((0, 1), (0, 0))
    assert found.differences == ()
    assert board.explain_key(bytes.fromhex(found.key)).package == found.package
    assert "a hit" in found.reason
    system.process([wb.Job("mul", (0, 1))])
    assert board.stats()["misses"] == 2


def test_explaining_computes_nothing(board: wb.Board, system: System) -> None:
    """A job that is explained is a miss afterwards too."""
    before = board.stats()["packages"]
    assert not board.explain(wb.Job("mul", (2, 3)), system).hit
    assert not board.explain(wb.Job("mul", (2, 3)), system).hit
    assert board.stats()["packages"] == before


class Expect(NamedTuple):
    """A job, the first thing in which it differs from the nearest package, and a part of what is said."""

    job: wb.Job
    what: str
    text: str
    id: str


JOBS = [
    Expect(wb.Job("mul", (0, 2)), "source", "source 1: node 1 at version 0, now node 2 at version 0", "another-node"),
    Expect(wb.Job("mul", (1, 0)), "source", "source 0: node 0 at version 0, now node 1", "another-order"),
    Expect(wb.Job("sum", (2,), params={"axis": 0}), "params", "axis is None, now 0", "params"),
]


@pytest.mark.parametrize("case", JOBS, ids=lambda case: case.id)
def test_a_miss_names_what_differs(case: Expect, board: wb.Board, system: System) -> None:
    """The first difference is the one that makes it a miss, and the reason says it."""
    found = board.explain(case.job, system)
    assert not found.hit
    assert found.differences[0].what == case.what
    assert case.text in found.differences[0].text
    assert case.text in found.reason


def test_a_moved_source(board: wb.Board, system: System) -> None:
    """After a commit the miss names the source whose bytes have changed, with both versions, and the same nodes."""
    system.write(1, theta=[9.0, 9.0, 9.0])
    system.commit()
    found = board.explain(wb.Job("mul", (0, 1)))
    assert [(d.what, d.text) for d in found.differences] == [
        ("source", "other bytes in source 1: node 1 at version 0, now node 1 at version 1")
    ]
    assert found.package is not None
    assert found.package.src_ids == (0, 1)


def test_shape_and_dtype(board: wb.Board, system: System) -> None:
    """Sources of another shape or dtype are said before their bytes."""
    system.add_nodes([10, 11], theta=np.ones((2, 5)))
    system.add_nodes([20, 21], theta=np.ones((2, 3), np.float32))
    shapes = board.explain(wb.Job("mul", (10, 11)), system)
    assert (shapes.differences[0].what, shapes.differences[1].what) == ("shape", "source")
    dtypes = board.explain(wb.Job("mul", (20, 21)), system)
    assert "dtype <f8, now <f4" in dtypes.differences[0].text


def test_no_package_of_the_op(board: wb.Board, system: System) -> None:
    """Where the store has nothing of the op, that is the reason."""
    found = board.explain(wb.Job("add", (0, 1)), system)
    assert (found.package, found.differences) == (None, ())
    assert "has no package of op 'add'" in found.reason


def test_another_version_of_an_op(board: wb.Board, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of an older version of the op is named with both versions."""
    real = registry.get("mul")
    monkeypatch.setattr("whiteboard.ops.get", lambda name: replace(real, version=7))
    found = board.explain(wb.Job("mul", (0, 1)), system)
    assert [(d.what, d.text) for d in found.differences] == [("op version", "op version 1, now 7")]


def test_the_helper_that_changed(board: wb.Board, system: System) -> None:
    """Of other code the miss names the function or the constant that is not the same any more."""
    for scale, helper in ((2.0, "first"), (2.0, "second"), (3.0, "second")):
        _register(scale, helper)
        system.process([wb.Job("explained", (0,))]) if (scale, helper) == (2.0, "first") else None
        found = board.explain(wb.Job("explained", (0,)), system)
        said = [(difference.what, difference.text) for difference in found.differences]
        assert (
            said
            == {
                (2.0, "first"): [],
                (2.0, "second"): [("fingerprint", "other code: changed: helper")],
                (3.0, "second"): [("fingerprint", "other code: changed: SCALE, helper")],
            }[scale, helper]
        )


def _register(scale: float, helper: str) -> None:
    """Register an op of a module of its own, whose source says `scale` and one of two helpers."""
    import linecache

    body = {"first": "return x * SCALE", "second": "return SCALE * x"}[helper]
    source = f"SCALE = {scale}\ndef helper(x):\n    {body}\ndef explained(x):\n    return helper(x)\n"
    file = f"<explained {scale} {helper}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": "made_for_a_test"}
    exec(compile(source, file, "exec"), space)
    wb.op("explained", replace=True, kind="elementwise")(space["explained"])


def test_a_cotangent_of_its_own(board: wb.Board, system: System) -> None:
    """A residual that is not constant needs its own package of a general op, and the miss says so."""
    job = wb.Job("softmax", (0,), residual=[1.0, 2.0, 3.0])
    other = wb.Job("softmax", (0,), residual=[3.0, 2.0, 1.0])
    system.process([wb.Job("softmax", (0,))])
    found = board.explain(job, system)
    assert [(d.what, d.text) for d in found.differences] == [("cotangent", "the VJP of ones, now that of a cotangent")]
    system.process([job])
    assert board.explain(job, system).hit
    assert [(d.what, d.text) for d in board.explain(other, system).differences] == [("cotangent", "another cotangent")]
    assert board.explain(wb.Job("softmax", (0,)), system).hit


def test_another_arithmetic(board: wb.Board, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package from a machine that rounds otherwise is named as such; that of a portable op is a hit there."""
    system.process([wb.Job("exp", (0,))])
    board.flush()
    monkeypatch.setattr("whiteboard.identity.arithmetic._kernels", lambda: b"another machine!")
    (found,) = board.explain(wb.Job("exp", (0,)), system).differences
    assert (found.what, found.text.partition(":")[0]) == ("arithmetic", "another class of arithmetic")
    assert "the processor, NumPy, or BLAS round otherwise" in found.text
    assert board.explain(wb.Job("mul", (0, 1)), system).hit
    monkeypatch.setattr("whiteboard.identity.arithmetic._basic", lambda: b"no machine of IEEE's")
    (found,) = board.explain(wb.Job("mul", (0, 1)), system).differences
    assert found.what == "arithmetic"
    assert "NumPy adds in another order" in found.text


def test_pages_of_older_versions_say_less(board: wb.Board, system: System) -> None:
    """A page without lineage and tokens is compared by nodes, versions, shapes and dtypes."""
    board.flush()
    _rewrite(board, lambda page: replace(page, lineage=None, tokens=None))
    system.write(1, theta=[9.0, 9.0, 9.0])
    system.commit()
    found = board.explain(wb.Job("mul", (0, 1)), system)
    assert [d.text for d in found.differences] == ["another source 1: node 1 at version 0, now node 1 at version 1"]


def test_short_tokens(board: wb.Board, system: System) -> None:
    """A page with the first 32 bits of each token, as they were kept earlier, is compared by those."""
    system.process([wb.Job("softmax", (0,), residual=[1.0, 2.0, 3.0])])
    board.flush()
    _rewrite(board, _shortened)
    assert board.explain(wb.Job("mul", (0, 1))).hit
    other = board.explain(wb.Job("softmax", (0,), residual=[3.0, 2.0, 1.0]))
    assert [d.text for d in other.differences] == ["another cotangent"]
    another = board.explain(wb.Job("mul", (0, 2)))
    assert [d.text for d in another.differences] == [
        "other bytes in source 1: node 1 at version 0, now node 2 at version 0"
    ]


def _shortened(page: Page) -> Page:
    assert page.tokens is not None
    return replace(page, tokens=np.ascontiguousarray(page.tokens[..., :4]).view("<u4")[..., 0])


def _rewrite(board: wb.Board, change: Callable[[Page], Page]) -> None:
    """Write every page again as an earlier version wrote it."""

    with transaction(database_of(board)) as connection:
        for page_id, *blob in connection.exec_driver_sql("SELECT id, header, digest, data FROM page").all():
            page = decode_page(Blob(*blob), provenance=True)
            bare = encode_page(change(page)).joined()
            connection.exec_driver_sql(
                "UPDATE page SET header = ?, digest = ?, data = ? WHERE id = ?",
                (bare.header, bare.digest, bare.data, page_id),
            )


def test_what_cannot_be_cached(board: wb.Board, system: System) -> None:
    """An op that cannot be seen through is explained by the reason."""
    state = {"n": 1}

    def remembers(x: Any) -> Any:
        return x * state["n"]

    wb.op("explained2", replace=True)(remembers)
    found = board.explain(wb.Job("explained2", (0,)), system)
    assert "never cached" in found.reason
    assert "state" in found.reason


def test_bad_input(board: wb.Board, system: System) -> None:
    """An op, a node, a parameter or a system that there is not is named."""
    with pytest.raises(wb.WhiteboardError, match="mull"):
        board.explain(wb.Job("mull", (0, 1)))
    with pytest.raises(wb.WhiteboardError, match="no node 99"):
        board.explain(wb.Job("mul", (0, 99)))
    with pytest.raises(wb.WhiteboardError, match="unknown parameter"):
        board.explain(wb.Job("mul", (0, 1), params={"x": 1}))
    with pytest.raises(wb.WhiteboardError, match="expected 16 bytes"):
        board.explain_key(b"short")
    assert board.explain_key(bytes(16)).reason == "no package has this key"
    board.system("b")
    with pytest.raises(wb.WhiteboardError, match="explain: say which system"):
        board.explain(wb.Job("mul", (0, 1)))


# -- jobs of arrays


def test_jobs_of_arrays(board: wb.Board, system: System) -> None:
    """A job of arrays is a hit where it was computed, from arrays or nodes, and else a miss that names what differs."""
    a, b = np.arange(3.0), np.arange(3.0) + 3
    assert board.explain("mul", a, b).hit  # of nodes 0 and 1
    other = board.explain("mul", a, b + 1)
    assert (other.hit, [each.what for each in other.differences]) == (False, ["source"])
    assert "computed from nodes 0 at version 0, 1 at version 0" in other.reason
    board.call("sum", a)
    assert board.explain("sum", a).reason == "a hit: the package of op 'sum', computed from arrays (page 3, row 0)"
    axis = board.explain("sum", a, params={"axis": 0})
    assert [each.text for each in axis.differences] == ["other parameters: axis is None, now 0"]
    assert board.explain("sum", a.astype(np.float32)).differences[0].what == "dtype"
    assert board.explain("sum", [[0.0, 1.0, 2.0]]).differences[0].what == "shape"
    assert board.explain("sum", [0.0, 1.0, 2.0]).hit
    assert board.explain_key(bytes.fromhex(other.key)).reason == "no package has this key"
    assert board.stats()["misses"] == 3


def test_a_function_of_arrays(board: wb.Board) -> None:
    """The function itself is asked with, as it is called; an edit of its code is what differs."""

    def twice(x: Any) -> Any:
        return x * 2.0

    def thrice(x: Any) -> Any:
        return x * 3.0

    board.call(twice, [1.0])
    assert board.explain(twice, [1.0]).hit
    wb.op("twice", replace=True)(thrice)
    assert [each.what for each in board.explain("twice", [1.0]).differences] == ["fingerprint"]


ARRAYS = [
    (("mull", [1.0]), {}, wb.UnknownOpError, "mull"),
    (("mul", [1.0]), {}, wb.ShapeError, "expected 2 sources, got 1"),
    (("mul",), {}, wb.ShapeError, "expected at least one source"),
    (("mul", [1.0], np.ones(1, np.float32)), {}, wb.DtypeError, "slot 1: expected dtype float64"),
    (("exp", ["a"]), {}, wb.DtypeError, "op 'exp'"),
    (("exp", [1j]), {}, wb.DtypeError, "complex"),
    (("sum", [1.0]), {"params": {"x": 1}}, wb.ParamError, "unknown parameter 'x'"),
    (("sum", [1.0]), {"params": 3}, wb.ParamError, "expected a mapping"),
    ((3, [1.0]), {}, wb.ParamError, "expected the name of an op"),
    ((wb.Job("mul", (0, 1)), [1.0]), {}, wb.ParamError, "expected a job and its system"),
    ((wb.Job("mul", (0, 1)),), {"params": {}}, wb.ParamError, "a Job has its own params"),
]


@pytest.mark.parametrize(("given", "named", "kind", "says"), ARRAYS, ids=range(len(ARRAYS)))
def test_arrays_that_no_job_is_made_of(
    given: Any, named: Any, kind: type[Exception], says: str, board: wb.Board, system: System
) -> None:
    """What could not be called cannot be explained, and the error is the same."""
    with pytest.raises(kind, match=says):
        board.explain(*given, **named)


def test_a_system_goes_with_a_job(board: wb.Board, system: System) -> None:
    """It is given by place or by name, once; arrays have none."""
    job = wb.Job("mul", (0, 1))
    assert board.explain(job, system).hit
    assert board.explain(job, system=system).hit
    assert board.explain(job, None).hit
    ask: Any = board.explain
    for given, named in (
        ((job, system), {"system": system}),
        (("mul", [1.0], system), {}),
        (("mul", [1.0]), {"system": system}),
    ):
        with pytest.raises(wb.ParamError, match="explain: "):
            ask(*given, **named)
