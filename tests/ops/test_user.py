"""Users' ops: sources and parameters by signature, gradients by autograd or by hand, shapes, and errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import JobsError, OpCheckError, ParamError, ShapeError, WhiteboardError
from whiteboard.ops.checking.run_once import run
from whiteboard.ops.spec import REQUIRED, Example


def swish(x: Any, beta: float = 1.0) -> Any:
    """Return x · sigmoid(βx)."""
    return x * (1 + anp.tanh(beta * x / 2)) / 2


def quadratic(x: Any, a: Any) -> Any:
    """Return xᵀ A x of n jobs."""
    return anp.einsum("ni,nij,nj->n", x, a, x)


def logdet(a: Any) -> Any:
    """Return log |A| of one job."""
    return anp.linalg.slogdet(a)[1]


def weighted(a: Any, b: Any, *, weight: float) -> Any:
    """Return a + weight · b."""
    return a + weight * b


def total(*xs: Any) -> Any:
    """Return the sum of squares of any number of sources."""
    return sum(anp.sum(x**2, axis=-1) for x in xs)


CASES: tuple[tuple[Callable[..., Any], dict[str, Any], tuple[Example, ...]], ...] = (
    (swish, {}, (Example(((3,),)), Example(((2, 2),), {"beta": 2.0}))),
    (swish, {"kind": "elementwise"}, ()),
    (swish, {"kind": "elementwise", "batch": "lead_axis"}, ()),
    (quadratic, {"kind": "scalar", "batch": "lead_axis"}, (Example(((3,), (3, 3))),)),
    (logdet, {"kind": "scalar"}, (Example(((3, 3),), domain=(0.5, 1.5)),)),
    (logdet, {}, (Example(((2, 2),), domain=(0.5, 1.5)),)),
    (weighted, {"kind": "elementwise"}, (Example(((2, 3), (3,)), {"weight": 0.5}), Example(((), ()), {"weight": 2.0}))),
    (weighted, {"kind": "elementwise", "batch": "lead_axis"}, (Example(((2, 1), (3,)), {"weight": 0.5}),)),
    (total, {}, (Example(((3,),)), Example(((3,), (3,), (3,))))),
    (total, {"name": "totals", "batch": "lead_axis"}, (Example(((3,),)), Example(((3,), (3,), (3,))))),
    (
        weighted,
        {"kind": "elementwise", "vjp": lambda cotangent, y, a, b, weight: (cotangent, weight * cotangent)},
        (Example(((2, 3), (3,)), {"weight": 0.5}),),
    ),
    (lambda x: x**2, {"name": "sq", "vjp": lambda cotangent, y, x: 2 * x * cotangent}, ()),
)


@pytest.mark.parametrize(("function", "how", "examples"), CASES)
def test_a_users_op_passes_the_check(
    function: Callable[..., Any], how: dict[str, Any], examples: tuple[Example, ...]
) -> None:
    """By autograd or by hand, of every kind and batch rule: gradients, bits and shapes hold."""
    assert ops.op(**how)(function) is function
    ops.check(how.get("name", function.__name__), examples or None)


def test_sources_and_parameters_are_told_by_the_signature() -> None:
    """Without a default: a source. With one, or by keyword only: a parameter, required where it has none."""

    @ops.op
    def mixed(a: Any, b: Any, k: int = 2, *, power: float) -> Any:
        return k * a + b**power

    spec = ops.get("mixed")
    assert spec.arity == 2
    assert spec.params == {"k": 2, "power": REQUIRED}
    with pytest.raises(ParamError, match="'power' has no default"):
        spec.bind({})
    assert np.array_equal(run(spec, [np.ones((1, 3)), np.ones((1, 3))], {"power": 2.0}).grads[1], np.full((1, 3), 2.0))


def test_a_decorated_function_has_the_signature_of_what_it_wraps() -> None:
    """A decorator made with `functools.wraps` takes anything and passes it on."""

    def doubled(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **more: Any) -> Any:
            return 2 * function(*args, **more)

        return wrapper

    ops.op("wrapped")(doubled(weighted))
    spec = ops.get("wrapped")
    assert (spec.arity, spec.params) == (2, {"weight": REQUIRED})
    assert spec.fingerprint is not None
    assert run(spec, [np.ones((1, 2))] * 2, {"weight": 3.0}).y.tolist() == [[8.0, 8.0]]


def test_a_tolerance_op_may_differ_by_its_bin() -> None:
    """What is declared `tolerance` is not held to the bits of single jobs, and is another op to the cache."""

    def loose(x: Any) -> Any:
        return x * (1 + 1e-12 * len(x))

    ops.op(exactness="tolerance", batch="lead_axis")(loose)
    ops.check("loose")
    tolerant = ops.get("loose").fingerprint
    ops.op(batch="lead_axis", replace=True)(loose)
    assert ops.get("loose").fingerprint != tolerant
    with pytest.raises(OpCheckError, match="bits in a bin are not those alone"):
        ops.check("loose")


def accepts_anything(**more: Any) -> None:
    """Take what cannot be checked."""


def by_place(x: Any, k: int = 1, /) -> Any:
    """Take a parameter that cannot be given by name."""
    return x


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (np.tanh, "expected a function written in Python, got ufunc"),
        (lambda: 1, "at least one array"),
        (accepts_anything, "name the parameters"),
        (by_place, "cannot be positional only"),
    ],
)
def test_a_signature_that_does_not_say_is_refused(function: Callable[..., Any], text: str) -> None:
    """The error names the op and what to change."""
    with pytest.raises(ParamError, match=f"op 'odd'.*{text}"):
        ops.op("odd")(function)


async def later(x: Any) -> Any:
    """Return a coroutine."""
    return x


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kind": "elemntwise"}, "kind: expected one of 'elementwise', 'scalar', 'general', got 'elemntwise'"),
        ({"kind": ["scalar"]}, "kind: expected one of"),
        ({"exactness": "xx"}, "exactness: expected one of 'portable', 'exact', 'tolerance', got 'xx'"),
        ({"batch": "lop"}, "batch: expected one of 'lead_axis', 'loop', got 'lop'"),
        ({"batch": None}, "batch: expected one of"),
        *(({"version": wrong}, "version: expected an int from 1, got") for wrong in ("1.2", 0, -1, True, 1.0, None)),
        *(({"name": wrong}, "name: expected a printable text, got") for wrong in (5, b"f", "", "a\n")),
        ({"vjp": "autograd"}, "vjp: expected a function, got 'autograd'"),
        ({"shape": (3,)}, r"shape: expected a function, got \(3,\)"),
        ({"examples": Example(((3,),))}, "examples: expected a tuple of Example"),
        ({"examples": [(3,)]}, "examples: expected a tuple of Example"),
        ({"subgradients": 0}, "subgradients: expected a text, got 0"),
    ],
)
def test_a_word_that_is_none_is_refused(given: dict[str, Any], text: str) -> None:
    """The error names the op, the argument and what it may be, and nothing is registered."""
    before = ops.names()
    with pytest.raises(ParamError, match=rf"op .*: {text}"):
        ops.op(**given)(swish)
    assert ops.names() == before


@pytest.mark.parametrize("arity", [0, -1, True, 1.0, "1"])
def test_an_arity_that_is_none_is_refused(arity: Any) -> None:
    """A record is checked by itself, too."""
    with pytest.raises(ParamError, match="op 'f': arity: expected an int from 1, or None"):
        ops.OpSpec("f", arity, "general", swish, swish, lambda op, shapes, params: ())


def test_a_function_that_does_not_return_an_array_is_refused() -> None:
    """A coroutine or a generator is told by the function, before it is run."""
    for function in (later, lambda x: (yield x)):
        with pytest.raises(ParamError, match="one that is asynchronous, or yields"):
            ops.op("odd")(function)


def test_the_shape_of_y_is_told_by_its_jobs() -> None:
    """A function is run for jobs alone; what shape y has, for each shape and parameter, these tell."""
    calls = []

    @ops.op(ignore=("calls",))
    def pairs(x: Any, k: int = 1) -> Any:
        calls.append(x._value.tolist())
        return anp.outer(x, x)[:k]

    assert ops.get("pairs").shape("pairs", ((3,),), {"k": 1}) is None
    x = np.arange(12.0).reshape(4, 3)
    with wb.open(":memory:") as board:
        for params, shape in (({"k": 1}, (1, 3)), ({"k": 2}, (2, 3)), ({"k": 1}, (1, 3))):
            assert board.call_many("pairs", x, params=params).y.shape == (4, *shape)
        assert board.call_many("pairs", np.empty((0, 3))).y.shape == (0,)
    assert calls == [*x.tolist()] * 2


def test_jobs_whose_ys_differ_in_shape_are_called_by_themselves() -> None:
    """A shape that depends on the values is one package's own: together such jobs are an error that names them."""

    @ops.op
    def positive(x: Any) -> Any:
        return x[x > 0]

    x = np.array([[1.0, 2.0], [-1.0, 2.0], [3.0, 4.0]])
    with wb.open(":memory:") as board:
        with pytest.raises(JobsError, match=r"job 2: ShapeError: op 'positive': forward: expected shape \(2,\), got"):
            board.call_many("positive", x[[2, 0, 1]])
        assert [board.call("positive", each).y.shape for each in x] == [(2,), (1,), (2,)]
        with pytest.raises(ShapeError, match=r"expected shape \(2,\) as of job 0, got \(1,\) of job 1"):
            board.call_many("positive", x)


