"""``whiteboard minimize``: an optimization that goes on after a kill, with every evaluation kept."""

from __future__ import annotations

import ast
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from whiteboard import board as boards
from whiteboard import ops
from whiteboard.board import Board
from whiteboard.cli.computing import computing
from whiteboard.cli.options import MOST, dask_option, echo, json_option, store_option
from whiteboard.cli.progress import INTERRUPTED, answered, interrupts, progress
from whiteboard.cli.terminal import say
from whiteboard.errors import ExperimentError, PlotError
from whiteboard.experiments.draw import check_plot, draw_descent
from whiteboard.experiments.minimize import BY_GRADIENT, METHODS, Minimization, Standing
from whiteboard.experiments.minimize import minimize as minimized
from whiteboard.ops import registry
from whiteboard.ops.spec import Gradient
from whiteboard.ops.user_module import referenced
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.file_identity import refuse
from whiteboard.types import Array

GRADIENTS = tuple(sorted(set(get_args(Gradient)) - {"vjp"}))

_NONE = (-math.inf, math.inf)


class _Point(click.ParamType):  # type: ignore[type-arg]
    """Numbers between commas, or a file of them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Array:
        try:
            if str(value).endswith(".npy"):
                return np.asarray(np.load(value, allow_pickle=False), np.float64)
            return np.array([float(part) for part in str(value).split(",")])
        except (ValueError, OSError) as error:
            self.fail(f"{value!r}: expected numbers with commas between, or a .npy file of them: {error}", param, ctx)


class _Bounds(click.ParamType):  # type: ignore[type-arg]
    """Pairs of ends: ``low,high`` for all components, or one a component with semicolons between."""

    name = "bounds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[tuple[float, float]]:
        pairs = []
        for part in str(value).split(";"):
            ends = part.split(",")
            try:
                low, high = (float(end) if end.strip() else none for end, none in zip(ends, _NONE, strict=True))
            except ValueError:
                self.fail(f"{part!r}: expected low,high, either of them empty where there is none", param, ctx)
            if not low <= high:
                self.fail(f"{part!r}: the lower end is above the upper one", param, ctx)
            pairs.append((low, high))
        return pairs


class _Param(click.ParamType):  # type: ignore[type-arg]
    """``NAME=VALUE``, a constant of Python's or else a text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, given, text = str(value).partition("=")
        if not given or not name.isidentifier():
            self.fail(f"{value!r}: expected NAME=VALUE", param, ctx)
        try:
            return name, ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return name, text


