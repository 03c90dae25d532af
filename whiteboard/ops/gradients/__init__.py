"""Where the gradients of a user's function come from, a word a file: what `gradient=` of `wb.op` may be, and `vjp=`.

Each file makes a `Rule` of a `Function`; `WORDS` lists them, `rule` and `function` say what both are. A file is
imported where an op says its word, and JAX and torch where such an op is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from whiteboard.ops.gradients.function import Function
from whiteboard.ops.gradients.rule import Rule

WORDS: Final = ("autograd", "returned", "jacobian", "pullback", "jax", "torch", "none")
"""What `gradient=` may be. Adding a word is a file here, and the word here and in `spec.Gradient`."""


def rule(word: str, function: Function) -> Rule:
    """Return the rule of a function whose gradients come as `word`, or ``given``, says."""
    made: Rule = import_module(f"whiteboard.ops.gradients.{word}").rule(function)
    return made
