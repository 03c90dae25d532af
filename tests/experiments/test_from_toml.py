"""Experiments from TOML files: read whole, and every mistake named by file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import ExperimentError
from whiteboard.experiments import drive, load

GOOD = """\
name = "triangle"
measure = "relative_stress"

[[nodes]]
ids = [0, 1, 2]
p = { random = { seed = 1, shape = [3, 2], scale = 2.0 } }

[[nodes]]
ids = [9]
theta = { npy = "theta.npy" }
fixed = true

[[jobs]]
op = "distance"
src_ids = { csv = "edges.csv", columns = ["a", "b"] }
target = { csv = "edges.csv", columns = "length" }
attr = "p"

[rule]
kind = "StressDescent"
omega = 0.9

[stop]
change = 1e-9
rounds = 3

[options]
persist = "never"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the data that the experiment reads."""
    (tmp_path / "edges.csv").write_text("a,b,length,none\n0,1,3,0\n1,2,4,0\n0,2,5.0,0\n")
    np.save(tmp_path / "theta.npy", np.ones((1, 4)))
    np.save(tmp_path / "hostile.npy", np.array([object()]), allow_pickle=True)
    return tmp_path


def write(folder: Path, text: str) -> str:
    """Write the experiment and return its path."""
    (folder / "x.toml").write_text(text)
    return str(folder / "x.toml")


def test_rounds_end_whatever_is_measured(folder: Path) -> None:
    """A target of 0 has no relative stress: so many rounds are made, resumed or not, and without a number none."""
    experiment = load(write(folder, GOOD.replace('columns = "length" }', 'columns = "none" }')))
    with wb.open(":memory:", **experiment.options) as board:
        system = board.system("triangle", experiment.spec)
        for rounds in (2, 3, 3):
            outcome = drive(experiment, system, rounds=rounds)
            assert (outcome.commit.id, outcome.done, outcome.measure) == (rounds, False, None)
        with pytest.raises(ExperimentError, match="a round gives no relative_stress, so nothing says when it is done"):
            drive(experiment, system)
        assert system.head is not None
        assert system.head.id == 4


def test_a_file_becomes_an_experiment(folder: Path) -> None:
    """Nodes, jobs, rule, stop and options are those of the file, and the experiment runs to its stop."""
    experiment = load(write(folder, GOOD))
    assert (experiment.name, experiment.measure, experiment.options) == (
        "triangle",
        "relative_stress",
        {"persist": "never"},
    )
    assert experiment.rule == wb.rules.StressDescent(0.9)
    with wb.open(":memory:", **experiment.options) as board:
        system = board.system("triangle", experiment.spec)
        outcome = drive(experiment, system)
        assert outcome.done
        assert outcome.measure == pytest.approx(0, abs=1e-6)
        assert system.nodes[9].fixed
        assert list(system.nodes) == [0, 1, 2, 9]
    assert experiment.spec["jobs"] == 3


def test_the_specification_follows_the_content(folder: Path) -> None:
    """Another seed, length or rule is another specification; a comment or the file's place is not."""
    spec = load(write(folder, GOOD)).spec
    assert load(write(folder, "# a comment\n" + GOOD)).spec == spec
    assert load(write(folder, GOOD), seed=1).spec == spec
    others = [load(write(folder, GOOD), seed=2).spec, load(write(folder, GOOD.replace("0.9", "0.8"))).spec]
    (folder / "edges.csv").write_text("a,b,length\n0,1,3\n1,2,4\n0,2,6.0\n")
    others.append(load(write(folder, GOOD)).spec)
    assert all(other != spec for other in others)


class Wrong(NamedTuple):
    """What to replace, by what, and what the error must say."""

    old: str
    new: str
    says: str