@click.command(epilog="For example: whiteboard minimize mymodule:drag --x0 0.1,0.2 --bounds 0,1 --param mach=0.8")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--x0", type=_Point(), required=True, metavar="X,X,…|FILE.npy", help="Where to start.")
@click.option("--method", type=click.Choice(METHODS, case_sensitive=False), default="L-BFGS-B", show_default=True)
@click.option("--bounds", type=_Bounds(), metavar="LOW,HIGH[;…]", help="Of all components, or one pair a component.")
@click.option(
    "--param", "params", type=_Param(), multiple=True, metavar="NAME=VALUE", help="A parameter of the function."
)
@click.option(
    "--gradient",
    type=click.Choice(GRADIENTS),
    help="Where the gradient of a plain function comes from; autograd by default. An op says so itself.",
)
@click.option(
    "--max-iterations",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Stop after so many iterates; TNC, COBYLA: evaluations.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Compute in so many processes. Of a function without a gradient, differences in each direction at once.",
)
@dask_option
@store_option
@click.option("--name", help="Name of the system; the function's where it is not given.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw f and ‖g‖ over the evaluations into this file.")
@click.option("--takeover", is_flag=True, help="Write the system although a writer on another host claims it.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@json_option
def minimize(
    function: str,
    x0: Array,
    method: str,
    bounds: Sequence[tuple[float, float]] | None,
    params: Sequence[tuple[str, Any]],
    gradient: Gradient | None,
    max_iterations: int | None,
    workers: int | None,
    dask: str | None,
    store: str,
    name: str | None,
    plot: Path | None,
    *,
    takeover: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Minimize a function of one array by SciPy, or go on where that was stopped or killed.

    Each evaluation is kept in the store and none is computed twice; each iterate is a commit of a system, for `show`
    and `log`. Ctrl-C stops after the evaluation under way.
    """
    if plot is not None:
        check_plot(plot)
        refuse(plot, [locate(store).path])
    try:
        called = referenced(function)
    except ImportError as error:
        msg = f"{function}: {error}"
        raise ExperimentError(msg) from error
    if gradient is not None:
        _register(called, function, gradient)
    if bounds is not None and len(bounds) == 1:
        bounds = list(bounds) * x0.size
    options = {} if max_iterations is None else {"maxiter": max_iterations}
    beside = workers is not None or dask is not None
    differences = beside and method in BY_GRADIENT and ops.get(called).gradient == "none"
    problem = Minimization(function, x0, method, bounds, dict(params), options, differences)
    began = time.monotonic()
    with (
        computing(workers, dask) as executor,
        boards.open(store, executor=executor) as board,
        interrupts() as interrupted,
    ):
        f = board.bind(called, **problem.params)
        system = board.system(f.op if name is None else name, problem.spec, takeover=takeover)
        if not (quiet or as_json):
            head = system.head
            say(f"{system.name}: {'started' if head is None else f'resumed at commit {head.id}'}", err=True)
        with progress("evaluation", None, quiet=quiet or as_json) as show:
            now = minimized(
                problem,
                f,
                system,
                evaluated=lambda now: show(now.evaluations, partial(_text, board, now, max_iterations, began)),
                stop=interrupted,
            )
        board.flush()
        fields = _fields(board, system.name, now, system.digest(), time.monotonic() - began)
    if plot is not None:
        _draw(now, f"{system.name}, {problem.method}", plot)
    if as_json:
        echo(fields, as_json=True)
    elif not quiet:
        _summary(fields, now, plot)
    if now.success is None:
        if not quiet:
            say(f"stopped after {now.evaluations:,} evaluations; the same command goes on from there", err=True)
        return INTERRUPTED
    return 0 if now.success else 1


def _register(called: Any, reference: str, gradient: Gradient) -> None:
    """Make an op of a plain function, by a word of `gradient=`."""
    if (name := registry.name_of(called)) is None:
        ops.op(gradient=gradient)(called)
    elif (known := ops.get(name).gradient) != gradient:
        msg = f"{reference} is an op, registered with gradient={known!r}: --gradient is for plain functions"
        raise ExperimentError(msg)


def _text(board: Board, now: Standing, most: int | None, began: float) -> str:
    value, norm = now.trace[-1]
    left = ""
    if most is not None and 1 < now.iterations <= most:
        seconds = (time.monotonic() - began) / (now.iterations - 1) * (most - now.iterations + 1)
        left = f"  at most {seconds:.0f} s left"
    return f"f {value:.8g}  ‖g‖ {norm:.3g}  iterate {now.iterations - 1}  {answered(board)}{left}"


def _fields(board: Board, name: str, now: Standing, digest: str, seconds: float) -> dict[str, Any]:
    stats = board.stats()
    return {
        "name": name,
        "success": now.success,
        "message": now.message,
        "commit": now.iterations - 1,
        "resumed_from": now.resumed_from,
        "evaluations": now.evaluations,
        "f": now.f,
        "gradient_norm": None if math.isnan(now.gradient_norm) else now.gradient_norm,
        "x": now.x.tolist(),
        "digest": digest,
        **{key: int(stats[key]) for key in ("misses", "hits_memory", "hits_disk")},
        "seconds_saved": round(stats["seconds_saved"], 3),
        "seconds": round(seconds, 3),
    }


def _summary(fields: dict[str, Any], now: Standing, plot: Path | None) -> None:
    state = "stopped" if now.success is None else now.message
    say(f"{fields['name']}: {state}")
    norm = "" if fields["gradient_norm"] is None else f", ‖g‖ {now.gradient_norm:.3g}"
    say(f"f {now.f:.10g}{norm} at iterate {fields['commit']}")
    shown = ", ".join(f"{value:.10g}" for value in now.x[:8].tolist())
    say(f"x {shown}{', …' if now.x.size > 8 else ''}")
    say(f"digest {fields['digest']}")
    say(
        f"{now.evaluations:,} evaluations in {fields['seconds']:.2f} s; {fields['misses']:,} computed, "
        f"{fields['seconds_saved']:.2f} s of computing saved"
    )
    if plot is not None:
        say(f"drawn to {plot}")


def _draw(now: Standing, title: str, path: Path) -> None:
    try:
        draw_descent(now.trace, title, path)
    except OSError as error:
        msg = f"cannot draw {path}: {error.strerror or error}"
        raise PlotError(msg) from error
