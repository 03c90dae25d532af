"""The words of `gradient=`: what a function returns with y, and how often it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import ParamError
from whiteboard.ops.checking.run_once import run
from whiteboard.ops.gradients import WORDS
from whiteboard.ops.spec import Example

ROOT = Path(__file__).resolve().parents[2]

F8, F4 = np.dtype(np.float64), np.dtype(np.float32)


def energy(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return k · Σx² + Σx · Σa, and its gradients."""
    y = k * np.sum(x * x) + np.sum(x) * np.sum(a)
    return y, (2 * k * x + np.sum(a), np.full_like(a, np.sum(x)))


def residuals(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return k · x² · Σa, of x's shape, and its Jacobians."""
    outer = np.zeros((*x.shape, *x.shape), x.dtype)
    for at in np.ndindex(x.shape):
        outer[at + at] = 2 * k * x[at] * np.sum(a)
    spread = np.broadcast_to((k * x * x).reshape(x.shape + (1,) * a.ndim), (*x.shape, *a.shape))
    return k * x * x * np.sum(a), (outer, spread)


def simulated(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return k · x² · Σa, of x's shape, and its pullback."""

    def pullback(c: Any) -> Any:
        return c * 2 * k * x * np.sum(a), np.full_like(a, np.sum(c * k * x * x))

    return k * x * x * np.sum(a), pullback


def forward_only(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return k · x · Σa."""
    return k * x * np.sum(a)


PLAIN: dict[str, Callable[..., Any]] = {
    "returned": energy,
    "jacobian": residuals,
    "pullback": simulated,
    "none": forward_only,
}
SHAPES = (((3,), (2,)), ((2, 3), ()), ((), (4,)), ((0,), (2,)), ((1,), (1, 2)))


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


def made(word: str, **how: Any) -> str:
    """Register the function of a word, and return its name."""
    ops.op(word, gradient=word, replace=True, **how)(PLAIN[word])  # type: ignore[call-overload]
    return word


@pytest.mark.parametrize("word", PLAIN)
@pytest.mark.parametrize("shapes", SHAPES, ids=repr)
@pytest.mark.parametrize("dtype", [F8, F4], ids=str)
def test_values_and_gradients(board: wb.Board, word: str, shapes: Any, dtype: np.dtype[Any]) -> None:
    """y and ∂(Σy)/∂xᵢ of any shapes in the sources' dtype: the same bits alone, in a bin, and from the store."""
    made(word)
    rng = np.random.default_rng(0)
    xs = [rng.uniform(0.5, 1.5, (5, *shape)).astype(dtype) for shape in shapes]
    many = board.call_many(word, *xs)
    assert [column.dtype for column in (many.y, *many.grads)] == [dtype] * (1 + len(many.grads))
    assert [grad.shape for grad in many.grads] == ([] if word == "none" else [x.shape for x in xs])
    for i in range(5):
        with wb.open(":memory:") as another:
            alone = another.call(word, *(x[i] for x in xs))
        kept = board.call(word, *(x[i] for x in xs))
        assert (alone.hit, kept.hit) == ("miss", "memory")
        for column, single, again in zip((many.y, *many.grads), (alone.y, *alone.grads), (kept.y, *kept.grads)):  # noqa: B905
            assert column[i].tobytes() == single.tobytes() == again.tobytes()
        if word != "none":
            expected = expected_gradients(word, [x[i] for x in xs])
            for got, right in zip(alone.grads, expected, strict=True):
                np.testing.assert_allclose(got, right, rtol=2e-6 if dtype == F4 else 1e-14)


def expected_gradients(word: str, xs: list[Any]) -> tuple[Any, ...]:
    """Return ∂(Σy)/∂xᵢ of the functions above."""
    x, a = xs
    if word == "returned":
        return tuple(energy(x, a)[1])
    return tuple(simulated(x, a)[1](np.ones_like(x)))


@pytest.mark.parametrize("word", PLAIN)
@pytest.mark.parametrize("batch", ["loop", "lead_axis"])
def test_every_word_passes_the_check(word: str, batch: Any) -> None:
    """`ops.check` takes differences of what is returned, and of an op without gradients looks at its forward."""
    if batch == "loop":
        made(word)
        ops.check(word, [Example(((3,), (2,))), Example(((), (2, 2)), {"k": 0.5})])
    else:
        ops.op(word, gradient=word, batch=batch)(STACKED[word])  # type: ignore[call-overload]
        ops.check(word, [Example(((3,),))])


STACKED: dict[str, Callable[..., Any]] = {
    "returned": lambda x: ((x * x).sum(-1), 2 * x),
    "jacobian": lambda x: (x * x, 2 * x[:, :, None] * np.eye(x.shape[1], dtype=x.dtype)),
    "pullback": lambda x: (x * x, lambda c: 2 * x * c),
    "none": lambda x: x * x,
}


@pytest.mark.parametrize("word", PLAIN)
def test_one_call_a_job(board: wb.Board, word: str) -> None:
    """A function is called once for value and gradient, and for a hit not at all."""
    calls: list[int] = []

    def counted(x: Any, a: Any) -> Any:
        calls.append(1)
        return PLAIN[word](x, a)

    ops.op(word, gradient=word, ignore=("calls", "PLAIN", "word"))(counted)  # type: ignore[call-overload]
    xs = np.arange(8.0).reshape(4, 2), np.ones((4, 3))
    board.call_many(word, *xs)
    assert len(calls) == 4
    assert board.call_many(word, *xs).hit.tolist() == [1] * 4
    assert len(calls) == 4


def test_a_job_that_needs_a_cotangent_runs_again_once() -> None:
    """A pullback of another cotangent is another package; a Jacobian answers any residual."""
    calls: list[str] = []

    @ops.op(gradient="pullback", ignore=("calls",))
    def pulled(x: Any) -> Any:
        calls.append("pulled")
        return x * x, lambda c: 2 * c * x

    @ops.op(gradient="jacobian", ignore=("calls",))
    def whole(x: Any) -> Any:
        calls.append("whole")
        return x * x, np.diag(2 * x)

    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([0], theta=np.array([[1.0, 2.0, 3.0]]))
        system.commit()
        for residual in ([1.0, 0.0, 2.0], [1.0, 0.0, 2.0], [5.0, 0.0, 2.0], 3.0):
            for op in (pulled, whole):
                system.process([wb.Job(op, (0,), residual=residual)])
        assert calls.count("whole") == 1
        assert calls.count("pulled") == 1 + 2


@pytest.mark.parametrize("word", ["jacobian", "pullback"])
def test_residuals_move_nodes_as_the_vjp_says(word: str) -> None:
    """The impulses of every word are −scale · Jᵀ · residual: they equal those of an op by autograd."""
    import autograd.numpy as anp

    ops.op("other")(lambda x: 2.0 * x * x * anp.sum(x))
    functions = {
        "jacobian": lambda x: (
            2.0 * x * x * np.sum(x),
            np.diag(4.0 * x * np.sum(x)) + (2.0 * x * x)[:, None] * np.ones(x.shape),
        ),
        "pullback": lambda x: (
            2.0 * x * x * np.sum(x),
            lambda c: c * 4.0 * x * np.sum(x) + np.sum(c * 2.0 * x * x),
        ),
    }
    ops.op(word, gradient=word)(functions[word])  # type: ignore[call-overload]
    thetas: list[Any] = []
    for name in (word, "other"):
        with wb.open(":memory:") as board:
            system = board.system("s")
            system.add_nodes(range(3), theta=np.arange(12.0).reshape(3, 4) / 10)
            system.commit()
            for _ in range(3):
                system.process(wb.JobBatch(name, [(i,) for i in range(3)], target=np.full((3, 4), 0.3), scale=0.01))
                system.commit(wb.rules.Relax(eta=0.5, rtol=0.1, atol=0.1))
            thetas.append(np.stack([np.asarray(system.nodes[i].theta) for i in range(3)]))
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=1e-13)


def test_none_has_no_gradient(board: wb.Board) -> None:
    """`grads` are empty; what asks for a gradient is an error that names the op, and computes nothing."""
    made("none")
    assert board.call("none", [1.0, 2.0], [1.0]).grads == ()
    system = board.system("s")
    system.add_nodes([0, 1], theta=np.ones((2, 3)))
    system.commit()
    done = system.process(wb.JobBatch("none", [(0, 1)]))
    assert (done.grads, next(iter(done)).grads, done.finite.tolist()) == ((), (), [True])
    assert system.process([wb.Job("none", (0, 1), job_id="a")])[0].grads == ()
    misses = board.stats()["misses"]
    for given in ({"residual": 1.0}, {"target": 0.5}):
        with pytest.raises(ParamError, match=rf"op 'none', job 'a': {next(iter(given))}: .*gradient='none'"):
            system.process([wb.Job("none", (1, 0), job_id="a", **given)])  # type: ignore[arg-type]
    assert board.stats()["misses"] == misses
    bound = board.bind("none")
    ops.op("flat", gradient="none")(lambda x: np.sum(x))
    with pytest.raises(ParamError, match="op 'flat' has no gradient"):
        board.bind("flat").grad([1.0])
    with pytest.raises(ParamError, match="op 'none' has no Jacobian"):
        bound.jacobian([1.0, 2.0], [1.0])


def test_none_and_numbers_stand_for_arrays(board: wb.Board) -> None:
    """A gradient of None is zeros in its source's shape and dtype; Python numbers are taken, of y and of gradients."""
    ops.op("r", gradient="returned")(lambda x, a: (float(x) * 3, (3, None)))
    ops.op("j", gradient="jacobian")(lambda x, a: (a, (None, np.eye(2, dtype=a.dtype))))
    ops.op("p", gradient="pullback")(lambda x, a: (2 * x, lambda c: (2, None)))
    for name in "rjp":
        done = board.call(name, np.float32(2.0), np.array([1.0, 2.0], np.float32))
        assert [grad.dtype for grad in done.grads] == [F4, F4]
        assert [grad.shape for grad in done.grads] == [(), (2,)]
    assert done.grads[0] == 2
    assert not done.grads[1].any()


def test_buffers_that_a_function_uses_again_are_copied(board: wb.Board) -> None:
    """A solver that returns the same array every time, with other contents, has the gradients of each job kept."""
    buffer, matrix = np.empty(2), np.empty((2, 2))

    def reused(x: Any) -> Any:
        buffer[...] = 2 * x
        return np.sum(x * x), buffer

    def filled(x: Any) -> Any:
        matrix[...] = np.diag(2 * x)
        return x * x, matrix

    xs = np.arange(6.0).reshape(3, 2)
    for word, function in (("returned", reused), ("jacobian", filled)):
        ops.op(word, gradient=word, identity="reused")(function)  # type: ignore[call-overload]
        assert board.call_many(word, xs).grads[0].tolist() == (2 * xs).tolist()
        assert run(ops.get(word), [xs]).grads[0].tolist() == (2 * xs).tolist()


def test_a_pullback_belongs_to_the_run_before_it(board: wb.Board) -> None:
    """A solver with a state of its own is pulled back before it is run for another job."""
    state: dict[str, Any] = {}

    def solve(x: Any) -> Any:
        state["x"] = x
        return x * x, lambda c: 2 * c * state["x"]

    ops.op("solve", gradient="pullback", identity="solve 1")(solve)
    xs = np.arange(6.0).reshape(3, 2)
    assert board.call_many("solve", xs).grads[0].tolist() == (2 * xs).tolist()
    assert np.array_equal(board.bind("solve").jacobian(xs[2]), np.diag(2 * xs[2]))


def test_the_word_is_part_of_what_an_op_is() -> None:
    """One function under several words has several fingerprints, and those without the argument have what they had."""
    words = [word for word in WORDS if word not in ("jax", "torch")]
    for word in words:
        ops.op(f"f_{word}", gradient=word)(forward_only)  # type: ignore[call-overload]
    ops.op("plain")(forward_only)
    prints = {ops.get(f"f_{word}").fingerprint for word in words}
    assert len(prints) == len(words)
    assert None not in prints
    assert ops.get("plain").fingerprint == ops.get("f_autograd").fingerprint
    assert {row["gradient"] for row in ops.describe()} == {"vjp", *words}


PROGRAM = """
    import os, sys
    import numpy as np
    import whiteboard as wb

    calls, limit = [], int(sys.argv[2])

    def met(x):
        if x[0] == limit:
            os.kill(os.getpid(), 9)
        calls.append(float(x[0]))

    @wb.op(gradient="returned", ignore=("met",))
    def returned(x):
        met(x)
        return np.exp(x).sum(), np.exp(x)

    @wb.op(gradient="jacobian", ignore=("met",))
    def jacobian(x):
        met(x)
        return np.tanh(x), np.diag(1 - np.tanh(x) ** 2)

    @wb.op(gradient="pullback", ignore=("met",))
    def pullback(x):
        met(x)
        return np.tanh(x), lambda c: c * (1 - np.tanh(x) ** 2)

    @wb.op(gradient="none", ignore=("met",))
    def none(x):
        met(x)
        return np.tanh(x)

    with wb.open(sys.argv[1]) as board:
        for i in range(6):
            x = np.array([i, 0.1 * i, 0.2])
            for op in (returned, jacobian, pullback, none):
                done = board.call(op, x)
                print(op.__name__, i, [a.tobytes().hex() for a in (done.y, *done.grads)])
                board.flush()
            for op in (jacobian, pullback):
                print(board.bind(op).jacobian(x).tobytes().hex())
                board.flush()
        print(len(calls) - board.stats()["checked"], file=sys.stderr)
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Killed at any job and started again: nothing that was done is run again, and every bit is as without a kill."""
    program = tmp_path / "program.py"
    program.write_text(dedent(PROGRAM), "utf-8")

    def go(store: str, limit: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, program, tmp_path / store, str(limit)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    whole = go("whole.db", 99)
    assert whole.stderr == f"{6 * 5}\n", whole.stderr  # of a pullback's Jacobian one run more
    assert go("killed.db", 2).returncode == -9
    assert go("killed.db", 4).returncode == -9
    again = go("killed.db", 99)
    assert (again.stdout, again.stderr) == (whole.stdout, "10\n")
    last = go("killed.db", 99)
    assert (last.stdout, last.stderr) == (whole.stdout, "0\n")


def test_nothing_is_imported_that_is_not_used(tmp_path: Path) -> None:
    """Registering, calling and finding ops of other words imports neither JAX nor torch, nor autograd."""
    program = tmp_path / "program.py"
    program.write_text(
        dedent("""
            import sys
            import numpy as np
            import whiteboard as wb
            wb.op("j", gradient="jax")(lambda x: x)
            wb.op("t", gradient="torch")(lambda x: x)
            wb.op("r", gradient="returned")(lambda x: (x.sum(), np.ones_like(x)))
            wb.op("n", gradient="none")(lambda x: x)
            with wb.open(":memory:") as board:
                board.call("r", [1.0, 2.0]), board.call("n", [1.0]), board.call("mul", 1.0, 2.0)
            wb.ops.names(), wb.ops.describe()
            assert not {"jax", "jaxlib", "torch", "autograd"} & set(sys.modules)
        """),
        "utf-8",
    )
    subprocess.run([sys.executable, program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
