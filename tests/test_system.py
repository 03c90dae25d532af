"""Systems: impulses in, versions out, the same bits whatever the way, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whiteboard as wb
from whiteboard.errors import (
    ConflictError,
    DtypeError,
    DuplicateNodeError,
    NonFiniteError,
    ParamError,
    ShapeError,
    SpecError,
    StaleImpulseError,
    UnknownCommitError,
    UnknownNodeError,
    UnknownOpError,
    WhiteboardError,
)

N = 9


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


def filled(board: wb.Board, name: str = "s", seed: int = 0) -> wb.System:
    """Return a new system of N nodes with theta (3,) and p (2,); the last node is fixed."""
    rng = np.random.default_rng(seed)
    system = board.system(name)
    system.add_nodes(range(N), theta=rng.normal(size=(N, 3)), p=rng.normal(size=(N, 2)), fixed=np.arange(N) == N - 1)
    return system


def edges(seed: int = 1, m: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return random edges and lengths."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(N, 2, replace=False) for _ in range(m)])
    return pairs, rng.uniform(0.5, 2, m)


def test_versions_count_the_commits_that_change_bytes(board: wb.Board) -> None:
    """A node's version goes up by one at each commit that changes it, and only then."""
    system = filled(board)
    assert system.head is None
    first = system.commit()
    assert (first.id, first.parent, first.changed, first.stress) == (0, None, N, None)
    system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
    second = system.commit(wb.rules.StressDescent(0.5))
    assert (second.id, second.parent, second.changed) == (1, 0, 2)
    assert [system.nodes[i].version for i in range(N)] == [1, 1] + [0] * (N - 2)
    assert system.commit().changed == 0
    assert [commit.id for commit in system.history()] == [0, 1, 2]


def test_impulses_are_minus_scale_times_the_pulled_residual(board: wb.Board) -> None:
    """A rule gets −scale · Jᵀ · residual for each source, for each kind of op and residual."""
    seen: dict[str, Any] = {}

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen["sums"] = sums
        return rows

    system = filled(board)
    a, b = (np.asarray(system.nodes[i].theta) for i in (0, 1))
    r = np.array([0.5, -1.0, 2.0])
    cases = [
        (wb.Job("mul", (0, 1), residual=r, scale=2.0), -2 * r * b, -2 * r * a),
        (wb.Job("mul", (0, 1), residual=3.0), -3 * b, -3 * a),
        (wb.Job("mul", (0, 1), target=r), -(a * b - r) * b, -(a * b - r) * a),
        (wb.Job("vecdot", (0, 1), target=0.25), -(a @ b - 0.25) * b, -(a @ b - 0.25) * a),
        (wb.Job("tanh", (0,), residual=r, scale=0.1), -0.1 * r * (1 - np.tanh(a) ** 2), None),
    ]
    for job, on_a, on_b in cases:
        system.process([job])
        system.commit(spy)
        got = seen["sums"]
        np.testing.assert_allclose(got.vector[0], on_a, rtol=1e-12)
        if on_b is not None:
            np.testing.assert_allclose(got.vector[1], on_b, rtol=1e-12)
        assert got.weight.tolist() == [job.scale] * len(got.weight)


def test_a_general_op_pulls_a_residual_that_is_not_constant(board: wb.Board) -> None:
    """A matvec with a residual vector gives Jᵀ · residual, cached under a key with the cotangent."""
    seen: list[np.ndarray] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums.vector)
        return rows

    rng = np.random.default_rng(0)
    matrix, x, r = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 3)), np.array([0.5, -2.0])
    system = board.system("s")
    system.add_nodes([0], theta=matrix)
    system.add_nodes([1], theta=x)
    for hits in (0, 1):
        seen.clear()
        before = board.stats()["hits_memory"]
        (result,) = system.process([wb.Job("matvec", (0, 1), residual=r)])
        assert board.stats()["hits_memory"] - before == hits
        np.testing.assert_allclose(result.y, matrix[0] @ x[0])
        np.testing.assert_allclose(result.grads[1], matrix[0].sum(0))
        system.commit(spy)
        np.testing.assert_allclose(seen[0][0], -np.outer(r, x[0]))
        np.testing.assert_allclose(seen[1][0], -matrix[0].T @ r)


