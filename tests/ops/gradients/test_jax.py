"""`gradient="jax"` beside the real one: values, dtype, and what the lowered program tells of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import DtypeError, ParamError, ShapeError, UncachedWarning
from whiteboard.ops.gradients import jax_programs, jaxprs
from whiteboard.ops.spec import Example

pytestmark = pytest.mark.peers

jax = pytest.importorskip("jax", reason="JAX is not installed: scripts/test --peers installs it")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy

X = np.array([0.5, 1.0, 2.0])
SCALE = 2.0
TABLE = jnp.arange(3.0)
WRITABLE = np.arange(3.0)


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


@pytest.fixture
def single() -> Iterator[None]:
    """Switch JAX to float32, as it is by default."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def smooth(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return a vector of two sources."""
    return jnp.tanh(k * x) * jnp.sum(a) + jax.nn.softmax(x) @ jnp.outer(x, a) @ a


def total(x: Any) -> Any:
    """Return a scalar that a global has a part in."""
    return jnp.sum(jnp.sin(x) * SCALE)


@jax.jit  # type: ignore[untyped-decorator]
def jitted(x: Any, y: Any) -> Any:
    """Return a matrix, by a program that closes over arrays."""
    return jnp.outer(x * TABLE, y * WRITABLE)


def test_values_and_gradients(board: wb.Board) -> None:
    """What `jax.vjp` says, in the dtype of the sources, alone and in a bin to the same bits, of any cotangent."""
    ops.op(gradient="jax")(smooth)
    for dtype in (np.float64, np.float32):
        xs = [np.stack([X, 2 * X]).astype(dtype), np.ones((2, 2), dtype)]
        many = board.call_many(smooth, *xs)
        for i in range(2):
            y, back = jax.vjp(smooth, *(x[i] for x in xs))
            for got, right in zip((many.y, *many.grads), (y, *back(jnp.ones_like(y))), strict=True):
                assert got.dtype == dtype
                np.testing.assert_allclose(got[i], right, rtol=1e-14 if dtype == np.float64 else 1e-6)
            with wb.open(":memory:") as another:
                alone = another.call(smooth, *(x[i] for x in xs))
            assert alone.grads[0].tobytes() == many.grads[0][i].tobytes()
    jacobian = board.bind(smooth).jacobian(X, np.ones(2))
    for got, right in zip(jacobian, jax.jacrev(smooth, (0, 1))(X, np.ones(2)), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-13, atol=1e-15)
    board.call(smooth, X, np.ones(2), params={"k": 3.0})
    assert board.call(smooth, X, np.ones(2), params={"k": 3.0}).hit == "memory"


@pytest.mark.parametrize("batch", ["loop", "lead_axis"])
@pytest.mark.parametrize("kind", ["elementwise", "general"])
def test_every_batch_rule_passes_the_check(batch: Any, kind: Any) -> None:
    """Also of functions of n jobs at once, and of sources that broadcast."""
    ops.op("cubic", gradient="jax", batch=batch, kind=kind)(lambda x, y: x * x * x * y)
    ops.check("cubic", None if kind == "elementwise" else [Example(((3,), (3,)))])


def test_float64_is_not_made_float32(board: wb.Board, single: None) -> None:
    """Where JAX has no float64, such sources are an error that says what to set; float32 is computed."""
    ops.op(gradient="jax")(total)
    ops.op("named", gradient="jax", identity="total 1")(total)
    for name in ("total", "named"):
        with pytest.raises(DtypeError, match=r'op .*float64.*jax\.config\.update\("jax_enable_x64", True\)'):
            board.call(name, X)
        assert board.call(name, X.astype(np.float32)).y.dtype == np.float32


