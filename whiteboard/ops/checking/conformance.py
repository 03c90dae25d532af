"""`check`: whether an op keeps its word. Its VJP against differences, its bins against single jobs, its rules.

Derivatives are central differences with four step sizes, extrapolated to step 0 (Richardson 1911; Ridders 1982): their
error is near 1e-12 of the result, and is measured against the result, so that a VJP that is wrong by a factor is
caught at any scale. (A plain central difference at 1e-6 under an absolute tolerance passes a VJP five times too large
where y is near 1e-7.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from zlib import crc32

import numpy as np

from whiteboard.errors import ParamError, ShapeError, WhiteboardError
from whiteboard.ops.checking.corners import GUESSED, check_corners
from whiteboard.ops.checking.run_once import Trial, fault, forward, run
from whiteboard.ops.registry import get
from whiteboard.ops.spec import Example, OpSpec
from whiteboard.types import Array, Params

JOBS = 5
"""Jobs in a bin on which derivatives are taken."""

BIN = 33
"""Jobs in the bin that is compared with single jobs: odd, and longer than any vector register."""

STEPS, LEVELS = (2e-2, 1e-3, 5e-5), 4
"""First steps, and halvings of each. The smaller ones are for jobs that have a kink within the larger."""

RELATIVE = 1e-6
"""Largest error of a VJP, relative to the derivative, that passes."""

MOST_ELEMENTS = 24
"""Elements of a source that get a difference of their own; all of them share in the directional one."""


def check(name: str, examples: Sequence[Example] | None = None) -> None:
    """Check one op, in float64 and float32: shapes, dtypes, batching, VJP, and that it leaves its inputs alone.

    The VJP is also tried at zeros, ties, repeated and huge values; see `corners`. Of an op without gradients only what
    its forward gives is checked.

    Parameters
    ----------
    name : str
        Of a registered op.
    examples : sequence of Example, optional
        Jobs to try it on; by default the op's own, or shapes that fit its kind.

    Raises
    ------
    UnknownOpError
        For a name that is not registered.
    OpCheckError
        Naming op, source slot, job, element, expected and got. The adjoint identity ⟨Jv, u⟩ = ⟨v, Jᵀu⟩ is checked
        in a random direction over all sources, and ∂⟨u, y⟩/∂x element by element.
    """
    spec = get(name)
    tried = tuple(examples) if examples is not None else spec.examples or tuple(_guesses(spec))
    if not tried:
        raise fault(spec, "no example fits it: give some, as check(name, examples=[ops.Example(shapes, params)])")
    for example in tried:
        try:
            check_example(spec, example)
        except WhiteboardError as error:
            error.args = (f"{error} (sources {example.shapes}, parameters {dict(example.params)})",)
            raise


def check_example(spec: OpSpec, example: Example) -> None:
    """Check one op on one kind of job; see `check`."""
    rng = np.random.default_rng(crc32(repr((spec.name, example)).encode()))
    for dtype in (np.float64, np.float32):
        xs = draw(rng, example, BIN, dtype)
        shape = forward(spec, xs, example.params).shape
        cotangent = rng.uniform(0.5, 1.5, shape).astype(dtype) * rng.choice(np.array([-1, 1], dtype), shape)
        for given in (cotangent, None):
            whole = run(spec, xs, example.params, given)
            if spec.exactness != "tolerance":
                _check_batching(spec, xs, example.params, given, whole)
        if spec.gradient == "none":
            continue
        few = [x[:JOBS] for x in xs]
        if dtype == np.float64:
            _check_vjp(spec, few, example.params, cotangent[:JOBS], rng)
            check_corners(spec, example, [x[0] for x in xs])
        else:
            _check_single(spec, few, example.params, cotangent[:JOBS])


def draw(rng: np.random.Generator, example: Example, n: int, dtype: type[np.floating]) -> list[Array]:
    """Return one array (n, *shape) a source, uniform over the example's domain, and nowhere within 0.05 of 0."""
    low, high = example.domain
    xs = []
    for shape in example.shapes:
        x = rng.uniform(low, high, (n, *shape))
        xs.append(np.where(np.abs(x) < 0.05, np.copysign(0.05 + np.abs(x), x), x).astype(dtype))
    return xs


def _guesses(spec: OpSpec) -> Iterator[Example]:
    """Yield jobs that the op takes, for an op that brings no examples."""
    arity = 3 if spec.arity is None else spec.arity
    if spec.kind == "elementwise":
        shapes = [((),) * arity, ((3,),) * arity, ((2, 3),) * arity, ((0,),) * arity]
        shapes += [((2, 3), *((3,),) * (arity - 1))] * (arity > 1)
    else:
        shapes = list(product(((3,), (2, 3), (3, 3), ()), repeat=arity)) if arity <= 3 else [((3,),) * arity]
    for each in shapes:
        example = Example(each, domain=GUESSED)
        try:
            forward(spec, draw(np.random.default_rng(0), example, 2, np.float64), example.params)
        except ParamError:
            return
        except (ShapeError, ValueError, IndexError, TypeError, np.linalg.LinAlgError):
            continue
        yield example


# -- bits


def _check_batching(spec: OpSpec, xs: list[Array], params: Params, cotangent: Array | None, whole: Trial) -> None:
    """Compare a bin with each of its jobs alone, and with the bin in another order, bit for bit."""
    again = run(spec, xs, params, cotangent)
    order = np.arange(len(xs[0]))[::-1]
    turned = run(spec, [x[order].copy() for x in xs], params, None if cotangent is None else cotangent[order].copy())
    for i in range(len(order)):
        job = slice(i, i + 1)
        alone = run(spec, [x[job].copy() for x in xs], params, None if cotangent is None else cotangent[job].copy())
        _same(spec, i, whole, again, i, "a second run gives other bits")
        _same(spec, i, whole, turned, len(order) - 1 - i, "its bits depend on its place in the bin")
        _same(spec, i, whole, alone, 0, "its bits in a bin are not those alone")


