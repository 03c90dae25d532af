"""Attributes of nodes: any name, versioned, committed, kept, forked, in the digest; nodes read as a mapping and set."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status
from whiteboard.errors import DtypeError, NonFiniteError, ParamError, ShapeError, UnknownNodeError, WhiteboardError
from whiteboard.records.systems import is_attr
from whiteboard.systems.nodes import Node

CTRL = np.array([[0.5, 1.0], [2.0, -1.0], [4.0, 8.0]])


def filled(board: wb.Board, name: str = "s") -> wb.System:
    """Return a new system of three nodes with theta (2,), p (2,) and ctrl (2,), and one with a gain alone."""
    system = board.system(name)
    system.add_nodes([1, 2, 7], theta=np.arange(6.0).reshape(3, 2), p=np.eye(3)[:, :2], attrs={"ctrl": CTRL})
    system.add_nodes([9], attrs={"gain": [[[2.0]]]})
    return system


def step(rows: np.ndarray, sums: Any) -> np.ndarray:
    """Return rows moved by their impulses."""
    moved: np.ndarray = rows + sums.vector
    return moved


def test_an_attribute_lives_through_commits_closing_and_forks(tmp_path: Path) -> None:
    """It is read by its name, moved by impulses and writes, and found again in the store, at every commit and fork."""
    with wb.open(tmp_path / "a.db") as board:
        system = filled(board)
        system.commit()
        assert system.nodes[7].ctrl.tolist() == [4.0, 8.0]
        assert np.asarray(system.nodes[9].gain).shape == (1, 1)
        system.process([wb.Job("mul", (1, 2), residual=1.0, attr="ctrl")])
        system.write(7, ctrl=[0.0, 0.0])
        system.commit(step)
        assert system.nodes[1].ctrl.tolist() == (CTRL[0] - CTRL[1]).tolist()
        assert system.nodes[1].theta is not None
        assert [system.nodes[i].version for i in (1, 2, 7, 9)] == [1, 1, 1, 0]
        digests = [commit.digest for commit in system.history()]
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        assert system.digest() == digests[1]
        assert system.nodes[7].ctrl.tolist() == [0.0, 0.0]
        assert system.at(0).nodes[7].ctrl.tolist() == [4.0, 8.0]
        assert system.at(0).digest() == digests[0]
        fork = system.fork("f", at=0)
        assert fork.digest() == digests[0]
        fork.write(9, gain=[[3.0]])
        assert fork.commit().changed == 1
        assert fork.nodes[9].gain.tolist() == [[3.0]]
        assert board.verify().ok
    assert status(["export", str(tmp_path / "a.db"), str(tmp_path / "a.wb")]) == 0
    assert status(["import", str(tmp_path / "b.db"), str(tmp_path / "a.wb")]) == 0
    with wb.open(tmp_path / "b.db") as board:
        assert [board.system("s").digest(), board.system("f").nodes[9].gain.tolist()] == [digests[1], [[3.0]]]


def test_an_attribute_is_given_to_nodes_that_are_there(tmp_path: Path) -> None:
    """It is read and moved at once, kept by the next commit, and past commits, forks of them and digests have none."""
    with wb.open(tmp_path / "a.db") as board:
        system = filled(board)
        before = system.commit().digest
        system.add_attribute("lift", [7, 1], CTRL[:2])
        system.add_attribute("theta", [9], [[1.0]])
        assert system.nodes[7].lift.tolist() == CTRL[0].tolist()
        assert system.digest() != before
        system.process([wb.Job("mul", (1, 7), residual=1.0, attr="lift")])
        commit = system.commit(step)
        assert commit.changed == 3
        assert [system.nodes[i].version for i in (1, 2, 7, 9)] == [1, 0, 1, 1]
        assert system.nodes[1].lift.tolist() == (CTRL[1] - CTRL[0]).tolist()
        system.add_attribute("lift", [2], CTRL[2:])
        assert system.commit().changed == 1
        assert system.commit().changed == 0
        digests = [commit.digest for commit in system.history()]
        assert digests[2] == digests[3]
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        assert system.digest() == digests[3]
        assert system.nodes[1].lift.tolist() == (CTRL[1] - CTRL[0]).tolist()
        assert [system.at(number).digest() for number in range(4)] == digests
        assert [sorted(system.at(number).nodes[2].attrs) for number in (0, 1, 2)] == [
            *[["ctrl", "p", "theta"]] * 2,
            ["ctrl", "lift", "p", "theta"],
        ]
        fork = system.fork("f", at=0)
        assert fork.digest() == before
        fork.add_attribute("lift", [1, 2, 7], -CTRL)
        assert fork.commit().changed == 3
        system.write(7, lift=[0.0, 3.0])
        assert system.commit().changed == 1
        assert board.verify().ok
    assert status(["export", str(tmp_path / "a.db"), str(tmp_path / "a.wb")]) == 0
    assert status(["import", str(tmp_path / "b.db"), str(tmp_path / "a.wb")]) == 0
    with wb.open(tmp_path / "b.db") as board:
        assert board.system("s").nodes[7].lift.tolist() == [0.0, 3.0]
        assert board.system("f").nodes[7].lift.tolist() == (-CTRL[2]).tolist()


def test_an_attribute_lives_through_keyframes(tmp_path: Path) -> None:
    """Given in many steps, with writes between, it is read back as it was at each commit."""
    rng = np.random.default_rng(3)
    ids = np.arange(12)
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        system.add_nodes(ids, theta=rng.normal(size=(12, 3)))
        system.commit()
        for node_id in ids.tolist():
            system.add_attribute("ctrl", [node_id], rng.normal(size=(1, 2)))
            if node_id % 3 == 0:
                system.write(node_id, theta=rng.normal(size=3))
                system.write(node_id, ctrl=rng.normal(size=2))
            assert system.commit().changed == 1
            system.write(0, ctrl=rng.normal(size=2))
            system.commit()
        digests = [commit.digest for commit in system.history()]
    with wb.open(tmp_path / "a.db") as board:
        assert [board.system("s").at(number).digest() for number in range(len(digests))] == digests
        assert board.system("s").digest() == digests[-1]


def test_an_attribute_of_no_node_is_none() -> None:
    """It is not in the digest, as it is not in the store."""
    with wb.open(":memory:") as board:
        system = filled(board)
        before = system.commit().digest
        system.add_nodes([], attrs={"lift": np.zeros((0, 2))})
        system.add_attribute("drag", [], np.zeros((0, 2)))
        assert system.commit().digest == before
        assert system.at(1).digest() == before


def test_the_digest_of_theta_and_p_is_what_it_was() -> None:
    """A state without other attributes has the digest that it had before there were any."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([3, -1, 7], theta=np.arange(6.0).reshape(3, 2), p=[[0.0, 1.0], [2.0, -0.0], [0.5, 4.0]])
        system.add_nodes([5], theta=np.ones((1, 2, 2), np.float32), fixed=True)
        assert system.digest() == "39d54280f57b5cefe7ca1af13704d5b5"
        system.write(7, theta=[9.0, 9.0])
        system.commit()
        system.write(5, theta=np.zeros((2, 2)))
        assert system.commit().digest == "c857e1bcf529a9605f5984a69d91a1e7"
        points = board.system("points")
        points.add_nodes([1, 2], p=np.zeros((2, 3)))
        assert points.commit().digest == "b6cadf16fd2f66f47377f16bf84d031e"