def test_a_shape_rule_of_ones_own_is_taken() -> None:
    """With `shape` given the function is never run for its shape."""

    @ops.op(shape=lambda x, *, k: (*x[:-1], k))
    def never(x: Any, *, k: int) -> Any:
        raise AssertionError

    assert ops.get("never").shape("never", ((4, 3),), {"k": 7}) == (4, 7)


@pytest.mark.parametrize(
    ("how", "function", "text"),
    [
        ({}, lambda x: anp.sum(x), r"expected shape \(5, …\) for a bin of 5, got \(\): .*batch='loop'"),
        ({"kind": "scalar"}, lambda x: anp.sum(x), r"expected shape \(5,\) of an op of kind 'scalar', got \(\)"),
        ({"kind": "scalar", "batch": "loop"}, lambda x: 2 * x, r"expected shape \(\) of an op of kind 'scalar', got"),
        ({"kind": "elementwise", "batch": "loop"}, lambda x: x[:2], r"expected shape \(3,\) of an op of kind 'elem"),
        ({"shape": lambda x: (7,)}, lambda x: x, r"expected shape \(5, 7\), got \(5, 3\)"),
        ({"batch": "loop"}, lambda x: [x, x], "expected an array, got list"),
        ({"batch": "loop"}, lambda x: None, "expected an array, got NoneType"),
    ],
)
def test_a_y_that_is_not_what_the_op_says_is_refused(how: dict[str, Any], function: Any, text: str) -> None:
    """The error names the op, the shape that its rule, kind or batch rule asks for, and what came."""
    ops.op("lost", **{"batch": "lead_axis", **how}, vjp=lambda c, y, x: c)(function)
    with wb.open(":memory:") as board, pytest.raises((ShapeError, JobsError), match=f"op 'lost': forward: {text}"):
        board.call_many("lost", np.arange(15.0).reshape(5, 3))