def test_weight_inv_length_divides_by_the_distance_to_the_out_node(board: wb.Board) -> None:
    """The weight of an impulse is scale / ‖p_src − p_out‖, slot by slot."""
    seen: list[Any] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums)
        return rows

    system = filled(board)
    p = [np.asarray(system.nodes[i].p) for i in range(3)]
    system.process([wb.Job("mul", (0, 1), 2, residual=1.0, scale=2.0, weight="inv_length")])
    system.commit(spy)
    assert seen[0].weight == pytest.approx([2 / np.linalg.norm(p[i] - p[2]) for i in (0, 1)])


def test_a_weight_is_floored_or_a_function_of_both_nodes(board: wb.Board) -> None:
    """`InvLength` takes no length below its floor; a function gets the source and the out node, None where none is."""
    seen: list[Any] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums.weight.tolist())
        return rows

    def stiffness(source: Any, out: Any) -> float:
        return 10.0 if out is None else 10.0 * source.id + out.id

    system = filled(board)
    far = np.linalg.norm(np.asarray(system.nodes[0].p) - np.asarray(system.nodes[2].p))
    jobs = [
        wb.Job("mul", (0, 2), 2, residual=1.0, scale=2.0, weight=wb.InvLength(floor=0.25)),
        wb.Job("mul", (0, 2), 1, residual=1.0, scale=2.0, weight=stiffness),
        wb.Job("mul", (0, 2), residual=1.0, scale=2.0, weight=stiffness),
    ]
    for job in jobs:
        system.process([job])
        system.commit(spy)
    assert seen == [pytest.approx([2 / far, 8]), [2.0, 42.0], [20.0, 20.0]]


def test_an_op_of_one_source_takes_the_stack_of_all(board: wb.Board) -> None:
    """With `stack` the op gets (k, …), each source its own gradient and impulse, and the result is found again."""
    system = filled(board)
    before = [np.asarray(system.nodes[i].theta) for i in range(N)]
    total = wb.Job("sum", (0, 1, 2), residual=2.0, stack=True)
    rows = wb.Job("sum", (3, 4), residual=[1.0, 2.0, 3.0], stack=True, params={"axis": 0})
    squares = wb.JobBatch("square", [(5, 6), (6, 7)], residual=np.arange(12.0).reshape(2, 2, 3), stack=True)
    first, second = system.process([total, rows])
    assert first.y == np.stack(before[:3]).sum()
    assert second.y.tolist() == (before[3] + before[4]).tolist()
    assert [len(result.grads) for result in (first, second)] == [3, 2]
    assert all((grad == 1).all() and grad.shape == (3,) for grad in (*first.grads, *second.grads))
    assert (first.src_ids, first.versions) == ((0, 1, 2), (0, 0, 0))
    both = system.process(squares)
    np.testing.assert_array_equal(both.grads[1], [2 * before[6], 2 * before[7]])
    assert [result.hit for result in system.process([total, rows])] == ["memory", "memory"]
    assert board.explain(total, system).hit
    system.discard()
    system.process([total, rows])
    system.process(squares)
    system.commit(lambda rows, sums: rows + sums.vector)
    after = [np.asarray(system.nodes[i].theta) for i in range(N)]
    moved = [*[np.full(3, -2.0)] * 3, *[np.array([-1.0, -2.0, -3.0])] * 2]
    for i, move in enumerate(moved):
        np.testing.assert_allclose(after[i] - before[i], move)
    np.testing.assert_allclose(after[6] - before[6], -2 * before[6] * ([3, 4, 5] + np.array([6, 7, 8])))


