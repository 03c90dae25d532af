"""Values at which gradients go wrong: zeros, ties, repeated and huge ones. What the VJP says there is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from whiteboard.errors import WhiteboardError
from whiteboard.ops.checking.run_once import fault, forward, run
from whiteboard.ops.spec import Example, OpSpec
from whiteboard.types import Array, Params

MOST_ELEMENTS: Final = 6
"""Elements of a source that are tried."""

STEP: Final = 1e-5
"""Of the one-sided differences, relative to the value, or absolute near 0."""

NOTHING: Final = 1e-100
"""Slopes below this one may vanish."""

LARGE: Final = 1e6
"""From here on the step may be longer than a period of y."""

RELATIVE: Final = 1e-2
"""Largest error of a VJP that passes, relative to the job's largest derivative: one-sided differences are rough."""

GUESSED: Final = (0.2, 1.5)
"""The domain of examples that were guessed: it says nothing of where the op may be used."""


def check_corners(spec: OpSpec, example: Example, job: Sequence[Array]) -> None:
    """Check the VJP at values where formulas divide by 0, overflow or choose.

    Where y has a finite slope from the left and from the right, the VJP must not be NaN, unless the op says in
    `subgradients` what it returns; and where the two slopes are one, it is the VJP's.

    Parameters
    ----------
    example : Example
        Values outside of its domain are not tried, but where it is the one of examples that were guessed.
    job : sequence of ndarray, each (*shape)
        The sources of one job, of usual values.

    Raises
    ------
    OpCheckError
    """
    for what, xs in _corners(example, job):
        try:
            y, grads = _slopes_of(spec, xs, example.params)
        except (WhiteboardError, ArithmeticError, ValueError):
            continue  # the op refuses such values, and may
        if np.isfinite(y).all():
            for slot in range(len(xs)):
                _check(spec, what, xs, slot, grads[slot], float(np.abs(y).max(initial=0)), example.params)


def _corners(example: Example, job: Sequence[Array]) -> Iterator[tuple[str, list[Array]]]:
    """Yield what is special of a job, and its sources."""
    low, high = example.domain

    def allowed(value: float) -> bool:
        return example.domain == GUESSED or low <= value <= high

    for slot, x in enumerate(job):
        if not x.size:
            continue
        others = list(job)

        def put(values: Array, slot: int = slot, others: list[Array] = others) -> list[Array]:
            return [*others[:slot], values.reshape(others[slot].shape), *others[slot + 1 :]]

        flat = x.reshape(-1)
        first = flat.copy()
        first[0] = 0.0
        if allowed(0.0):
            yield f"a zero in source {slot}", put(first)
            yield f"source {slot} all zeros", put(np.zeros_like(flat))
        if flat.size > 1:
            tied = flat.copy()
            tied[:2] = flat.max()
            yield f"a tie in source {slot}", put(tied)
            yield f"source {slot} all equal", put(np.full_like(flat, flat[0]))
        for size in (-1e3, 1e3, -1e20, 1e20, 1e160):
            if allowed(size):
                yield f"values of {size:g} in source {slot}", put(np.sign(size) * np.abs(flat) * np.abs(size))


def _slopes_of(spec: OpSpec, xs: list[Array], params: Params) -> tuple[Array, tuple[Array, ...]]:
    trial = run(spec, [x[None] for x in xs], params, None)
    return trial.y[0], tuple(grad[0] for grad in trial.grads)


def _check(
    spec: OpSpec, what: str, xs: list[Array], slot: int, gradient: Array, largest: float, params: Params
) -> None:
    """Check one source's gradient; `largest` is that of |y|."""
    flat, grad = xs[slot].reshape(-1), gradient.reshape(-1)
    some = range(min(flat.size, MOST_ELEMENTS))
    sides = [[_one_sided(spec, xs, slot, i, side, params) for side in (-1, 1)] for i in some]
    scale = max([np.abs(value) for pair in sides for value, _ in pair if np.isfinite(value)], default=0.0)
    for i, ((left, noise_left), (right, noise_right)) in zip(some, sides, strict=True):
        if not np.isfinite([left, right]).all():
            continue
        slack = noise_left + noise_right + 1e-3 * scale
        one = abs(left - right) <= slack
        element = tuple(map(int, np.unravel_index(i, xs[slot].shape)))
        at = f"{what}: the gradient of source {slot} at element {element}"
        if np.isnan(grad[i]) and (one or not spec.subgradients):
            says = f"{(left + right) / 2:.6g}" if one else f"{left:.6g} from the left, {right:.6g} from the right"
            raise fault(spec, f"{at}: differences say {says}, the VJP nan")
        if abs(flat[i]) > LARGE and abs(grad[i]) * STEP * abs(flat[i]) > largest:
            continue  # as of a sine: y turns back within the step
        if max(abs(grad[i]), abs(left), abs(right)) < NOTHING:
            continue
        if one and abs(grad[i] - (left + right) / 2) > RELATIVE * scale + 10 * slack:
            raise fault(spec, f"{at}: differences say {(left + right) / 2:.6g}, the VJP {grad[i]:.6g}")


def _one_sided(
    spec: OpSpec, xs: list[Array], slot: int, element: int, side: int, params: Params
) -> tuple[float, float]:
    """Return the slope of Σy along one element, from one side, and how far it may be wrong; NaN where there is none."""
    base = xs[slot].reshape(-1)[element]
    step = side * STEP * max(1.0, abs(base))
    bins = [np.stack([x] * 3) for x in xs]
    bins[slot].reshape(3, -1)[1, element] = base + step
    bins[slot].reshape(3, -1)[2, element] = base + step / 2
    try:
        y = forward(spec, bins, params)
    except (WhiteboardError, ArithmeticError, ValueError):
        return np.nan, np.nan
    with np.errstate(all="ignore"):
        moved = y[1:] - y[0]
        whole, half = (float(change.sum()) for change in moved)
        far, near = whole / step, half / (step / 2)
        noise = 32 * np.finfo(np.float64).eps * float(np.abs(y).sum()) / abs(step) + abs(far - near)
        return 2 * near - far, noise
