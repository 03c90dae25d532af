"""What a fingerprint was taken from, looked at again before each use: names, code, defaults, classes, arrays, files.

Any of these may be rebound or edited in place while the process runs (a notebook, an autoreload, a class attribute that
is set), and a fingerprint that does not notice answers for code that is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from itertools import chain
from operator import attrgetter, call, is_, itemgetter
from types import CellType, FunctionType
from typing import Any, Final, Protocol

MISSING: Final = object()
"""Stands for the value of a name that is not bound."""

_CODE: Final = attrgetter("__code__", "__defaults__", "__kwdefaults__")
_CELL: Final = attrgetter("cell_contents", "cell_contents")  # twice: a getter of one name gives no tuple

SETTLED_NS: Final = 2 * 10**9
"""A file that changed so short a time before it was read may change again without its times telling."""


class Changing(Protocol):
    """Contents that may be edited in place."""

    def changed(self) -> bool:
        """Whether they are others than when this was made."""
        ...


class Watch:
    """The bindings that a walk has followed, and whether all still are what they were.

    Held are the values themselves, so that an identity cannot come back with another object.
    """

    def __init__(self) -> None:
        self.names: list[tuple[str, object]] = []
        """What was bound, by name, in the order of the walk."""
        self._mappings: dict[int, tuple[Any, dict[Any, object]]] = {}
        self._sizes: list[tuple[Any, int]] = []
        self._functions: list[FunctionType] = []
        self._cells: list[tuple[CellType, object]] = []
        self._arrays: list[_Array] = []
        self._files: list[_File] = []
        self._held: list[Changing] = []
        self._ready: Callable[[], bool] | None = None

    def binding(self, namespace: Mapping[Any, Any], key: Any) -> object:
        """Return what a key of a namespace stands for, `MISSING` for nothing, and remember it."""
        value = namespace.get(key, MISSING)
        self._mappings.setdefault(id(namespace), (namespace, {}))[1][key] = value
        return value

    def named(self, name: str, value: object) -> None:
        """Remember under which name a value was met."""
        self.names.append((name, value))

    def all_of(self, namespace: Mapping[Any, Any]) -> None:
        """Remember how many names a namespace has: another one may hide what was found."""
        self._sizes.append((namespace, len(namespace)))

    def cell(self, cell: CellType) -> object:
        """Return what a closure's cell holds, `MISSING` for nothing, and remember it."""
        value = _held(cell)
        self._cells.append((cell, value))
        return value

    def function(self, function: FunctionType) -> None:
        """Remember a function's code and defaults."""
        self._functions.append(function)
        if function.__kwdefaults__:
            for key in function.__kwdefaults__:
                self.binding(function.__kwdefaults__, key)
            self.all_of(function.__kwdefaults__)

    def array(self, array: Any) -> None:
        """Remember the contents of an array that is read-only and could be made writable."""
        self._arrays.append(_Array(array))

    def contents(self, held: Changing) -> None:
        """Remember what can tell by itself whether it has changed."""
        self._held.append(held)

    def file(self, name: str) -> bytes:
        """Return the digest of a file, and remember it.

        Raises
        ------
        OSError
            If it cannot be read; when it can be, that is a change.
        """
        self._files.append(file := _File(name))
        if file.error:
            raise file.error
        return file.digest

    def include(self, other: Watch) -> None:
        """Remember all that another watch does."""
        self.names += other.names
        for namespace, found in other._mappings.values():
            self._mappings.setdefault(id(namespace), (namespace, {}))[1].update(found)
        self._sizes += other._sizes
        self._functions += other._functions
        self._cells += other._cells
        self._arrays += other._arrays
        self._files += other._files
        self._held += other._held

    def holds(self) -> bool:
        """Whether everything still is what it was. Some 50 ns a binding."""
        if self._ready is None:
            self._ready = self._compiled()
        return self._ready()

    def _compiled(self) -> Callable[[], bool]:
        """Return the look as one pass in C over all getters, and one over what is rare."""
        getters, objects, expected = self._getters()
        absent = [
            (namespace, frozenset(key for key, value in found.items() if value is MISSING))
            for namespace, found in self._mappings.values()
        ]
        absent = [(namespace, keys) for namespace, keys in absent if keys]
        spaces, sizes = [space for space, _ in self._sizes], [size for _, size in self._sizes]
        empty = [cell for cell, value in self._cells if value is MISSING]
        held: tuple[Changing, ...] = (*self._arrays, *self._files, *self._held)

        def look() -> bool:
            try:
                if not all(map(is_, chain.from_iterable(map(call, getters, objects)), expected)):
                    return False
            except (KeyError, AttributeError, ValueError):
                return False  # a name, or what a cell held, is gone
            if list(map(len, spaces)) != sizes:
                return False
            for namespace, keys in absent:
                if not namespace.keys().isdisjoint(keys):
                    return False
            if not (empty or held):
                return True
            return not (any(_held(cell) is not MISSING for cell in empty) or any(each.changed() for each in held))

        return look

    def _getters(self) -> tuple[list[Any], list[Any], list[object]]:
        getters: list[Any] = []
        objects: list[Any] = []
        expected: list[object] = []
        for namespace, found in self._mappings.values():
            keys = [key for key, value in found.items() if value is not MISSING]
            if keys:
                keys = keys * 2 if len(keys) == 1 else keys
                getters.append(itemgetter(*keys))
                objects.append(namespace)
                expected += [found[key] for key in keys]
        for function in {id(each): each for each in self._functions}.values():
            getters.append(_CODE)
            objects.append(function)
            expected += _CODE(function)
        for cell, value in self._cells:
            if value is not MISSING:
                getters.append(_CELL)
                objects.append(cell)
                expected += (value, value)
        return getters, objects, expected


