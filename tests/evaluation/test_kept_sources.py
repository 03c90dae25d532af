"""Kept sources: copies of what was computed from, whatever the sources are, in parts where they are many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.evaluation import bins
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.records.packages import Found, Page
from whiteboard.storage.base import PackageStore

pytestmark = pytest.mark.usefixtures("builtin_ops_only")


class Taking(PackageStore):
    """A store that has nothing, and remembers what it was given."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    def find(self, keys: Sequence[bytes]) -> Found:
        """Find nothing."""
        none = np.full(len(keys), -1, np.int64)
        return Found([], none, none, np.zeros(len(keys), np.uint8))

    def put(self, page: Page) -> None:
        """Remember a page."""
        self.pages.append(page)

    def flush(self) -> None:
        """Have nothing to write."""

    def close(self) -> None:
        """Have nothing to close."""

    def stats(self) -> dict[str, float]:
        """Count nothing."""
        return {}


def taken(op: Any, *sources: Any, cotangent: Any = None, **options: Any) -> list[Page]:
    """The pages that jobs of an op that keeps its sources give."""
    wb.op("taken", identity="taken", keep_sources=True, replace=True, **options)(op)
    store = Taking()
    pipeline = Pipeline(store, BufferPool(poison=True))
    pipeline.evaluate(ops.get("taken"), None, ArraySources("taken", sources), cotangent)
    return store.pages


def test_large_sources_come_in_parts() -> None:
    """Sources that are many times what is computed of them are never copied for a whole bin at once."""
    x = np.random.default_rng(0).normal(size=(64, 30_000))
    pages = taken(lambda x: np.sum(x), x, gradient="none")
    assert max(page.nbytes for page in pages) <= 2 * bins.MAX_BYTES
    assert sum(page.n for page in pages) == 64
    assert b"".join(source.tobytes() for page in pages for source in page.sources or ()) == x.tobytes()
    np.testing.assert_array_equal(np.concatenate([page.arrays["y"] for page in pages]), [np.sum(row) for row in x])
    assert sum(page.cost_ns for page in pages) > 0
    assert all(page.tokens is not None and len(page.tokens) == page.n == len(page.keys) for page in pages)


@pytest.mark.parametrize("layout", ["rows", "backwards", "fortran", "every other", "one for all"])
def test_they_are_copies(layout: str) -> None:
    """Whatever the caller, or the pool, does with the bytes afterwards, what is kept stays, in C order."""
    base = np.random.default_rng(0).normal(size=(12, 3, 2))
    x: Any = {
        "rows": base,
        "backwards": base[::-1],
        "fortran": np.asfortranarray(base),
        "every other": base[::2],
        "one for all": np.broadcast_to(base[0], base.shape),
    }[layout]
    before = x.copy()
    pages = taken(lambda x, z: anp.sum(x * z), x, x, exactness="tolerance")
    base[...] = -1
    for slot in (0, 1):
        kept = np.concatenate([(page.sources or ())[slot] for page in pages])
        keys = {row.tobytes() for row in kept}
        assert keys == {row.tobytes() for row in before}
    assert all(source.flags.c_contiguous for page in pages for source in page.sources or ())


def test_the_cotangent_is_the_last_one() -> None:
    """A package of the VJP of a cotangent keeps that behind its sources."""
    x, cotangent = np.random.default_rng(0).normal(size=(2, 4, 3))
    pages = taken(lambda x: x * anp.sum(x), x, cotangent=cotangent)
    columns = [np.concatenate(each) for each in zip(*(page.sources or () for page in pages), strict=True)]
    assert [column.tobytes() for column in columns] == [x.tobytes(), cotangent.tobytes()]


def test_nodes_and_stacks_of_them(tmp_path: Path) -> None:
    """Sources that are nodes are kept as they were read: of a stack, the stack."""
    theta = np.random.default_rng(0).normal(size=(4, 3))

    def total(x: Any) -> Any:
        return anp.sum(x * x)

    wb.op(keep_sources=True, identity="total")(total)
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        system.add_nodes(range(4), theta=theta)
        system.process([wb.Job("total", (1,)), wb.Job("total", (3, 2), stack=True)])
        system.commit()
        system.write(1, theta=np.zeros(3))
        system.commit()
        table = board.table("total")
        assert board.audit().ops["total"].kept == 2
    found = dict(zip(table["src_ids"], table["x0"], strict=True))
    np.testing.assert_array_equal(found[1,], theta[1])
    np.testing.assert_array_equal(found[3, 2], theta[[3, 2]])


@pytest.mark.parametrize("keep", [True, False, None])
def test_no_key_and_no_answer_knows_of_it(keep: bool | None, tmp_path: Path) -> None:
    """Fingerprint, keys and bits are those of an op that says nothing: a store of one answers the other."""

    def plain(x: Any) -> Any:
        return anp.sum(anp.tanh(x))

    wb.op(identity="plain")(plain)
    x = np.random.default_rng(0).normal(size=(5, 3))
    before = ops.get("plain").fingerprint
    with wb.open(tmp_path / "a.db") as board:
        first = board.call_many("plain", x)
    wb.op(identity="plain", keep_sources=keep)(plain)
    assert ops.get("plain").fingerprint == before
    with wb.open(tmp_path / "a.db") as board:
        again = board.call_many("plain", x)
        assert set(again.hit) == {2}
    assert again.y.tobytes() == first.y.tobytes()
    assert again.grads[0].tobytes() == first.grads[0].tobytes()


@pytest.mark.parametrize("odd", [1, 0, "yes", "auto", (), 1.0])
def test_other_words_are_refused(odd: Any) -> None:
    """It is True, False or None."""
    with pytest.raises(wb.ParamError, match="keep_sources: expected True, False or None, got"):
        wb.op(name="refused", keep_sources=odd)(lambda x: x)


def test_results_from_elsewhere_keep_them_where_it_is_said() -> None:
    """What was computed elsewhere has no cost: its sources are kept where the op says so."""

    def square(x: Any) -> Any:
        return x * x

    x = np.arange(6.0).reshape(3, 2)
    for keep in (True, None):
        wb.op(name="square2", identity="square2", keep_sources=keep, replace=True)(square)
        with wb.open(":memory:") as board:
            assert board.pipeline.adopt(ops.get("square2"), None, ArraySources("square2", [x]), x * x, [2 * x]).all()
            table = board.table("square2")
            assert len(table["y"]) == 3
            assert ("x0" in table) == bool(keep)
            assert board.audit().ops["square2"].kept == 3 * bool(keep)
