"""What is said of a word of `gradient=` that is none, and of a function that does not return what its word says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import DtypeError, MissingExtraError, OpCheckError, ParamError, ShapeError, WhiteboardError
from whiteboard.ops.spec import Example


def forward(x: Any, a: Any) -> Any:
    """Return x · Σa."""
    return x * np.sum(a)


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


class Wrong(NamedTuple):
    """What a function returns, the error, and what it says."""

    word: str
    returns: Callable[[Any, Any], Any]
    error: type[WhiteboardError]
    says: str


G, A = np.ones(3), np.ones(2)
WRONG = [
    Wrong("returned", lambda x, a: 1.0, ShapeError, r"expected the function to return \(y, gradients\), got float"),
    Wrong("returned", lambda x, a: x, ShapeError, r"\(y, gradients\), got ndarray of shape \(3,\)"),
    Wrong("returned", lambda x, a: (1.0, G, A), ShapeError, r"\(y, gradients\), got 3 values"),
    Wrong(
        "returned", lambda x, a: (1.0, G), ShapeError, r"one gradient for each of 2 sources, got ndarray of shape \(3"
    ),
    Wrong("returned", lambda x, a: (1.0, None), ShapeError, "one gradient for each of 2 sources, got NoneType"),
    Wrong("returned", lambda x, a: (1.0, (G,)), ShapeError, "one gradient for each of 2 sources, got 1"),
    Wrong("returned", lambda x, a: (1.0, (G, G)), ShapeError, r"source 1: expected shape \(2,\), got \(3,\)"),
    Wrong("returned", lambda x, a: (1.0, (1.0, A)), ShapeError, r"source 0: expected shape \(3,\), got \(\)"),
    Wrong(
        "returned", lambda x, a: (1.0, (G, A.astype("f4"))), DtypeError, "source 1: expected dtype float64, got float32"
    ),
    Wrong(
        "returned", lambda x, a: (1.0, (G, A.astype(int))), DtypeError, "source 1: expected dtype float64, got int64"
    ),
    Wrong("returned", lambda x, a: (1.0, (G, [1.0, 2.0])), ShapeError, "source 1: expected an array, got list"),
    Wrong(
        "returned", lambda x, a: (x, (G, A)), ShapeError, r"forward: expected shape \(\) of an op of kind 'scalar', got"
    ),
    Wrong("returned", lambda x, a: (None, (G, A)), ShapeError, "forward: expected an array, got NoneType"),
    Wrong(
        "jacobian", lambda x, a: (x, (np.eye(3), A)), ShapeError, r"Jacobian of source 1: expected shape \(3, 2\), got"
    ),
    Wrong(
        "jacobian", lambda x, a: (x, (G, None)), ShapeError, r"Jacobian of source 0: expected shape \(3, 3\), got \(3,"
    ),
    Wrong("jacobian", lambda x, a: (x, (np.eye(3),)), ShapeError, "one Jacobian for each of 2 sources, got 1"),
    Wrong(
        "jacobian", lambda x, a: (x, (np.eye(3, dtype="f4"), None)), DtypeError, "expected dtype float64, got float32"
    ),
    Wrong("jacobian", lambda x, a: x, ShapeError, r"\(y, Jacobians\), got ndarray"),
    Wrong("pullback", lambda x, a: (x, G), ParamError, "expected the pullback to be a function, got ndarray"),
    Wrong("pullback", lambda x, a: x, ShapeError, r"\(y, pullback\), got ndarray"),
    Wrong("pullback", lambda x, a: (x, lambda c: (c,)), ShapeError, "one gradient for each of 2 sources, got 1"),
    Wrong("pullback", lambda x, a: (x, lambda c: (c, c)), ShapeError, r"source 1: expected shape \(2,\), got \(3,\)"),
    Wrong("pullback", lambda x, a: (x.astype("f4"), lambda c: (c, c)), DtypeError, "forward: expected dtype float64"),
    Wrong(
        "returned", lambda x, a: (1.0, (np.ma.masked_array(G), A)), DtypeError, "source 0: a masked array is refused"
    ),
    Wrong("pullback", lambda x, a: (x, lambda c: (np.ma.masked_array(c), A)), DtypeError, "source 0: a masked array"),
    Wrong("none", lambda x, a: np.ma.masked_array(x), DtypeError, "forward: a masked array is refused"),
    Wrong("none", lambda x, a: "y", ShapeError, "forward: expected an array, got str"),
    Wrong("none", lambda x, a: x.astype("f4"), DtypeError, "forward: expected dtype float64, got float32"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case.word}: {case.says}")
def test_wrong_returns_say_expected_and_got(board: wb.Board, case: Wrong) -> None:
    """The error names the op and the job, wherever it was asked from, and nothing is stored."""
    ops.op("wrong", gradient=case.word)(  # type: ignore[call-overload]
        lambda x, a: case.returns(x, a) if x[0] == 7 else RIGHT[case.word](x, a)
    )
    x = np.ones((3, 3))
    x[2, 0] = 7
    with pytest.warns(wb.UncachedWarning), pytest.raises(wb.JobsError, match=case.says) as failed:
        board.call_many("wrong", x, np.ones((3, 2)))
    assert str(failed.value).startswith("op 'wrong': 1 of 3 jobs failed: job 2: ")
    assert isinstance(failed.value.errors[2], case.error)
    with pytest.raises(case.error, match=case.says) as caught:
        board.call("wrong", x[2], np.ones(2))
    assert "(job" not in str(caught.value)
    system = board.system("s")
    system.add_nodes([0, 1, 2], theta=x)
    system.add_nodes([3], theta=np.ones((1, 2)))
    system.commit()
    jobs = [wb.Job("wrong", (i, 3), job_id=f"job {i}") for i in range(3)]
    with pytest.raises(wb.JobsError, match=f"op 'wrong', job 'job 2': .*{case.says}"):
        system.process(jobs)
    assert board.stats()["puts"] == 0


RIGHT: dict[str, Callable[..., Any]] = {
    "returned": lambda x, a: (1.0, (x, a)),
    "jacobian": lambda x, a: (x, (np.eye(3), None)),
    "pullback": lambda x, a: (x, lambda c: (c, None)),
    "none": lambda x, a: x,
}


WRONG_GRADIENTS: dict[str, Callable[..., Any]] = {
    "returned": lambda x: (np.sum(x * x), 3 * x),
    "jacobian": lambda x: (x * x, 3 * np.diag(x)),
    "pullback": lambda x: (x * x, lambda c: 3 * x * c),
}


@pytest.mark.parametrize("word", WRONG_GRADIENTS)
def test_a_wrong_gradient_is_found(word: str) -> None:
    """`ops.check` names source, job and element of what differences do not say."""
    ops.op(word, gradient=word)(WRONG_GRADIENTS[word])  # type: ignore[call-overload]
    with pytest.raises(OpCheckError, match=r"the gradient of source 0 at element \(0,\): differences say"):
        ops.check(word, [Example(((3,),))])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"gradient": "adjoint"}, "gradient: expected one of 'autograd', 'returned', .*'none', got 'adjoint'"),
        ({"gradient": None}, "gradient: expected one of"),
        ({"gradient": ["none"]}, "gradient: expected one of"),
        ({"gradient": "vjp"}, "gradient: expected one of"),
        ({"gradient": "returned", "vjp": forward}, "give vjp= or gradient=, not both"),
        ({"gradient": "returned", "kind": "elementwise"}, "gradient='returned': expected kind 'general' or 'scalar'"),
        ({"gradient": "jacobian", "kind": "elementwise"}, "gradient='jacobian': expected kind 'general' or 'scalar'"),
    ],
)
def test_a_word_that_is_none_is_refused(given: dict[str, Any], text: str) -> None:
    """The error says which words there are, and nothing is registered."""
    before = ops.names()
    with pytest.raises(ParamError, match=f"op 'f': {text}"):
        ops.op("f", **given)(forward)
    assert ops.names() == before


@pytest.mark.parametrize("word", ["jax", "torch"])
def test_a_missing_library_is_named(board: wb.Board, monkeypatch: pytest.MonkeyPatch, word: Any) -> None:
    """The error says which command installs it."""
    monkeypatch.setitem(sys.modules, word, None)
    ops.op("f", gradient=word)(forward)
    with pytest.raises(
        MissingExtraError, match=rf"op 'f': gradient='{word}' needs {word}: pip install 'whiteboard\[{word}\]"
    ):
        board.call("f", [1.0], [1.0])
