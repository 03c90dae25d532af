"""``whiteboard minimize``: what it says and keeps, what it refuses, and that it goes on after Ctrl-C and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np
import pytest

from tests.cli.conftest import Bad, Cli, assert_refused
from tests.storage.samples import WHITEBOARD, environment

MODULE = """
import os
import time
from pathlib import Path
import autograd.numpy as anp
import whiteboard as wb

@wb.op(ignore=("time", "Path"))
def drag(x, *, mach=1.0, pause=0.0):
    if pause:
        time.sleep(pause)
        with Path("log").open("a") as file:
            file.write("x")
    return mach * (anp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2) - 3.0)

def vector(x):
    return x * x

def bowl(x, *, deep=1.0):
    return deep * float(x @ x), 2.0 * deep * x

def dish(x):
    return float(x @ x), 2.0 * x

@wb.op(gradient="none")
def black_box(x):
    return float(x @ x)

@wb.op(gradient="none", ignore=("time", "Path", "os"))
def dear(x):
    time.sleep(0.02)
    with Path("pids").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return ((x - 0.25) ** 2).sum() + x[0] * x[1]
"""
RUN = ("minimize", "mymodule:drag", "--x0=-1.2,1,0.5")


@pytest.fixture(autouse=True)
def _module(builtin_ops_only: None, cli: Cli, tmp_path: Path) -> Iterator[None]:
    """The module registers an op, when it is imported anew in each test."""
    (tmp_path / "mymodule.py").write_text(MODULE)
    sys.modules.pop("mymodule", None)
    yield
    sys.modules.pop("mymodule", None)


def test_a_minimum_is_found_kept_and_shown(cli: Cli, tmp_path: Path) -> None:
    """Each evaluation is a package, each iterate a commit; a second call computes nothing and ends at the same bits."""
    done = cli(*RUN, "--json", "--param", "mach=2.0").said
    np.testing.assert_allclose(done["x"], np.ones(3), atol=1e-4)
    assert (done["success"], done["resumed_from"], round(done["f"], 6)) == (True, None, -6.0)
    assert done["misses"] == done["evaluations"] > done["commit"] > 10
    again = cli(*RUN, "--json", "--param", "mach=2.0", "--plot", "d.png").said
    assert (again["misses"], again["resumed_from"]) == (0, done["commit"])
    assert again["hits_disk"] + again["hits_memory"] == done["evaluations"] + 1  # and once as the first iterate
    assert (tmp_path / "d.png").stat().st_size > 10_000
    alike = ("x", "f", "digest", "commit", "evaluations", "gradient_norm", "message")
    assert {name: again[name] for name in alike} == {name: done[name] for name in alike}
    shown = cli("show", "drag", "--json").said
    assert [shown[name] for name in ("f", "gradient_norm", "commit", "digest")] == [
        done[name] for name in ("f", "gradient_norm", "commit", "digest")
    ]
    assert shown["spec"]["params"] == {"mach": 2.0}
    rows = cli("log", "drag", "--json").said["commits"]
    values = [row["f"] for row in reversed(rows)]
    assert values == sorted(values, reverse=True)
    assert len(values) == done["commit"] + 1


@pytest.mark.parametrize("method", ["BFGS", "cg", "TNC", "SLSQP", "trust-constr", "nelder-mead", "Powell", "COBYLA"])
def test_every_method(cli: Cli, method: str) -> None:
    """By gradient or by value, it ends where SciPy does, and a second call is all hits."""
    arguments = ("minimize", "mymodule:drag", "--x0", "0.7,0.6", "--method", method, "--max-iterations", "15", "--json")
    first, second = cli(*arguments).said, cli(*arguments).said
    assert first["f"] < -2.8
    assert (second["misses"], second["digest"]) == (0, first["digest"])
    assert (first["gradient_norm"] is None) == (method in ("nelder-mead", "Powell", "COBYLA"))


def test_a_plain_function_that_returns_its_gradient(cli: Cli) -> None:
    """It is an op by a word on the command line; without the word the error names it, and no system is made."""
    refused = cli("minimize", "mymodule:dish", "--x0", "3,4", "--quiet")
    assert_refused(refused, 1, "op 'dish': autograd needs it written with autograd.numpy; else say gradient='returned'")
    bowl = ("minimize", "mymodule:bowl", "--x0", "3,4", "--param", "deep=2.0")
    done = cli(*bowl, "--gradient", "returned", "--json").said
    np.testing.assert_allclose(done["x"], np.zeros(2), atol=1e-9)
    assert (done["success"], done["resumed_from"]) == (True, None)
    assert cli(*bowl, "--gradient", "returned", "--json").said["misses"] == 0
    assert [each["name"] for each in cli("ls", "--json").said["systems"]] == ["bowl"]


def test_workers_take_differences_side_by_side(cli: Cli, tmp_path: Path) -> None:
    """Of a function without a gradient, in other processes; iterates do not depend on how many, nor on the cache."""
    run = ("minimize", "mymodule:dear", "--x0=1,-0.5,0.25", "--bounds=-1,1", "--json", "--quiet")
    one = cli(*run, "--workers", "1", "--store", "one.db").said
    pids = set((tmp_path / "pids").read_text().split())
    two = cli(*run, "--workers", "2", "--store", "two.db").said
    more = set((tmp_path / "pids").read_text().split()) - pids
    assert two["success"]
    assert np.allclose(two["x"], [1 / 6, 1 / 6, 0.25], atol=1e-5)
    assert (one["digest"], one["x"], one["evaluations"]) == (two["digest"], two["x"], two["evaluations"])
    assert len(more) >= 2
    assert str(os.getpid()) not in more
    again = cli(*run, "--workers", "2", "--store", "two.db").said
    assert (again["misses"], again["digest"]) == (0, two["digest"])
    assert cli("show", "dear", "--store", "two.db", "--json").said["spec"]["gradient"] == "differences"
    alone = cli("minimize", "mymodule:dear", "--x0=1,-0.5", "--store", "five.db", "--quiet")
    assert_refused(alone, 1, "ask for differences (--workers)")
    drag = cli(*RUN, "--json", "--workers", "2", "--store", "three.db").said
    assert (drag["success"], drag["digest"]) == (True, cli(*RUN, "--json", "--store", "four.db").said["digest"])


def test_it_goes_on_after_ctrl_c_and_kills(cli: Cli, tmp_path: Path) -> None:
    """The same end as undisturbed, to the bit, and no evaluation that was done is computed again."""
    whole = cli(*RUN, "--json", "--store", "whole.db", "--max-iterations", "12").said
    command = [*WHITEBOARD, *RUN, "--param", "pause=0.03", "--max-iterations", "12"]
    for number, how in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM), 1):
        with subprocess.Popen(command, env=environment(), stdout=DEVNULL, stderr=PIPE, text=True) as process:
            while process.poll() is None and _done(tmp_path) < 3 * number:
                time.sleep(0.005)
            process.send_signal(how)
            said = process.communicate()[1]
        assert process.returncode == (-9 if how == signal.SIGKILL else 130), said
        assert ("goes on from there" in said) == (how != signal.SIGKILL)
    last = cli(*RUN, "--json", "--param", "pause=0.03", "--max-iterations", "12")
    assert last.code == 1, last.err  # SciPy says that it came to the limit
    done = last.said
    assert {name: done[name] for name in ("x", "f", "evaluations", "commit")} == {
        name: whole[name] for name in ("x", "f", "evaluations", "commit")
    }
    assert whole["evaluations"] <= _done(tmp_path) <= whole["evaluations"] + 2  # one a SIGKILL


def _done(folder: Path) -> int:
    return (folder / "log").stat().st_size if (folder / "log").exists() else 0


def test_another_function_of_the_name_is_noticed(cli: Cli, tmp_path: Path) -> None:
    """Iterates that are not those of the system are an error, and nothing of it is changed."""
    before = cli(*RUN, "--json", "--max-iterations", "5").said
    (tmp_path / "mymodule.py").write_text(MODULE.replace("100.0", "90.0").replace("@wb.op(", "@wb.op(replace=True, "))
    sys.modules.pop("mymodule")
    says = "iterate 5 is another than that of system 'drag': the function, or SciPy, has changed"
    assert_refused(cli(*RUN, "--quiet", "--max-iterations", "5"), 1, says)
    assert cli("show", "drag", "--json").said["digest"] == before["digest"]


BAD = [
    Bad(("minimize", "mymodule:drag"), 2, "Missing option '--x0'"),
    Bad(("minimize", "mymodule:drag", "--x0", "a,b"), 2, "expected numbers with commas between"),
    Bad(("minimize", "mymodule:drag", "--x0", "none.npy"), 2, "No such file"),
    Bad(("minimize", "mymodule:drag", "--x0", "nan,1"), 1, "x0: expected finite numbers"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--method", "magic"), 2, "'magic' is not one of"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--bounds", "1"), 2, "expected low,high"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--bounds", "2,1"), 2, "the lower end is above"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--bounds", "2,3"), 1, "x0[0] = 1.0 does not lie between 2.0"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--bounds", "0,3;0,3;0,3"), 1, "one for each of 2 components"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--bounds", "0,", "--method", "CG"), 1, "CG takes no bounds"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--param", "mach"), 2, "expected NAME=VALUE"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--param", "mass=1"), 1, "unknown parameter 'mass'"),
    Bad(("minimize", "mymodule:lift", "--x0", "1,1"), 1, "has no function 'lift'"),
    Bad(("minimize", "no_such:lift", "--x0", "1,1"), 1, "cannot import no_such"),
    Bad(("minimize", "mymodule", "--x0", "1,1"), 1, "expected module:function"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--gradient", "none"), 1, "registered with gradient='autograd'"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--gradient", "guess"), 2, "'guess' is not one of"),
    Bad(
        ("minimize", "mymodule:black_box", "--x0", "1,1", "--quiet"),
        1,
        "asks for; ask for differences (--workers), or take a method of values alone: Nelder-Mead",
    ),
    Bad(("minimize", "mymodule:vector", "--x0", "1,1", "--quiet"), 1, "expected a scalar y"),
    Bad(("minimize", "mymodule:drag", "--x0", "1,1", "--plot", "a.txt"), 1, "expected a file name that ends in .png"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: " ".join(case.arguments[1:]))
def test_what_is_wrong_is_one_line(case: Bad, cli: Cli) -> None:
    """And says which argument."""
    assert_refused(cli(*case.arguments), case.code, case.says)


def test_another_start_under_the_name_is_refused(cli: Cli) -> None:
    """With what differs; the name is free to be another."""
    cli(*RUN, "--max-iterations", "2", "--quiet")
    assert_refused(cli("minimize", "mymodule:drag", "--x0", "1,2"), 1, "x0 is [-1.2, 1.0, 0.5], asked for [1.0, 2.0]")
    assert cli("minimize", "mymodule:drag", "--x0", "1,2", "--name", "other", "--quiet").code == 0