def test_a_jitted_function_is_called_by_itself(board: wb.Board) -> None:
    """Its signature, name and sentence are those of what was jitted."""
    assert ops.op(gradient="jax")(jitted) is jitted
    spec = ops.get(jitted)
    assert (spec.name, spec.arity, spec.doc) == ("jitted", 2, "Return a matrix, by a program that closes over arrays.")
    assert board.call(jitted, X, X).hit == "miss"
    assert board.call("jitted", X, X).hit == "memory"
    np.testing.assert_array_equal(board.call(jitted, X, X).y, np.outer(X * np.arange(3), X * np.arange(3)))
    made = partial(smooth, k=1.0)
    ops.op("made", gradient="jax")(made)
    assert (ops.get("made").arity, board.call("made", X, X).hit, board.call("made", X, X).hit) == (2, "miss", "memory")


def test_plain_words_say_which_is_meant() -> None:
    """A jitted function as a plain op is an error that names the word."""
    with pytest.raises(ParamError, match=r"expected a function written in Python, got PjitFunction.*gradient='jax'"):
        ops.op("plain")(jitted)
    with pytest.raises(ParamError, match="gradient='jax'"):
        ops.name_of(jax.jit(lambda x: x))


def test_what_the_program_holds_is_seen(board: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A global, an array, a rule of gradients: another one is another program, and the old one still hits."""
    table, factor = np.arange(3.0), [5.0]

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def ruled(x: Any) -> Any:
        return 2 * x

    ruled.defvjp(lambda x: (2 * x, None), lambda _, c: (factor[0] * c,))
    ops.op(gradient="jax")(total)
    ops.op("closed", gradient="jax")(lambda x: x * table)
    ops.op("ruled", gradient="jax")(lambda x: ruled(x))
    names = ("total", "closed", "ruled")

    def asked() -> list[tuple[str, Any, Any]]:
        return [(done.hit, done.y.tolist(), done.grads[0].tolist()) for done in (board.call(n, X) for n in names)]

    first = asked()
    assert asked() == [("memory", *rest) for _, *rest in first]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    table[0], factor[0] = 7.0, 6.0
    second = asked()
    assert [hit for hit, *_ in second] == ["miss"] * 3
    assert second[2][2] == [6.0] * 3
    assert all(a[1:] != b[1:] for a, b in zip(first, second, strict=True))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    table[0], factor[0] = 0.0, 5.0
    assert asked() == [("memory", *rest) for _, *rest in first]


def test_settings_of_jax_are_part_of_the_program(board: wb.Board) -> None:
    """Another precision of matrix products is another package."""
    ops.op("product", gradient="jax")(lambda x: jnp.outer(x, x) @ x)
    board.call("product", X)
    with jax.default_matmul_precision("highest"):
        assert board.call("product", X).hit == "miss"
    assert board.call("product", X).hit == "memory"


def printing(x: Any) -> Any:
    """Print on the way."""
    jax.debug.print("{x}", x=x)
    return x


def calling(x: Any) -> Any:
    """Call back into Python."""

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def sine(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, c: (c * jnp.cos(x),))
    return sine(x)


def branching(x: Any) -> Any:
    """Return something else for other values."""
    return x if x[0] > 0 else -x


STEPS = [0]


def stepping(x: Any) -> Any:
    """Return something else every time."""
    STEPS[0] += 1
    return x * STEPS[0]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (printing, "its program calls .*callback, which it does not show"),
        (calling, "its program calls .*callback, which it does not show"),
        (branching, "JAX cannot trace it without values: TracerBoolConversionError"),
        (stepping, "is another after it was run"),
    ],
)
def test_what_no_program_shows_is_not_cached(board: wb.Board, function: Any, reason: str) -> None:
    """It is computed with a warning that says why; an identity of one's own takes the place of the program."""
    ops.op("hidden", gradient="jax")(function)
    with pytest.warns(UncachedWarning, match=f"op 'hidden' is computed and not cached: .*{reason}"):
        assert board.call("hidden", X).hit == "miss"
    assert board.call("hidden", X).hit == "miss"
    ops.op("named", gradient="jax", identity="hidden 1")(function)
    assert board.call("named", X).hit == "miss"
    assert board.call("named", X).hit == "memory"


def test_files_that_it_reads_count(board: wb.Board, tmp_path: Path) -> None:
    """What is named in `reads` is part of the op's identity."""
    file = tmp_path / "mesh.txt"
    file.write_text("1")
    ops.op("reading", gradient="jax", reads=(str(file),))(lambda x: 2 * x)
    assert [board.call("reading", X).hit for _ in range(2)] == ["miss", "memory"]
    file.write_text("2")
    assert board.call("reading", X).hit == "miss"


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda x: (x, x), ShapeError, "forward: expected an array, got tuple"),
        (lambda x: [x], ShapeError, "forward: expected an array, got list"),
        (lambda x: None, ShapeError, "forward: expected an array, got NoneType"),
        (lambda x: x.astype("float32"), DtypeError, "forward: expected dtype float64, got float32"),
        (lambda x: x.astype(int), DtypeError, "forward: expected dtype float64, got int64"),
    ],
)
def test_wrong_returns(board: wb.Board, function: Any, error: Any, says: str) -> None:
    """The error names the op, expected and got."""
    ops.op("wrong", gradient="jax")(function)
    with pytest.raises(error, match=f"op 'wrong': {says}"):
        board.call("wrong", X)


