"""An optimization as an experiment: SciPy's iterates over a bound op, one commit an iterate.

SciPy has no state that could be kept, and needs none: started again from x0 it asks for the same values, which are
hits, until it stands where it was stopped. The commits say where that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from whiteboard import ops
from whiteboard.errors import ExperimentError, MissingExtraError, ShapeError
from whiteboard.evaluation.bound import Bound
from whiteboard.systems.history import Snapshot
from whiteboard.systems.system import System
from whiteboard.types import Array

BY_GRADIENT: Final = ("L-BFGS-B", "BFGS", "CG", "TNC", "SLSQP", "trust-constr")
BY_VALUE: Final = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
METHODS: Final = (*BY_GRADIENT, *BY_VALUE)
BOUNDED: Final = frozenset({"L-BFGS-B", "TNC", "SLSQP", "trust-constr", "Nelder-Mead", "Powell", "COBYLA", "COBYQA"})

_STEP: Final = 2.0**-26
"""Of a difference, relative to x where that is above 1: the root of the spacing of numbers at 1."""

_KNOWN: Final = 256
_OPTIONS: Final = {("TNC", "maxiter"): "maxfun"}

POINT, STANDING = 0, 1
"""The nodes of such a system: where it is, and f there, the evaluations until then, and ‖g‖ where it is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Minimization:
    """What is minimized, from where, and how.

    Attributes
    ----------
    reference : str
        ``module:function``.
    x0 : ndarray of float64, shape (n,)
    method : str
        One of `METHODS`.
    bounds : sequence of (low, high), optional
        One a component, ±inf where there is none.
    params : mapping
        Parameters of the op.
    options : mapping
        Of the method, as SciPy names them.
    differences : bool
        Whether a function without a gradient is differentiated by forward differences, all of them asked for at once:
        what computes for the board computes them side by side.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    ShapeError, ExperimentError
        Bounds or x0 that do not fit, or that the method does not take.
    """

    reference: str
    x0: Array
    method: str = "L-BFGS-B"
    bounds: Sequence[tuple[float, float]] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    differences: bool = False

    def __post_init__(self) -> None:
        if find_spec("scipy") is None:
            msg = "minimize needs SciPy: pip install 'whiteboard[scipy]'"
            raise MissingExtraError(msg)
        if self.method not in METHODS:
            msg = f"method: expected one of {', '.join(METHODS)}, got {self.method!r}"
            raise ExperimentError(msg)
        if self.x0.ndim != 1 or not self.x0.size or not np.isfinite(self.x0).all():
            msg = f"x0: expected finite numbers, at least one, got {self.x0.tolist()}"
            raise ShapeError(msg)
        if self.bounds is None:
            return
        if self.method not in BOUNDED:
            msg = f"method {self.method} takes no bounds; these do: {', '.join(sorted(BOUNDED))}"
            raise ExperimentError(msg)
        if len(self.bounds) != self.x0.size:
            msg = f"bounds: expected one for each of {self.x0.size} components of x0, got {len(self.bounds)}"
            raise ShapeError(msg)
        for place, (low, high) in enumerate(self.bounds):
            if not low <= self.x0[place] <= high:
                msg = f"bounds: x0[{place}] = {self.x0[place]} does not lie between {low} and {high}"
                raise ExperimentError(msg)

    @property
    def spec(self) -> dict[str, Any]:
        """What is kept with the system, JSON-able: all that its iterates depend on but for SciPy and the function."""
        bounds = None
        if self.bounds is not None:
            bounds = [[end if math.isfinite(end) else None for end in pair] for pair in self.bounds]
        said = {"x0": self.x0.tolist(), "method": self.method, "bounds": bounds, "params": dict(self.params)}
        return {"minimize": self.reference, **said, **({"gradient": "differences"} if self.differences else {})}


@dataclass(slots=True)
class Standing:
    """How far a minimization has come.

    Attributes
    ----------
    x : ndarray
    f, gradient_norm : float
        At x; the norm is NaN for a method that asks for no gradient.
    evaluations : int
        That the optimizer has asked for, hits included.
    iterations : int
    trace : list of (float, float)
        f and ‖g‖ of each evaluation.
    resumed_from : int or None
        The commit that an earlier run had come to.
    success : bool or None
        What SciPy says at its end, None before it.
    message : str
    """

    x: Array
    f: float = math.nan
    gradient_norm: float = math.nan
    evaluations: int = 0
    iterations: int = 0
    trace: list[tuple[float, float]] = field(default_factory=list)
    resumed_from: int | None = None
    success: bool | None = None
    message: str = ""


class _StoppedError(Exception):
    """The run was asked to stop."""


