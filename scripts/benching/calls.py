"""One call at a time: a hit and a miss of `board.call`, of a bound op, and of the bridge, beside diskcache and joblib.

Sources of 64 float64, packages of y and two gradients. A miss is of ``mul``; it is not flushed, nor is what diskcache
is given in a transaction. What computing has of it is what its packages say that it has cost. Cold: keys of a store of
many packages, in no order, with nothing kept in memory; the files may be in the system's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diskcache
import joblib
import numpy as np

import whiteboard as wb
from scripts.benching import measure
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2

D = 64
CALLS = 2000
PACKAGES = 20_000


class Foreign:
    """A system of another make, which drops its impulses."""

    def __init__(self, x: Any) -> None:
        self.nodes = [SimpleNamespace(theta=row) for row in x]

    def impulse(self, *given: Any) -> None:
        """Drop one."""


def product(x: Any, y: Any) -> Any:
    """What joblib keeps."""
    return x * y, y.copy(), x.copy()


def works(folder: Path, calls: int, x: Any) -> Iterator[tuple[str, str, Callable[[Any], object]]]:
    """Yield what is measured, by what and by whom: each is given an iterator of jobs that were never asked for."""
    y, first = x[0], x[1]
    board = wb.open(folder / "a.db")
    sys, f = Foreign(x[:3]), board.bind("mul")
    cache = diskcache.Cache(str(folder / "cache"))
    memory = joblib.Memory(folder / "joblib", verbose=0).cache(product)
    package = product(first, y)
    cache["key"] = package
    memory(first, y)
    board.call("mul", first, y)
    push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=0.5, cache=board)

    def again(call: Callable[[], object]) -> Callable[[Any], None]:
        def work(_: Any) -> None:
            for _ in range(calls):
                call()

        return work

    def missed(fresh: Any) -> None:
        for job in fresh:
            board.call("mul", job, y)

    def stored(fresh: Any) -> None:
        with cache.transact():
            for number, _ in enumerate(fresh):
                cache[number] = package

    yield "hit", "board.call", again(lambda: board.call("mul", first, y))
    yield "hit", "bound op", again(lambda: f(first, y))
    yield "hit", "bridge", again(lambda: push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=0.5, cache=board))
    yield "hit", "diskcache get", again(lambda: cache.get("key"))
    yield "hit", "joblib Memory", again(lambda: memory(first, y))
    yield "miss", "board.call", missed
    yield "miss", "diskcache set in a transaction, which computes nothing", stored


def computing(folder: Path, calls: int, x: Any) -> float:
    """Return the seconds of so many misses in which the op is computed, as hits of them say that they have saved."""
    with wb.open(folder / "op.db") as board:
        for _ in range(2):
            for row in x[:calls]:
                board.call("mul", row, x[0])
        return board.stats()["seconds_saved"] * calls / len(x[:calls])


def cold(folder: Path, calls: int, x: Any, y: Any) -> Iterator[tuple[str, str, Callable[[Any], object]]]:
    """Yield what one key of many costs: each is given an iterator of as many others, and asks for keys in no order."""
    with wb.open(folder / "cold.db") as board, diskcache.Cache(str(folder / "cold")) as cache, cache.transact():
        board.call_many("mul", x, np.broadcast_to(y, x.shape))
        for number, row in enumerate(x):
            cache[number] = product(row, y)
    board, cache = wb.open(folder / "cold.db", memory_bytes=0), diskcache.Cache(str(folder / "cold"))
    asked = np.random.default_rng(1).integers(0, len(x), calls).tolist()

    def called(_: Any) -> None:
        for number in asked:
            board.call("mul", x[number], y)

    def got(_: Any) -> None:
        for number in asked:
            cache.get(number)

    yield "cold", "board.call", called
    yield "cold", "diskcache get", got


def main() -> None:
    """Measure and report."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--calls", type=int, default=CALLS, help="calls a run (default: %(default)s)")
    options.add_argument("--packages", type=int, default=PACKAGES, help="in a cold store (default: %(default)s)")
    given = options.parse_args()
    rng = np.random.default_rng(0)
    many = rng.normal(size=(given.packages, D))
    with tempfile.TemporaryDirectory(prefix="whiteboard-bench-") as folder:
        ways = {
            f"{what}\0{who}": (work, lambda: iter(rng.normal(size=(given.calls, D))))
            for what, who, work in chain(
                works(Path(folder), given.calls, rng.normal(size=(3, D))),
                cold(Path(folder), given.calls, many, rng.normal(size=D)),
            )
        }
        seconds = measure.interleaved(ways, runs=given.runs)
        seconds["miss\0of which computing"] = computing(Path(folder), given.calls, many)
    rows = []
    for name, taken in sorted(seconds.items(), key=lambda each: each[0].startswith("cold")):
        what, _, who = name.partition("\0")
        rows.append({"what": what, "by": who, "µs": 1e6 * taken / given.calls})
    measure.report(measure.machine("diskcache", "joblib"), {"One call (µs)": rows}, given.json)


if __name__ == "__main__":
    main()