def test_a_fixed_node_may_lie_where_the_out_node_does(board: wb.Board) -> None:
    """A weight that is infinite is no error where no impulse has it."""
    system = filled(board)
    system.process([wb.Job("mul", (0, N - 1), N - 1, residual=1.0, weight="inv_length")])
    assert system.waiting == 1


def test_a_residual_of_one_number_fits_a_y_that_is_one(board: wb.Board) -> None:
    """Residual and target of shape (1,) are those of shape () where y has shape (): the same bits."""
    digests: list[str] = []
    for value in (3.0, [3.0], np.array([3.0])):
        system = filled(board, f"s{len(digests)}")
        system.process([wb.Job("distance", (0, 1), residual=value, attr="p"), wb.Job("vecdot", (2, 3), target=value)])
        digests.append(system.commit(lambda rows, sums: rows + sums.vector).digest)
    assert len(set(digests)) == 1


def test_fixed_nodes_take_no_impulses(board: wb.Board) -> None:
    """A fixed node is read by jobs and never moved."""
    system = filled(board)
    system.process([wb.Job("distance", (0, N - 1), target=9.0, attr="p")])
    system.impulse(N - 1, 0, "mul", np.ones(3))
    system.commit(wb.rules.StressDescent(0.5))
    assert (system.nodes[0].version, system.nodes[N - 1].version) == (1, 0)


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(40)), st.lists(st.integers(0, 40), max_size=4), st.sampled_from([1, 3, 1024]), st.booleans()
)
def test_one_digest_for_any_order_split_bin_and_tier(
    order: list[int], cuts: list[int], bin_jobs: int, memory: bool
) -> None:
    """Order and split of the jobs, bin size, memory tier, and batch or list leave the digest as it is."""
    pairs, lengths = edges()
    scale = 1 / lengths**2
    with wb.open(":memory:") as plain:
        reference = filled(plain)
        for _ in range(3):
            reference.process(wb.JobBatch("distance", pairs, target=lengths, scale=scale, attr="p"))
            reference.commit(wb.rules.StressDescent(0.9))
    with wb.open(":memory:", memory_bytes=10**6 if memory else 0, bin_jobs=bin_jobs) as board:
        system = filled(board)
        for _ in range(3):
            for rows in np.split(np.array(order), sorted(cuts)):
                system.process(
                    [wb.Job("distance", pairs[i], target=lengths[i], scale=scale[i], attr="p") for i in rows]
                )
            commit = system.commit(wb.rules.StressDescent(0.9))
        assert reference.head == commit
        assert system.digest() == commit.digest


@pytest.mark.parametrize("where", ["store.db", ":memory:"])
def test_history_and_past_states_are_kept(where: str, tmp_path: Path) -> None:
    """Every commit can be read again, with its digest, and an unknown one is named."""
    pairs, lengths = edges()
    with wb.open(where if where == ":memory:" else tmp_path / where) as board:
        system = filled(board)
        commits = [system.commit()]
        for _ in range(5):
            system.process(wb.JobBatch("distance", pairs[:7], target=lengths[:7], attr="p"))
            commits.append(system.commit(wb.rules.StressDescent(0.4)))
        assert system.history() == commits
        for commit in commits:
            past = system.at(commit.id)
            assert (past.digest(), past.commit) == (commit.digest, commit)
        with pytest.raises(UnknownCommitError, match="99"):
            system.at(99)


def test_a_system_resumes_at_its_last_commit(tmp_path: Path) -> None:
    """Closed and opened again, a system has its nodes, versions, digest and history; what was not committed is gone."""
    path = tmp_path / "store.db"
    with wb.open(path) as board:
        system = filled(board)
        system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        commit = system.commit(wb.rules.StressDescent(0.5))
        kept = [system.nodes[i] for i in range(N)]
        system.add_nodes([100], theta=np.ones((1, 3)))
    with wb.open(path) as board:
        system = board.system("s")
        assert (system.head, system.digest(), list(system.nodes)) == (commit, commit.digest, list(range(N)))
        for before in kept:
            now = system.nodes[before.id]
            assert (now.version, now.fixed) == (before.version, before.fixed)
            assert np.asarray(now.theta).tobytes() == np.asarray(before.theta).tobytes()
            assert np.asarray(now.p).tobytes() == np.asarray(before.p).tobytes()