def test_a_hit_on_disk_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process nothing of an op is run for a job that has its package, whatever its shape rule.

    But for what is computed again to be checked, which a loaded machine may find time for: here nothing is.
    """
    monkeypatch.setattr("whiteboard.evaluation.agreement.SHARE", 0.0)
    calls: list[str] = []

    @ops.op(ignore=("calls",), shape=lambda x: x)
    def ruled(x: Any) -> Any:
        calls.append("ruled")
        return 2 * x

    def pulled(c: Any, y: Any, x: Any) -> Any:
        calls.append("vjp")
        return 2 * c

    @ops.op(ignore=("calls",), vjp=pulled)
    def given(x: Any) -> Any:
        calls.append("given")
        return 2 * x

    @ops.op(ignore=("calls",), batch="lead_axis")
    def many(x: Any) -> Any:
        calls.append("many")
        return 2 * x

    names = ("ruled", "given", "many")
    with wb.open(tmp_path / "cache.db") as board:
        first = [board.call(name, [1.0, 2.0]) for name in names]
    assert set(calls) == {*names, "vjp"}
    calls.clear()
    with wb.open(tmp_path / "cache.db") as board:
        again = [board.call(name, [1.0, 2.0]) for name in names]
        assert [board.call_many(name, np.array([[1.0, 2.0]] * 3)).hit.tolist() for name in names] == [[1, 1, 1]] * 3
    assert [(r.hit, r.y.tolist()) for r in again] == [("disk", r.y.tolist()) for r in first]
    assert calls == []


def test_a_function_that_autograd_cannot_see_into_says_so() -> None:
    """Plain NumPy where autograd has no rule for it: the error names autograd.numpy and vjp=."""

    @ops.op(kind="elementwise")
    def blind(x: Any) -> Any:
        return np.nextafter(x, 1.0)

    with pytest.raises(ParamError, match=r"op 'blind': .*autograd\.numpy.*vjp="):
        run(ops.get("blind"), [np.ones((2, 3))])


def set_in_place(x: Any) -> Any:
    """Write a source into an array."""
    matrix = np.zeros((2, 2))
    matrix[0, 0] = x[0]
    return matrix.sum()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: float(x @ x), ParamError),
        (lambda x: np.linalg.solve(np.eye(2), x).sum(), ParamError),
        (lambda x: x.copy().sum(), ParamError),
        (set_in_place, ParamError),
        (lambda x: (x @ x, 2 * x), ShapeError),
        (lambda x: (float(x @ x), 2 * x), ParamError),
    ],
    ids=["float", "solve", "copy", "in place", "tuple", "tuple of float"],
)
def test_a_function_that_is_not_autograds_is_told_the_word(function: Any, error: Any) -> None:
    """Whatever NumPy says of autograd's boxes, the error names the words by which such functions are ops."""
    ops.op("theirs")(function)
    with wb.open(":memory:") as board, pytest.raises(error, match=r"op 'theirs': .*else say gradient='returned'"):
        board.call("theirs", np.ones(2))


