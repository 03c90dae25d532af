"""What becomes of a user's function: forward, VJP, and what else of it is part of the op's identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from whiteboard.types import Array, Params, Shape

Forward: TypeAlias = Callable[..., tuple[Array, Any]]
"""``forward(xs, out, **params) → (y, saved)``: y into `out` where it fits; `saved` is what the VJP needs."""

Vjp: TypeAlias = Callable[..., Sequence[Array | None]]
"""``vjp(saved, cotangent, need, **params) → grads``: one per source, None where ``need[i]`` is false."""

Settings: TypeAlias = Callable[[], tuple[str, ...]]
"""Texts of what of this process, beside NumPy's arithmetic, the bits depend on."""

Rules: TypeAlias = tuple[str, str, str, int]
"""What of an op's record is part of its fingerprint: `OpSpec.rules`."""


class Seen(NamedTuple):
    """What an op is for sources of one signature: its fingerprint, or why it has none, and its forward there."""

    fingerprint: bytes | None
    opaque: str
    forward: Forward | None = None


Program: TypeAlias = Callable[[Rules, tuple[Shape, ...], np.dtype[Any], Params], Seen]
"""``program(rules, shapes, dtype, params)``: what an op is for sources of these shapes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A user's function as an op.

    Parameters
    ----------
    forward, vjp : callables
        See `Forward` and `Vjp`.
    code : object
        What the fingerprint covers beside the function.
    program : callable, optional
        What takes the place of the fingerprint of the code.
    settings : callable, optional
    """

    forward: Forward
    vjp: Vjp
    code: Any
    program: Program | None = None
    settings: Settings | None = None
