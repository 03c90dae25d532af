"""The watch: whatever is rebound or edited in place after a fingerprint was taken is noticed before the next use."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ops.conftest import Write
from whiteboard.ops.fingerprint.digest import Fingerprint, fingerprint
from whiteboard.ops.fingerprint.walk import Terms

TEXT = """
import functools
import math
import types
from dataclasses import dataclass
from enum import Enum
import numpy as np
import theirs

G = 2.0
W = np.arange(3.0); W.flags.writeable = False
BIG = np.zeros(20_000); BIG.flags.writeable = False
STRIDED = np.zeros((200, 200))[:, ::2]; STRIDED.base.flags.writeable = False; STRIDED.flags.writeable = False
CONST = types.MappingProxyType(_TABLE := {"a": 1.0})

class Config:
    lr = 0.1
    def step(self): return self.lr
    @property
    def rate(self): return 1.0
    @staticmethod
    def still(): return 1.0

class Child(Config):
    pass

class Mode(Enum):
    FAST = 1
    def at(self): return 1.0

@dataclass(frozen=True)
class Law:
    rate: float = 1.0

LAW = Law()

def gain(x, k=2.0, *, j=1.0):
    return x * k * j
gain.note = 1.0

def make():
    k = 2.0
    def set_k(v):
        nonlocal k
        k = v
    def inner(x):
        return x * k
    return inner, set_k
inner, set_k = make()
half = functools.partial(gain, k=3.0)

def f(x):
    y = x * G + W + BIG[0] + STRIDED[0, 0] + Config.lr + Child().step() + Config().rate + Config.still() + CONST["a"]
    y = y + Mode.FAST.at() + LAW.rate + gain(x) + inner(x) + half(x) + theirs.C + theirs.g(x) + len(x) + math.sin(1.0)
    return np.tanh(y) + later(x) if False else y
"""

CHANGES = {
    "a global": "m.G = 3.0",
    "a global of equal value and other type": "m.G = 2",
    "a global that is deleted": "del m.G",
    "a name that is bound later": "m.later = abs",
    "a builtin that is hidden": "m.len = abs",
    "a class attribute": "m.Config.lr = 0.5",
    "an attribute that a child hides": "m.Child.lr = 0.5",
    "a method": "m.Config.step = lambda self: 2.0",
    "a property": "m.Config.rate = property(lambda self: 2.0)",
    "a static method": "m.Config.still = staticmethod(lambda: 2.0)",
    "the code of a method": "m.Config.step.__code__ = (lambda self: 2.0).__code__",
    "the code of a property": "m.Config.rate.fget.__code__ = (lambda self: 2.0).__code__",
    "a method of an enum": "m.Mode.at = lambda self: 2.0",
    "a frozen dataclass": "object.__setattr__(m.LAW, 'rate', 2.0)",
    "the defaults of a dataclass": "m.Law.__init__.__defaults__ = (2.0,)",
    "the code of a helper": "m.gain.__code__ = (lambda x, k, *, j: x).__code__",
    "the defaults of a helper": "m.gain.__defaults__ = (3.0,)",
    "a default by keyword": "m.gain.__kwdefaults__['j'] = 2.0",
    "other defaults by keyword": "m.gain.__kwdefaults__ = {'j': 2.0}",
    "an attribute of a function": "m.gain.note = 2.0",
    "a new attribute of a function": "m.gain.more = 2.0",
    "the op's own code": "m.f.__code__ = (lambda x: x).__code__",
    "a closure's cell": "m.set_k(3.0)",
    "a constant of a module": "m.theirs.C = 2.0",
    "a function of a module": "m.theirs.g = abs",
    "a library's function": "m.math.sin = abs",
    "an item of a mapping": "m._TABLE['a'] = 2.0",
    "a new item of a mapping": "m._TABLE['b'] = 2.0",
    "an array, made writable": "m.W.flags.writeable = True",
    "an array, changed": "m.W.flags.writeable = True; m.W[1] = 9.0; m.W.flags.writeable = False",
    "a zero's sign": "m.W.flags.writeable = True; m.W[0] = -0.0; m.W.flags.writeable = False",
    "a large array": "m.BIG.flags.writeable = True; m.BIG[777] = 9.0; m.BIG.flags.writeable = False",
    "an array under a view": "b = m.STRIDED.base; b.flags.writeable = True; b[9, 4] = 9.0; b.flags.writeable = False",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_noticed(write: Write, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """After any change the fingerprint no longer holds, and the next one is another, or says why there is none."""
    theirs = write("C = 1.0\ndef g(x): return x", "theirs")
    module = write(TEXT)
    monkeypatch.setattr(module.math, "sin", module.math.sin)  # is put back
    before = of(module)
    assert before.opaque == ""
    assert before.holds()
    assert before.holds()
    exec(change, {"m": module, "theirs": theirs})
    assert not before.holds()
    after = of(module)
    assert after.digest != before.digest
    assert after.holds() or after.digest is None


def of(module: object) -> Fingerprint:
    """Return the fingerprint of a module's f."""
    return fingerprint((module.f,), Terms("mine"))  # type: ignore[attr-defined]


