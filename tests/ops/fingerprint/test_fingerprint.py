"""Fingerprints: what changes them, what does not, and what cannot be seen through."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from tests.ops.conftest import Write
from tests.storage.samples import environment
from whiteboard.ops.fingerprint.digest import Fingerprint, fingerprint
from whiteboard.ops.fingerprint.walk import Terms

OP = """
import functools
from dataclasses import dataclass
from enum import Enum
import numpy as np

GAIN = 2.0
TABLE = (1, ("a", None), frozenset({3, 4}), b"x", 1j, range(3), ...)
WEIGHTS = np.arange(3.0)
WEIGHTS.flags.writeable = False

class Mode(Enum):
    FAST = 1

@dataclass(frozen=True)
class Law:
    rate: float
    def at(self, x):
        return self.rate * x

LAW = Law(0.5)

def base(x):
    return x + 1

def helper(x):
    return base(x) * GAIN

def power(x, n):
    return x if n == 0 else x * power(x, n - 1)

def make(scale):
    def inner(x):
        return x * scale
    return inner

scaled = make(3.0)
half = functools.partial(power, n=2)
plain = lambda x: x - 7
first, second = lambda x: x + 1, lambda x: x + 2

def f(x, *, bias=0.25, steps=(1, 2)):
    y = helper(x) + bias + sum(TABLE[:1]) + LAW.at(x) + scaled(x) + half(x) + plain(x) + second(x)
    return np.tanh(y) * WEIGHTS if Mode.FAST.value else y
"""


class Edit(NamedTuple):
    """A change of `OP`, by replacement."""

    old: str
    new: str
    id: str


SAME = (
    Edit("    return x + 1\n", "    # one more\n\n    return x + 1  # it is\n", "comments and blank lines"),
    Edit("def base(x):\n", 'def base(x):\n    """Add one."""\n', "docstring"),
    Edit("def base(x):\n", "def base(x: 'np.ndarray') -> 'np.ndarray':\n", "annotations"),
    Edit("GAIN = 2.0", "\n\n\nUNUSED = 1\nGAIN = 2.0", "another constant and other lines"),
    Edit("return base(x) * GAIN", "return (base(x)\n        * GAIN)", "layout"),
    Edit("first, second = lambda x: x + 1", "first, second = lambda x: x + 5", "a lambda beside it"),
    Edit("GAIN = 2.0", "GAIN = 2.00", "another spelling of a number"),
)

DIFFERENT = (
    Edit("return np.tanh(y)", "return np.sin(y)", "the function"),
    Edit("return base(x) * GAIN", "return base(x) / GAIN", "a helper"),
    Edit("return x + 1\n", "return x + 2\n", "a helper's helper"),
    Edit("GAIN = 2.0", "GAIN = 2.5", "a constant"),
    Edit("GAIN = 2.0", "GAIN = 2", "the type of a constant"),
    Edit("GAIN = 2.0", "GAIN = -0.0", "a zero"),
    Edit("bias=0.25", "bias=0.5", "a keyword default"),
    Edit("steps=(1, 2)", "steps=(1, 3)", "a tuple default"),
    Edit("make(3.0)", "make(4.0)", "a closure constant"),
    Edit("return x * scale", "return x / scale", "an inner function"),
    Edit("power, n=2", "power, n=3", "a partial's argument"),
    Edit("power(x, n - 1)", "power(x, n - 2)", "a recursive function"),
    Edit("x - 7", "x - 8", "a lambda"),
    Edit("lambda x: x + 2", "lambda x: x + 3", "a lambda of two on a line"),
    Edit("FAST = 1", "FAST = 2", "an enum's value"),
    Edit("Law(0.5)", "Law(0.25)", "a frozen dataclass's field"),
    Edit("self.rate * x", "self.rate + x", "a method"),
    Edit("np.arange(3.0)", "np.arange(3.0) + 1", "a read-only array"),
    Edit("frozenset({3, 4})", "frozenset({3, 5})", "a frozen set"),
    Edit("None", "'None'", "an item of a tuple"),
    Edit("import numpy as np", "import autograd.numpy as np", "another library under the name"),
)


def of(module: ModuleType, name: str = "f") -> Fingerprint:
    """Return the fingerprint of a module's function."""
    return fingerprint((getattr(module, name),), Terms(module.__name__))