def test_a_system_is_written_with_its_first_commit(tmp_path: Path) -> None:
    """A system that was opened and never committed leaves nothing behind."""
    with wb.open(tmp_path / "store.db") as board:
        filled(board)
        assert board.systems() == []
        assert board.system("s").history() == []


def test_a_rule_that_fails_changes_nothing(board: wb.Board) -> None:
    """A rule with a non-finite, misshapen or failing result leaves state, impulses and history as they were."""
    system = filled(board)
    system.commit()
    before = system.digest()
    system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda rows, sums: rows * np.nan, NonFiniteError, "the new p of node 0, 1 is not finite"),
        (lambda rows, sums: rows[:1], ShapeError, r"expected float64 of shape \(2, 2\), got float64 of shape \(1, 2\)"),
        (lambda rows, sums: rows.astype("f4"), ShapeError, "got float32"),
        (lambda rows, sums: 1 / 0, ZeroDivisionError, "division"),
        (lambda rows, sums: rows.sort() or rows, ValueError, "read-only"),
        (None, ParamError, "2 impulses wait, so a rule is needed"),
    ]
    for rule, error, says in cases:
        with pytest.raises(error, match=says):
            system.commit(rule)
        assert (system.digest(), len(system.history())) == (before, 1)
    assert system.commit(wb.rules.StressDescent(0.5)).changed == 2