WRONG = {
    "not toml": Wrong("[stop]", "[stop", "x.toml: not TOML"),
    "top key": Wrong("measure", "mesure", "x.toml:2: mesure: unknown key"),
    "measure": Wrong('"relative_stress"', '"speed"', "x.toml:2: measure: .*expected one of relative_stress, mse"),
    "errors": Wrong("[[nodes]]", 'errors = "ignore"\n[[nodes]]', "errors: expected 'raise' or 'collect', got 'ignore'"),
    "node key": Wrong("fixed = true", "fixd = true", r"x.toml:11: nodes\[1\].fixd: unknown key"),
    "no ids": Wrong("ids = [9]\n", "", r"nodes\[1\].ids: missing"),
    "no file": Wrong("theta.npy", "no.npy", r"x.toml:10: nodes\[1\].theta: .*no.npy: No such file"),
    "hostile": Wrong("theta.npy", "hostile.npy", r"x.toml:10: nodes\[1\].theta: .*allow_pickle"),
    "column": Wrong('"length"', '"miles"', r"x.toml:16: jobs\[0\].target: missing 'miles'"),
    "op": Wrong('"distance"', '"distnce"', r"x.toml:14: jobs\[0\].op: unknown op 'distnce'"),
    "param": Wrong('attr = "p"', "params = { axis = 0 }", r"jobs\[0\].op: .*unknown parameter 'axis'"),
    "attr": Wrong('attr = "p"', 'attr = "q"', r"x.toml:17: jobs\[0\].attr: expected one of 'theta', 'p', got 'q'"),
    "jobs": Wrong("[[jobs]]", "[[yobs]]", "x.toml:13: yobs: unknown key"),
    "rule": Wrong(
        '"StressDescent"', '"Magic"', "x.toml:20: rule.kind: expected one of StressDescent, Relax, got 'Magic'"
    ),
    "rule key": Wrong("omega", "omga", "x.toml:21: rule.omga: unknown key"),
    "rule value": Wrong("omega = 0.9", "omega = 2.0", "x.toml:19: rule: .*0 < omega < 1, got 2.0"),
    "stop key": Wrong("change", "chnge", "x.toml:24: stop.chnge: unknown key"),
    "stop value": Wrong("rounds = 3", "rounds = 0", "x.toml:23: stop: .*rounds >= 1"),
    "option": Wrong("persist", "persits", "x.toml:28: options.persits: unknown key"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_by_file_line_and_key(folder: Path, wrong: Wrong) -> None:
    """Each mistake in a file is an error with the file, the line and the key."""
    assert wrong.old in GOOD
    with pytest.raises(ExperimentError, match=wrong.says):
        load(write(folder, GOOD.replace(wrong.old, wrong.new, 1)))


def test_nodes_have_any_attributes(folder: Path) -> None:
    """Those of a table `attrs`, which jobs read by name, one a slot where they differ."""
    text = GOOD.replace(
        "[[jobs]]", "[[nodes]]\nids = [20, 21]\nattrs = { ctrl = [[1.0], [2.0]], q = [[3.0], [4.0]] }\n[[jobs]]", 1
    )
    text += '\n[[jobs]]\nop = "mul"\nsrc_ids = [[20, 21]]\nattr = ["ctrl", "q"]\nresidual = 0.5\n'
    experiment = load(write(folder, text))
    with wb.open(":memory:") as board:
        system = board.system("x", experiment.spec)
        drive(experiment, system, rounds=1)
        assert system.nodes[20].ctrl != 1.0
        assert (system.nodes[20].q, system.nodes[21].ctrl) == (3.0, 2.0)
    with pytest.raises(ExperimentError, match=r"attr: expected one of 'theta', 'p', 'ctrl', 'q', got \['ctrl', 'r'\]"):
        load(write(folder, text.replace('["ctrl", "q"]', '["ctrl", "r"]')))
    with pytest.raises(ExperimentError, match=r"nodes\[2\].attrs: expected a table, got 3"):
        load(write(folder, text.replace("attrs = { ctrl = [[1.0], [2.0]], q = [[3.0], [4.0]] }", "attrs = 3")))


def test_bad_nodes_are_named_when_they_are_added(folder: Path) -> None:
    """What only the system can know of the nodes is an error with file and line too."""
    experiment = load(write(folder, GOOD.replace("ids = [9]", "ids = [2]")))
    with (
        wb.open(":memory:") as board,
        pytest.raises(ExperimentError, match=r"x.toml:8: nodes\[1\]: .*2 exists already"),
    ):
        drive(experiment, board.system("triangle"))


def test_a_file_that_is_not_there_is_named() -> None:
    """A path without a file says so."""
    with pytest.raises(ExperimentError, match=r"nowhere\.toml: cannot be read: No such file"):
        load("nowhere.toml")
