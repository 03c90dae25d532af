"""Bound ops: what optimizers call, and go on with after every kill, to the bit and without computing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import environment
from whiteboard.errors import DtypeError, ParamError, ShapeError, UnknownOpError

PROGRAM = Path(__file__).with_name("optimizers.py")
PEERS = {"nlopt", "optax"}
WAYS = ("L-BFGS-B", "BFGS", "SLSQP", "trust-constr", "least_squares", "root", "loop", *sorted(PEERS))


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


def run(folder: Path, name: str, method: str, kill: int = 0) -> subprocess.CompletedProcess[str]:
    """Optimize in a process of its own."""
    arguments = [method, str(folder / f"{name}.db"), str(folder / f"{name}.log"), str(kill)]
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize("method", WAYS)
def test_an_optimizer_that_is_killed_goes_on(tmp_path: Path, method: str) -> None:
    """Killed at evaluations, and again where it had gone on: the same iterates to the bit, each computed once."""
    if method in PEERS and find_spec(method) is None:
        pytest.skip(f"{method} is not installed")
    whole = run(tmp_path, "whole", method)
    assert whole.returncode == 0, whole.stderr
    expected = (tmp_path / "whole.log").read_text().splitlines()
    assert len(expected) > 6
    assert max(Counter(expected).values()) == 1 + (method == "least_squares")  # a value, and then its Jacobian
    chance = random.Random(method)
    for _ in range(3):
        assert run(tmp_path, "killed", method, chance.randint(1, len(expected) // 4)).returncode == -9
    last = run(tmp_path, "killed", method)
    assert (last.returncode, last.stdout) == (0, whole.stdout), last.stderr
    assert (tmp_path / "killed.log").read_text().splitlines() == expected
    again = run(tmp_path, "killed", method, kill=1)
    assert (again.returncode, again.stdout) == (0, whole.stdout)


def test_evaluations_of_45_ms_that_are_killed_ten_times(tmp_path: Path) -> None:
    """200 evaluations of 45 ms, killed at any moment: the one under way is lost each time, and no other."""
    whole = run(tmp_path, "whole", "200")
    assert whole.returncode == 0, whole.stderr
    log, chance, kills = tmp_path / "killed.log", random.Random(0), 0
    environ = {**environment(), "SECONDS": "0.045"}
    command = [sys.executable, "-W", "ignore", str(PROGRAM), "200", str(tmp_path / "killed.db"), str(log)]
    out = ""
    while kills < 10:
        before = len(log.read_text().splitlines()) if log.exists() else 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
            target = before + chance.randint(1, 18)
            while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < target):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.045))
            process.kill()
            out = process.communicate()[0]
            kills += process.returncode == -9
            assert process.returncode in (0, -9)
            assert not out, "it ended before it was killed ten times"
    last = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
    assert last.stdout == whole.stdout
    evaluations = log.read_text().splitlines()
    assert len(set(evaluations)) == 200
    assert len(evaluations) <= 210


def quadratic(x: Any, y: Any, *, a: float = 1.0) -> Any:
    """Return a scalar of two sources."""
    return a * anp.sum(x * x) + anp.sum(x[0] * y)


def stacked(x: Any) -> Any:
    """Return a matrix of one source."""
    return anp.stack([anp.sin(x), x * x])


def test_what_comes_back(board: wb.Board) -> None:
    """A float for a scalar, one array for one source, a tuple for several, and all of it the caller's to write to."""
    f = board.bind(quadratic, a=2.0)
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])
    assert type(f(x, y)) is float
    value, grads = f.value_and_grad(x, y)
    assert (value, type(value)) == (22.0, float)
    assert [grad.tolist() for grad in grads] == [[16.0, 8.0], [1.0, 1.0, 1.0]]
    assert [grad.tolist() for grad in f.jacobian(x, y)] == [[16.0, 8.0], [1.0, 1.0, 1.0]]
    for grad in f.grad(x, y):
        grad += 1
    assert f.grad(x, y)[0].tolist() == [16.0, 8.0]
    assert f.many(np.stack([x, 2 * x]), np.stack([y, y])).tolist() == [22.0, 64.0]
    assert repr(f) == "<quadratic, a=2.0: an op of whiteboard, bound>"
    square = board.bind("square")
    assert (square(3), type(square(3)), square.grad(3.0)) == (9.0, float, 6.0)
    assert isinstance(square([1, 2]), np.ndarray)


