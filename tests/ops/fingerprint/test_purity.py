"""Default deny: what of the libraries is known to be pure is cached, all else is not, and a reason says what helps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests.ops.conftest import Write
from whiteboard.ops import registry
from whiteboard.ops.fingerprint.digest import Fingerprint, fingerprint
from whiteboard.ops.fingerprint.purity import Verdict, verdict
from whiteboard.ops.fingerprint.walk import Terms

HEAD = "import autograd.numpy as anp\nimport numpy as np\n"


class Case(NamedTuple):
    """What a module imports, what its function returns, and a part of the reason; none where it is pure."""

    imports: str
    body: str
    reason: str = ""


PURE = (
    Case("import math", "x * math.sin(2.0) + math.pi"),
    Case("import functools, operator", "functools.reduce(operator.mul, [x, x])"),
    Case("from collections import namedtuple, OrderedDict", "x * len(OrderedDict())"),
    Case("import scipy.special", "scipy.special.gamma(x)"),
    Case("import scipy.stats", "x * scipy.stats.norm.pdf(0.0)"),
    Case("from scipy import stats", "x * stats.norm.logcdf(0.0)"),
    Case("from scipy.stats import norm", "x * norm.cdf(0.0)"),
    Case("import scipy.integrate, scipy.interpolate", "x * scipy.integrate.quad(abs, 0, 1)[0]"),
    Case("from scipy.optimize import brentq", "x * brentq(abs, 0, 1)"),
    Case("", "np.linalg.solve(x, x) + np.fft.fft(x).real + np.add.reduce(x)"),
    Case("", "anp.linalg.norm(x) + anp.tanh(x)"),
    Case("", "getattr(np, 'sin')(x)"),
    Case("", "np.finfo(float).eps * x.sum(axis=0).astype(np.float32)"),
    Case("import numpy.linalg as la", "la.inv(x)"),
    Case("import sys", "x * sys.float_info.epsilon"),
    Case("import hashlib, json, re, struct", "x * len(json.dumps([1])) * len(re.findall('a', 'ab'))"),
)
IMPURE = (
    Case("", "x * np.load('a.npy')", "numpy.load, which reads or writes files"),
    Case("", "x * np.loadtxt('a')", "numpy.loadtxt, which reads or writes files"),
    Case("", "x * np.genfromtxt('a')", "which reads or writes files"),
    Case("", "x * np.memmap('a')", "numpy.memmap, which reads or writes files"),
    Case("", "x * np.fromfile('a')", "which reads or writes files"),
    Case("from numpy import load", "x * load('a.npy')", "which reads or writes files"),
    Case("", "x.tofile('a')", ".tofile, which reads or writes files"),
    Case("", "x * float(open('a').read())", "open(), which reads or writes files"),
    Case("import configparser", "configparser.ConfigParser().read('a')", "which reads or writes files"),
    Case("import gzip", "gzip.open('a').read()", "which reads or writes files"),
    Case("from pathlib import Path", "Path('a').read_text()", "which reads or writes files"),
    Case("import json", "json.load(x)", "which reads or writes files"),
    Case("", "x * np.random.rand()", "which is random"),
    Case("from numpy.random import default_rng", "x * default_rng(0).random()", "which is random"),
    Case("import random", "x * random.random()", "which is random"),
    Case("import scipy.stats", "x * scipy.stats.norm.rvs()", "which is random"),
    Case("from scipy.stats import norm", "x * norm(0).rvs()", "which is random"),
    Case("import scipy.optimize", "scipy.optimize.differential_evolution(abs, x)", "which is random"),
    Case("import scipy.sparse", "scipy.sparse.random(3, 3)", "which is random"),
    Case("import time", "x * time.time()", "which reads the clock: pass ignore=('time',)"),
    Case("import timeit", "x * timeit.default_timer()", "which reads the clock"),
    Case("from datetime import datetime", "x * datetime.now().year", "which reads the clock"),
    Case("", "x * np.datetime64('now').astype(float)", "which reads the clock"),
    Case("import os", "x * len(os.environ)", "which depends on the process"),
    Case("import os", "x * os.getpid()", "which depends on the process"),
    Case("import sys", "x * len(sys.argv)", "which depends on the process"),
    Case("import sys", "sys.modules['numpy'].sin(x)", "which depends on the process"),
    Case("import argparse", "argparse.ArgumentParser()", "which depends on the process"),
    Case("import threading", "x * threading.active_count()", "which depends on the process"),
    Case("", "x * hash('a')", "hash(), which depends on the process"),
    Case("", "x * id(x)", "id(), which depends on the process"),
    Case("import decimal", "x * float(decimal.Decimal(1) / 3)", "which depends on settings"),
    Case("import locale", "locale.format_string('%d', 3)", "which depends on settings"),
    Case("", "x * len(np.geterr())", "which depends on settings"),
    Case("import importlib", "importlib.import_module('numpy').sin(x)", "by a name made at run time"),
    Case("", "eval('x')", "eval(), which reaches anything"),
    Case("", "globals()['np'].sin(x)", "globals(), which reaches anything"),
    Case("", "__import__('numpy').sin(x)", "__import__(), which reaches anything"),
    Case("NAME = 'sin'", "getattr(np, NAME)(x)", "used as a value"),
    Case("import inspect", "inspect.currentframe().f_back", "which reaches anything"),
    Case("", "x * len(np.sin.__doc__)", "names .__doc__, which reaches anything"),
    Case("class C:\n    k: 2.0", "x * C.__annotations__['k']", "names .__annotations__, which reaches anything"),
    Case("import typing\nclass C:\n    k: 2.0", "x * len(typing.get_type_hints(C))", "which reaches anything"),
    Case(
        "import click",
        "click.style('a')",
        "click.style, which is not known to be pure: if it is, pass trust=('click',)",
    ),
    Case("import blosc2", "blosc2.compress2(x)", "pass trust=('blosc2',)"),
    Case("W = [1.0]", "x * W[0]", "of type 'list'; use a tuple"),
    Case("W = {}", "x * len(W)", "of type 'dict'; use a tuple of pairs"),
    Case("import logging\nlog = logging.getLogger()", "log.info('a')", "pass ignore=('log',)"),
)


def seen(module: object, **terms: object) -> Fingerprint:
    """Return the fingerprint of a module's f."""
    return fingerprint((module.f,), Terms("mine", **terms))  # type: ignore[attr-defined, arg-type]