def edited(edit: Edit) -> str:
    """Return `OP` after the edit."""
    assert edit.old in OP
    return OP.replace(edit.old, edit.new, 1)


@pytest.mark.parametrize("edit", SAME, ids=lambda edit: edit.id)
def test_what_computes_the_same_has_the_same_fingerprint(write: Write, edit: Edit) -> None:
    """Comments, docstrings, annotations, layout, place and neighbours are not in a fingerprint."""
    one, two = of(write(OP)), of(write(edited(edit), "elsewhere"))
    assert one.opaque == two.opaque == ""
    assert one.digest == two.digest
    assert one.digest is not None
    assert len(one.digest) == 16


@pytest.mark.parametrize("edit", DIFFERENT, ids=lambda edit: edit.id)
def test_what_computes_otherwise_has_another_fingerprint(write: Write, edit: Edit) -> None:
    """An edit of the function, or of anything of the user's own that it leads to, is in the fingerprint."""
    one, two = of(write(OP)), of(write(edited(edit)))
    assert two.opaque == ""
    assert one.digest != two.digest


ASSERTIONS = (
    ("def f(x): return x", False, "none"),
    ('def f(x):\n    """Doc."""\n    return x', False, "a docstring"),
    ("def f(x):\n    assert x.ndim\n    return x", True, "an assertion"),
    ("def f(x): return x if __debug__ else 2 * x", True, "__debug__"),
    ("def g(x):\n    assert x.ndim\n    return x\ndef f(x): return g(x)", True, "an assertion of a helper"),
)


