"""The registry: names, aliases, near matches, and what may be registered twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.conftest import Write
from tests.storage.samples import environment
from whiteboard import ops
from whiteboard.errors import DuplicateOpError, ParamError, UnknownOpError
from whiteboard.ops.catalogue import CATALOGUE, FAMILY

SCALE = "import whiteboard as wb\nK = {}\n@wb.ops.op('mine.scale', {})\ndef scale(x):\n    return x * K\n"


def test_the_catalogue_is_what_the_families_define() -> None:
    """Each name of the list gives an op of that name, and no family defines another."""
    assert [ops.get(name).name for name in FAMILY] == list(FAMILY)
    assert sorted(FAMILY) == ops.names()
    assert sum(len(names.split()) for names in CATALOGUE.values()) == len(FAMILY)


def test_an_alias_gives_the_same_op() -> None:
    """`multiply` is `mul`, the very record."""
    assert ops.get("multiply") is ops.get("mul")


@pytest.mark.parametrize(
    ("name", "near"), [("mull", "'mul'"), ("Tanh", "'tanh'"), ("distnace", "'distance'"), ("xyzzy", "ops.names()")]
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, near: str) -> None:
    """The error names what was asked for, and what may have been meant."""
    with pytest.raises(UnknownOpError, match=f"unknown op '{name}'") as caught:
        ops.get(name)
    assert near in str(caught.value)


def test_every_builtin_op_has_a_fingerprint_of_its_own() -> None:
    """No two ops share a fingerprint, but for ops of one code under two names, and none is opaque."""
    prints = {name: ops.get(name).fingerprint for name in FAMILY}
    assert all(prints.values()), [ops.get(name).opaque for name, digest in prints.items() if not digest]
    assert len(set(prints.values())) == len(prints)


def test_fingerprints_are_the_same_in_another_process() -> None:
    """Neither hash seeds nor import order nor the place in memory are in a fingerprint."""
    text = "from whiteboard import ops; print(*(ops.get(n).fingerprint.hex() for n in reversed(ops.names())))"
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str((ops.get(name).fingerprint or b"").hex()) for name in reversed(ops.names())]


def test_importing_the_ops_imports_no_family_and_no_autograd() -> None:
    """Families, autograd and the checks are imported when they are first needed."""
    text = """
import sys
import whiteboard.ops
late = {"elementwise", "linear", "reductions", "conformance", "geometry"}
assert not [name for name in sys.modules if name.rpartition(".")[2] in late and name.startswith("whiteboard.ops.")]
assert "autograd" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", text], check=True)


def test_the_same_code_may_be_registered_again(write: Write) -> None:
    """A module that is imported again, and a cell that is run again, are no error."""
    write(SCALE.format(2, 1))
    first = ops.get("mine.scale").fingerprint
    write(SCALE.format(2, 1), "again")
    assert ops.get("mine.scale").fingerprint == first


@pytest.mark.parametrize(("constant", "version"), [(3, 1), (2, 2)], ids=["other code", "another version"])
def test_other_code_under_a_taken_name_raises(write: Write, constant: int, version: int) -> None:
    """The error says how to replace the op, and the first one stays."""
    write(SCALE.format(2, 1))
    before = ops.get("mine.scale").fingerprint
    with pytest.raises(DuplicateOpError, match=r"'mine.scale' is registered already.*replace=True"):
        write(SCALE.format(constant, version))
    assert ops.get("mine.scale").fingerprint == before
    write(SCALE.format(constant, f"{version}, replace=True"))
    assert (ops.get("mine.scale").fingerprint, ops.get("mine.scale").version) != (before, 1)


@pytest.mark.parametrize("name", ["mul", "multiply"])
def test_a_builtin_name_cannot_be_taken(name: str) -> None:
    """Neither by code of the user's nor with `replace`."""
    with pytest.raises(DuplicateOpError, match="built in"):
        ops.op(name, replace=True)(lambda x: x)


