"""Conditions over the columns of a table: comparisons, and, or, not; read by Python's parser, and never run by it."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from whiteboard.errors import ParamError

LONGEST: Final = 1000
"""A condition has no more characters."""

Lookup: TypeAlias = Callable[[str], Any]
"""The value of a column in one row, None where it has none."""

_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXPECTED: Final = "expected columns, numbers and texts in comparisons, joined by and, or, not and parentheses"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, such as ``mach > 0.7 and not (y[0] < 1 or method == "fine")``.

    Attributes
    ----------
    text : str
    columns : frozenset of str
        Those that it names.
    """

    text: str
    columns: frozenset[str]
    _tree: ast.expr

    def holds(self, row: Lookup) -> bool:
        """Whether it holds of a row.

        Where a column has no value, neither < nor > holds, and nor does ``not`` of that.

        Raises
        ------
        ParamError
            Two values that cannot be compared, or that have no such element.
        """
        return _truth(self._tree, self, row) is True


def parse(text: Any) -> Condition:
    """Read a condition.

    Raises
    ------
    ParamError
        It is none; the message says where it goes wrong.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        msg = f"where: expected a text of at most {LONGEST} characters such as 'mach > 0.7', got {_short(text)}"
        raise ParamError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a text such as "\d" Python says something, where it has no place
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply, or holds an odd character"
        msg = f"where: {_short(text)} is no condition: {why}; {_EXPECTED}"
        raise ParamError(msg) from None
    _check_truth(tree, text)
    return Condition(text, frozenset(_columns(tree)), tree)


def _check_truth(node: ast.expr, text: str) -> None:
    match node:
        case ast.BoolOp(values=values):
            for each in values:
                _check_truth(each, text)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check_truth(operand, text)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            for each in (left, *others):
                _check_value(each, text)
        case ast.Name() | ast.Attribute() | ast.Subscript():
            _check_value(node, text)
        case _:
            _refuse(node, text)


def _check_value(node: ast.expr, text: str) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as number)) if (
            not isinstance(number, bool)
        ):
            pass
        case ast.Name() | ast.Attribute(value=ast.Name(id="params")):
            pass
        case ast.Subscript(value=ast.Name(), slice=index) if _index(index) is not None:
            pass
        case _:
            _refuse(node, text)


def _refuse(node: ast.expr, text: str) -> NoReturn:
    part = ast.get_source_segment(text.strip(), node) or text
    msg = f"where: {_short(part)} in {_short(text)} is not taken: {_EXPECTED}"
    raise ParamError(msg)


def _columns(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield f"params.{node.attr}"
    elif isinstance(node, ast.Name):
        yield node.id
    else:
        for each in ast.iter_child_nodes(node):
            yield from _columns(each)


def _index(node: ast.expr) -> tuple[int, ...] | None:
    """The place of an element: ``[0]``, ``[-1]``, ``[0, 1]``; None for anything else."""
    match node:
        case ast.Constant(value=int() as at) if not isinstance(at, bool):
            return (at,)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as at)) if not isinstance(at, bool):
            return (-at,)
        case ast.Tuple(elts=elements):
            parts = [_index(each) for each in elements if not isinstance(each, ast.Tuple)]
            flat = tuple(part[0] for part in parts if part is not None)
            return flat if len(flat) == len(elements) else None
        case _:
            return None


def _truth(node: ast.expr, of: Condition, row: Lookup) -> bool | None:
    """Whether a part of a condition holds; None where a column that decides it has no value."""
    match node:
        case ast.BoolOp(op=op, values=values):
            decides = isinstance(op, ast.Or)
            found = []
            for each in values:
                found.append(_truth(each, of, row))
                if found[-1] is decides:
                    return decides
            return None if None in found else not decides
        case ast.UnaryOp(operand=operand):
            held = _truth(operand, of, row)
            return None if held is None else not held
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(each, of, row) for each in (left, *others)]
            pairs = [_compared(op, a, b, of) for op, a, b in zip(ops, sides, sides[1:], strict=False)]
            return False if False in pairs else None if None in pairs else True
        case _:
            return _flag(_value(node, of, row), of)


def _value(node: ast.expr, of: Condition, row: Lookup) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=op, operand=ast.Constant(value=int() | float() as number)):
            return -number if isinstance(op, ast.USub) else number
        case ast.Attribute(attr=name):
            return row(f"params.{name}")
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return _element(name, row(name), _index(index) or (), of)
        case _:
            assert isinstance(node, ast.Name)
            return row(node.id)


def _element(name: str, value: Any, index: tuple[int, ...], of: Condition) -> Any:
    if value is None:
        return None
    array = np.asarray(value)
    if len(index) == array.ndim and all(-n <= at < n for at, n in zip(index, array.shape, strict=True)):
        return array[index].item()
    place = ", ".join(map(str, index))
    msg = f"where: {_short(of.text)}: {name} is of shape {array.shape}, and has no element [{place}]"
    raise ParamError(msg)


def _flag(value: Any, of: Condition) -> bool | None:
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    msg = f"where: {_short(of.text)}: {_short(value)} is neither true nor false: compare it with something"
    raise ParamError(msg)


def _compared(op: ast.cmpop, a: Any, b: Any, of: Condition) -> bool | None:
    for side in (a, b):
        if isinstance(side, np.ndarray) and side.ndim:
            msg = f"where: {_short(of.text)}: an array of shape {side.shape} is compared element by element, as in y[0]"
            raise ParamError(msg)
    if not isinstance(op, ast.Eq | ast.NotEq) and (a is None or b is None):
        return None
    try:
        return bool(_COMPARE[type(op)](a, b))
    except (TypeError, ValueError):
        msg = f"where: {_short(of.text)}: {_short(a)} and {_short(b)} cannot be compared"
        raise ParamError(msg) from None


def _short(value: object) -> str:
    """A value in a message: its beginning, where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"an {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
