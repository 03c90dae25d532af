"""Users' ops: sources and parameters by signature, gradients by autograd or by hand, shapes, and errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

from whiteboard import ops
from whiteboard.errors import OpCheckError, ParamError, ShapeError, WhiteboardError
from whiteboard.ops.spec import REQUIRED, Example
from whiteboard.ops.trial import run


def swish(x: Any, beta: float = 1.0) -> Any:
    """Return x · sigmoid(βx)."""
    return x / (1 + anp.exp(-beta * x))


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
    (quadratic, {"kind": "scalar"}, (Example(((3,), (3, 3))),)),
    (logdet, {"kind": "scalar", "batch": "loop"}, (Example(((3, 3),), domain=(0.5, 1.5)),)),
    (logdet, {"batch": "loop"}, (Example(((2, 2),), domain=(0.5, 1.5)),)),
    (weighted, {"kind": "elementwise"}, (Example(((2, 3), (3,)), {"weight": 0.5}), Example(((), ()), {"weight": 2.0}))),
    (weighted, {"kind": "elementwise", "batch": "loop"}, (Example(((2, 1), (3,)), {"weight": 0.5}),)),
    (total, {}, (Example(((3,),)), Example(((3,), (3,), (3,))))),
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

    ops.op(exactness="tolerance")(loose)
    ops.check("loose")
    tolerant = ops.get("loose").fingerprint
    ops.op(replace=True)(loose)
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


def test_the_shape_of_y_is_found_by_one_trial_per_shape() -> None:
    """A general op is run on made-up values, once for each combination of shapes and parameters."""
    calls = []

    @ops.op(batch="loop")
    def pairs(x: Any, k: int = 1) -> Any:
        calls.append(x.shape)
        return anp.outer(x, x)[:k]

    spec = ops.get("pairs")
    for params, shape in (({"k": 1}, (1, 3)), ({"k": 2}, (2, 3)), ({"k": 1}, (1, 3))):
        assert spec.shape("pairs", ((3,),), params) == shape
    assert calls == [(3,), (3,)]


def test_a_shape_rule_of_ones_own_is_taken() -> None:
    """With `shape` given the function is never run for its shape."""

    @ops.op(shape=lambda x, *, k: (*x[:-1], k))
    def never(x: Any, *, k: int) -> Any:
        raise AssertionError

    assert ops.get("never").shape("never", ((4, 3),), {"k": 7}) == (4, 7)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: x[99], "op 'lost': sources.*raised IndexError.*shape="),
        (lambda x: anp.sum(x), r"op 'lost': y: expected shape \(2, \.\.\.\) for 2 jobs, got \(\).*batch='loop'"),
    ],
)
def test_a_function_whose_shape_cannot_be_found_says_what_to_do(function: Callable[..., Any], text: str) -> None:
    """A function that fails on made-up values, or forgets the job axis, is an error with its remedy."""
    ops.op("lost")(function)
    with pytest.raises(ShapeError, match=text):
        ops.get("lost").shape("lost", ((3,),), {})


def test_a_function_that_autograd_cannot_see_into_says_so() -> None:
    """Plain NumPy where autograd has no rule for it: the error names autograd.numpy and vjp=."""

    @ops.op(kind="elementwise")
    def blind(x: Any) -> Any:
        return np.nextafter(x, 1.0)

    with pytest.raises(ParamError, match=r"op 'blind': .*autograd\.numpy.*vjp="):
        run(ops.get("blind"), [np.ones((2, 3))])


def test_an_op_that_does_not_use_a_source_gives_zeros() -> None:
    """The gradient of a source that y does not depend on is 0 in its shape and dtype."""

    @ops.op(kind="elementwise")
    def ignores(a: Any, b: Any) -> Any:
        return 2 * a

    trial = run(ops.get("ignores"), [np.ones((2, 3), np.float32)] * 2)
    assert trial.grads[1].dtype == np.float32
    assert not trial.grads[1].any()


def test_autograd_traces_once_a_bin() -> None:
    """One bin of n jobs calls the function once."""
    calls = []

    @ops.op(kind="elementwise")
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