def test_what_stays_is_not_noticed(write: Write) -> None:
    """Names that the op does not lead to, and what it leads to being used, change nothing."""
    write("C = 1.0\ndef g(x): return x", "theirs")
    module = write(TEXT + "\nUNUSED = 1\n")
    before = of(module)
    vars(module)["UNUSED"] = 2
    module.Config().step()
    module.f(__import__("numpy").ones(3))
    assert before.holds()


class Buffer(NamedTuple):
    """An array over memory that somebody else may write."""

    text: str
    seen: bool
    id: str


BUFFERS = (
    Buffer("W = np.frombuffer(bytes(24))", True, "bytes"),
    Buffer("W = np.frombuffer(memoryview(bytes(24)))", True, "a view of bytes"),
    Buffer("W = np.frombuffer(bytearray(24)); W.flags.writeable = False", False, "a bytearray"),
    Buffer("W = np.frombuffer(memoryview(bytearray(24)).toreadonly())", False, "a read-only view of a bytearray"),
    Buffer("import mmap\nW = np.frombuffer(mmap.mmap(-1, 24)); W.flags.writeable = False", False, "mapped memory"),
    Buffer("W = np.zeros((3, 3)).T; W.flags.writeable = False", False, "a read-only view of an array that is not"),
)


@pytest.mark.parametrize("case", BUFFERS, ids=lambda case: case.id)
def test_arrays_over_memory_that_may_change(write: Write, case: Buffer) -> None:
    """A read-only array counts where nobody can write to what it lies over, by the array or by another way."""
    found = of(write(f"import numpy as np\n{case.text}\ndef f(x): return x * W"))
    assert (found.digest is not None) is case.seen
    assert case.seen or "can be written to; make it read-only" in found.opaque


def test_files_that_an_op_reads(write: Write, tmp_path: Path) -> None:
    """The contents of `reads` count: an edit, also one of the same size and time, is another fingerprint."""
    file = tmp_path / "mesh.txt"
    file.write_text("2.0")
    module = write("import numpy as np\ndef f(x): return x * np.loadtxt('mesh.txt')")
    terms = Terms("mine", reads=(str(file),))
    before = fingerprint((module.f,), terms)
    assert before.opaque == ""
    assert before.holds()
    state = file.stat()
    file.write_text("3.0")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not before.holds()
    after = fingerprint((module.f,), terms)
    assert after.digest not in (None, before.digest)
    file.write_text("2.0")
    assert fingerprint((module.f,), terms).digest == before.digest
    os.utime(file, ns=(0, time.time_ns()))
    assert before.holds()
    file.unlink()
    assert not before.holds()
    assert fingerprint((module.f,), terms).opaque == f"reads={str(file)!r}: No such file or directory"