REFUSED: dict[str, tuple[wb.Job, type[WhiteboardError], str]] = {
    "op": (wb.Job("nope", (0, 1)), UnknownOpError, "nope"),
    "node": (wb.Job("mul", (0, 77), job_id="j"), UnknownNodeError, "op 'mul', job 'j', slot 1: no node 77"),
    "out": (wb.Job("mul", (0, 1), 77, job_id="j"), UnknownNodeError, "job 'j', out_id: no node 77"),
    "attr": (wb.Job("mul", (0, 50), attr="p", job_id="j"), UnknownNodeError, "slot 1: node 50 has no 'p'"),
    "arity": (wb.Job("mul", (0,), job_id="j"), ShapeError, "job 'j'.*expected 2 sources, got 1"),
    "shape": (wb.Job("mul", (0, 50), job_id="j"), ShapeError, "op 'mul', job 'j'"),
    "dtype": (
        wb.Job("mul", (0, 51), job_id="j"),
        DtypeError,
        "slot 1: expected dtype float64 as in slot 0, got float32",
    ),
    "param": (wb.Job("mul", (0, 1), params={"axis": 0}, job_id="j"), ParamError, "job 'j'.*'axis'"),
    "residual": (wb.Job("mul", (0, 1), residual=[1.0, 2.0], job_id="j"), ShapeError, "job 'j': residual: expected"),
    "nan": (
        wb.Job("mul", (0, 1), residual=np.nan, job_id="j"),
        NonFiniteError,
        "job 'j', slot 0.*node 0 is not finite",
    ),
    "weight": (wb.Job("mul", (0, 1), residual=1.0, weight="inv_length", job_id="j"), ParamError, "needs out_ids"),
    "coincident": (
        wb.Job("mul", (0, 2), 2, residual=1.0, weight="inv_length", job_id="j"),
        NonFiniteError,
        r"job 'j', slot 1: weight 'inv_length': nodes 2 and 2 lie at one point: give InvLength\(floor=…\), or move one",
    ),
    "stack of a binary": (
        wb.Job("mul", (0, 1), stack=True, job_id="j"),
        ParamError,
        "job 'j'.*stack: expected an op of one source, this one takes 2 sources as they are",
    ),
    "stack of any": (wb.Job("sum_k", (0, 1), stack=True, job_id="j"), ParamError, "takes any number of sources"),
    "stack of shapes": (
        wb.Job("sum", (0, 50), stack=True, job_id="j"),
        ShapeError,
        r"job 'j'.*slot 1: expected shape \(3,\) as in slot 0 to stack, got \(2,\)",
    ),
    "stack of nothing": (wb.Job("sum", (), stack=True, job_id="j"), ShapeError, "job 'j'.*at least one source"),
    "weight of text": (
        wb.Job("mul", (0, 1), 2, residual=1.0, weight=lambda source, out: "a", job_id="j"),  # type: ignore[arg-type, return-value]
        ParamError,
        "job 'j', slot 0: weight of node 0 to 2: expected a number, got <U1",
    ),
    "weights": (
        wb.Job("mul", (0, 1), residual=1.0, weight=lambda source, out: source.theta, job_id="j"),
        ParamError,
        r"slot 0: weight of node 0 to None: expected a number, got float64 of shape \(3,\)",
    ),
    "infinite weight": (
        wb.Job("mul", (0, 1), 2, residual=1.0, weight=lambda source, out: np.inf, job_id="j"),
        NonFiniteError,
        "job 'j', slot 0: the impulse on node 0 is not finite: its weight to node 2 is inf, at a scale of 1.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_bad_job_is_named_and_leaves_no_impulse(
    board: wb.Board, case: tuple[wb.Job, type[WhiteboardError], str]
) -> None:
    """The error of a bad job names op, job and slot, and the good jobs of its call leave no impulse either."""
    job, error, says = case
    system = filled(board)
    system.add_nodes([50], theta=np.ones((1, 2)))
    system.add_nodes([51], theta=np.ones((1, 3), np.float32))
    with pytest.raises(error, match=says):
        system.process([wb.Job("mul", (0, 1), residual=1.0), job])
    assert system.commit().changed == N + 2


BAD_NODES: dict[str, tuple[dict[str, Any], type[WhiteboardError], str]] = {
    "twice": ({"ids": [20, 20], "theta": np.ones((2, 1))}, DuplicateNodeError, "20 is given twice"),
    "exists": ({"ids": [20, 3], "theta": np.ones((2, 1))}, DuplicateNodeError, "3 exists already"),
    "nothing": ({"ids": [20]}, ShapeError, "give theta, p, or attrs"),
    "rows": ({"ids": [20], "theta": np.ones((2, 1))}, ShapeError, r"theta: expected shape \(1, …\), got \(2, 1\)"),
    "flat p": ({"ids": [20], "p": np.ones(1)}, ShapeError, r"p: expected shape \(1, d\), got \(1,\)"),
    "object": ({"ids": [20], "theta": [None]}, DtypeError, "theta: object? ?.*dtype object is refused"),
    "complex": ({"ids": [20], "theta": [1j]}, DtypeError, "theta: complex dtype complex128 is refused"),
    "integer": ({"ids": [20], "theta": [1]}, DtypeError, "theta: integer dtype int64 is refused"),
    "ids": ({"ids": [2.5], "theta": [1.0]}, DtypeError, "ids: expected integer ids"),
    "fixed": ({"ids": [20], "theta": [1.0], "fixed": [1]}, ShapeError, "fixed: expected bool"),
}


@pytest.mark.parametrize("case", BAD_NODES.values(), ids=BAD_NODES)
def test_bad_nodes_are_refused_whole(board: wb.Board, case: tuple[dict[str, Any], type[WhiteboardError], str]) -> None:
    """Nodes with a bad id, shape or dtype are refused by name, and none of the call is added."""
    fields, error, says = case
    system = filled(board)
    with pytest.raises(error, match=says):
        system.add_nodes(**fields)
    assert list(system.nodes) == list(range(N))


def test_direct_impulses_are_checked(board: wb.Board) -> None:
    """An impulse of wrong shape or dtype, onto an unknown node, or with a NaN is refused by name."""
    system = filled(board)
    cases: list[tuple[int, Any, type[Exception], str]] = [
        (77, np.ones(3), UnknownNodeError, "impulse on node 77 from 1: no such node"),
        (0, np.ones(2), ShapeError, r"expected shape \(3,\), got \(2,\)"),
        (0, [1j] * 3, DtypeError, "complex128"),
        (0, [np.nan] * 3, NonFiniteError, "node 0 from 1.*not finite"),
    ]
    for node, vector, error, says in cases:
        with pytest.raises(error, match=says):
            system.impulse(node, 1, "mul", vector)
    system.impulse(0, 1, "mul", np.ones(3))
    system.impulse(0, 2, "mul", np.ones(3))
    before = np.asarray(system.nodes[0].theta)
    system.commit(lambda rows, sums: rows + sums.vector)
    assert np.asarray(system.nodes[0].theta).tolist() == (before + 2).tolist()


def test_a_name_with_another_specification_is_refused(tmp_path: Path) -> None:
    """Opening a system with another specification says what differs, before and after its first commit."""
    with wb.open(tmp_path / "store.db") as board:
        board.system("s", {"seed": 1, "rule": "a"}).commit()
        with pytest.raises(SpecError, match="seed is 1, asked for 2"):
            board.system("s", {"seed": 2, "rule": "a"})
    with wb.open(tmp_path / "store.db") as board:
        with pytest.raises(SpecError, match="rule is 'a', asked for 'absent'"):
            board.system("s", {"seed": 1})
        assert board.system("s", {"seed": 1, "rule": "a"}) is board.system("s")


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    """A system has one writing board; others may read it, and one of them takes over when it is closed."""
    path = tmp_path / "store.db"
    with wb.open(path) as two:
        with wb.open(path) as one:
            filled(one).commit()
            second = two.system("s")
            assert len(second.history()) == 1
            for use in (second.commit, lambda: second.process([]), lambda: second.impulse(0, 1, "mul", np.ones(3))):
                with pytest.raises(ConflictError, match="'s' is written by another board of this process"):
                    use()
        second.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        assert second.commit(wb.rules.StressDescent(0.5)).id == 1


def test_a_commit_onto_a_head_that_moved_loses_nothing(tmp_path: Path) -> None:
    """After a takeover the commit of the deposed writer is refused, and its state is what it was; the other goes on."""
    path = tmp_path / "store.db"
    with wb.open(path) as one, wb.open(path) as two:
        first = filled(one)
        first.commit()
        second = two.system("s", takeover=True)
        for system in (second, first):
            system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        kept = first.digest()
        second.commit(wb.rules.StressDescent(0.5))
        with pytest.raises(ConflictError, match="'s'"):
            first.commit(wb.rules.StressDescent(0.5))
        assert first.digest() == kept
        assert len(two.system("s").history()) == 2


@pytest.mark.parametrize("batched", [False, True])
def test_a_sink_that_raises_leaves_no_impulse(board: wb.Board, batched: bool) -> None:
    """The call can be made again, and counts once."""

    def full(result: object) -> None:
        raise OSError("the disk is full")

    digests = []
    for name, fails in (("calm", False), ("torn", True)):
        system = board.system(name)
        system.add_nodes([0, 1], theta=np.array([[1.0, 2.0], [3.0, 4.0]]))
        system.commit()
        jobs: Any = wb.JobBatch("mul", [[0, 1]], residual=1.0) if batched else [wb.Job("mul", (0, 1), residual=1.0)]
        if fails:
            with pytest.raises(OSError, match="the disk is full"):
                system.process(jobs, wb.CallbackSink(full))
        system.process(jobs)
        system.commit(wb.rules.Relax(0.1))
        digests.append(system.digest())
    assert digests[0] == digests[1]


def test_results_reach_the_sink_in_order(board: wb.Board) -> None:
    """Hits and misses of mixed ops come back and are published in the order of the jobs."""
    system = filled(board)
    jobs = [wb.Job("mul", (0, 1)), wb.Job("tanh", (2,)), wb.Job("mul", (2, 3), 5, job_id="x"), wb.Job("mul", (0, 1))]
    sink = wb.ListSink()
    results = system.process(jobs, sink)
    assert sink.results == results
    assert [(r.job_id, r.out_id, r.hit) for r in results] == [
        (0, None, "miss"), (1, None, "miss"), ("x", 5, "miss"), (3, None, "memory"),
    ]  # fmt: skip
    batch = system.process(wb.JobBatch("mul", [[0, 1], [2, 3]]), sink)
    assert sink.results[-1] is batch
    assert batch.hit.tolist() == [1, 1]
    assert batch.y.tobytes() == np.stack([results[0].y, results[2].y]).tobytes()
    assert system.process([]) == []


def test_a_retracted_impulse_leaves_no_trace(board: wb.Board) -> None:
    """Retracting, in any order, gives the bits of a system that never saw the impulse; with an exact rule too."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(30, 3)) * 10.0 ** rng.integers(-12, 12, (30, 1))
    for exact in (False, True):
        rule = wb.rules.Relax(0.1, 0.1, 0.1, exact=exact)
        plain, torn = filled(board, f"plain {exact}"), filled(board, f"torn {exact}")
        for i, vector in enumerate(vectors):
            torn.impulse(i % 3, i, "mul", vector)
            if i % 2:
                plain.impulse(i % 3, i, "mul", vector)
        for i in rng.permutation(np.arange(0, 30, 2)).tolist():
            torn.retract(i % 3, i, "mul", vectors[i])
        with pytest.raises(StaleImpulseError, match="no such impulse on node 0 from 0 waits"):
            torn.retract(0, 0, "mul", vectors[0])
        assert plain.commit(rule).digest == torn.commit(rule).digest
        with pytest.raises(StaleImpulseError, match="committed"):
            torn.retract(1, 1, "mul", vectors[1])


def test_an_exact_rule_sees_the_negative_take_the_impulse_away(board: wb.Board) -> None:
    """With exact sums an impulse and its negative cancel to the last bit, beside others of any size."""
    seen = []

    class Exact:
        exact = True

        def __call__(self, rows: np.ndarray, sums: Any) -> np.ndarray:
            seen.append(sums.vector.copy())
            return rows

    system = filled(board)
    small, huge = np.array([1e-9, 1.0, -3.0]), np.array([1e17, -1e16, 1e300])
    for vector in (huge, small, -huge):
        system.impulse(0, 1, "mul", vector)
    system.commit(Exact())
    assert seen[0][0].tolist() == small.tolist()


def test_an_impulse_against_an_older_version_is_refused(board: wb.Board) -> None:
    """An impulse that names the version it was made against is refused once the node has moved on."""
    system = filled(board)
    system.impulse(0, 1, "mul", np.ones(3), version=0)
    system.commit(lambda rows, sums: rows + sums.vector)
    with pytest.raises(StaleImpulseError, match="made against version 0, the node has version 1"):
        system.impulse(0, 1, "mul", np.ones(3), version=0)
    system.impulse(0, 1, "mul", np.ones(3), version=1)


def test_writes_come_with_the_next_commit(board: wb.Board) -> None:
    """A written value is there after the commit, on a fixed node too; a second value or an impulse is refused."""
    system = filled(board)
    system.commit()
    system.write(N - 1, theta=[1.0, 2.0, 3.0], p=[4.0, 5.0])
    system.write(N - 1, theta=[1.0, 2.0, 3.0])
    assert system.nodes[N - 1].version == 0
    with pytest.raises(ParamError, match="written with another value"):
        system.write(N - 1, theta=[1.0, 2.0, 4.0])
    with pytest.raises(NonFiniteError, match="theta of node 0"):
        system.write(0, theta=[np.nan] * 3)
    assert system.commit().changed == 1
    node = system.nodes[N - 1]
    assert (np.asarray(node.theta).tolist(), np.asarray(node.p).tolist()) == ([1, 2, 3], [4, 5])
    assert node.version == 1
    system.write(0, theta=[0.0] * 3)
    system.impulse(0, 1, "mul", np.ones(3))
    with pytest.raises(ParamError, match="node 0 has impulses and was written"):
        system.commit(wb.rules.Relax())
    system.retract(0, 1, "mul", np.ones(3))
    assert system.commit().changed == 1


@pytest.mark.parametrize("where", ["store.db", ":memory:"])
def test_a_fork_shares_the_past_and_goes_its_own_way(where: str, tmp_path: Path) -> None:
    """A fork has its origin's history up to a commit, and neither's later commits reach the other."""
    pairs, lengths = edges()
    rule = wb.rules.StressDescent(0.5)

    def go_on(system: wb.System, rounds: int) -> None:
        for _ in range(rounds):
            system.process(wb.JobBatch("distance", pairs, target=lengths, scale=1 / lengths**2, attr="p"))
            system.commit(rule)

    with wb.open(where if where == ":memory:" else tmp_path / where) as board:
        origin = filled(board)
        go_on(origin, 4)
        pages = board.stats()["bytes_disk"]
        fork = origin.fork("fork", at=2)
        assert board.system("fork") is fork
        assert board.stats()["bytes_disk"] - pages < 20_000
        assert fork.digest() == origin.at(2).digest()
        assert fork.history() == origin.history()[:3]
        go_on(fork, 1)
        assert fork.history() == origin.history()
        fork.write(0, theta=[0.0] * 3)
        fork.commit()
        go_on(fork, 1)
        go_on(origin, 2)
        assert len(fork.history()) == 6
        assert fork.history()[4:] != origin.history()[4:]
        twice = fork.fork("twice")
        go_on(twice, 1)
        for system in (origin, fork, twice):
            for commit in system.history():
                assert system.at(commit.id).digest() == commit.digest
        for name, at, error, says in (
            ("fork", 1, SpecError, "fork"),
            ("new", 99, UnknownCommitError, "99"),
        ):
            with pytest.raises(error, match=says):
                origin.fork(name, at=at)
        with pytest.raises(UnknownCommitError, match="no commit yet"):
            board.system("empty").fork("x")


def test_what_is_no_job_is_refused_by_name(board: wb.Board) -> None:
    """A lone job, a text, a rule that cannot be called and a specification that JSON cannot hold are named."""
    system = filled(board)
    cases: list[tuple[Any, str]] = [
        (lambda: system.process(wb.Job("mul", (0, 1))), "expected a JobBatch or a sequence of Job, got Job"),  # type: ignore[call-overload]
        (lambda: system.process("mul"), "got str"),  # type: ignore[arg-type]
        (lambda: system.process([wb.Job("mul", 3)]), "job 0: src_ids: expected a sequence of ids, got 3"),  # type: ignore[arg-type]
        (lambda: system.commit(3), r"expected a rule\(rows, sums\), got 3"),  # type: ignore[arg-type]
        (lambda: board.system(3), "system name: expected printable characters, got 3"),  # type: ignore[arg-type]
        (lambda: board.system("x", {"a": object()}), "'x': spec: a: expected what JSON can hold"),
        (lambda: board.submit("mul", system), "submit: expected a Job, got str"),  # type: ignore[arg-type]
    ]
    for use, says in cases:
        with pytest.raises(ParamError, match=says):
            use()


def test_an_empty_batch_is_answered_with_nothing(board: wb.Board) -> None:
    """No jobs give no results and no impulses."""
    system = filled(board)
    result = system.process(wb.JobBatch("mul", np.empty((0, 2), np.int64), target=1.0))
    assert (len(result), list(result), len(result.grads)) == (0, [], 2)
    assert system.commit().stress is None


def test_a_specification_survives_json(tmp_path: Path) -> None:
    """A specification with a tuple in it is the same one after it was stored."""
    for _ in range(2):
        with wb.open(tmp_path / "x.db") as opened:
            opened.system("s", {"shape": (1, 2)}).commit()