def test_a_number_is_taken_for_y(board: wb.Board) -> None:
    """In the dtype of the sources, with gradients of zero."""
    ops.op("constant", gradient="jax")(lambda x: 3.0)
    for dtype in (np.float64, np.float32):
        done = board.call("constant", X.astype(dtype))
        assert done.y == 3.0
        assert [each.dtype for each in (done.y, *done.grads)] == [dtype] * 2
        assert not done.grads[0].any()


def test_who_writes_into_an_array_that_was_jitted_is_noticed(board: wb.Board) -> None:
    """JAX itself gives the old value and the new gradient then; here both are of the contents as they are."""
    held = np.arange(3.0)
    shared = jnp.asarray(held)
    ops.op("inner", gradient="jax")(jax.jit(lambda x: x * held))
    ops.op("looped", gradient="jax")(lambda x: jax.lax.fori_loop(0, 2, lambda _, c: c * held * shared, x))
    ops.op("rows", gradient="jax", batch="lead_axis")(jax.jit(lambda x: x * held))
    names = ("inner", "looped", "rows")
    for value in (0.0, 7.0, 0.0, 5.0):
        held[0] = value
        for name in names:
            done = board.call(name, np.ones(3))
            assert done.y[0] == done.grads[0][0]
            assert done.y[0] == value or name == "looped"
    held[0] = 7.0
    assert [board.call(name, np.ones(3)).hit for name in ("inner", "rows")] == ["memory"] * 2


def test_the_same_function_again_is_no_other_op() -> None:
    """A cell that is run again, or a module that is imported again; another text asks for replace=True."""
    for _ in range(2):
        ops.op("cell", gradient="jax")(lambda x: x + 1)
    with pytest.raises(wb.DuplicateOpError, match="replace=True"):
        ops.op("cell", gradient="jax")(total)
    ops.op("cell", gradient="jax", replace=True)(total)
    assert ops.get("cell").fingerprint is None
    assert "program" in ops.get("cell").opaque


def test_explained_and_audited(board: wb.Board) -> None:
    """Jobs over nodes are explained by the program that their sources give, and computed again by `audit`."""
    ops.op(gradient="jax")(total)
    system = board.system("s")
    system.add_nodes([0, 1], theta=np.stack([X, 2 * X]))
    system.commit()
    system.process([wb.Job(total, (0,), residual=1.0)])
    assert board.explain(wb.Job(total, (0,)), system).hit
    assert [each.what for each in board.explain(wb.Job(total, (1,)), system).differences] == ["source"]
    report = board.audit()
    assert (report.checked, report.ok) == (1, True)


