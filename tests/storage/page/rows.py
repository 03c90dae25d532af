"""Pages of which one row is read, and what it has to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from whiteboard.records.packages import Page
from whiteboard.storage.page import format
from whiteboard.storage.page.grouping import alive_bytes

RNG = np.random.default_rng(0)


class Elsewhere:
    """Data that is read a part at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        return self.data[part]


def page_of(n: int, *shape: int, op: str = "f", smooth: bool = False) -> Page:
    """A page of n packages, of which y has a shape; raw, or smooth enough to be compressed."""
    y = np.arange(n * int(np.prod(shape)), dtype=np.float64) if smooth else RNG.normal(size=n * int(np.prod(shape)))
    keys = RNG.integers(0, 256, (n, 16), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {
        "y": y.reshape(n, *shape),
        "g0": RNG.normal(size=n).astype(np.float32),
        "g1": np.empty((n, 0)),
    }
    tokens = RNG.integers(0, 256, (n, 2, 16), dtype=np.uint8)
    return Page(op, keys, arrays, 1000 * n + 7, lineage='{"version":1}', tokens=tokens)


def assert_row(page: Page, slot: int, one: Page) -> None:
    """One package is what the page has in a slot of it, and says what it keeps in memory."""
    assert (one.op, one.n, one.lineage, one.cost_ns) == (page.op, 1, page.lineage, page.cost_ns // page.n)
    assert one.keys.tobytes() == page.keys[slot].tobytes()
    if page.n > 1:
        assert one.alive == one.nbytes == alive_bytes(replace(one, alive=None))
    assert list(one.arrays) == list(page.arrays)
    for name, array in page.arrays.items():
        found = one.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, (1, *array.shape[1:]))
        assert found.tobytes() == array[slot : slot + 1].tobytes()
        assert not found.flags.writeable


@st.composite
def pages(draw: st.DrawFn) -> Page:
    """Pages of arrays of several dtypes and shapes; of some the rows are alike, or smooth."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    arrays = {}
    for name in ["y", "g0", "g1"][: draw(st.integers(1, 3))]:
        dtype = draw(st.sampled_from(["<f8", "<f8", "<f4", ">f8", "<c16", "|b1", "|i1"]))
        shape = draw(st.sampled_from([(n,), (n, 3), (n, 32), (n, 2, 40), (n, 0), (n, 400)]))
        kind = draw(st.sampled_from(["random", "random", "alike", "smooth"]))
        values = rng.normal(size=shape) * 100
        values = np.resize(values[:1], shape) if kind == "alike" else np.round(values, 0 if kind == "smooth" else 9)
        arrays[name] = values.astype(dtype)
    keys = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    tokens = rng.integers(0, 256, (n, 1, 16), dtype=np.uint8) if draw(st.booleans()) else None
    return Page("f", keys, arrays, draw(st.integers(0, 10**12)), lineage='{"version":1}', tokens=tokens)


def lay(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Let rows of several arrays lie beside one another, or column after column, as pages of before."""
    if not together:
        monkeypatch.setattr(format, "_ROWS", 10**9)
