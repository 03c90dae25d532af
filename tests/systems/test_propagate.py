"""Bad jobs: each mistake in a job, and each wrong answer of an op, is an error that names where, expected and got."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import DtypeError, ShapeError, WhiteboardError
from whiteboard.ops import registry
from whiteboard.ops.spec import OpSpec


class Expect(NamedTuple):
    """A bad job over nodes 1, 2 (2,), 3 (3,), 4 () and 5 (2,) float32, its error, and the words that must be in it."""

    job: wb.Job
    error: type[WhiteboardError]
    words: tuple[str, ...]
    id: str


def job(op: str, *ids: int, **more: Any) -> wb.Job:
    """Return a job with an id of its own."""
    return wb.Job(op, ids, job_id="J7", **more)


EXPECTED = (
    Expect(job("mul", 1), ShapeError, ("op 'mul'", "job 'J7'", "expected 2 sources, got 1"), "arity"),
    Expect(job("tanh", 1, 2), ShapeError, ("op 'tanh'", "job 'J7'", "expected 1 source", "got 2"), "arity of one"),
    Expect(job("mul", 1, 3), ShapeError, ("op 'mul'", "job 'J7'", "source 1", "(2,)", "got (3,)"), "broadcast"),
    Expect(job("vecdot", 1, 4), ShapeError, ("op 'vecdot'", "job 'J7'", "source 1", "(2,)", "got ()"), "vectors"),
    Expect(
        job("mul", 1, 5),
        DtypeError,
        ("op 'mul'", "job 'J7'", "slot 1", "float64 as in slot 0", "got float32"),
        "dtypes",
    ),
    Expect(job("count", 1), ShapeError, ("op 'count'", "job 'J7'", "expected 1 gradients, got 2"), "vjp count"),
    Expect(job("shape", 1), ShapeError, ("op 'shape'", "job 'J7'", "vjp, slot 0", "(1, 2), got (1, 3)"), "vjp shape"),
    Expect(job("dtype", 1), DtypeError, ("op 'dtype'", "job 'J7'", "slot 0", "float64, got float32"), "vjp dtype"),
    Expect(job("spread", 1, 4), ShapeError, ("op 'spread'", "job 'J7'", "slot 1", "(1, 2), got (1,)"), "vjp broadcast"),
    Expect(job("y", 1), ShapeError, ("op 'y'", "job 'J7'", "forward", "(1, 2), got (1, 3)"), "forward shape"),
)


def wrong(name: str, forward: Any, vjp: Any, *, kind: Any = "general", arity: int = 1) -> None:
    """Register an op that does not do what it should."""
    spec = OpSpec(name, arity, kind, forward, vjp, lambda op, shapes, params: shapes[0], fingerprint=name.encode())
    registry._entries[name] = registry.Entry(spec, (forward, vjp), registry.OWN)


@pytest.fixture
def system(builtin_ops_only: None) -> Iterator[wb.System]:
    """Return a system with nodes of several shapes, beside ops that answer wrongly."""
    wrong("count", lambda xs, out: (xs[0], None), lambda saved, c, need: (c, c))
    wrong("shape", lambda xs, out: (xs[0], None), lambda saved, c, need: (np.ones((len(c), 3)),))
    wrong("dtype", lambda xs, out: (xs[0], None), lambda saved, c, need: (c.astype("f4"),))
    wrong("y", lambda xs, out: (np.ones((len(xs[0]), 3)), None), lambda saved, c, need: (c,))
    wrong(
        "spread",
        lambda xs, out: (xs[0] * xs[1], None),
        lambda saved, c, need: (c, c[:, 0]),
        kind="elementwise",
        arity=2,
    )
    with wb.open(":memory:") as board:
        made = board.system("s")
        made.add_nodes([1, 2], theta=np.ones((2, 2)))
        made.add_nodes([3], theta=np.ones((1, 3)))
        made.add_nodes([4], theta=np.ones(1))
        made.add_nodes([5], theta=np.ones((1, 2), np.float32))
        yield made


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.id)
def test_a_bad_job_is_named(system: wb.System, case: Expect) -> None:
    """The error has the right class, and op, job, slot, expected and got in its message."""
    with pytest.raises(case.error) as caught:
        system.process([case.job])
    assert all(word in str(caught.value) for word in case.words), str(caught.value)


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.id)
def test_a_bad_job_spoils_no_other(system: wb.System, case: Expect) -> None:
    """A good job beside a bad one is answered right afterwards, and its impulse is taken in once."""
    good = wb.Job("mul", (1, 2), residual=1.0)
    with pytest.raises(case.error):
        system.process([good, case.job])
    assert system.commit().changed == 5  # the nodes that were added: no impulse waits, so no rule is needed
    (result,) = system.process([good])
    assert result.y.tolist() == [1.0, 1.0]
    assert result.finite


def test_non_finite_results_are_kept_and_flagged(system: wb.System) -> None:
    """Infinity and NaN are results: they come back the same from the cache, and say that they are not finite."""
    system.write(1, theta=[0.0, 1e300])
    system.commit()
    jobs = [wb.Job("log", (1,)), wb.Job("mul", (1, 1)), wb.Job("tanh", (1,))]
    first, again = system.process(jobs), system.process(jobs)
    assert [result.finite for result in first] == [False, False, True]
    assert [result.hit for result in again] == ["memory"] * 3
    assert [r.y.tobytes() for r in first] == [r.y.tobytes() for r in again]
    assert [r.grads[0].tobytes() for r in first] == [r.grads[0].tobytes() for r in again]