def minimize(
    problem: Minimization,
    f: Bound,
    system: System,
    *,
    evaluated: Callable[[Standing], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Standing:
    """Minimize, or go on where an earlier run was stopped; each iterate is a commit of the system.

    Parameters
    ----------
    f : Bound
        The function, with its parameters.
    system : System
        Of `problem.spec`.
    evaluated : callable
        Called after each evaluation.
    stop : callable
        Asked before each evaluation.

    Raises
    ------
    ExperimentError
        The iterates are not those that an earlier run has committed: the function, or SciPy, is another. Or the method
        asks for a gradient, and the function has none.
    """
    has_none = ops.get(f.op).gradient == "none"
    if problem.method in BY_GRADIENT and has_none and not problem.differences:
        others = f"ask for differences (--workers), or take a method of values alone: {', '.join(BY_VALUE)}"
        msg = f"{problem.reference} has no gradient, which method {problem.method} asks for; {others}"
        raise ExperimentError(msg)
    if problem.differences and not (has_none and problem.method in BY_GRADIENT):
        why = "the function has a gradient" if not has_none else f"method {problem.method} asks for values alone"
        msg = f"{problem.reference}: differences are taken of nothing, as {why}"
        raise ExperimentError(msg)
    now = Standing(problem.x0, resumed_from=None if system.head is None else system.head.id)
    descent = _Descent(problem, f, system, now, evaluated, stop)
    try:
        found = descent.run()
    except _StoppedError:
        return now
    now.success, now.message = bool(found.success), str(found.message)
    descent.settle(np.array(found.x, np.float64))
    return now


def standing(system: System | Snapshot) -> dict[str, Any] | None:
    """Where a system of `minimize` stands: f, gradient_norm and evaluations; None for another system."""
    told = None if STANDING not in system.nodes else system.nodes[STANDING].theta
    if told is None or told.shape not in ((2,), (3,)) or not np.isfinite(told).all():
        return None  # whatever else its specification says
    f, evaluations, *norm = told.tolist()
    return {"f": f, "gradient_norm": norm[0] if norm else None, "evaluations": int(evaluations)}


@dataclass(slots=True)
class _Descent:
    """One call of SciPy's `minimize`, and what is made of it."""

    problem: Minimization
    f: Bound
    system: System
    now: Standing
    evaluated: Callable[[Standing], None]
    stop: Callable[[], bool]
    known: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    """f and ‖g‖ of the last points that were asked for."""

    def run(self) -> Any:
        from scipy import optimize

        problem, by_gradient = self.problem, self.problem.method in BY_GRADIENT
        self.committed(problem.x0)
        return optimize.minimize(
            self.with_gradient if by_gradient else self.value,
            problem.x0,
            jac=by_gradient or None,
            method=problem.method,
            bounds=None if problem.bounds is None else optimize.Bounds(*np.array(problem.bounds).T),
            callback=lambda x, *_: self.committed(x),
            options={_OPTIONS.get((problem.method, name), name): value for name, value in problem.options.items()},
        )

    def with_gradient(self, x: Array) -> tuple[float, Array]:
        self._ask()
        value, grad = self._differentiated(x)
        self._tell(x, value, float(np.linalg.norm(grad)))
        return value, np.asarray(grad, np.float64)

    def _differentiated(self, x: Array) -> tuple[float, Array]:
        """Return f and its gradient: the function's own, or forward differences, backward ones at an upper bound."""
        if not self.problem.differences:
            return self.f.value_and_grad(x)
        x = np.array(x, np.float64)
        step = _STEP * np.maximum(1.0, np.abs(x))
        if self.problem.bounds is not None:
            step = np.where(x + step > np.array(self.problem.bounds)[:, 1], -step, step)
        points = np.concatenate([x[None], x + np.diag(step)])
        values = self.f.many(points)
        if values.ndim != 1:
            msg = f"{self.problem.reference}: expected a scalar y to minimize, got shape {values.shape[1:]}"
            raise ShapeError(msg)
        return float(values[0]), (values[1:] - values[0]) / (points[1:].diagonal() - x)

    def value(self, x: Array) -> float:
        self._ask()
        value = float(self.f(x))
        self._tell(x, value, math.nan)
        return value

    def _ask(self) -> None:
        if self.stop():
            raise _StoppedError

    def _asked(self, x: Array) -> tuple[float, float]:
        if self.problem.method not in BY_GRADIENT:
            return float(self.f(x)), math.nan
        value, grad = self._differentiated(x)
        return value, float(np.linalg.norm(grad))

    def _tell(self, x: Array, value: float, norm: float) -> None:
        if len(self.known) >= _KNOWN:
            del self.known[next(iter(self.known))]
        self.known[x.tobytes()] = value, norm
        self.now.evaluations += 1
        self.now.trace.append((value, norm))
        self.evaluated(self.now)

    def settle(self, x: Array) -> None:
        """Commit where the optimizer ended, which some methods do not call an iterate."""
        if x.tobytes() != self.now.x.tobytes():
            self.committed(x)

    def committed(self, x: Array) -> None:
        """Make a commit of an iterate, or find it among those of an earlier run."""
        number, x = self.now.iterations, np.array(x, np.float64)
        self.now.x, self.now.iterations = x, number + 1
        self.now.f, self.now.gradient_norm = self.known.get(x.tobytes()) or self._asked(x)
        head = self.system.head
        if head is None or head.id < number:
            self._commit(x)
        elif head.id == number and np.asarray(self.system.at(number).nodes[POINT].theta).tobytes() != x.tobytes():
            why = f"is another than that of system {self.system.name!r}: the function, or SciPy, has changed since"
            msg = f"{self.problem.reference}: iterate {number} {why}; take another --name"
            raise ExperimentError(msg)

    def _commit(self, x: Array) -> None:
        told = np.array([self.now.f, self.now.evaluations, self.now.gradient_norm])
        told = told[: 3 if self.problem.method in BY_GRADIENT else 2]
        if self.system.head is None:
            self.system.add_nodes([POINT], theta=x[None])
            self.system.add_nodes([STANDING], theta=told[None])
        else:
            self.system.write(POINT, theta=x)
            self.system.write(STANDING, theta=told)
        self.system.commit()
