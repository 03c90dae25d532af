"""What an op is: one frozen record of its forward, its VJP and the rules they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.fingerprint.encoding import is_mapping
from whiteboard.ops.gradients.rule import Forward, Program, Rules, Settings, Vjp
from whiteboard.types import Blas, Params, Shape, is_name

Kind: TypeAlias = Literal["elementwise", "scalar", "general"]
Batch: TypeAlias = Literal["lead_axis", "loop"]
Exactness: TypeAlias = Literal["portable", "exact", "tolerance"]
Gradient: TypeAlias = Literal["vjp", "autograd", "returned", "jacobian", "pullback", "jax", "torch", "none"]

_WORDS: Final = {
    "kind": get_args(Kind),
    "batch": get_args(Batch),
    "exactness": get_args(Exactness),
    "gradient": get_args(Gradient),
}


class _Required(Enum):
    REQUIRED = "required"

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required.REQUIRED
"""The default of a parameter that has none: every job must give it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One kind of job from which an op is tested: the shapes of its sources, its parameters, where its values lie.

    Parameters
    ----------
    shapes : tuple of shapes
        One per source, without the job axis.
    params : mapping
        What the job gives; the op's defaults fill the rest.
    domain : (float, float)
        Values are drawn uniformly from it: it keeps clear of the points where the op has no derivative.
    """

    shapes: tuple[Shape, ...]
    params: Params = field(default_factory=dict)
    domain: tuple[float, float] = (-2.0, 2.0)


@dataclass(frozen=True, slots=True, eq=False)
class OpSpec:
    """A named, versioned, fingerprinted differentiable operation.

    With batch rule ``lead_axis`` every source has shape (n, …) with n jobs on axis 0, y has shape (n, *shape),
    and job i's results may depend on row i alone. With ``loop`` the session calls forward and VJP job by job, on
    arrays without that axis. Sources are C-contiguous and read-only; one that all jobs of a ``tolerance`` op share
    comes as a 0-stride broadcast. For ``elementwise`` ops the session lines up the job axes of the sources (inserting
    axes after the lead axis) and sums the gradients back over what was broadcast, so that a VJP is the plain formula.

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
        ``shape(op, shapes, params) → y's shape`` of one job, or None where only a run can tell; raises `ShapeError`
        that names op, slot, expected, got.
    exactness : {"portable", "exact", "tolerance"}
        ``exact``: a job's bits do not depend on its bin. ``portable``: nor on the machine, as it takes IEEE's basic
        operations (+ − · / √, comparisons) in a fixed order; so its packages are shared by machines of all kinds.
    blas : Blas
        Whose BLAS it may reach: then its bits depend on that one's kernel and number of threads, whatever it promises.
    user : bool
        Whether it is a user's: then what it says of itself is tested where it is used.
    keep_sources : bool or None
        Whether packages lie in their page with their sources; None goes by what computing them cost.
    gradient : {"vjp", "autograd", "returned", "jacobian", "pullback", "jax", "torch", "none"}
        Where its gradients come from. Packages of ``jacobian`` hold what its forward saves, ∂y/∂xᵢ of shape
        (*y, *xᵢ), in the place of gradients; those of ``none`` hold y alone, and its VJP returns nothing.
    subgradients : str
        What the VJP returns where the derivative does not exist; empty where it exists everywhere.
    params : mapping
        Names and defaults of the parameters it takes; `REQUIRED` stands for one without a default.
    fingerprint : bytes or None
        16-byte digest of the code; None for an op that cannot be seen through: computed and never cached.
    opaque : str
        Why there is no fingerprint.
    program : callable, optional
        ``program(rules, shapes, dtype, params) → Seen`` of an op whose fingerprint is another for each signature; see
        `at`.
    settings : callable, optional
        Texts of what else of this process the op's bits depend on.
    doc : str
        One sentence: what y is.
    made : tuple of (callable, mapping), optional
        Of a user's op the function, and what `op` was told of it: from these it is made in another process.
    examples : tuple of Example
        Jobs from which `ops.check` and the tests try the op.
    holds : callable, optional
        Whether the code still is what the fingerprint was taken of, which may be edited while it runs.

    Raises
    ------
    ParamError
        For a word, number or type that a field cannot have; the message says which it can.
    """

    name: str
    arity: int | None
    kind: Kind
    forward: Forward
    vjp: Vjp
    shape: Callable[[str, tuple[Shape, ...], Params], Shape | None]
    version: int = 1
    batch: Batch = "lead_axis"
    exactness: Exactness = "exact"
    blas: Blas = Blas.NONE
    user: bool = False
    keep_sources: bool | None = None
    gradient: Gradient = "vjp"
    subgradients: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: bytes | None = None
    opaque: str = ""
    program: Program | None = None
    settings: Settings | None = None
    doc: str = ""
    made: tuple[Callable[..., Any], Params] | None = None
    examples: tuple[Example, ...] = ()
    holds: Callable[[], bool] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        arity: Any = self.arity
        examples: Any = self.examples
        self._expect("name", "a printable text", holds=is_name(self.name))
        self._expect("version", "an int from 1", holds=type(self.version) is int and self.version > 0)
        self._expect("arity", "an int from 1, or None", holds=arity is None or (type(arity) is int and arity > 0))
        for name, words in _WORDS.items():
            given = getattr(self, name)
            self._expect(name, f"one of {', '.join(map(repr, words))}", holds=isinstance(given, str) and given in words)
        for name in ("forward", "vjp", "shape"):
            self._expect(name, "a function", holds=callable(getattr(self, name)))
        self._expect("keep_sources", "True, False or None", holds=isinstance(self.keep_sources, bool | None))
        self._expect("params", "a mapping of names", holds=is_mapping(self.params))
        tried = isinstance(examples, tuple) and all(isinstance(each, Example) for each in examples)
        self._expect("examples", "a tuple of Example", holds=tried)
        self._expect("subgradients", "a text", holds=isinstance(self.subgradients, str))

    def _expect(self, name: str, expected: str, *, holds: bool) -> None:
        if not holds:
            msg = f"op {self.name!r}: {name}: expected {expected}, got {getattr(self, name)!r}"
            raise ParamError(msg)

    @property
    def rules(self) -> Rules:
        """What of the record is part of the fingerprint beside the code."""
        return (self.kind, self.batch, self.exactness, -1 if self.arity is None else self.arity)

    @property
    def code(self) -> tuple[str, int, bytes | None]:
        """Name, version and fingerprint: what says which code it is."""
        return self.name, self.version, self.fingerprint

    def at(self, shapes: tuple[Shape, ...], dtype: np.dtype[Any], params: Params) -> OpSpec:
        """Return the op with the fingerprint and the forward that it has for one signature.

        It is the op itself, but for one with a `program`.

        Raises
        ------
        DtypeError
            It computes in another dtype, as things are set.
        """
        if self.program is None:
            return self
        seen = self.program(self.rules, shapes, dtype, params)
        return replace(self, fingerprint=seen.fingerprint, opaque=seen.opaque, forward=seen.forward or self.forward)

    def bind(self, params: Params | None) -> dict[str, Any]:
        """Return the full parameters of a job: the defaults, overlaid by `params`.

        Raises
        ------
        ParamError
            For a name the op does not take, and for a required one that is not given.
        """
        if params is not None and not is_mapping(params):
            msg = f"op {self.name!r}: params: expected a mapping of names, got {params!r}"
            raise ParamError(msg)
        given = dict(params or {})
        if unknown := sorted(given.keys() - self.params.keys()):
            takes = ", ".join(sorted(self.params)) or "no parameters"
            msg = f"op {self.name!r}: unknown parameter {unknown[0]!r} (it takes {takes})"
            raise ParamError(msg)
        full = {**self.params, **given}
        if missing := sorted(name for name, value in full.items() if value is REQUIRED):
            msg = f"op {self.name!r}: parameter {missing[0]!r} has no default and was not given"
            raise ParamError(msg)
        return full