def test_a_jacobian_of_any_y(board: wb.Board) -> None:
    """Each component is pulled back once and kept: (*y, *x), and hits afterwards."""
    g, x = board.bind(stacked), np.array([0.1, 0.2, 0.3])
    jacobian = g.jacobian(x)
    assert jacobian.shape == (2, 3, 3)
    np.testing.assert_array_equal(jacobian, np.stack([np.diag(np.cos(x)), np.diag(2 * x)]))
    misses = board.stats()["misses"]
    assert g.jacobian(x).tobytes() == jacobian.tobytes()
    assert board.stats()["misses"] == misses
    assert board.bind("reshape", shape=(0, 2)).jacobian(np.empty(0)).shape == (0, 2, 0)


def closed(board: wb.Board) -> None:
    """Bind with a board that is closed."""
    board.close()
    board.bind("square")


BAD: dict[str, tuple[Callable[[wb.Board], Any], type[Exception], str]] = {
    "unknown": (lambda board: board.bind("no_such"), UnknownOpError, "no_such"),
    "param": (lambda board: board.bind(quadratic, b=1), ParamError, "unknown parameter 'b'"),
    "no function": (
        lambda board: board.bind(cast("Any", 3)),
        ParamError,
        "expected the name of an op, or a function, got 3",
    ),
    "built in": (lambda board: board.bind(np.tanh), ParamError, "expected a function written in Python, got ufunc"),
    "no scalar": (lambda board: board.bind("square").grad([1.0]), ShapeError, r"got shape \(1,\); jacobian takes any"),
    "sources": (lambda board: board.bind(quadratic)([1.0]), ShapeError, "expected 2 sources, got 1"),
    "integers": (lambda board: board.bind("square")(np.arange(3)), DtypeError, r"int64 .*give x.astype\('float64'\)"),
    "half": (lambda board: board.bind("square")(np.float16(1)), DtypeError, r"float16 .*give x.astype\('float64'\)"),
    "large": (lambda board: board.bind("square")([2**53 + 1]), DtypeError, r"float64 holds, got int64 beyond 2\*\*53"),
    "text": (lambda board: board.bind("square")("a"), DtypeError, "non-numeric dtype"),
    "closed": (closed, wb.ClosedError, "closed"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_use_is_named(case: tuple[Callable[[wb.Board], Any], type[Exception], str], board: wb.Board) -> None:
    """What is wrong is said when it is bound, or else at the call."""
    use, error, says = case
    with pytest.raises(error, match=says):
        use(board)


def test_the_function_wherever_a_name_goes(board: wb.Board, tmp_path: Path) -> None:
    """In calls, jobs and batches of jobs, registered or not; one of another name's code is kept apart from it."""

    def square(x: Any) -> Any:
        return x * x * x

    assert board.call(square, 2).y == 8.0
    assert board.call("square", 2).y == 4.0
    assert wb.ops.get(square).name == "square"
    assert "square" in wb.ops.names()
    assert not [name for name in wb.ops.names() if "@" in name]
    system = board.system("s")
    system.add_nodes(range(2), theta=np.array([2.0, 3.0]))
    (one,) = system.process([wb.Job(square, (0,))])
    many = system.process(wb.JobBatch(square, [[0], [1]]))
    assert [one.y.tolist(), *many.y.tolist(), one.hit] == [8.0, 8.0, 27.0, "memory"]
    assert board.explain(wb.Job(square, (0,)), system).hit
    wb.ops.check(square)


def test_a_cell_that_is_run_again(board: wb.Board) -> None:
    """Two functions of one name are two ops, each with its own answers, whichever came last."""
    made: list[Callable[..., Any]] = []
    for factor in (2.0, 3.0):

        def cell(x: Any, *, factor: float = factor) -> Any:
            return factor * x

        made.append(cell)
    bound = [board.bind(each) for each in made]
    assert [f(1.0) for f in bound] == [2.0, 3.0]
    assert [f(1.0) for f in reversed(bound)] == [3.0, 2.0]
    job = partial(wb.Job, src_ids=(0,))
    system = board.system("s")
    system.add_nodes([0], theta=np.array([1.0]))
    assert [result.y for result in system.process([job(made[0]), job(made[1])])] == [2.0, 3.0]
