"""What an op is: one frozen record of its forward, its VJP and the rules they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from whiteboard.errors import ParamError
from whiteboard.types import Array, Params, Shape

Kind: TypeAlias = Literal["elementwise", "scalar", "general"]
Batch: TypeAlias = Literal["lead_axis", "loop"]
Exactness: TypeAlias = Literal["exact", "tolerance"]


class Forward(Protocol):
    """``forward(xs, out, **params) → (y, saved)``: y into `out` where it fits; `saved` is what the VJP needs."""

    def __call__(self, xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]: ...


class Vjp(Protocol):
    """``vjp(saved, cotangent, need, **params) → grads``: one per source, None where ``need[i]`` is false."""

    def __call__(
        self, saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any
    ) -> Sequence[Array | None]: ...


@dataclass(frozen=True, slots=True, eq=False)
class OpSpec:
    """A named, versioned, fingerprinted differentiable operation.

    With batch rule ``lead_axis`` every source has shape (n, …) with n jobs on axis 0, y has shape (n, *shape),
    and job i's results may depend on row i alone. With ``loop`` the session calls forward and VJP job by job, on
    arrays without that axis. Sources are C-contiguous and read-only. For ``elementwise`` ops the session lines
    up the job axes of the sources (inserting axes after the lead axis) and sums the gradients back over what
    was broadcast, so that a VJP is the plain formula.

    Parameters
    ----------
    name, version : str, int
        Identity, with `fingerprint`; the version goes up with any change of the op's bits.
    arity : int or None
        Number of sources; None for any number from 1.
    kind : {"elementwise", "scalar", "general"}
        ``elementwise``: y[j] depends on the sources' j-th elements alone. ``scalar``: y has shape ().
    forward, vjp : callables
        See `Forward` and `Vjp`. The cotangent has y's shape and dtype and may be a read-only broadcast.
    shape : callable
        ``shape(op, shapes, params) → y's shape`` of one job; raises `ShapeError` that names op, slot, expected, got.
    exactness : {"exact", "tolerance"}
        ``exact``: a job's bits do not depend on its bin.
    subgradients : str
        What the VJP returns where the derivative does not exist; empty where it exists everywhere.
    params : mapping
        Names and defaults of the parameters it takes.
    fingerprint : bytes or None
        16-byte digest of the code; None for an op that cannot be seen through: computed and never cached.
    opaque : str
        Why there is no fingerprint.
    """

    name: str
    arity: int | None
    kind: Kind
    forward: Forward
    vjp: Vjp
    shape: Callable[[str, tuple[Shape, ...], Params], Shape]
    version: int = 1
    batch: Batch = "lead_axis"
    exactness: Exactness = "exact"
    subgradients: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: bytes | None = None
    opaque: str = ""
    doc: str = ""

    def bind(self, params: Params | None) -> dict[str, Any]:
        """Return the full parameters of a job: the defaults, overlaid by `params`.

        Raises
        ------
        ParamError
            For a name the op does not take.
        """
        given = dict(params or {})
        if unknown := sorted(given.keys() - self.params.keys()):
            takes = ", ".join(sorted(self.params)) or "no parameters"
            msg = f"op {self.name!r}: unknown parameter {unknown[0]!r} (it takes {takes})"
            raise ParamError(msg)
        return {**self.params, **given}
