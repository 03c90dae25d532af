"""`gradient="torch"` beside the real one: tensors, modules by source and state, and what makes one restless."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import DtypeError, ParamError, ShapeError, UncachedWarning
from whiteboard.ops.spec import Example

pytestmark = pytest.mark.peers

torch = pytest.importorskip("torch", reason="torch is not installed: scripts/test --peers installs it")
nn, functional = torch.nn, torch.nn.functional

X = np.array([0.5, 1.0, 2.0])
METAL: Any = torch.ones(3, device="meta")
TABLE = torch.arange(3.0, dtype=torch.float64)
SCALE = 2.0


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened


def smooth(x: Any, a: Any, *, k: float = 2.0) -> Any:
    """Return a vector of two sources."""
    return torch.tanh(k * x) * a.sum() + torch.outer(x, a) @ a


class Net(nn.Module):  # type: ignore[name-defined, misc]
    """A network of the user's own, whose weights are drawn when it is made."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(3, width).double()
        self.weight = nn.Parameter(torch.randn(width, dtype=torch.float64))
        self.act = torch.tanh
        self.sizes = [3, width]
        self.register_buffer("shift", torch.zeros(width, dtype=torch.float64))

    def hidden(self, x: Any) -> Any:
        """Return the hidden layer."""
        return self.act(self.first(x)) + self.shift

    def forward(self, x: Any) -> Any:
        """Return a scalar."""
        return (self.hidden(x) * self.weight).sum() * self.sizes[0]


class Twice(Net):
    """A network that asks another one."""

    def forward(self, x: Any) -> Any:
        """Return twice of it."""
        return 2 * super().forward(x)


def network(kind: type = Net) -> Any:
    """Return a network with the same weights every time."""
    torch.manual_seed(0)
    return kind().eval()


def test_values_and_gradients(board: wb.Board) -> None:
    """What `torch.autograd.grad` says, in the dtype of the sources, alone and in a bin to the same bits."""
    ops.op(gradient="torch")(smooth)
    for dtype in (np.float64, np.float32):
        xs = [np.stack([X, 2 * X]).astype(dtype), np.ones((2, 2), dtype)]
        many = board.call_many(smooth, *xs)
        for i in range(2):
            tensors = [torch.from_numpy(x[i].copy()).requires_grad_() for x in xs]
            y = smooth(*tensors)
            right = (y, *torch.autograd.grad(y, tensors, torch.ones_like(y)))
            for got, each in zip((many.y, *many.grads), right, strict=True):
                assert got.dtype == dtype
                np.testing.assert_array_equal(got[i], each.detach().numpy())
            with wb.open(":memory:") as another:
                assert another.call(smooth, *(x[i] for x in xs)).grads[0].tobytes() == many.grads[0][i].tobytes()
    right = torch.autograd.functional.jacobian(smooth, (torch.from_numpy(X.copy()), torch.ones(2, dtype=torch.float64)))
    for got, each in zip(board.bind(smooth).jacobian(X, np.ones(2)), right, strict=True):
        np.testing.assert_allclose(got, each.numpy(), rtol=1e-14)


@pytest.mark.parametrize("batch", ["loop", "lead_axis"])
@pytest.mark.parametrize("kind", ["elementwise", "general"])
def test_every_batch_rule_passes_the_check(batch: Any, kind: Any) -> None:
    """Also of functions of n jobs at once, and of sources that broadcast."""
    ops.op("cubic", gradient="torch", batch=batch, kind=kind)(lambda x, y: x * x * x * y)
    ops.check("cubic", None if kind == "elementwise" else [Example(((3,), (3,)))])


@pytest.mark.parametrize("kind", [Net, Twice])
def test_a_module_is_called_by_itself(board: wb.Board, kind: type) -> None:
    """It is its own op, found by its state: equal weights hit, also after training, and others miss."""
    net = network(kind)
    assert ops.op(gradient="torch")(net) is net
    spec = ops.get(net)
    assert (spec.name, spec.arity, spec.opaque) == (kind.__name__, 1, "")
    assert [board.call(net, X).hit for _ in range(2)] == ["miss", "memory"]
    again = network(kind)
    ops.op(gradient="torch")(again)
    assert board.call(again, X).hit == "memory"
    x = torch.from_numpy(X.copy()).requires_grad_()
    (right,) = torch.autograd.grad(net(x), x)
    np.testing.assert_array_equal(board.call(net, X).grads[0], right.numpy())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x).backward()
    optimizer.step()
    assert [board.call(net, X).hit for _ in range(2)] == ["miss", "memory"]
    net.load_state_dict(again.state_dict())
    assert board.call(net, X).hit == "memory"


