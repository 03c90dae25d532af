"""The fingerprint of an op's code: a digest of everything of the user's own that decides what it computes.

It covers a function's source (`function_source.canonical`), its defaults and closure constants, and, recursively, the
user's own functions, classes and constants that it names, also across modules. What a library has counts by name and by
the version of its distribution, and only where it is known to be pure (`purity`). What cannot be seen through makes the
whole opaque: no digest, and a reason that names it, the line, and what helps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from whiteboard.ops.fingerprint import arrays, classes, constants, functions, modules, torch_state
from whiteboard.ops.fingerprint.function_source import OpaqueError
from whiteboard.ops.fingerprint.walk import Kind, Terms, Walk
from whiteboard.ops.fingerprint.watch import Watch
from whiteboard.types import Blas

KINDS: Final[tuple[Kind, ...]] = (
    modules.write,
    constants.write,
    arrays.write,
    functions.write,
    functions.write_callable,
    classes.write,
    torch_state.write,
)
"""What is seen through; whose kind a value is, the first of them says that takes it."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest, or the reason for none, and the watch over what it was taken from.

    Parameters
    ----------
    digest : bytes or None
        16 bytes; None for what cannot be seen through.
    opaque : str
        Why there is no digest.
    watch : Watch
        All that was followed on the way.
    blas : Blas
        Whose BLAS anything on the way may reach; NumPy's, where nobody looked.
    """

    digest: bytes | None
    opaque: str
    watch: Watch
    blas: Blas = Blas.NUMPY

    def holds(self) -> bool:
        """Whether everything that was followed still is what it was."""
        return self.watch.holds()


def fingerprint(code: Iterable[Any], terms: Terms) -> Fingerprint:
    """Return the fingerprint of functions and constants.

    Parameters
    ----------
    code : iterable
        Functions, and constants that belong to them.
    terms : Terms
    """
    walk = Walk(terms, KINDS)
    try:
        walk.files()
        for number, item in enumerate(code):
            plain = type(item).__name__ if torch_state.is_module(item) else f"part {number}"
            walk.value(item, getattr(item, "__qualname__", plain))
    except OpaqueError as reason:
        return Fingerprint(None, str(reason), walk.watch)
    except RecursionError:
        return Fingerprint(None, "it is nested too deeply to be seen through", walk.watch)
    return Fingerprint(walk.hash.digest(), "", walk.watch, walk.blas)


def declared(identity: str, rules: tuple[Any, ...], reads: tuple[str, ...]) -> Fingerprint:
    """Return the fingerprint that an identity of the user's own words stands for, in place of the code's."""
    walk = Walk(Terms("", reads=reads), KINDS)
    try:
        walk.files()
        walk.value(("identity", identity, *rules), "identity")
    except OpaqueError as reason:
        return Fingerprint(None, str(reason), walk.watch)
    return Fingerprint(walk.hash.digest(), "", walk.watch)
