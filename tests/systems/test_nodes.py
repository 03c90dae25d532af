"""Nodes: arenas that gather, ids that are found, tokens that are computed once a version."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.errors import DuplicateNodeError, ShapeError, UnknownNodeError
from whiteboard.identity import keys
from whiteboard.systems.nodes import Nodes, positions


def make(ids: list[int], **attrs: np.ndarray) -> Nodes:
    """Return nodes with these ids and attributes."""
    made = Nodes()
    n = len(ids)
    made.add(np.array(ids, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_), attrs)
    return made


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=30), st.lists(st.integers(-(2**62), 2**62)))
def test_ids_are_found_wherever_they_lie(ids: list[int], others: list[int]) -> None:
    """Every id is found at its index, in any order of adding, and no other id is."""
    made = make(ids, theta=np.zeros((len(ids), 2)))
    asked = np.array(ids + others, np.int64)
    expected = [ids.index(i) if i in ids else -1 for i in asked.tolist()]
    assert made.index(asked).tolist() == expected
    assert list(made) == sorted(ids)
    assert all(i in made for i in ids)


def test_nodes_of_several_shapes_share_arenas_by_shape() -> None:
    """Nodes added in pieces lie in one arena for each attribute, shape and dtype."""
    made = make([5, 1], theta=np.array([[1.0, 2.0], [3.0, 4.0]]))
    made.add(np.array([9]), np.array([3]), np.array([True]), {"theta": np.array([[5.0, 6.0]]), "p": np.zeros((1, 3))})
    made.add(np.array([2]), np.array([0]), np.array([False]), {"theta": np.zeros((1, 2), np.float32)})
    assert [(a.attr, a.shape, a.dtype.str, len(a)) for a in made.arenas] == [
        ("theta", (2,), "<f8", 3), ("p", (3,), "<f8", 1), ("theta", (2,), "<f4", 1),
    ]  # fmt: skip
    node = made[9]
    assert (node.id, node.version, node.fixed) == (9, 3, True)
    assert node.theta is not None
    assert node.theta.tolist() == [5.0, 6.0]
    assert made[1].p is None


def test_a_node_is_a_read_only_copy() -> None:
    """What a node gives cannot be written, and does not change with a later write."""
    made = make([1], theta=np.ones((1, 2)))
    theta = made[1].theta
    assert theta is not None
    with pytest.raises(ValueError, match="read-only"):
        theta[0] = 2
    made.arenas[0].write(np.array([0]), np.zeros((1, 2)))
    assert theta.tolist() == [1, 1]


@pytest.mark.parametrize(("ids", "says"), [([3, 4, 3], "3 is given twice"), ([4, 1], "1 exists already")])
def test_duplicate_ids_add_nothing(ids: list[int], says: str) -> None:
    """A duplicate id is named, and none of the call's nodes is there afterwards."""
    made = make([1, 2], theta=np.zeros((2, 1)))
    n = len(ids)
    with pytest.raises(DuplicateNodeError, match=says):
        made.add(np.array(ids), np.zeros(n, np.int64), np.zeros(n, np.bool_), {"theta": np.ones((n, 1))})
    assert (list(made), len(made.arenas[0])) == ([1, 2], 2)


@pytest.mark.parametrize("wrong", [7, "1", None, 1.0])
def test_unknown_nodes_are_named(wrong: object) -> None:
    """Looking up what is not there names it."""
    with pytest.raises(UnknownNodeError, match="no node"):
        make([1], theta=np.zeros((1, 1)))[wrong]  # type: ignore[index]


@pytest.mark.parametrize("width", [2, 200], ids=["small", "large"])
def test_a_token_is_computed_once_a_version(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are those of the values, hashed once each, and again only after a write; so are those of digests."""
    hashed: list[int] = []

    def counting(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def made(values: np.ndarray) -> np.ndarray:
            hashed.append(len(values))
            return make(values)

        return made

    for name in ("tokens", "first_tokens"):
        monkeypatch.setattr(keys, name, counting(getattr(keys, name)))
    values = np.arange(3.0 * width).reshape(3, width)
    made = make([1, 2, 3], theta=values)
    arena = made.arenas[0]
    rows = np.array([[0, 1], [1, 0]])
    first = arena.tokens(rows)
    assert first.tolist() == arena.tokens(rows).tolist()
    arena.write(np.array([1]), values[:1] + 7)
    assert arena.tokens(rows)[0, 1].tobytes() == keys.token(values[0] + 7)
    assert arena.first_tokens(rows)[0, 1].tobytes() == keys.first_token(values[0] + 7)
    assert first[0, 1].tobytes() == keys.token(values[1])
    assert hashed[:2] == [2, 1]
    assert arena.tokens(rows).tobytes() != arena.first_tokens(rows).tobytes() or width == 2
    assert len(hashed) == (2 if width == 2 else 3) + 3  # three of a single array, which this test asks for itself


def test_adding_one_by_one_keeps_values_and_tokens() -> None:
    """An arena that grows row by row holds what one added at once holds."""
    made = make([0], theta=np.array([[0.0]]))
    for i in range(1, 40):
        made.arenas[0].tokens(np.arange(i))
        made.add(np.array([i]), np.array([0]), np.array([False]), {"theta": np.array([[float(i)]])})
    assert made.arenas[0].values[:, 0].tolist() == list(range(40))
    assert made.arenas[0].tokens(np.arange(40)).tolist() == keys.tokens(np.arange(40.0)[:, None]).tolist()


def test_positions_need_one_dimension() -> None:
    """Positions are gathered in any shape of index, and a node without one is named."""
    made = make([4, 5], p=np.array([[0.0, 1.0], [2.0, 3.0]]))
    assert positions(made, np.array([[1, 0]])).tolist() == [[[2.0, 3.0], [0.0, 1.0]]]
    made.add(np.array([6]), np.array([0]), np.array([False]), {"theta": np.zeros((1, 1))})
    with pytest.raises(ShapeError, match="node 6 has no position"):
        positions(made, np.array([0, 2]))
