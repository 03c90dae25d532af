"""Operations: what an op is, which there are, how a user adds one, and how one is checked.

`spec` is the record of an op, `registry` which there are, `catalogue` the list of built-in ones in `families`,
`shapes` the rules of shapes; `user` makes ops of users' functions, by the words in `gradients`, `user_module` finds
these by name. `kernels` are what families share, `fingerprint` says what code is, `checking` whether an op keeps its
word.
"""

from __future__ import annotations

from collections.abc import Sequence

from whiteboard.ops import registry
from whiteboard.ops.registry import describe, names
from whiteboard.ops.spec import REQUIRED, Example, OpSpec
from whiteboard.ops.user import name_of, op
from whiteboard.types import OpLike

__all__ = ["REQUIRED", "Example", "OpSpec", "check", "describe", "get", "name_of", "names", "op"]


def get(op: OpLike) -> OpSpec:
    """Return the op of a name (or alias), or of a function, with the fingerprint of its code as it is now.

    Raises
    ------
    UnknownOpError
        With the nearest names.
    """
    return registry.get(op if type(op) is str else name_of(op))


def check(name: OpLike, examples: Sequence[Example] | None = None) -> None:
    """Check one op, in float64 and float32: shapes, dtypes, batching, VJP, and that it leaves its inputs alone.

    Parameters
    ----------
    name : str or function
        Of a registered op.
    examples : sequence of Example, optional
        Jobs to try it on; by default the op's own, or shapes that fit its kind.

    Raises
    ------
    UnknownOpError
        For a name that is not registered.
    OpCheckError
        Naming op, source slot, job, element, expected and got.
    """
    from whiteboard.ops.checking import conformance

    conformance.check(name_of(name), examples)
