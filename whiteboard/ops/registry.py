"""The registry: which op a name stands for. A built-in family is imported when one of its ops is first asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from whiteboard.concurrency import locks
from whiteboard.errors import DuplicateOpError, UnknownOpError
from whiteboard.ops.catalogue import ALIASES, FAMILY
from whiteboard.ops.fingerprint.digest import Fingerprint, declared, fingerprint
from whiteboard.ops.fingerprint.parts import own_parts, source_of
from whiteboard.ops.fingerprint.walk import BUILT_IN, Terms
from whiteboard.ops.gradients.rule import Forward, Vjp
from whiteboard.ops.shapes import ShapeRule, counted
from whiteboard.ops.spec import Exactness, Example, Kind, OpSpec
from whiteboard.types import Blas

Code: TypeAlias = tuple[Any, ...]
F = TypeVar("F", bound=Forward)

_ASIDE: Final = "@"

OWN = Terms(BUILT_IN, trust=("whiteboard",))
"""The terms of built-in ops: their fingerprints walk into their package."""


@dataclass(slots=True)
class Entry:
    """An op as registered: its record, and the functions whose code its fingerprint covers.

    Parameters
    ----------
    spec : OpSpec
    code : tuple
        Functions and constants.
    terms : Terms
        What the fingerprint takes for granted.
    identity : str, optional
        The user's own words for what the op computes, in place of the code.
    """

    spec: OpSpec
    code: Code
    terms: Terms
    identity: str | None = None
    seen: Fingerprint | None = None

    def current(self) -> OpSpec:
        """Return the record, with the fingerprint of the code as it is now.

        A user may rebind or edit anything that the op leads to (a notebook does it all the time). What the op computes
        changes with it, so its fingerprint has to. That of an op with a `program` is told by `OpSpec.at`.
        """
        if self.spec.program is not None:
            return self.spec
        if self.seen is None or not (self.terms is OWN or self.seen.holds()):
            spec = self.spec
            seen = self._look(spec.rules)
            blas = (Blas.NUMPY if spec.exactness == "tolerance" else Blas.NONE) if self.terms is OWN else seen.blas
            if self.identity is not None and spec.exactness == "portable":
                blas = Blas.NONE  # nobody looked into the code: the user has spoken for it
            self.seen = None  # an interrupt between the two would leave a record that is not of what was seen
            holds = None if self.terms is OWN else partial(self._is_still, seen, spec.rules)
            self.spec = replace(spec, fingerprint=seen.digest, opaque=seen.opaque, blas=blas, holds=holds)
            self.seen = seen
        return self.spec

    def _is_still(self, seen: Fingerprint, rules: tuple[Any, ...]) -> bool:
        """Whether the code is what was seen; what it has only kept or imported meanwhile is no edit."""
        return seen.holds() or self._look(rules).digest == seen.digest

    def _look(self, rules: tuple[Any, ...]) -> Fingerprint:
        if self.identity is not None:
            return declared(self.identity, rules, self.terms.reads)
        return fingerprint((*self.code, rules), self.terms)


_entries: dict[str, Entry] = {}
_of_function: WeakKeyDictionary[Any, Entry] = WeakKeyDictionary()
_lock = locks.rlock()


def names() -> list[str]:
    """Return the names of all ops, built in and registered, in alphabetical order."""
    return sorted(FAMILY.keys() | {name for name in list(_entries) if _ASIDE not in name})


def get(name: str) -> OpSpec:
    """Return the op of that name (or alias), with the fingerprint of its code as it is now.

    Raises
    ------
    UnknownOpError
        With the nearest names.
    """
    entry = _entries.get(name)
    if entry is not None and entry.terms is OWN and entry.seen is not None:
        return entry.spec  # nobody edits a built-in op
    with _lock:
        entry = entry or _find(name)
        return entry.current()


def name_of(function: Any) -> str | None:
    """Return a name under which `get` gives the op that was made of a function, or None where none was.

    It is the op's own, or, where that stands for other code by now, one with its fingerprint behind it.
    """
    with _lock:
        try:
            entry = _of_function[function]
        except (KeyError, TypeError):  # of what can have no weak reference no op was made
            return None
        name, spec = entry.spec.name, entry.current()
        known = _entries.get(name)
        if known is entry or (known is not None and _same(known.current(), spec)):
            return name
        tail = f"{id(entry):x}" if spec.fingerprint is None else spec.fingerprint.hex()
        aside = f"{name}{_ASIDE}{tail}"
        _entries[aside] = entry
        return aside


def parts(name: str) -> dict[str, bytes]:
    """Return a digest of each function and constant of the user's own that an op's fingerprint covers, by name.

    Raises
    ------
    UnknownOpError
    """
    with _lock:
        entry = _entries.get(name) or _find(name)
        return {} if entry.identity is not None else own_parts(entry.code, entry.terms)


def _find(name: str) -> Entry:
    real = ALIASES.get(name, name)
    if real in FAMILY and real not in _entries:
        import_module(f"whiteboard.ops.families.{FAMILY[real]}")
    if real not in _entries:
        raise UnknownOpError(_unknown(name))
    return _entries[real]


def _unknown(name: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(name), [*names(), *ALIASES], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "ops.names() lists them"
    return f"unknown op {name!r}: {hint}"


def builtin(
    name: str,
    *,
    arity: int | None,
    kind: Kind,
    vjp: Vjp,
    shape: ShapeRule,
    examples: tuple[Example, ...],
    params: Mapping[str, Any] | None = None,
    version: int = 1,
    exactness: Exactness = "exact",
    subgradients: str = "",
    doc: str = "",
) -> Callable[[F], F]:
    """Return a decorator that enters a built-in op by its forward; the fields are those of `OpSpec`."""

    def enter(forward: F) -> F:
        known = _entries.get(name)
        if name not in FAMILY or (known is not None and known.spec.forward.__module__ != forward.__module__):
            msg = f"op {name!r}: expected one built-in op of each name in the catalogue"
            raise DuplicateOpError(msg)
        spec = OpSpec(
            name=name,
            arity=arity,
            kind=kind,
            forward=forward,
            vjp=vjp,
            shape=counted(arity, shape),
            version=version,
            exactness=exactness,
            subgradients=subgradients,
            params=dict(params or {}),
            doc=doc or (forward.__doc__ or "").strip(),
            examples=examples,
        )
        _entries[name] = Entry(spec, (forward, vjp), OWN)
        return forward

    return enter


def register(entry: Entry, *, replace: bool = False, function: Any = None) -> None:
    """Enter a user's op.

    Parameters
    ----------
    entry : Entry
    replace : bool
        Put it in the place of another op of the name.
    function : callable, optional
        What `name_of` is asked with.

    Raises
    ------
    DuplicateOpError
        If the name is taken by a built-in op, or by an op of other code or another version. The same code again
        is no error: a module that is imported again, a notebook cell that is run again.
    """
    spec = entry.spec
    if function is not None:
        with suppress(TypeError):  # an object that can have no weak reference is called by its name
            _of_function[function] = entry  # also where its name is another's: then `name_of` finds it one
    if spec.name in FAMILY or spec.name in ALIASES:
        msg = f"op {spec.name!r} is built in: give yours another name"
        raise DuplicateOpError(msg)
    # A module that enters ops is being imported, and who has the lock may wait for just that to look at an op's code:
    # so a new name is entered without it.
    if not replace and _entries.setdefault(spec.name, entry) is entry:
        return
    with _lock:
        if not replace and not _is_again(_entries[spec.name], entry):
            msg = f"op {spec.name!r} is registered already, with other code: pass replace=True to put this in its place"
            raise DuplicateOpError(msg)
        _entries[spec.name] = entry


def _is_again(old: Entry, new: Entry) -> bool:
    """Whether an op is registered again: with the same code, or, of one that is known by its program, the same text."""
    before, after = old.current(), new.current()
    if after.program is None:
        return _same(before, after)
    text = source_of(inspect.unwrap(new.code[0]))
    return bool(text) and (before.version, source_of(inspect.unwrap(old.code[0]))) == (after.version, text)


def _same(old: OpSpec, new: OpSpec) -> bool:
    return new.fingerprint is not None and (old.version, old.fingerprint) == (new.version, new.fingerprint)


def describe() -> list[dict[str, Any]]:
    """Return one row an op, in alphabetical order: name, family, arity, kind, batch, exactness, subgradients and more.

    ``arity`` is None for any number from 1; ``family`` is "user" for a registered op.
    """
    rows = []
    for name in names():
        spec = get(name)
        rows.append(
            {
                "name": name,
                "version": spec.version,
                "family": FAMILY.get(name, "user"),
                "arity": spec.arity,
                "kind": spec.kind,
                "batch": spec.batch,
                "exactness": spec.exactness,
                "gradient": spec.gradient,
                "params": dict(spec.params),
                "subgradients": spec.subgradients,
                "fingerprint": spec.fingerprint.hex() if spec.fingerprint else None,
                "opaque": spec.opaque,
                "doc": spec.doc,
            }
        )
    return rows
