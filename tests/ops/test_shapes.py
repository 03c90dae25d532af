"""Errors of shape and parameter: each names op, slot, what was expected, and what came."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from whiteboard import ops
from whiteboard.errors import ParamError, ShapeError
from whiteboard.types import Shape


class Wrong(NamedTuple):
    """Sources or parameters that an op refuses, and what it says."""

    name: str
    shapes: tuple[Shape, ...]
    params: dict[str, Any]
    says: str


SHAPES = (
    Wrong("mul", ((3,),), {}, "expected 2 sources, got 1"),
    Wrong("exp", ((3,), (3,)), {}, "expected 1 source, got 2"),
    Wrong("sum_k", (), {}, "expected 1 source or more, got 0"),
    Wrong("mul", ((2, 3), (2,)), {}, r"source 1: expected a shape that broadcasts with \(2, 3\), got \(2,\)"),
    Wrong("where", ((3,), (1,), (4,)), {}, r"source 2: .* \(3,\), got \(4,\)"),
    Wrong("distance", ((), ()), {}, r"source 0: expected a vector \(d,\), got \(\)"),
    Wrong("distance", ((3,), (2,)), {}, r"source 1: expected the shape of source 0, \(3,\), got \(2,\)"),
    Wrong("vecdot", ((2, 3), (2, 3)), {}, r"source 0: expected a vector \(d,\)"),
    Wrong("matvec", ((2, 3), (2,)), {}, r"source 1: expected shape \(3,\), got \(2,\)"),
    Wrong("matvec", ((3,), (3,)), {}, r"source 0: expected shape \(i, j\), got \(3,\)"),
    Wrong("matmul", ((2, 3), (4, 2)), {}, r"source 1: expected shape \(3, j\), got \(4, 2\)"),
    Wrong("outer", ((2,), (2, 2)), {}, r"source 1: expected shape \(j,\), got \(2, 2\)"),
    Wrong("linear", ((), (2, 3), (2,)), {}, r"source 0: expected shape \(\.\.\., i\), got \(\)"),
    Wrong("linear", ((4, 3), (2, 3), (3,)), {}, r"source 2: expected shape \(2,\), got \(3,\)"),
    Wrong("linear_gemm", ((4, 3), (2, 4), (2,)), {}, r"source 1: expected shape \(o, 3\), got \(2, 4\)"),
    Wrong("einsum", ((2, 3), (2,)), {"subscripts": "ij,j->i"}, "source 1: expected size 3 for 'j' of 'j'"),
    Wrong("einsum", ((2,), (2,)), {"subscripts": "ij,j->i"}, "source 0: expected 2 dimensions for 'ij'"),
    Wrong("mean", ((0, 3),), {"axis": 0}, "source 0: expected at least one element along the reduced axes"),
    Wrong("max", ((2, 0),), {}, "at least one element"),
    Wrong("var", ((2,),), {"ddof": 2}, "more than 2 elements"),
    Wrong("concat", ((2, 3), (2, 2)), {}, r"source 1: expected the shape of source 0, \(2, 3\), but along axis 0"),
    Wrong("stack", ((2,), (3,)), {}, r"source 1: expected the shape of source 0, \(2,\)"),
    Wrong("broadcast_to", ((3,),), {"shape": (3, 2)}, r"source 0: expected a shape that broadcasts to \(3, 2\)"),
)

PARAMS = (
    Wrong("sum", ((2, 3),), {"axis": 2}, "'axis': expected an axis of 2 dimensions, got 2"),
    Wrong("sum", ((2, 3),), {"axis": (0, -2)}, "'axis': expected distinct axes"),
    Wrong("sum", ((2, 3),), {"axis": 0.5}, "'axis': expected an integer, got 0.5"),
    Wrong("softmax", ((),), {}, "an axis of 0 dimensions"),
    Wrong("var", ((4,),), {"ddof": -1}, "'ddof': expected an integer from 0, got -1"),
    Wrong("clip", ((3,),), {"lo": "a"}, "'lo': expected a number or None, got 'a'"),
    Wrong("clip", ((3,),), {"lo": 1, "hi": 0}, "expected lo ≤ hi, got 1.0 and 0.0"),
    Wrong("reshape", ((2, 3),), {"shape": (4, -1)}, "'shape': expected a shape for 6 elements"),
    Wrong("reshape", ((2, 3),), {"shape": (-1, -1)}, "for 6 elements"),
    Wrong("reshape", ((2, 3),), {"shape": "ab"}, "'shape': expected integers, got 'ab'"),
    Wrong("transpose", ((2, 3),), {"axes": (0, 0)}, "'axes': expected each of 2 axes once"),
    Wrong("take", ((3,),), {"indices": (0, 3)}, "'indices': expected indices of an axis of 3"),
    Wrong("take", ((3,),), {"indices": (0, -4)}, "indices of an axis of 3"),
    Wrong("take", ((3,),), {"indices": (0.5,)}, "'indices': expected an array of integers"),
    Wrong("take", ((3,),), {"indices": ((0,), (1, 2))}, "an array of integers"),
    Wrong("take", ((0,),), {"indices": (0,)}, "indices of an axis of 0"),
    Wrong(
        "gather", ((2, 3),), {"indices": (0, 1)}, r"'indices': expected the source's shape \(2, 3\), but along axis 0"
    ),
    Wrong("scatter", ((3,),), {"indices": (0, 1), "size": 4}, "'indices': expected 3 indices"),
    Wrong("scatter", ((3,),), {"indices": (0, 1, 4), "size": 4}, "indices of an axis of 4"),
    Wrong("scatter", ((3,),), {"indices": (0, 1, 2), "size": -1}, "'size': expected an integer from 0, got -1"),
    Wrong("einsum", ((2,),), {"subscripts": 3}, "'subscripts': expected a string"),
    Wrong("einsum", ((2,),), {"subscripts": "...i"}, "no ellipsis"),
    Wrong("einsum", ((2,),), {"subscripts": "i,i"}, "expected 1 terms"),
    Wrong("einsum", ((2,),), {"subscripts": "i->ij"}, "each subscript of y once, and in a source"),
    Wrong("einsum", ((2,),), {"subscripts": "i->ii"}, "each subscript of y once"),
)


@pytest.mark.parametrize("error", [ShapeError, ParamError])
def test_what_an_op_refuses_is_named(error: type[Exception]) -> None:
    """Op, slot or parameter, expected and got are in the message."""
    for wrong in SHAPES if error is ShapeError else PARAMS:
        spec = ops.get(wrong.name)
        with pytest.raises(error, match=f"op '{wrong.name}': .*{wrong.says}"):
            spec.shape(spec.name, wrong.shapes, spec.bind(wrong.params))


@pytest.mark.parametrize(
    ("name", "shapes", "params", "expected"),
    [
        ("mul", ((2, 1), (1, 3)), {}, (2, 3)),
        ("mul", ((), (0,)), {}, (0,)),
        ("sum", ((2, 3, 4),), {"axis": [0, -1]}, (3,)),
        ("sum", ((2, 3, 4),), {"axis": (), "keepdims": True}, (2, 3, 4)),
        ("sum", ((2, 3),), {"axis": np.int64(1), "keepdims": True}, (2, 1)),
        ("reshape", ((0, 4),), {"shape": (2, -1)}, (2, 0)),
        ("reshape", ((4,),), {"shape": np.array([2, 2])}, (2, 2)),
        ("take", ((3, 2),), {"indices": np.array([[0, 1]])}, (1, 2, 2)),
        ("stack", ((2, 3), (2, 3)), {"axis": -1}, (2, 3, 2)),
        ("einsum", ((2, 3), (3, 4)), {"subscripts": "ij,jk"}, (2, 4)),
        ("einsum", ((2, 3),), {"subscripts": "ba"}, (3, 2)),
    ],
)
def test_the_shape_of_y(name: str, shapes: tuple[Shape, ...], params: dict[str, Any], expected: Shape) -> None:
    """NumPy's rules, for lists, tuples, arrays and NumPy integers as parameters."""
    spec = ops.get(name)
    assert spec.shape(name, shapes, spec.bind(params)) == expected
