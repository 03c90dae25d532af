"""What the packages of an op hold beside y, and by which word their keys say so: gradients, Jacobians, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from whiteboard.ops.spec import Gradient, OpSpec
from whiteboard.types import Array, Shape


def beside(gradient: Gradient, y: Shape, sources: Sequence[Shape]) -> list[Shape]:
    """Return the shapes of one job's arrays beside y, whose shape is given: ``g0``, ``g1``, … of its page."""
    if gradient == "none":
        return []
    return [(*y, *shape) for shape in sources] if gradient == "jacobian" else list(sources)


def kind(spec: OpSpec, cotangent: Array | None) -> str:
    """Return the gradient kind of a key: what its package has of the op; see `keys.Identity`."""
    if spec.gradient in ("jacobian", "none"):
        return spec.gradient
    return "ones" if cotangent is None else "cotangent"


def is_diagonal(spec: OpSpec, sources: Sequence[Shape], y: Shape) -> bool:
    """Whether the Jacobian of every source is: then the gradients of ones are all that any residual needs."""
    return spec.kind == "elementwise" and all(shape == y for shape in sources)