def _same(spec: OpSpec, i: int, whole: Trial, other: Trial, place: int, text: str) -> None:
    names = ("y", *(f"the gradient of source {slot}" for slot in range(len(whole.grads))))
    for what, a, b in zip(names, (whole.y, *whole.grads), (other.y, *other.grads), strict=True):
        x, y = a[i], b[place]
        if x.tobytes() != y.tobytes():
            # The sign of a NaN is the processor's, -0.0 is not 0.0.
            equal = ((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))
            if not equal.all():
                at = tuple(np.argwhere(~equal)[0].tolist())
                raise fault(spec, f"job {i}: {what}: {text}: element {at}: {y[at]!r} and {x[at]!r}")


# -- derivatives


def _check_vjp(spec: OpSpec, xs: list[Array], params: Params, cotangent: Array, rng: np.random.Generator) -> None:
    """Compare the VJP with extrapolated differences: element by element, then in one random direction over all."""
    grads = run(spec, xs, params, cotangent).grads
    directions = [rng.standard_normal(x.shape) for x in xs]
    for slot, x in enumerate(xs):
        elements = list(np.ndindex(x.shape[1:]))
        if len(elements) > MOST_ELEMENTS:
            elements = [elements[i] for i in sorted(rng.choice(len(elements), MOST_ELEMENTS, replace=False))]
        for element in elements:
            bump = [np.zeros_like(other) for other in xs]
            bump[slot][(slice(None), *element)] = 1
            what = f"the gradient of source {slot} at element {element}"
            _compare(
                spec, what, grads[slot][(slice(None), *element)], partial(slope, spec, xs, params, cotangent, bump)
            )
    along = sum(
        (grad * direction).reshape(len(grad), -1).sum(1) for grad, direction in zip(grads, directions, strict=True)
    )
    what = "⟨v, Jᵀu⟩ against ⟨Jv, u⟩"
    _compare(spec, what, np.asarray(along), partial(slope, spec, xs, params, cotangent, directions))


def _compare(spec: OpSpec, what: str, got: Array, differences: Callable[[float], tuple[Array, Array]]) -> None:
    """Compare the VJP's number of each job with differences, of smaller steps where those of larger ones disagree."""
    wrong = np.ones(len(got), bool)
    for step in STEPS:
        expected, slack = differences(step)
        close = np.abs(got - expected) <= slack + RELATIVE * np.maximum(np.abs(got), np.abs(expected))
        wrong &= ~(close | (np.isnan(got) & np.isnan(expected)))
        if not wrong.any():
            return
    job = int(np.flatnonzero(wrong)[0])
    raise fault(spec, f"job {job}: {what}: differences say {expected[job]:.9g}, the VJP {got[job]:.9g}")


def slope(
    spec: OpSpec, xs: list[Array], params: Params, cotangent: Array, direction: list[Array], step: float
) -> tuple[Array, Array]:
    """Return ⟨u, J v⟩ of each job, (n,), by extrapolated central differences, and how far it may be wrong.

    u is the cotangent, v the direction, `step` the largest step along it. The slack is what rounding of y can do, and
    the last extrapolation's own change.
    """

    def difference(step: float) -> tuple[Array, Array]:
        up = forward(spec, [x + step * v for x, v in zip(xs, direction, strict=True)], params)
        down = forward(spec, [x - step * v for x, v in zip(xs, direction, strict=True)], params)
        with np.errstate(invalid="ignore"):
            moved = up != down  # −∞ stays where it is, and −∞ − −∞ is not a change of NaN
            change = np.where(moved, cotangent * (up - down), 0)
            size = np.where(moved, np.abs(cotangent) * np.maximum(np.abs(up), np.abs(down)), 0)
        n = len(change)
        return change.reshape(n, -1).sum(1) / (2 * step), size.reshape(n, -1).sum(1) / step

    return extrapolate(difference, step)


def extrapolate(difference: Callable[[float], tuple[Array, Array]], step: float) -> tuple[Array, Array]:
    """Return Richardson's limit of ``difference(step) → (value, size)`` at step 0, and how far it may be wrong."""
    row: list[Array] = []
    error = noise = np.zeros(())
    for level in range(LEVELS):
        value, size = difference(step / 2**level)
        noise = 32 * np.finfo(np.float64).eps * size
        new = [value]
        for power, coarser in enumerate(row, start=1):
            new.append(new[-1] + (new[-1] - coarser) / (4**power - 1))
        error = np.abs(new[-1] - row[-1]) if row else error
        row = new
    return row[-1], error + noise


def _check_single(spec: OpSpec, xs: list[Array], params: Params, cotangent: Array) -> None:
    """Compare the float32 gradients with the float64 ones."""
    single = run(spec, xs, params, cotangent)
    double = run(spec, [x.astype(np.float64) for x in xs], params, cotangent.astype(np.float64))
    for slot, (got, expected) in enumerate(zip(single.grads, double.grads, strict=True)):
        scale = np.abs(expected).max(initial=0)
        wrong = np.abs(got - expected) > 1e-3 * scale
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            text = f"the gradient of source {slot}: float64 says {expected[at]:.6g}, float32 {got[at]:.6g}"
            raise fault(spec, f"job {at[0]}: {text}")