def test_a_recursive_op_may_be_run_again_and_not_changed(write: Write) -> None:
    """As a cell does it: while the name still stands for the function of the first run."""
    module = write(
        """
        def make(number):
            global power
            if number == 1:
                def power(x, *, n): return x if n == 0 else 2 * power(x, n=n - 1)
            else:
                def power(x, *, n): return x if n == 0 else 3 * power(x, n=n - 1)
            return power
        """
    )
    ops.op("mine.power")(module.make(1))
    before = ops.get("mine.power").fingerprint
    ops.op("mine.power")(module.make(1))
    assert ops.get("mine.power").fingerprint == before
    with pytest.raises(DuplicateOpError):
        ops.op("mine.power")(module.make(2))
    # By its name, the first function calls the other one from now on.
    assert ops.get("mine.power").fingerprint != before


def test_kind_batch_and_arity_are_in_the_fingerprint(write: Write) -> None:
    """One function registered for one job and for many computes two things."""
    text = "import whiteboard as wb\ndef f(*xs): return xs[0]\n"
    text += "wb.ops.op('one')(f)\nwb.ops.op('two', batch='lead_axis')(f)\n"
    write(text + "wb.ops.op('three', kind='elementwise')(f)\nwb.ops.op('four', 2)(f)\n")
    prints = [ops.get(name).fingerprint for name in ("one", "two", "three")]
    assert len(set(prints)) == 3
    assert ops.get("four").fingerprint == prints[0]  # the version is beside it


def test_a_rebound_constant_changes_the_fingerprint_at_the_next_get(write: Write) -> None:
    """What a notebook does: the op computes with the new value, so it has a new identity."""
    module = write(SCALE.format(2, 1))
    before = ops.get("mine.scale")
    assert ops.get("mine.scale") is before
    vars(module)["K"] = 3
    after = ops.get("mine.scale")
    assert after.fingerprint != before.fingerprint
    vars(module)["K"] = 2
    assert ops.get("mine.scale").fingerprint == before.fingerprint


def test_describe_has_a_row_for_each_op(write: Write) -> None:
    """Name, family, arity, kind, exactness and subgradients of every op, in alphabetical order."""
    write("import whiteboard as wb\n@wb.ops.op\ndef mine(x, y, *, k=1):\n    'Mine.'\n    return open(k)\n")
    rows = {row["name"]: row for row in ops.describe()}
    assert list(rows) == sorted(rows) == ops.names()
    assert rows["abs"]["subgradients"] == "0 at 0"
    assert rows["linear_gemm"]["exactness"] == "tolerance"
    assert rows["einsum"]["arity"] is None
    assert rows["mine"]["family"] == "user"
    assert rows["mine"]["params"] == {"k": 1}
    assert rows["mine"]["doc"] == "Mine."
    assert "open()" in rows["mine"]["opaque"]
    assert all(row["doc"] for row in rows.values())


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"axes": 1}, "unknown parameter 'axes'"),
        ({}, "parameter 'shape' has no default"),
        (None, "'shape' has no default"),
    ],
)
def test_parameters_are_bound_by_name(params: dict[str, object] | None, text: str) -> None:
    """A parameter that the op does not take, and a required one that is missing, are errors that name it."""
    with pytest.raises(ParamError, match=f"op 'reshape'.*{text}"):
        ops.get("reshape").bind(params)


_ENTERED = """
import importlib.abc, os, sys, threading
import numpy as np
from whiteboard import ops

entered = []

def enter():
    ops.op(name="entered", gradient="none")(lambda x: x)
    entered.extend(ops.names())

class Waits(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "colorsys":
            other = threading.Thread(target=enter, daemon=True)
            other.start()
            other.join(10)

def imports(x):
    import colorsys
    return x * colorsys.ONE_THIRD

ops.op(gradient="none", trust=("colorsys",))(imports)
sys.meta_path.insert(0, Waits())
ops.get("imports")
os._exit(not ("colorsys" in sys.modules and "entered" in entered))
"""


def test_an_op_is_entered_while_another_is_looked_at(tmp_path: Path) -> None:
    """A look at code imports what that does, and this may enter ops: neither waits for the other."""
    file = tmp_path / "entered.py"
    file.write_text(_ENTERED)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