def test_name_node_and_value_are_in_the_digest_and_the_order_of_adding_is_not() -> None:
    """Another name, node or value of an attribute is another digest; attributes given in another order are not."""
    made = {
        "a": {"x": CTRL, "y": CTRL},
        "names": {"x": CTRL, "z": CTRL},
        "values": {"x": CTRL, "y": -CTRL},
        "one": {"x": CTRL},
        "as theta": {"theta": CTRL, "y": CTRL},
    }
    with wb.open(":memory:") as board:
        digests = {}
        for name, attrs in made.items():
            system = board.system(name)
            system.add_nodes([1, 2, 3], attrs=attrs)
            digests[name] = system.digest()
        assert len(set(digests.values())) == len(made)
        other = board.system("other")
        other.add_nodes([3, 2, 1], attrs={"y": CTRL[::-1], "x": CTRL[::-1]})
        assert other.digest() == digests["a"]


def test_a_job_reads_another_attribute_of_each_slot() -> None:
    """With one name a slot, the op reads and the impulses move these; a list of jobs and a batch give the same bits."""
    with wb.open(":memory:") as board:
        digests: list[str] = []
        for jobs in (
            [wb.Job("mul", (1, 2), residual=2.0, attr=("theta", "ctrl")), wb.Job("mul", (2, 7), attr=["ctrl", "p"])],
            wb.JobBatch("mul", [(1, 2)], residual=2.0, attr=("theta", "ctrl")),
        ):
            system = filled(board, f"s{len(digests)}")
            done = list(system.process(jobs))
            assert done[0].y.tolist() == (np.arange(2.0) * CTRL[1]).tolist()
            system.commit(step)
            assert system.nodes[1].theta is not None
            assert system.nodes[1].theta.tolist() == (np.arange(2.0) - 2 * CTRL[1]).tolist()
            assert system.nodes[2].ctrl.tolist() == (CTRL[1] - 2 * np.arange(2.0)).tolist()
            digests.append(system.digest())
        assert len(set(digests)) == 1
        job = wb.Job("mul", (1, 2), attr=("theta", "ctrl"))
        assert not board.explain(job, system).hit
        system.process([job])
        assert board.explain(job, system).hit