def scanned(x: Any) -> Any:
    """Return what loops, branches, indices and solvers give."""
    carry, _ = jax.lax.scan(lambda c, a: (c * a + jnp.sin(c), c), x.sum(), x)
    branch = jax.lax.cond(carry > 0, lambda: carry, lambda: -carry)
    solved = jnp.linalg.solve(jnp.outer(x, x) + jnp.eye(3), x * TABLE)
    return branch + x[jnp.array([0, 2])].sum() + solved.sum() + jnp.where(x > 0, x, 0.0).sum()


def trace(function: Any, *shapes: Any) -> Any:
    """Return a new trace."""
    return jax.make_jaxpr(lambda *xs: function(*xs))(*(jax.ShapeDtypeStruct(s, np.float64) for s in shapes))


def test_equal_traces_are_told() -> None:
    """A function traced again is the same, so that it is lowered once; whatever differs is another."""
    for function, shapes in ((scanned, [(3,)]), (total, [(3,)]), (smooth, [(3,), (2,)])):
        assert jaxprs.same(trace(function, *shapes), trace(function, *shapes))
    others = [
        lambda x: x * 2.0,
        lambda x: x * -0.0,
        lambda x: x * 0.0,
        lambda x: 2.0 * x,
        lambda x: x + 2.0,
        lambda x: x * np.array([2.0, 2.0, 2.0]),
        lambda x: x * np.array([2.0, 2.0, 3.0]),
        lambda x: x[::-1] * 2.0,
        lambda x: (x * 2.0)[::-1],
        lambda x: x * x,
        lambda x: jnp.cumsum(x),
        lambda x: jnp.cumsum(x, axis=0, dtype=np.float32).astype(np.float64),
        lambda x: jax.jit(lambda x: x * 2.0)(x),
        lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * 2.0, x),
        lambda x: jax.lax.fori_loop(0, 4, lambda i, c: c * 2.0, x),
        lambda x: jax.lax.fori_loop(0, 4, lambda i, c: c * 3.0, x),
        lambda x: x * jax.random.normal(jax.random.key(0), x.shape),
        lambda x: x * jax.random.normal(jax.random.key(1), x.shape),
        lambda x: x,
    ]
    traces = [trace(function, (3,)) for function in others]
    for i, a in enumerate(traces):
        assert [i == j for j in range(len(traces))] == [a is b or jaxprs.same(a, b) for b in traces], i
    assert not jaxprs.same(trace(others[0], (3,)), trace(others[0], (4,)))


def test_a_function_is_lowered_once(board: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit costs a trace, and no lowering, as long as the trace is the same."""
    lowered, real = [], jax_programs._lowered

    def counted(*given: Any) -> str:
        lowered.append(1)
        return real(*given)

    monkeypatch.setattr(jax_programs, "_lowered", counted)
    ops.op(gradient="jax")(scanned)
    for _ in range(4):
        board.call(scanned, X)
    board.call_many(scanned, np.stack([X, 2 * X]))
    assert len(lowered) == 1
    monkeypatch.setitem(globals(), "TABLE", jnp.arange(3.0) + 1)
    board.call(scanned, X)
    assert len(lowered) == 2


PROGRAM = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    import whiteboard as wb

    jax.config.update("jax_enable_x64", True)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(300, 3)))

    @wb.op(gradient="jax")
    @jax.jit
    def misfit(x, y):
        return jnp.sum((jnp.tanh(table @ x) - y) ** 2)

    with wb.open(sys.argv[1]) as board:
        done = board.call(misfit, np.array([0.1, 0.2, 0.3]), np.ones(300))
        print(done.hit, [a.tobytes().hex() for a in (done.y, *done.grads)])
    assert "torch" not in sys.modules
"""


def test_another_process_finds_it(found_again: Callable[[str], None]) -> None:
    """The same program in another process has the same fingerprint: a hit on disk, with the same bits."""
    found_again(PROGRAM)