def test_what_a_function_raises_itself_is_left_as_it_is() -> None:
    """Under autograd too."""

    @ops.op
    def divergent(x: Any) -> Any:
        msg = "no convergence"
        raise ValueError(msg)

    with wb.open(":memory:") as board, pytest.raises(ValueError, match=r"^no convergence$"):
        board.call("divergent", np.ones(2))


def test_an_op_that_does_not_use_a_source_gives_zeros() -> None:
    """The gradient of a source that y does not depend on is 0 in its shape and dtype."""

    @ops.op(kind="elementwise")
    def ignores(a: Any, b: Any) -> Any:
        return 2 * a

    trial = run(ops.get("ignores"), [np.ones((2, 3), np.float32)] * 2)
    assert trial.grads[1].dtype == np.float32
    assert not trial.grads[1].any()


def test_autograd_traces_once_a_bin() -> None:
    """One bin of n jobs calls a function of n jobs once."""
    calls = []

    @ops.op(kind="elementwise", batch="lead_axis")
    def counted(x: Any) -> Any:
        calls.append(x.shape)
        return anp.sin(x)

    run(ops.get("counted"), [np.ones((50, 3))])
    assert calls == [(50, 3)]


def test_errors_of_the_users_own_pass_through() -> None:
    """What a function raises is not dressed up as something else."""

    @ops.op(kind="elementwise")
    def fails(x: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        run(ops.get("fails"), [np.ones((1, 3))])
    assert not isinstance(caught.value, WhiteboardError)