def text(case: Case) -> str:
    """Return a module in whose fifth line, if it imports in one, the result is made."""
    return f"{HEAD}{case.imports}\ndef f(x):\n    return {case.body}\n"


@pytest.mark.parametrize("case", PURE, ids=lambda case: case.body)
def test_what_is_pure_is_seen_through(write: Write, case: Case) -> None:
    """And is the same twice."""
    module = write(text(case))
    found = seen(module)
    assert found.opaque == ""
    assert found.holds()
    assert seen(module).digest == found.digest


@pytest.mark.parametrize("case", IMPURE, ids=lambda case: case.body)
def test_what_is_not_is_refused(write: Write, case: Case) -> None:
    """The reason names what, and the line."""
    found = seen(write(text(case)))
    assert found.digest is None
    assert case.reason in found.opaque
    assert f"(mine.py:{5 + case.imports.count(chr(10))})" in found.opaque


def test_a_module_that_makes_names_when_asked(write: Write) -> None:
    """What a module's __getattr__ gives is not in its namespace, so nobody knows when it becomes another."""
    write("def __getattr__(name): return 2.0", "theirs")
    found = seen(write("import theirs\ndef f(x): return x * theirs.k"))
    assert "__getattr__" in found.opaque
    found = seen(write("from theirs import k\ndef f(x): return x * k"))
    assert found.opaque == ""


TABLE = {
    "numpy.sin": Verdict.PURE,
    "numpy.random.rand": Verdict.RANDOM,
    "numpy.randomly": Verdict.PURE,
    "autograd.numpy.load": Verdict.FILES,
    "autograd.numpy.sin": Verdict.PURE,
    "autograd.scipy.special.gamma": Verdict.PURE,
    "autograd.scipy.stats.norm": Verdict.UNKNOWN,
    "scipy.special.gamma": Verdict.PURE,
    "scipy.whatever": Verdict.UNKNOWN,
    "_operator.mul": Verdict.PURE,
    "_random.Random": Verdict.RANDOM,
    "sys.float_info": Verdict.PURE,
    "sys.argv": Verdict.WORLD,
    "builtins.ValueError": Verdict.PURE,
    "builtins.open": Verdict.FILES,
    "sklearn.utils.shuffle": Verdict.UNKNOWN,
    "mathematics": Verdict.UNKNOWN,
}


@pytest.mark.parametrize(("name", "expected"), TABLE.items(), ids=TABLE.keys())
def test_the_longest_name_decides(name: str, expected: Verdict) -> None:
    """Of the names that begin a dotted name."""
    assert verdict(name) is expected
    assert verdict(name, (name.partition(".")[0],)) is Verdict.PURE
    assert verdict(name, (name[:3],)) is expected or name.startswith(f"{name[:3]}.")