def test_an_impulse_names_its_attribute() -> None:
    """`impulse` and `retract` take the attribute, theta where none is given."""
    with wb.open(":memory:") as board:
        system = filled(board)
        system.impulse(1, 2, "spring", [1.0, 1.0], attr="ctrl")
        system.impulse(1, 2, "spring", [9.0, 9.0], attr="ctrl")
        system.retract(1, 2, "spring", [9.0, 9.0], attr="ctrl")
        system.commit(step)
        assert system.nodes[1].ctrl.tolist() == (CTRL[0] + 1).tolist()


def test_nodes_read_like_a_mapping() -> None:
    """`keys`, `values`, `items` and `get` are those of a mapping of id to `Node`, by ascending id."""
    with wb.open(":memory:") as board:
        nodes = filled(board).nodes
        assert nodes.keys() == list(nodes) == [node.id for node in nodes.values()] == [1, 2, 7, 9]
        assert [(i, node.id) for i, node in nodes.items()] == [(i, i) for i in nodes]
        assert nodes.get(5) is None
        assert nodes.get(7) is not None
        assert nodes[9].theta is None
        assert sorted(nodes[1].attrs) == ["ctrl", "p", "theta"]
        assert not hasattr(nodes[1], "gain")
        with pytest.raises(AttributeError, match=r"node 9 has no 'ctrl' \(it has gain\)"):
            _ = nodes[9].ctrl
        assert repr(nodes[9]) == "Node(9, version=0, fixed=False, gain=array([[2.]]))"


def test_an_assignment_is_a_write_of_the_next_commit() -> None:
    """It leaves the node that was read as it was, and counts as a write does: once a commit."""
    with wb.open(":memory:") as board:
        system = filled(board)
        node = system.nodes[7]
        node.theta = np.array([9.0, 9.0])
        node.ctrl = [1.0, 1.0]
        assert system.waiting == 2
        assert np.asarray(node.theta).tolist() == np.asarray(system.nodes[7].theta).tolist() == [4.0, 5.0]
        with pytest.raises(ParamError, match="written with another value since the last commit"):
            system.nodes[7].theta = np.zeros(2)
        system.commit()
        assert np.asarray(system.nodes[7].theta).tolist() == [9.0, 9.0]
        assert system.nodes[7].ctrl.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_a_node_is_copied_and_pickled(copied: Any) -> None:
    """A copy has the same values, and cannot be written."""
    with wb.open(":memory:") as board:
        node: Node = copied(filled(board).nodes[7])
        assert (node.id, node.version, node.fixed, node.ctrl.tolist()) == (7, 0, False, [4.0, 8.0])
        with pytest.raises(ParamError, match="node 7: theta cannot be written"):
            node.theta = CTRL[0]


class Misuse(NamedTuple):
    """What is done with a system, and the error that it must be."""

    does: Any
    error: type[WhiteboardError]
    says: str


def assign(name: str, value: Any, node_id: int = 7) -> Any:
    """Return what sets an attribute of a node."""
    return lambda system: setattr(system.nodes[node_id], name, value)


def add(**columns: Any) -> Any:
    """Return what adds one node."""
    return lambda system: system.add_nodes([20], **columns)


def give(name: str, ids: Any, values: Any) -> Any:
    """Return what gives nodes an attribute."""
    return lambda system: system.add_attribute(name, ids, values)


