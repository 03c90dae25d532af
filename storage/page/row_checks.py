"""What the values of a row may be: of what comes from elsewhere, and of what a store takes from its own users.

SQLite keeps any value in any column, so a row that others may have written is looked at where it is read, by `row`. The
other functions say more of what comes from archives and from users; they raise `ValueError`, with the field and its
value, and return nothing else than what they were given.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Final, NoReturn, get_args

from whiteboard.errors import CorruptPackageError

MOST_VALUES: Final = 2**18
"""A text of JSON with more values than this is not read: as objects they would be many times their bytes."""

MOST_ROWS: Final = 2**21
"""No page has more rows: neither one of packages, at 512 bytes each at least, nor one of 32 MiB of nodes."""

_DIGEST = re.compile("[0-9a-f]{32}")
_MOST: Final = {("page", "n"): MOST_ROWS}


class Table:
    """What the values of a table's columns are.

    Parameters
    ----------
    name : str
    columns : type or UnionType
        The type of a column's values, with None where there may be none.

    Attributes
    ----------
    kinds : dict
        By name of a column: the type of its values, whether there may be none, and the largest.
    """

    __slots__ = ("kinds", "name")

    def __init__(self, name: str, /, **columns: type | UnionType) -> None:
        self.name = name
        self.kinds: dict[str, tuple[type, bool, int]] = {}
        for column, given in columns.items():
            kind, *optional = get_args(given) or (given,)
            self.kinds[column] = kind, bool(optional), _MOST.get((name, column), 2**63 - 1)


def row(table: Table, found: Any, of: str = "") -> Any:
    """A row, or some columns of one, once each value is of its column's type; all numbers count something, from 0.

    Parameters
    ----------
    table : Table
        In `tables`; columns that are not its own are left to whoever asked for them.
    found : tuple
        With its columns' names in ``_fields``, and its values by them; the message names it by the first value.
    of : str
        What the message says first.

    Raises
    ------
    CorruptPackageError
    """
    kinds = table.kinds
    for name, value in zip(found._fields, found, strict=True):
        if name not in kinds:
            continue
        kind, optional, most = kinds[name]
        if value is None and optional:
            continue
        if type(value) is not kind or not _fits(value, most):
            message = (
                f"{of}row {reprlib.repr(found[0])} of {table.name} is damaged: its {name} is {reprlib.repr(value)}; "
                "look with `whiteboard verify`"
            )
            raise CorruptPackageError(message)
    return found


def rows(table: Table, found: Iterable[Any], of: str = "") -> Iterator[Any]:
    """The same of many."""
    return (row(table, each, of) for each in found)


def count(value: object) -> int:
    """A number from a row that counts something; 0 for a value that is none."""
    return value if type(value) is int and 0 <= value <= 2**53 else 0


def _fits(value: Any, most: int) -> bool:
    return is_text(value) if isinstance(value, str) else not isinstance(value, int) or 0 <= value <= most


def is_text(value: str) -> bool:
    """Whether it was in UTF-8: what was not came as lone surrogates."""
    return value.isascii() or not any("\ud800" <= mark <= "\udfff" for mark in value)


def read_json(text: bytes | str) -> Any:
    """What a text of JSON says.

    Raises
    ------
    ValueError
        It is none, in UTF-8, or one of more than `MOST_VALUES` values, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if sum(text.count(mark) for mark in ",[{") > MOST_VALUES:
        message = f"a text of JSON has more than {MOST_VALUES} values"
        raise ValueError(message)
    try:
        return json.loads(text)
    except RecursionError:
        message = "a text of JSON is nested too deeply"
        raise ValueError(message) from None


def system(name: object, uuid: object, spec: object, origin: object = None) -> tuple[str, str, str | None]:
    """What a system is called and was forked from, and its specification: JSON, an object of what it can hold."""
    if not (isinstance(name, str) and name and name.isprintable()):
        _refuse("name", name)
    if not (isinstance(uuid, str) and uuid and uuid.isprintable()):
        _refuse("uuid", uuid)
    if spec is not None:
        if not isinstance(spec, str):
            _refuse("spec", spec)
        said = read_json(spec)
        if not isinstance(said, dict) or not spec.isascii():
            _refuse("spec", spec)
        json.dumps(said, allow_nan=False)
    match origin:
        case None | (str(), int()):
            pass
        case _:
            _refuse("origin", origin)
    return name, uuid, spec


def commit(values: Mapping[str, Any]) -> None:
    """The row of a commit: all that its seal covers."""
    number, parent, keyframe, digest = (values[name] for name in ("number", "parent", "keyframe", "digest"))
    for name in ("number", "changed", "rows"):
        _count(name, values[name])
    if parent != (number - 1 if number else None) or isinstance(parent, bool | float):
        _refuse("parent", parent)
    if type(keyframe) is not int or not (keyframe == 1 or (keyframe == 0 and number)):
        _refuse("keyframe", keyframe)
    for name in ("stress", "residual_norm"):
        if values[name] is not None and (type(values[name]) is not float or math.isnan(values[name])):
            _refuse(name, values[name])
    if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        _refuse("digest", digest)


def page(op: object, n: object, cost_ns: object, lineage: object) -> None:
    """What the header of a page of packages says of them."""
    if not isinstance(op, str) or not op:
        _refuse("op", op)
    op.encode()
    _count("n", n)
    _count("cost_ns", cost_ns)
    if lineage is not None and not (isinstance(lineage, str) and isinstance(read_json(lineage), dict)):
        _refuse("lineage", lineage)


def _count(name: str, value: object) -> None:
    """From 0 to the most that SQLite holds."""
    if type(value) is not int or not 0 <= value < 2**63:
        _refuse(name, value)


def _refuse(name: str, value: object) -> NoReturn:
    message = f"{name} is {reprlib.repr(value)}"
    raise ValueError(message)