def _held(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def owners(array: Any) -> Iterator[Any]:
    """Yield an array and what it is a view of, down to what owns the memory."""
    while array is not None:
        yield array
        array = array.base if hasattr(array, "flags") else getattr(array, "obj", None)


def is_writable(array: Any) -> bool:
    """Whether an array can be written to, by itself or by what it is a view of."""
    for owner in owners(array):
        if hasattr(owner, "flags"):
            if owner.flags.writeable:
                return True
        elif not isinstance(owner, bytes) and not (isinstance(owner, memoryview) and owner.readonly):
            return True  # a bytearray, a mapped file, another library's buffer
    return False


class _Array:
    """The contents of one array: over `bytes` they never change, else they are kept and compared (13 µs at 160 KB)."""

    __slots__ = ("_array", "_kept")

    def __init__(self, array: Any) -> None:
        self._array = array
        self._kept = None if isinstance(list(owners(array))[-1], bytes) else array.tobytes()

    def changed(self) -> bool:
        if is_writable(self._array):
            return True
        return self._kept is not None and self._array.tobytes() != self._kept


class _File:
    """One file that an op reads, by its contents; they are read again when its times, size or place change."""

    __slots__ = ("_name", "_settled", "_state", "digest", "error")

    def __init__(self, name: str) -> None:
        self._name = name
        self._settled = False
        self.digest = b""
        self.error: OSError | None = None
        try:
            self._state = _state(name)
            self.digest = self._read()
            self._settle(self._state)
        except OSError as error:
            self.error = error

    def _read(self) -> bytes:
        with open(self._name, "rb") as file:  # noqa: PTH123
            return _digest(file)

    def _settle(self, state: tuple[int, int, int, int, int]) -> None:
        self._settled = False
        self._state = state
        self._settled = time.time_ns() - max(state[3:]) > SETTLED_NS

    def changed(self) -> bool:
        try:
            state = _state(self._name)
            if self._settled and state == self._state:
                return False
            self._settled = False  # is read again until it is what it was
            if self._read() != self.digest:
                return True
            self._settle(state)
        except OSError:
            return True
        return False


def _state(name: str) -> tuple[int, int, int, int, int]:
    found = os.stat(name)  # noqa: PTH116
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(file: Any) -> bytes:
    state = blake2b(digest_size=16)
    while block := file.read(2**20):
        state.update(block)
    return state.digest()