MISUSES = {
    "version": Misuse(assign("version", 3), ParamError, "node 7: version is no attribute to be written"),
    "absent": Misuse(
        assign("gain", 3.0), UnknownNodeError, "gain of node 7: the node has no gain; system.add_attribute gives"
    ),
    "unknown": Misuse(lambda s: s.write(7, lift=3.0), UnknownNodeError, "lift of node 7: the node has no lift"),
    "no node": Misuse(lambda s: s.write(8, ctrl=3.0), UnknownNodeError, "ctrl of node 8: no such node"),
    "shape": Misuse(assign("ctrl", 3.0), ShapeError, r"ctrl of node 7: expected shape \(2,\), got \(\)"),
    "text": Misuse(assign("ctrl", "a"), DtypeError, "ctrl of node 7: expected real numbers"),
    "none": Misuse(assign("ctrl", None), DtypeError, "ctrl of node 7: expected real numbers"),
    "nan": Misuse(assign("ctrl", [0.0, np.nan]), NonFiniteError, "ctrl of node 7: it is not finite"),
    "snapshot": Misuse(
        lambda s: s.commit() and assign("ctrl", CTRL[0])(s.at(0)), ParamError, "node 7: ctrl cannot be written"
    ),
    "name": Misuse(add(attrs={"a b": [1.0]}), ParamError, "attrs: 'a b' cannot be an attribute's name"),
    "said": Misuse(add(attrs={"fixed": [1.0]}), ParamError, "attrs: 'fixed' cannot be an attribute's name"),
    "twice": Misuse(add(theta=[1.0], attrs={"theta": [1.0]}), ParamError, "attrs: theta is given twice"),
    "integers": Misuse(add(attrs={"ctrl": [1]}), DtypeError, "ctrl: integer dtype int64 is refused"),
    "rows": Misuse(add(attrs={"ctrl": [1.0, 2.0]}), ShapeError, r"ctrl: expected shape \(1, …\), got \(2,\)"),
    "p": Misuse(add(attrs={"p": [1.0]}), ShapeError, r"p: expected shape \(1, d\), got \(1,\)"),
    "has": Misuse(give("ctrl", [7], CTRL[:1]), ParamError, "add_attribute: node 7 has ctrl already; system.write"),
    "again": Misuse(give("lift", [7, 7], CTRL[:2]), ParamError, "node 7 is given twice"),
    "nobody": Misuse(give("lift", [7, 8], CTRL[:2]), UnknownNodeError, "no such node: 8"),
    "one id": Misuse(give("lift", 7, CTRL[:1]), ShapeError, r"ids: expected shape \(n,\), got \(\)"),
    "unnamable": Misuse(give("a b", [7], CTRL[:1]), ParamError, "'a b' cannot be an attribute's name"),
    "long": Misuse(give("lift", [7], CTRL), ShapeError, r"lift: expected shape \(1, …\), got \(3, 2\)"),
    "whole": Misuse(give("lift", [7], [1]), DtypeError, "lift: integer dtype int64 is refused"),
    "points": Misuse(give("p", [9], [1.0]), ShapeError, r"p: expected shape \(1, d\), got \(1,\)"),
    "job": Misuse(
        lambda s: s.process([wb.Job("mul", (1, 9), attr=("theta", "ctrl"))]), UnknownNodeError, "node 9 has no 'ctrl'"
    ),
    "impulse": Misuse(lambda s: s.impulse(9, 1, "spring", 1.0, attr="ctrl"), UnknownNodeError, "the node has no ctrl"),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_named_and_changes_nothing(misuse: Misuse) -> None:
    """Each says what was wrong, of which node and attribute; nothing waits, and no node is added."""
    with wb.open(":memory:") as board:
        system = filled(board)
        with pytest.raises(misuse.error, match=misuse.says):
            misuse.does(system)
        assert (system.waiting, len(system.nodes)) == (0, 4)


@pytest.mark.parametrize(
    ("names", "can"),
    [
        (("ctrl", "Re_x2", "lambda", "a" * 64), True),
        (("a" * 65, "_a", "2a", "", "é", "a\n", "id", "attrs", 3), False),
    ],
)
def test_names_of_attributes(names: tuple[object, ...], can: bool) -> None:
    """ASCII letters, digits and underscores, a letter first, and nothing that a node says of itself."""
    assert {is_attr(name) for name in names} == {can}


def test_commands_know_every_attribute(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`diff` compares all attributes, and `explain` takes any."""
    store = str(tmp_path / "a.db")
    with wb.open(store) as board:
        system = filled(board)
        system.commit()
        system.process([wb.Job("mul", (1, 2), attr="ctrl")])
        system.write(1, ctrl=[0.5, 3.0])
        system.commit()
    assert status(["diff", "s@0", "s@1", "--store", store, "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["largest_difference"] == {"ctrl": 2.0}
    explain = ["explain", "--system", "s", "--job", "mul", "1", "2", "--store", store, "--attr"]
    assert status([*explain, "ctrl"]) == 0
    assert "other bytes in source 0: node 1 at version 0, now node 1 at version 1" in capfd.readouterr().out
    assert status([*explain, "a b"]) == 1
    assert "attr: expected an attribute's name" in capfd.readouterr().err


def test_digests_do_not_follow_the_scheme_of_keys() -> None:
    """That of a state with large attributes is what it was when tokens of every size were BLAKE2b."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([1, 2], theta=np.arange(400.0).reshape(2, 200))
        assert system.commit().digest == system.digest() == "e2ce783f21afe1b0d781793db9abea7e"
