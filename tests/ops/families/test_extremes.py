"""Values and gradients at zeros, infinities, the ends of the numbers and where digits cancel: the right ones."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import exp, inf, isinf, ldexp, log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking.run_once import run

F, D = np.float32, np.float64


class Expect(NamedTuple):
    """One job: its sources, y, the gradients (of the cotangent, or of ones)."""

    name: str
    dtype: type[np.floating]
    xs: tuple[Any, ...]
    y: Any
    grads: tuple[Any, ...]
    cotangent: Any = None


HALF = sqrt(0.5)
E1 = exp(-1)
SIG = (1 / (1 + E1), E1 / (1 + E1))
TINY = 1 / (1 + exp(37.43))
ROWS = (
    Expect("logsumexp", D, ([1e16, 1e16],), 1e16, ([0.5, 0.5],)),
    Expect("logsumexp", F, ([1e8, 1e8],), 1e8, ([0.5, 0.5],)),
    Expect("logsumexp", F, ([1000, 999],), 1000 + log1p(E1), (SIG,)),
    Expect("logsumexp", D, ([inf, 0],), inf, ([1, 0],)),
    Expect("logsumexp", D, ([-inf, 0],), 0, ([0, 1],)),
    Expect("logsumexp", D, ([1e308, -1e308],), 1e308, ([1, 0],)),
    Expect("softmax", D, ([37.43, 0],), [1, TINY], ([TINY, -TINY],), [1, 0]),
    Expect("softmax", D, ([1e308, -1e308],), [1, 0], ([0, 0],), [1, 0]),
    Expect("softmax", F, ([0.1, 0.2, 0.3],), [0.30060961, 0.33222499, 0.3671654], ([0, 0, 0],)),
    Expect("prod", F, ([1e30, 0, 1e30, 1e30],), 0, ([0, inf, 0, 0],)),
    Expect("prod", D, ([1e300, 0, 1e300, 1e300],), 0, ([0, inf, 0, 0],)),
    Expect("prod", D, ([1e200, 1e200, 1e-200, 1e-200],), 1, ([1e-200, 1e-200, 1e200, 1e200],)),
    Expect("prod", D, ([1e-200, 1e-200, 1e200, 1e200],), 1, ([1e200, 1e200, 1e-200, 1e-200],)),
    Expect("prod", D, ([5e-324, 1e300],), 5e-324 * 1e300, ([1e300, 5e-324],)),
    Expect("prod_k", F, (1e30, 0, 1e30, 1e30), 0, (0, inf, 0, 0)),
    Expect("prod_k", D, (1e200, [1e200, 2], 1e-200, 1e-200), [1, 2e-200], (None, [1e-200, 1e-200], None, None)),
    Expect("norm", D, ([1e200],), 1e200, ([1],)),
    Expect("norm", D, ([-1e-170],), 1e-170, ([-1],)),
    Expect("norm", F, ([3e19, 4e19],), 5e19, ([0.6, 0.8],)),
    Expect("norm", F, ([3e-23, -4e-23],), 5e-23, ([0.6, -0.8],)),
    Expect("norm", D, ([5e-324, 5e-324],), 5e-324, ([HALF, HALF],)),
    Expect("norm", D, ([1.7e308, 1.7e308],), inf, ([HALF, HALF],)),
    Expect("norm", D, ([inf, 1, -inf],), inf, ([HALF, 0, -HALF],)),
    Expect("distance", D, ([1e200, 0], [0, 1e200]), sqrt(2) * 1e200, ([HALF, -HALF], [-HALF, HALF])),
    Expect("distance", D, ([1e-170], [0]), 1e-170, ([1], [-1])),
    Expect("distance", F, ([3e19, 0], [0, 4e19]), 5e19, ([0.6, -0.8], [-0.6, 0.8])),
    Expect("distance", F, ([3e-23, 0], [0, 4e-23]), 5e-23, ([0.6, -0.8], [-0.6, 0.8])),
    Expect("mean", D, ([1.7e308] * 4,), 1.7e308, ([0.25] * 4,)),
    Expect("mean", D, ([inf, 1],), inf, ([0.5, 0.5],)),
    Expect("mean_k", D, (1.7e308, 1.7e308), 1.7e308, (0.5, 0.5)),
    Expect("var", D, ([1.7e308] * 2,), 0, ([0, 0],)),
    Expect("sigmoid", D, ([40, -40, 1e3],), [1, exp(-40), 0 + 1], ([exp(-40), exp(-40), 0],)),
    Expect("sigmoid", F, ([20, -20],), [1, exp(-20)], ([exp(-20), exp(-20)],)),
    Expect("tanh", D, ([20, -20, 0, 1e-8],), [1, -1, 0, 1e-8], ([4 * exp(-40), 4 * exp(-40), 1, 1],)),
    Expect("softplus", D, ([-745, 710, -inf, inf],), [exp(-745), 710, 0, inf], ([exp(-745), 1, 0, 1],)),
    Expect("expm1", D, ([-1e3, 1e-300],), [-1, 1e-300], ([0, 1],)),
    Expect("log1p", D, ([1e-300, inf],), [1e-300, inf], ([1, 0],)),
    Expect("power", D, (inf, -1.0), 0, (0, 0)),
    Expect("power", D, (0.5, inf), 0, (0, 0)),
    Expect("power", D, (0.0, 1.0), 0, (1, 0)),
    Expect("power", D, (1e-300, 0.5), 1e-150, (0.5e150, 1e-150 * log(1e-300))),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.dtype.__name__}-{row.xs}")
def test_extremes_are_right_to_the_last_places(row: Expect) -> None:
    """Within four units in the last place of the value that real numbers give, rounded."""
    cotangent = None if row.cotangent is None else np.array([row.cotangent], row.dtype)
    trial = run(ops.get(row.name), [np.array([x], row.dtype) for x in row.xs], cotangent=cotangent)
    for got, expected in zip((trial.y, *trial.grads), (row.y, *row.grads), strict=True):
        if expected is not None:
            info = np.finfo(row.dtype)
            np.testing.assert_allclose(got[0], expected, rtol=4 * float(info.eps), atol=float(info.smallest_subnormal))


def rounded(value: Fraction) -> float:
    """Return the float64 nearest to a fraction; infinity beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def product(factors: list[float]) -> float:
    """Return the product, rounded once."""
    exact = Fraction(1)
    for factor in factors:
        exact *= Fraction(factor)
    return rounded(exact)


