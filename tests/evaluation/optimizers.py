"""A program that optimizes by bound ops and can be killed at any evaluation: ``optimizers.py METHOD STORE LOG [KILL]``.

Each evaluation that is computed, and no hit, is a line of LOG; at number KILL of this process it kills itself before
it is done. The last line on stdout is the digest of all iterates that the optimizer asked for.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import whiteboard as wb
from whiteboard.evaluation import agreement

agreement.FIRST = 0  # type: ignore[misc] # a hit that is computed again, to check it, would be an evaluation here
X0 = np.array([-1.2, 1.0, 0.7])
SECONDS = float(os.environ.get("SECONDS", "0.02"))


class Life:
    """What this process has computed, and when it ends."""

    log = Path()
    kill = 0
    computed = 0
    asked = hashlib.blake2b(digest_size=16)

    @classmethod
    def enter(cls, what: str, x: Any) -> None:
        """Count an evaluation: slow, written down when it is done, and perhaps the last one."""
        cls.computed += 1
        time.sleep(SECONDS)
        if cls.computed == cls.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        with cls.log.open("a") as file:
            file.write(f"{what} {x.tobytes().hex()}\n")

    @classmethod
    def seen(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with what it is asked in the digest."""

        def called(x: Any) -> Any:
            cls.asked.update(np.asarray(x, np.float64).tobytes())
            return function(x)

        return called


def rosen_gradient(cotangent: Any, y: Any, x: Any) -> Any:
    """Return the gradient of `rosen`."""
    grad = np.zeros_like(x)
    grad[:-1] = -400 * x[:-1] * (x[1:] - x[:-1] ** 2) - 2 * (1 - x[:-1])
    grad[1:] += 200 * (x[1:] - x[:-1] ** 2)
    return cotangent * grad


@wb.op(vjp=rosen_gradient, identity="rosen 1")
def rosen(x: Any) -> Any:
    """Rosenbrock's function."""
    Life.enter("rosen", x)
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def parts_gradient(cotangent: Any, y: Any, x: Any) -> Any:
    """Return the VJP of `parts`."""
    jacobian = np.zeros((y.size, x.size))
    at = np.arange(x.size - 1)
    jacobian[at, at], jacobian[at, at + 1] = -20 * x[:-1], 10.0
    jacobian[at + x.size - 1, at] = -1.0
    return cotangent @ jacobian


@wb.op(vjp=parts_gradient, identity="parts 1")
def parts(x: Any) -> Any:
    """The residuals whose sum of squares is Rosenbrock's function."""
    Life.enter("parts", x)
    return np.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


@wb.op(vjp=lambda cotangent, y, x: cotangent * np.array([1.0, 1.0, 0.0]), identity="line 1")
def line(x: Any) -> Any:
    """A constraint: at least 0 on one side of a line."""
    Life.enter("line", x)
    return x[0] + x[1] - 2.5


def minimized(board: wb.Board, method: str) -> Any:
    """Minimize as SciPy's methods do, with constraints where they take them."""
    from scipy import optimize

    f, c = board.bind(rosen), board.bind(line)
    options: dict[str, Any] = {"maxiter": 12}
    more: dict[str, Any] = {}
    if method == "SLSQP":
        more["constraints"] = [{"type": "ineq", "fun": Life.seen(c), "jac": c.grad}]
    if method == "trust-constr":
        more["constraints"] = [optimize.NonlinearConstraint(Life.seen(c), 0, np.inf, jac=c.jacobian)]
    return optimize.minimize(Life.seen(f.value_and_grad), X0, jac=True, method=method, options=options, **more).x


def fitted(board: wb.Board) -> Any:
    """Least squares with a Jacobian."""
    from scipy import optimize

    g = board.bind(parts)
    return optimize.least_squares(Life.seen(g), X0, jac=g.jacobian, max_nfev=8).x


def rooted(board: wb.Board) -> Any:
    """A point where the gradient is zero: `root` over a bound op's gradient."""
    from scipy import optimize

    f = board.bind(rosen)
    return optimize.root(Life.seen(f.grad), np.full(3, 1.1), options={"maxfev": 12}).x


def descended(board: wb.Board) -> Any:
    """A gradient loop as people write it, with momentum."""
    f, x, step = board.bind("rosen"), X0.copy(), np.zeros(3)
    for _ in range(15):
        step = 0.5 * step - 1e-3 * Life.seen(f.grad)(x)
        x += step
    return x


def descended_long(board: wb.Board) -> Any:
    """200 evaluations of a gradient loop."""
    f, x = board.bind(rosen), X0.copy()
    for _ in range(200):
        x -= 2e-4 * Life.seen(f.grad)(x)
    return x


def by_nlopt(board: wb.Board) -> Any:
    """NLopt's L-BFGS, whose objective writes the gradient into an array."""
    import nlopt

    f = board.bind(rosen)

    def objective(x: Any, grad: Any) -> float:
        value, slope = Life.seen(f.value_and_grad)(x)
        if grad.size:
            grad[:] = slope
        return float(value)

    found = nlopt.opt(nlopt.LD_LBFGS, 3)
    found.set_min_objective(objective)
    found.set_maxeval(15)
    return found.optimize(X0)


def by_optax(board: wb.Board) -> Any:
    """Optax's Adam, over arrays of JAX in float32."""
    import jax.numpy as jnp
    import optax

    f, x = board.bind(rosen), jnp.asarray(X0)
    rule = optax.adam(0.05)
    state = rule.init(x)
    for _ in range(12):
        grad = Life.seen(f.grad)(np.asarray(x, np.float64))
        moved, state = rule.update(jnp.asarray(grad, x.dtype), state)
        x = optax.apply_updates(x, moved)
    return np.asarray(x)


WAYS: dict[str, Callable[[wb.Board], Any]] = {
    **{name: partial(minimized, method=name) for name in ("L-BFGS-B", "BFGS", "SLSQP", "trust-constr")},
    "least_squares": fitted,
    "root": rooted,
    "loop": descended,
    "200": descended_long,
    "nlopt": by_nlopt,
    "optax": by_optax,
}


def main(method: str, store: str, log: str, kill: str = "0") -> None:
    """Optimize, and print what came of it."""
    Life.log, Life.kill = Path(log), int(kill)
    with wb.open(store) as board:
        x = WAYS[method](board)
    Life.asked.update(np.asarray(x, np.float64).tobytes())
    sys.stdout.write(f"{Life.asked.hexdigest()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