@pytest.mark.parametrize(("text", "differs"), [row[:2] for row in ASSERTIONS], ids=[row[2] for row in ASSERTIONS])
def test_what_python_leaves_out_is_told(write: Write, text: str, differs: bool) -> None:
    """``python -O`` runs no assertion and nothing of ``if __debug__``: what it computes has another fingerprint."""
    module = write(text)
    told = (
        "import sys; sys.path.insert(0, sys.argv[1]); import mine\n"
        "from whiteboard.ops.fingerprint.digest import fingerprint\n"
        "from whiteboard.ops.fingerprint.walk import Terms\n"
        "print(fingerprint((mine.f,), Terms('mine')).digest.hex())"
    )
    folder = str(Path(module.__file__ or "").parent)
    digests = []
    for flags in ([], ["-O"], ["-OO"]):
        command = [sys.executable, *flags, "-c", told, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        digests.append(bytes.fromhex(done.stdout))
    assert digests[0] == of(module).digest
    assert digests[1] == digests[2]
    assert (digests[0] != digests[1]) is differs


def test_a_fingerprint_is_the_same_in_every_python(write: Write) -> None:
    """The digest of a function with every kind of syntax is a constant, whatever the Python version.

    A change of it makes all cached packages of users' ops unreachable.
    """
    module = write(
        '''
        import math
        from math import *
        SCALE = (1.5, -2, 10**20, "é", True)

        def f(x, *rest, k=SCALE[1], **more):
            """Doc."""
            def inner(a, /, b=2, *, c):
                nonlocal total
                total += a
                return a if b else c
            total: float = 0.0
            pairs = {key: [v async_ for v in range(3)] for key in "ab"} if False else {**more, "z": {*rest}}
            text = f"{x!r:>{k}} and {{braces}} {total=} {'nested' + f'{k:.2f}'}" "tail" rf"\\d{k}"
            match rest:
                case [1, *others] | [2, 3, *others] if others:
                    y = math.sqrt(len(others))
                case {"a": 1, **kw}:
                    y = kw
                case _:
                    y = (z := k) ** 2 // 3 @ x
            try:
                with memoryview(b"") as m, memoryview(b"") as n:
                    del m, n
            except (ValueError, TypeError) as error:
                raise RuntimeError from error
            else:
                assert x, "message"
            finally:
                pass
            for i, *j in zip(rest, strict=True):
                while i:
                    break
                else:
                    continue
            return lambda *a, **k: (yield) or a[1:2, ..., ::3], text, pairs, y, -x, not x, 1 < x <= 2, 3j, inner
        '''.replace("async_ ", "")
    )
    seen = of(module)
    assert seen.opaque == ""
    assert seen.digest is not None
    assert seen.digest.hex() == "cfc90ec8d69b3977a8aca2fa01c5c4d0"


class Opaque(NamedTuple):
    """A module with a function f that cannot be seen through, and what the reason says."""

    text: str
    reason: str
    id: str


OPAQUE = (
    Opaque("log = open(__file__)\nlog.close()\ndef f(x): return log.read()", "'log'.*'TextIOWrapper'", "an open file"),
    Opaque(
        "def f(x): return open('a').read()",
        r"'open', which 'f' names, is open\(\), which reads.*reads=",
        "a call of open",
    ),
    Opaque("f = eval('lambda x: x')", "has no source", "a lambda without source"),
    Opaque("a = []\ndef f(x): return a", "'a', which 'f' names,.*'list'; use a tuple", "a list"),
    Opaque("a = {}\ndef f(x): return a", "'a'.*'dict'", "a dict"),
    Opaque("a = (1, [2])\ndef f(x): return a", r"'a'.*\[1\].*'list'", "a list in a tuple"),
    Opaque("def f(x, a=[]): return a", "default of 'f'.*'list'", "a mutable default"),
    Opaque("import numpy as np\na = np.ones(2)\ndef f(x): return a", "'a'.*written to; make it read-only", "an array"),
    Opaque(
        "import numpy as np\nb = np.ones(2)\na = b[:]\na.flags.writeable = False\ndef f(x): return a",
        "can be written to",
        "a read-only view of an array that is not",
    ),
    Opaque("import numpy as np\na = np.array([None])\ndef f(x): return a", "'a'.*'ndarray'", "an object array"),
    Opaque("import numpy as np\ng = np.frompyfunc(abs, 1, 1)\ndef f(x): return g(x)", "'g'.*'ufunc'", "a made ufunc"),
    Opaque("import ctypes\ng = ctypes.CDLL(None).abs\ndef f(x): return g(x)", "'g'", "a C function of the user's"),
    Opaque("n = 0\ndef f(x):\n    global n\n    n += 1\n    return x", "'f' writes 'n'", "a function that counts"),
    Opaque(
        "def make():\n n = 0\n def f(x):\n  nonlocal n\n  n += 1\n  return x\n return f\nf = make()",
        "writes 'n' from outside",
        "a closure that counts",
    ),
    Opaque("import numpy as np\ndef f(x): return x + np.random.rand()", "numpy.random", "random numbers"),
    Opaque("from numpy.random import rand\ndef f(x): return x + rand()", "'rand'", "random numbers by name"),
    Opaque("import time\ndef f(x): return time.time()", "'time'.*is time", "the clock"),
    Opaque(
        "def f(x):\n    import os\n    return os.getpid()",
        "'os', which 'f' imports, is os.getpid.*ignore=",
        "an import of the outside world",
    ),
    Opaque("def f(x):\n    import mine.more\n    return x", "imports mine inside itself", "an import inside"),
    Opaque("def f(x):\n    from . import a\n    return x", "imports relatively", "a relative import inside"),
    Opaque("import mine\ndef f(x): return vars(mine)", "module mine, used as a value", "a module as a value"),
    Opaque("class A: pass\na = A()\ndef f(x): return a", "'a'.*'A'", "an object of the user's"),
    Opaque(
        "def g(x): return x\ng.state = []\ndef f(x): return g(x)", "attribute 'state' of 'g'", "a function's attribute"
    ),
    Opaque("def make():\n    a = []\n    return lambda x: a\nf = make()", "'a' in the closure", "a mutable closure"),
)


@pytest.mark.parametrize("case", OPAQUE, ids=lambda case: case.id)
def test_what_cannot_be_seen_through_has_no_fingerprint(write: Write, case: Opaque) -> None:
    """The digest is None, and the reason names what stands in the way."""
    seen = of(write(case.text))
    assert seen.digest is None
    assert importlib.import_module("re").search(case.reason, seen.opaque), seen.opaque


def test_an_edit_in_another_module_of_the_user_is_seen(write: Write) -> None:
    """Functions and constants are followed across modules, by import of the module and by import of the name."""
    seen = set()
    for constant, body in (("1", "x"), ("2", "x"), ("1", "-x")):
        write(f"import numpy as np\nC = {constant}\ndef g(x): return np.abs({body})\n", "theirs")
        seen.add(of(write("import theirs\ndef f(x): return theirs.g(x) * theirs.C")).digest)
        seen.add(of(write("from theirs import g, C\ndef f(x): return g(x) * C")).digest)
    assert None not in seen
    assert len(seen) == 6


def test_a_function_made_by_a_library_around_ones_own_is_followed(write: Write) -> None:
    """`autograd.grad` of a helper has the name of a library; the helper in its closure counts all the same."""
    text = """
        from autograd import grad
        import autograd.numpy as np
        def g(x): return np.sin({}).sum()
        h = grad(g)
        def f(x): return h(x)
    """
    one, two = of(write(text.format("x"))), of(write(text.format("2 * x")))
    assert one.opaque == two.opaque == ""
    assert one.digest != two.digest


def test_the_text_of_a_file_that_was_edited_since_is_not_taken_for_the_code(write: Write) -> None:
    """A function whose file has changed under it is opaque, until the module is loaded again."""
    module = write("def f(x):\n    return x + 1\n")
    Path(str(module.__file__)).write_text("def f(x):\n    return x + 2\n")
    assert "differs from its source in mine.py" in of(module).opaque


def test_bindings_tell_when_a_fingerprint_no_longer_holds(write: Write) -> None:
    """A fingerprint holds until a name that it followed stands for something else."""
    module = write(OP)
    before = of(module)
    assert before.holds()
    vars(module)["GAIN"] = 2.5
    assert not before.holds()
    after = of(module)
    assert after.digest != before.digest
    assert after.holds()


def test_a_name_that_is_bound_later_is_noticed(write: Write) -> None:
    """A helper that is defined below the op counts from when it is there."""
    module = write("def f(x): return later(x)\n")
    before = of(module)
    vars(module)["later"] = write("def later(x): return x\n", "theirs").later
    assert not before.holds()
    assert of(module).digest not in (None, before.digest)


def test_a_warm_function_is_still_found() -> None:
    """The interpreter specialises the code of a function that ran often; its source is found all the same."""

    def f(x: float) -> float:
        return x * 2.0 + 1.0

    for _ in range(1000):
        f(1.0)
    assert fingerprint((f,), Terms("tests")).digest is not None


def test_ufunc_methods_and_array_functions_count_by_name(write: Write) -> None:
    """Functions of NumPy that are bound to a name of the user's are told apart by their own names."""
    text = "import numpy as np\ng = {}\ndef f(x): return g(x)"
    kinds = (
        "np.add.reduce",
        "np.multiply.reduce",
        "np.add.accumulate",
        "np.sum",
        "np.sin",
        "np.linalg.norm",
        "len",
        "abs",
    )
    seen = [of(write(text.format(kind))).digest for kind in kinds]
    assert None not in seen
    assert len(set(seen)) == len(kinds)


def test_constants_of_numpy_count_by_value() -> None:
    """NumPy scalars, dtypes and read-only arrays are told apart by type, shape and bytes."""
    table = np.arange(4)
    table.flags.writeable = False
    values = (
        np.float32(1),
        np.float64(1),
        np.int64(1),
        np.dtype("f4"),
        np.dtype(">f8"),
        table,
        table.reshape(2, 2),
        1,
        1.0,
    )
    digests = [fingerprint((value,), Terms("tests")).digest for value in values]
    assert None not in digests
    assert len(set(digests)) == len(values)
