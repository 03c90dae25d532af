"""`ops.check`: each way of breaking an op's word is found, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest

from whiteboard import ops
from whiteboard.errors import OpCheckError, UnknownOpError
from whiteboard.ops.checking.conformance import extrapolate
from whiteboard.ops.spec import Example


class Broken(NamedTuple):
    """An op with a fault, how it is registered, and what the check has to say."""

    forward: Callable[..., Any]
    vjp: Callable[..., Any] | None
    how: dict[str, Any]
    says: str
    id: str


def writes(x: Any) -> Any:
    """Negate a source in place."""
    x *= -1
    return x.copy()


def writes_cotangent(cotangent: Any, y: Any, x: Any) -> Any:
    """Negate the cotangent in place."""
    cotangent *= 2
    return cotangent


def mixed(x: Any) -> Any:
    """Let each job see the others."""
    return x - anp.mean(x, axis=0)


def by_place(x: Any) -> Any:
    """Let the first job of a bin differ."""
    return x * anp.reshape(1.0 + (anp.arange(len(x)) == 0), (-1, *(1,) * (x.ndim - 1)))


def by_luck(x: Any, calls: tuple[Any, ...] = (np.random.default_rng(0),)) -> Any:
    """Return something else each time."""
    return x + calls[0].uniform()


def double(c: Any, y: Any, x: Any) -> Any:
    """Return the VJP of 2x."""
    return 2 * c


E = "elementwise"
BROKEN = (
    Broken(lambda x: 1e-7 * x, lambda c, y, x: 5e-7 * c, {}, "source 0 at element .*: differences say .*the VJP", "5×"),
    Broken(lambda x: 1e-7 * x + 1, lambda c, y, x: 5e-7 * c, {}, "differences say", "5× beside a constant"),
    Broken(lambda x: 1e7 * x, lambda c, y, x: 1.00001e7 * c, {}, "differences say", "wrong in the sixth digit"),
    Broken(lambda x: 2 * x, lambda c, y, x: 2 + 0 * c, {}, "differences say", "a VJP that ignores the cotangent"),
    Broken(lambda x: anp.cos(x), lambda c, y, x: c * np.sin(x), {}, "differences say", "a sign"),
    Broken(lambda a, b: a / b, lambda c, y, a, b: (-c * y / b, c / b), {"kind": E}, "source 0", "gradients exchanged"),
    Broken(lambda a, b: a * b, lambda c, y, a, b: (c * b, c * b), {"kind": E}, "source 1 at element", "the second one"),
    Broken(lambda x: 2 * x, lambda c, y, x: (2 * c, c), {}, "2 gradients, expected 1", "one too many"),
    Broken(
        lambda x: 2 * x, lambda c, y, x: (2 * c)[..., None], {}, "gradient of source 0: expected shape", "its shape"
    ),
    Broken(
        lambda x: 2 * x, lambda c, y, x: (2 * c).astype("f4"), {}, "expected dtype float64, got float32", "its dtype"
    ),
    Broken(
        lambda x: 2 * x, lambda c, y, x: np.ma.masked_array(2 * c), {}, "a masked array is refused", "a masked array"
    ),
    Broken(lambda x: 2 * x, lambda c, y, x: None, {}, "expected an array, got NoneType", "no gradient"),
    Broken(lambda x: (2 * x).astype("f8"), double, {}, "y: expected dtype float32, got float64", "the dtype of y"),
    Broken(lambda x: 2 * x[:, None], double, {"kind": E}, "y: expected shape", "the shape of y"),
    Broken(lambda x: anp.sum(x, -1), None, {"kind": "scalar"}, r"y: expected shape", "not a scalar"),
    Broken(writes, lambda c, y, x: -c, {"kind": E}, "source 0: the op writes into it", "a write into a source"),
    Broken(lambda x: 2 * x, writes_cotangent, {"kind": E}, "writes into the cotangent", "a write into the cotangent"),
    Broken(mixed, None, {}, "its (bits depend on its place|bits in a bin are not those alone)", "jobs that mix"),
    Broken(by_place, None, {"kind": E}, "its bits depend on its place in the bin", "a job by its place"),
    Broken(by_luck, None, {"kind": E}, "a second run gives other bits", "chance"),
    Broken(lambda x: anp.cumsum(x, -1), None, {"kind": E}, "expected shape|differences say|element", "not elementwise"),
    Broken(lambda x, *, k: x * k, None, {}, "no example fits it", "a parameter without a default"),
)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.id)
def test_a_broken_op_is_found_and_named(case: Broken) -> None:
    """The error names op, slot, job, element, expected and got."""
    ops.op("broken", vjp=case.vjp, **{"batch": "lead_axis", **case.how})(case.forward)
    with pytest.raises(OpCheckError, match=f"(?s)op 'broken': .*{case.says}"):
        ops.check("broken")


def test_a_vjp_that_is_a_thousandth_of_a_millionth_off_passes() -> None:
    """Rounding is no fault: the check is as strict as differences can be, and no stricter."""
    ops.op("near", vjp=lambda c, y, x: c * np.cos(x) * (1 + 1e-9))(lambda x: np.sin(x))
    ops.check("near")


def test_a_kink_between_the_steps_is_no_fault() -> None:
    """Near a point without a derivative smaller steps are taken."""
    ops.op("kinked", kind="elementwise")(lambda x: anp.abs(x - 0.8) + anp.maximum(x, 0.801))
    ops.check("kinked", [Example(((40,),), domain=(0.75, 0.85))])


def test_the_message_says_which_example_failed() -> None:
    """The shapes and parameters of the failing example are in the error."""
    ops.op("odd", vjp=lambda c, y, x, power: c)(lambda x, power=1: x**power)
    with pytest.raises(OpCheckError, match=r"\(sources \(\(3,\),\), parameters \{'power': 3\}\)"):
        ops.check("odd", [Example(((3,),)), Example(((3,),), {"power": 3})])


def test_an_unknown_op_cannot_be_checked() -> None:
    """A name that is not registered is an UnknownOpError."""
    with pytest.raises(UnknownOpError, match="'nope'"):
        ops.check("nope")


def test_extrapolation_reaches_what_no_single_step_can() -> None:
    """Four central differences of exp at 0, extrapolated, are right to 13 digits, and say how wrong they may be."""

    def difference(step: float) -> tuple[np.ndarray, np.ndarray]:
        up, down = np.exp(np.array([step])), np.exp(np.array([-step]))
        return (up - down) / (2 * step), up / step

    value, slack = extrapolate(difference, 2e-2)
    assert abs(value[0] - 1) < 1e-12
    assert abs(value[0] - 1) <= slack[0] < 1e-10
