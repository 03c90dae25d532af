"""One walk over what an op's result depends on: the hash, what was met on the way, and where it stands.

What is met is written by the kinds of values that the walk is given, each in a file of this folder; they write the
parts of a value by `Walk.value` again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from types import FunctionType
from typing import Any, Final, NoReturn, TypeAlias

from whiteboard.ops.fingerprint import blas
from whiteboard.ops.fingerprint.function_source import refuse
from whiteboard.ops.fingerprint.libraries import Library, library_of_function
from whiteboard.ops.fingerprint.purity import REMEDY, Verdict, verdict
from whiteboard.ops.fingerprint.referenced_names import Chain
from whiteboard.ops.fingerprint.watch import MISSING, Watch
from whiteboard.types import Blas

SCHEME = "whiteboard-op-2"
"""Names the encoding below; a change of it changes every fingerprint."""

BUILT_IN = "whiteboard.ops"
"""The package of the built-in ops; what it takes of NumPy counts by name alone, and how NumPy rounds by the
arithmetic class."""

_IMMUTABLE: Final = {
    "list": "; use a tuple",
    "dict": "; use a tuple of pairs, a types.MappingProxyType, or a frozen dataclass",
    "set": "; use a frozenset",
    "bytearray": "; use bytes",
}
"""What to use in the place of what can be edited."""

Uses: TypeAlias = Iterable[Chain]
"""The attributes that are taken of a value."""

Kind: TypeAlias = "Callable[[Walk, Any, str, str, Uses], bool]"
"""Writes a value of its kind into a walk, and says whether it was one; its arguments are those of `Walk.value`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a walk takes for granted.

    Parameters
    ----------
    own : str
        Package whose code is the user's own even where it is installed among the libraries.
    trust : tuple of str
        Dotted names of libraries that are pure, beside those that are known to be.
    ignore : frozenset of str
        Names that have no part in the result.
    reads : tuple of str
        Files that the code reads; their contents count, and reading files is no reason to refuse.
    """

    own: str
    trust: tuple[str, ...] = ()
    ignore: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()


class Walk:
    """One walk over everything that a function's result depends on, into a hash.

    Parameters
    ----------
    terms : Terms
    kinds : tuple of Kind
        The kinds of values that it sees through, in the order in which they are asked.
    """

    def __init__(self, terms: Terms, kinds: tuple[Kind, ...]) -> None:
        self.terms = terms
        self.hash = blake2b(digest_size=16)
        self.watch = Watch()
        self.blas = Blas.NONE
        self.place = ""
        """The file and line that the walk is at, for the reason of an opaque value."""
        self.made: list[int] = []
        """Classes of torch's modules that are there."""
        self._kinds = kinds
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # an id is only good while its object lives
        self.put(SCHEME)

    def put(self, *parts: str | bytes) -> None:
        """Write parts, each with its length."""
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self.hash.update(b"%d:" % len(data))
            self.hash.update(data)

    def again(self, item: object) -> bool:
        """Whether `item` was walked before (a recursive function, say): then its number stands for it."""
        if id(item) in self._seen:
            self.put("again", str(self._seen[id(item)]))
            return True
        self._seen[id(item)] = len(self._seen)
        self._alive.append(item)
        return False

    def reaches(self, blas: Blas) -> None:
        """Hear whose BLAS something may reach that was met."""
        if blas > self.blas:
            self.blas = blas

    def refuse(self, reason: str) -> NoReturn:
        """Raise `OpaqueError` with a reason, and where the walk is."""
        refuse(f"{reason} ({self.place})" if self.place else reason)

    def allow(self, why: Verdict, where: str, dotted: str, name: str) -> None:
        """Refuse a library's name that is not pure; reading files is allowed where the files count."""
        if why is Verdict.PURE or (why is Verdict.FILES and self.terms.reads):
            return
        remedy = REMEDY[why].format(top=dotted.partition(".")[0], name=name)
        self.refuse(f"{where} is {dotted}, which {why}: {remedy}")

    def library(self, where: str, dotted: str, library: Library, name: str) -> None:
        """Write a library's name, if it is known to be pure."""
        self.allow(verdict(dotted, self.terms.trust), where, dotted, name)
        self.reaches(blas.named(dotted))
        version = "" if self.terms.own == BUILT_IN else " ".join(library)
        self.put("library", dotted, version)

    def is_library(self, function: FunctionType) -> bool:
        """Whether a function's code is a library's, by the terms of the walk."""
        return library_of_function(function, self.terms.own) is not None

    def beside(self) -> Walk:
        """Return a walk at this place into a hash of its own, for what has no order; its watch is to be included."""
        walk = Walk(self.terms, self._kinds)
        walk.place = self.place
        return walk

    def files(self) -> None:
        """Write the contents of the files that the code reads."""
        for name in self.terms.reads:
            try:
                self.put("file", name, self.watch.file(name))
            except OSError as error:
                refuse(f"reads={name!r}: {error.strerror or error}")

    def value(self, value: object, where: str, name: str = "", uses: Uses = ((),)) -> None:
        """Write one value.

        Parameters
        ----------
        where : str
            What it is, for the reason of an opaque one.
        name : str
            What the function calls it.
        uses : iterable of Chain
            The attributes that are taken of it.
        """
        self.reaches(blas.held(value))
        if value is MISSING:
            self.put("unbound")
            return
        for write in self._kinds:
            if write(self, value, where, name, uses):
                return
        kind = type(value).__qualname__
        hint = _IMMUTABLE.get(kind) or f"; {REMEDY[Verdict.STATE].format(name=name or where)}"
        self.refuse(f"{where} is a mutable or unknown object of type {kind!r}{hint}")