@pytest.mark.parametrize("name", ["prod", "prod_k"])
@pytest.mark.parametrize("seed", range(3))
def test_products_of_any_finite_factors(name: str, seed: int) -> None:
    """Value and gradients of five factors of any size and zeros, against fractions."""
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.uniform(0.5, 1, (200, 5)), rng.choice([-1073, -1021, -500, -1, 0, 1, 500, 1023], (200, 5)))
    x[rng.uniform(size=x.shape) < 0.1] = 0
    trial = run(ops.get(name), [x] if name == "prod" else list(x.T.copy()))
    grads = trial.grads[0] if name == "prod" else np.stack(trial.grads, axis=-1)
    y = [product(row) for row in x.tolist()]
    others = [[product(row[:i] + row[i + 1 :]) for i in range(5)] for row in x.tolist()]
    for got, expected in ((trial.y, y), (grads, others)):
        np.testing.assert_allclose(got, expected, rtol=1e-15, atol=ldexp(1, -1073))


EDGES = (0.0, -0.0, 1.0, -1.0, 5e-324, 2.2250738585072014e-308, 1e-170, 1e-30, 1e30, 1e170, 1.7976931348623157e308)


@pytest.mark.parametrize("scale", EDGES[4:])
def test_lengths_of_any_size(scale: float) -> None:
    """The gradient of a length is that of the length a power of two away."""
    x = np.array([[3.0, -4.0, 12.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    big = np.ldexp(x, int(np.frexp(scale)[1]) - 4) if scale > 1 else np.ldexp(x, max(int(np.frexp(scale)[1]), -1073))
    plain, scaled = (run(ops.get("norm"), [each]) for each in (x, big))
    np.testing.assert_allclose(scaled.grads[0], plain.grads[0], rtol=1e-15)
    ratio = Fraction(big[0, 0]) / 3
    np.testing.assert_allclose(
        scaled.y, [rounded(Fraction(y) * ratio) for y in plain.y.tolist()], rtol=1e-15, atol=5e-324
    )


SLOPES: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: exp(-abs(x)) / (1 + exp(-abs(x))) ** 2,
    "tanh": lambda x: 4 * exp(-2 * abs(x)) / (1 + exp(-2 * abs(x))) ** 2,
    "softplus": lambda x: 1 / (1 + exp(-x)) if x > 0 else exp(x) / (1 + exp(x)),
    "expm1": lambda x: exp(x) if x < 709 else inf,
    "square": lambda x: 2 * x,
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_of_one_number_at_the_edges(name: str) -> None:
    """No digit is lost by a difference, and none is NaN."""
    x = np.array([*EDGES, 20.0, -20.0, 36.0, -36.0, 700.0, -700.0, 745.0, -745.0, inf, -inf])
    grads = run(ops.get(name), [x[None]]).grads[0][0]
    np.testing.assert_allclose(grads, [SLOPES[name](value) for value in x.tolist()], rtol=4e-15, atol=5e-324)


# the others add up, where infinities of both signs may meet
@pytest.mark.parametrize("name", [name for name in FAMILY if ops.get(name).kind == "elementwise"])
def test_finite_sources_give_no_nan_but_where_there_is_no_value(name: str) -> None:
    """Zeros, ties and the ends of both dtypes: NaN is only where y has none or two infinities meet."""
    spec = ops.get(name)
    for dtype in (F, D):
        info = np.finfo(dtype)
        edges = np.array([0, 1, info.smallest_subnormal, info.tiny, info.max, 2], dtype)
        arity = 2 if spec.arity is None else spec.arity
        xs = [grid.reshape(1, -1).copy() for grid in np.meshgrid(*(edges,) * arity)]
        trial = run(spec, xs)
        for got in (trial.y, *trial.grads):
            wrong = np.isnan(got) & ~np.isnan(trial.y) & ~np.isinf(trial.y)
            assert not wrong.any(), [x[wrong] for x in xs]


def test_log_of_the_smallest_number() -> None:
    """A slope beyond the largest number is infinite, and the value finite."""
    trial = run(ops.get("log"), [np.array([[5e-324]])])
    assert trial.y[0, 0] == log(5e-324)
    assert isinf(trial.grads[0][0, 0])