def _set(net: Any) -> None:
    net.sizes[0] = 5


def _swap(net: Any) -> None:
    net.act = torch.sin


def _edit(net: Any) -> None:
    net.weight.data[0] += 1


def _bytes(net: Any) -> None:
    net.shift.numpy()[1] = -0.0


def _layer(net: Any) -> None:
    net.first = nn.Linear(3, 4).double()


EDITS: tuple[Callable[[Any], None], ...] = (_set, _swap, _edit, _bytes, _layer)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_in_place_is_noticed(board: wb.Board, edit: Callable[[Any], None]) -> None:
    """Also where torch counts no version: a list, `.data`, NumPy's memory, to the sign of a zero."""
    net = network()

    def misfit(x: Any) -> Any:
        return net(x) + (TABLE * x).sum()

    ops.op(gradient="torch")(misfit)
    assert [board.call(misfit, X).hit for _ in range(2)] == ["miss", "memory"]
    edit(net)
    assert [board.call(misfit, X).hit for _ in range(2)] == ["miss", "memory"]


def test_what_a_function_closes_over_counts(board: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors by their bytes, and globals as of any op."""

    @ops.op(gradient="torch")
    def closed(x: Any) -> Any:
        return functional.softplus(x * TABLE) * SCALE + torch.linalg.norm(x) + torch.special.erf(x)

    assert [board.call(closed, X).hit for _ in range(2)] == ["miss", "memory"]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert board.call(closed, X).hit == "miss"
    TABLE[0] = 5.0
    assert board.call(closed, X).hit == "miss"
    TABLE[0] = 0.0
    assert board.call(closed, X).hit == "memory"


def test_settings_of_torch_count(board: wb.Board) -> None:
    """Another number of threads, or another default dtype, is another package."""
    ops.op(gradient="torch")(smooth)
    threads = torch.get_num_threads()
    xs = X, np.ones(2)
    assert [board.call(smooth, *xs).hit for _ in range(2)] == ["miss", "memory"]
    torch.set_num_threads(threads + 1)
    try:
        assert board.call(smooth, *xs).hit == "miss"
    finally:
        torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float64)
    try:
        assert board.call(smooth, *xs).hit == "miss"
    finally:
        torch.set_default_dtype(torch.float32)
    assert board.call(smooth, *xs).hit == "memory"


RESTLESS = [
    (lambda: nn.Dropout(0.5), "is in training mode, where it draws random numbers", True),
    (lambda: nn.LSTM(3, 4, 2, dropout=0.5), "is in training mode, where it draws random numbers", True),
    (lambda: nn.Sequential(nn.Linear(3, 3), nn.RReLU()), "in training mode, where it draws random numbers", True),
    (lambda: nn.BatchNorm1d(3), "is in training mode, where it changes itself", True),
    (lambda: nn.FractionalMaxPool2d(2, output_size=2), "draws random numbers", False),
]


@pytest.mark.parametrize(("make", "reason", "rests"), RESTLESS, ids=range(len(RESTLESS)))
def test_a_restless_module_is_not_cached(make: Any, reason: str, rests: bool) -> None:
    """What draws or changes itself has no fingerprint, and the reason says what helps; `.eval()` mostly does."""
    module = make()
    ops.op("module", gradient="torch")(module)
    assert reason in ops.get("module").opaque
    module.eval()
    assert (ops.get("module").fingerprint is not None) == rests


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4, num_layers=2),
        lambda: nn.Conv2d(1, 2, 3, padding_mode="circular"),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.TransformerEncoderLayer(4, 2),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.LayerNorm(3), nn.Softmax(-1)),
        lambda: nn.ModuleList([nn.Linear(1, 1)]),
    ],
    ids=range(6),
)
def test_torchs_own_modules_are_seen_through(make: Any) -> None:
    """Equal state, equal fingerprint; another weight is another."""
    prints = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ops.op("module", gradient="torch", replace=True)(make().eval())
        assert ops.get("module").opaque == ""
        prints.append(ops.get("module").fingerprint)
    assert (prints[0] == prints[1], prints[1] == prints[2]) == (True, False)


def drawing(x: Any) -> Any:
    """Draw."""
    return x * torch.rand(3)


def dropping(x: Any) -> Any:
    """Drop."""
    return functional.dropout(x)


def filling(x: Any) -> Any:
    """Draw in place."""
    return x * torch.zeros(3).normal_()


def loading(x: Any) -> Any:
    """Read."""
    return x * torch.load("w.pt")


def making(x: Any) -> Any:
    """Make a network, whose weights are drawn."""
    return Net()(x)


def hooked() -> Any:
    """Return a module with a hook."""
    net = network()
    net.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (drawing, "torch.rand, which is random"),
        (dropping, "torch.nn.functional.dropout, which is random"),
        (filling, "names .normal_, which is random"),
        (loading, "torch.load, which reads or writes files"),
        (making, "torch.randn, which is random"),
        (lambda x: x * METAL, "'METAL', which .* is a tensor on meta: move it to the CPU"),
        (hooked, "has hooks"),
    ],
)
def test_what_is_not_pure_is_not_cached(function: Any, reason: str) -> None:
    """There is no fingerprint, and the reason names what it is."""
    ops.op("impure", gradient="torch")(function() if function is hooked else function)
    assert re.search(reason, ops.get("impure").opaque)


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda x: x.to("meta"), DtypeError, "forward: expected a tensor on the CPU, got one on meta: return y.cpu()"),
        (lambda x: x.detach().numpy(), ShapeError, "forward: expected a torch.Tensor, got ndarray"),
        (lambda x: (x, x), ShapeError, "forward: expected a torch.Tensor, got tuple"),
        (lambda x: x.float(), DtypeError, "forward: expected dtype float64, got float32"),
        (
            lambda x: x.bfloat16(),
            DtypeError,
            "forward: expected float32 or float64 as the sources', got torch.bfloat16",
        ),
        (lambda x: x.argmax(), DtypeError, "forward: expected float32 or float64 as the sources', got torch.int64"),
    ],
)
def test_wrong_returns(board: wb.Board, function: Any, error: Any, says: str) -> None:
    """The error names the op, expected and got."""
    ops.op("wrong", gradient="torch")(function)
    with pytest.raises(error, match=re.escape(f"op 'wrong': {says}")):
        board.call("wrong", X)


def test_sources_without_a_part_have_zeros(board: wb.Board) -> None:
    """Also where nothing has a part, and where y is a number."""
    for name, function in (
        ("unused", lambda x, a: (2 * x).sum()),
        ("constant", lambda x, a: TABLE * 2),
        ("number", lambda x, a: 3),
        ("cut", lambda x, a: x.detach() * 2),
    ):
        ops.op(name, gradient="torch")(function)
        done = board.call(name, X, np.ones(2))
        assert [grad.shape for grad in done.grads] == [(3,), (2,)]
        assert not done.grads[1].any()


def test_gradients_are_taken_where_they_are_switched_off(board: wb.Board) -> None:
    """The caller's `no_grad` is not the op's, and no gradient stays on a module."""
    net = network()
    ops.op(gradient="torch")(net)
    with torch.no_grad():
        assert board.call(net, X).grads[0].any()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_plain_words_say_which_is_meant() -> None:
    """A module as a plain op is an error that names the word."""
    with pytest.raises(ParamError, match=r"expected a function written in Python, got Net.*gradient='torch'"):
        ops.op("plain")(network())


def test_an_unknown_attribute_is_named(board: wb.Board) -> None:
    """What cannot be seen through makes a module uncached, with a warning that names it."""
    net = network()
    net.cache = {"a": object()}
    ops.op(gradient="torch")(net)
    with pytest.warns(UncachedWarning, match=r"Net\.cache\['a'\] is a mutable or unknown object of type 'object'"):
        board.call(net, X)


PROGRAM = """
    import sys
    import numpy as np
    import torch
    import whiteboard as wb

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
            self.names = {"b", "a", "c"}

        def forward(self, x):
            return self.inner(x).sum()

    torch.manual_seed(0)
    net = Net()
    wb.op("net", gradient="torch")(net)
    with wb.open(sys.argv[1]) as board:
        done = board.call("net", np.array([0.1, 0.2, 0.3]))
        print(done.hit, [a.tobytes().hex() for a in (done.y, *done.grads)])
    assert "jax" not in sys.modules
"""


def test_another_process_finds_it(found_again: Callable[[str], None]) -> None:
    """The same module in another process has the same fingerprint: a hit on disk, with the same bits."""
    found_again(PROGRAM)
