"""`ops.check` at zeros, ties, repeated and huge values: what is wrong there is named, and nothing that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops

EXAMPLE = ops.Example(((3,),), domain=(0.2, 1.5))

WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "prod": (anp.prod, "a zero in source 0: .* at element (0,): differences say .*, the VJP nan"),
    "sigmoid": (lambda x: anp.sum(1 / (1 + anp.exp(-x))), "values of -1000 in source 0: .* the VJP nan"),
    "norm": (lambda x: anp.sqrt(anp.sum(x * x)), "source 0 all zeros: .* -1 from the left, 1 from the right, the VJP"),
    "std": (anp.std, "source 0 all zeros: .* the VJP nan"),
}
RIGHT: dict[str, Callable[[Any], Any]] = {
    "max": anp.max,
    "sort": anp.sort,
    "cube": lambda x: anp.sum(x**3),
    "log": lambda x: anp.sum(anp.log(x)),
    "sqrt": lambda x: anp.sum(anp.sqrt(x)),
    "abs": lambda x: anp.sum(anp.abs(x)),
    "sin": lambda x: anp.sum(anp.sin(x)),
    "tanh": anp.tanh,
    "var": anp.var,
    "rosenbrock": lambda x: anp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_at_a_corner_is_named(name: str) -> None:
    """A gradient that is NaN where y has slopes; usual values do not show it."""
    function, says = WRONG[name]
    wb.op(name=f"corner_{name}", replace=True)(lambda x: function(x))
    with pytest.raises(wb.OpCheckError, match=says.replace("(", r"\(").replace(")", r"\)")):
        ops.check(f"corner_{name}", [EXAMPLE])


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    """Kinks with a finite subgradient, poles, domains that end at 0, and waves that turn back within a step."""
    function = RIGHT[name]
    wb.op(name=f"corner_{name}", replace=True)(lambda x: function(x))
    ops.check(f"corner_{name}", [EXAMPLE])


def test_a_wrong_choice_at_a_zero_is_found() -> None:
    """A VJP that is right but at one value, and finite there."""

    def vjp(cotangent: Any, y: Any, x: Any) -> Any:
        return cotangent * np.where(x == 0, 1.0, 2 * x)

    wb.op(name="corner_square", replace=True, kind="elementwise", vjp=vjp)(lambda x: x * x)
    with pytest.raises(wb.OpCheckError, match=r"a zero in source 0: .* differences say .*, the VJP 1 "):
        ops.check("corner_square", [EXAMPLE])


def test_what_the_op_says_of_itself_counts() -> None:
    """Where `subgradients` tells of the kink, NaN is no fault; outside of a domain nothing is tried."""
    norm = WRONG["norm"][0]
    wb.op(name="corner_norm", replace=True, subgradients="NaN at 0")(lambda x: norm(x))
    ops.check("corner_norm", [EXAMPLE])
    wb.op(name="corner_norm", replace=True)(lambda x: norm(x))
    ops.check("corner_norm", [ops.Example(((3,),), domain=(0.5, 1.0))])