# -- the escapes


def test_trust_adds_to_what_is_known(write: Write) -> None:
    """A library, or a name of one; it counts by its version, and other names of it do not."""
    module = write("import click\ndef f(x): return click.style('a')")
    assert seen(module, trust=("click",)).digest is not None
    assert seen(module, trust=("click.style",)).digest is not None
    assert seen(module, trust=("clic",)).digest is None
    assert seen(module, trust=("click.echo",)).digest is None


def test_ignore_says_that_a_name_has_no_part(write: Write) -> None:
    """So nothing of it counts, neither what it is nor what it becomes."""
    body = "import time, logging\nlog = logging.getLogger()\nN = {}\n"
    body += "def f(x):\n    global N\n    N += 1\n    log.info(time.time())"
    module = write(body.format(0) + "\n    return x")
    found = seen(module, ignore=frozenset({"time", "log", "N"}))
    assert found.opaque == ""
    vars(module).update(log=None, N=None)
    assert found.holds()
    assert seen(write(body.format(7) + "\n    return x"), ignore=frozenset({"time", "log", "N"})).digest == found.digest
    assert "'N'" in seen(module, ignore=frozenset({"time", "log"})).opaque


def test_reads_counts_what_files_hold(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of one content are not another's; a file that is gone makes the op one that is not cached."""
    monkeypatch.chdir(tmp_path)
    module = write("def f(x):\n    with open('k.txt') as file: return x * float(file.read())\n", "reading")
    wb.op("mine.reads", batch="loop", vjp=lambda c, y, x: c, reads=("k.txt",), shape=lambda s: s)(module.f)
    x = np.ones(3)
    with wb.open(":memory:") as board:
        for text, hit, y in (("2", "miss", 2.0), ("2", "memory", 2.0), ("3", "miss", 3.0), ("2", "memory", 2.0)):
            Path("k.txt").write_text(text)
            r = board.call("mine.reads", x)
            assert (r.hit, r.y[0]) == (hit, y)
        Path("k.txt").unlink()
        assert "'k.txt': No such file" in registry.get("mine.reads").opaque
        Path("k.txt").write_text("3")
        assert board.call("mine.reads", x).hit == "memory"


def test_identity_stands_for_the_code(write: Write) -> None:
    """Whatever the code is; another text is another op."""
    made = [write(f"import time\ndef f(x): return x * {k}.0 + 0 * time.time()") for k in (2, 3)]
    digests = []
    for module, identity in ((made[0], "solver 1"), (made[1], "solver 1"), (made[1], "solver 2")):
        wb.op("mine.said", identity=identity, replace=True, vjp=lambda c, y, x: c)(module.f)
        digests.append(registry.get("mine.said").fingerprint)
    assert None not in digests
    assert digests[0] == digests[1] != digests[2]


WRONG = {
    "a text for trust": ({"trust": "networkx"}, "trust: expected a tuple of libraries, got 'networkx'"),
    "a number for reads": ({"reads": 3}, "reads: expected a tuple of files, got 3"),
    "a number in ignore": ({"ignore": (1,)}, "ignore: expected names, each a text, got 1"),
    "an empty name": ({"trust": ("",)}, "trust: expected libraries, each a text, got ''"),
    "no identity": ({"identity": ""}, "identity: expected a text"),
    "a number for identity": ({"identity": 2}, "identity: expected a text"),
}


@pytest.mark.parametrize(("words", "reason"), WRONG.values(), ids=WRONG.keys())
def test_wrong_words_are_refused(words: dict[str, object], reason: str) -> None:
    """By name."""
    with pytest.raises(wb.ParamError, match=reason.replace("(", r"\(")):
        wb.op("mine.wrong", **words)(lambda x: x)  # type: ignore[call-overload]


def test_the_warning_points_at_the_users_line(write: Write) -> None:
    """At the call, by its place, and at what stands in the way, by its text."""
    module = write(
        "import time\nimport whiteboard as wb\n@wb.op('mine.timed')\ndef f(x):\n    return x * time.time()\n"
    )
    with wb.open(":memory:") as board:
        with pytest.warns(wb.UncachedWarning, match=r"pass ignore=.*\(mine\.py:5\)") as caught:
            board.call("mine.timed", np.ones(2))
        board.call("mine.timed", np.ones(3))  # once is enough
    assert [os.path.basename(each.filename) for each in caught] == ["test_purity.py"]  # noqa: PTH119
    assert module.f is not None
