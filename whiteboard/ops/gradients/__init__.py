"""Where the gradients of a user's function come from, a word a file: what `gradient=` of `wb.op` may be, and `vjp=`.

Each file makes a `Rule` of a `Function`; `WORDS` lists them, `rule` and `function` say what both are. JAX and torch are
imported where an op of theirs is used, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from whiteboard.ops.gradients import autograd, jacobian, jax, none, pullback, returned, torch
from whiteboard.ops.gradients.function import Function
from whiteboard.ops.gradients.rule import Rule

WORDS: Final[Mapping[str, Callable[[Function], Rule]]] = {
    "autograd": autograd.rule,
    "returned": returned.rule,
    "jacobian": jacobian.rule,
    "pullback": pullback.rule,
    "jax": jax.rule,
    "torch": torch.rule,
    "none": none.rule,
}
"""What `gradient=` may be. Adding a word is a file here, a line, and a word in `spec.Gradient`."""
