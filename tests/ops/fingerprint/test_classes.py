"""Classes in fingerprints: whatever an edit of one changes is seen, and what says nothing is not."""

from __future__ import annotations

import linecache
import sys
from textwrap import dedent
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.ops.conftest import Write
from whiteboard.ops.fingerprint.digest import Fingerprint, fingerprint
from whiteboard.ops.fingerprint.walk import Terms


class Edit(NamedTuple):
    """A module with ``{}`` where the edit is, what stands there before and after, and what f computes with it."""

    text: str
    old: str
    new: str
    body: str
    id: str


DATACLASS = """
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import ClassVar
@dataclass(frozen=True)
class C:
"""
TUPLE = """
from typing import Any, NamedTuple
class C(NamedTuple):
"""
ENUM = """
from enum import Enum
class C(Enum):
    A = 1
"""

EDITS = (
    Edit(DATACLASS + "    a: float = 1.0\n    _k = {}", "2.0", "3.0", "C()._k", "a private attribute of a dataclass"),
    Edit(DATACLASS + "    a: float = 1.0\n    k: ClassVar[float] = {}", "2.0", "3.0", "C.k", "a ClassVar"),
    Edit(DATACLASS + "    {}: float", "a: float\n    b", "b: float\n    a", "C(1.0, 5.0).a", "the order of fields"),
    Edit(DATACLASS + "    {}: float", "a", "b", "C(1.0)", "the name of a field"),
    Edit(DATACLASS + "    w: float = {}", "2.0", "3.0", "C().w", "a default"),
    Edit(DATACLASS + "    _w: float = {}", "2.0", "3.0", "C()._w", "a private default"),
    Edit(
        DATACLASS + "    w: tuple = field(default_factory=lambda: ({},))", "2.0", "3.0", "C().w[0]", "a default_factory"
    ),
    Edit(
        DATACLASS + "    w: float = field(default=1.0, init={})", "True", "False", "C()", "a field in __init__ or not"
    ),
    Edit(
        DATACLASS + "    w: float = field(default=1.0, compare={})", "True", "False", "C()", "a field that is compared"
    ),
    Edit(DATACLASS + "    {}w: float = 1.0", "", "_: KW_ONLY\n    ", "C()", "a field by keyword only"),
    Edit(
        DATACLASS + "    w: float = field(default=1.0, metadata={'k': {}})",
        *("2.0", "3.0", "fields(C)[0].metadata['k']", "metadata"),
    ),
    Edit(
        DATACLASS + "    w: float = 1.0\nC.__init__.__defaults__ = ({},)", "2.0", "3.0", "C().w", "defaults put there"
    ),
    Edit(
        DATACLASS + "    _: KW_ONLY\n    w: float = 1.0\nC.__init__.__kwdefaults__ = {'w': {}}",
        *("2.0", "3.0", "C().w", "defaults by keyword put there"),
    ),
    Edit(
        DATACLASS.replace("True", "True, eq={}") + "    w: float = 1.0", "True", "False", "C() == C()", "its equality"
    ),
    Edit(DATACLASS.replace("True", "True, order={}") + "    w: float = 1.0", "True", "False", "C() < C()", "its order"),
    Edit(
        DATACLASS + "    a: float\n    def __post_init__(self): object.__setattr__(self, 'a', self.a * {})",
        *("2.0", "3.0", "C(1.0).a", "__post_init__"),
    ),
    Edit(
        DATACLASS + "    a: float = 1.0\n    @property\n    def _k(self): return {}", "2", "3", "C()._k", "a property"
    ),
    Edit(DATACLASS + "    a: float = 1.0\n    _f = staticmethod(lambda: {})", "2", "3", "C()._f()", "a static lambda"),
    Edit(TUPLE + "    w: float = {}", "2.0", "3.0", "C().w", "a default of a named tuple"),
    Edit(TUPLE + "    {}: float", "a: float\n    b", "b: float\n    a", "C(1.0, 5.0).a", "a named tuple's fields"),
    Edit(TUPLE + "    w: float = 1.0\n    def at(self): return {}", "2", "3", "C().at()", "a named tuple's method"),
    Edit(TUPLE + "    w: float\nC.__new__.__defaults__ = ({},)", "2.0", "3.0", "C().w", "defaults of a named tuple"),
    Edit(ENUM + "    def scale(self): return {}", "2.0", "3.0", "C.A.scale()", "a method of an enum"),
    Edit(ENUM + "    def scale(self): return {}\na = C.A", "2.0", "3.0", "a.scale()", "a method of an enum's member"),
    Edit(ENUM + "    __k = {}\n    def go(self): return self._C__k", "2.0", "3.0", "C.A.go()", "a mangled constant"),
    Edit(ENUM + "C._table = ({},)", "2.0", "3.0", "C._table[0]", "what is put on an enum afterwards"),
    Edit(ENUM + "C.A.more = {}", "2.0", "3.0", "C.A.more", "what is put on an enum's member"),
    Edit(
        ENUM + "    @classmethod\n    def _missing_(cls, v): return cls.A if v == {} else None",
        "2",
        "3",
        "C(2)",
        "_missing_",
    ),
    Edit("class C:\n    K = {}", "2.0", "3.0", "C.K", "a constant"),
    Edit("class C:\n    def __init__(self): self.s = {}", "2.0", "3.0", "C().s", "__init__"),
    Edit("class C:\n    @property\n    def k(self): return {}", "2.0", "3.0", "C().k", "a plain property"),
    Edit("class C:\n    @staticmethod\n    def s(x): return {}", "2.0", "3.0", "C.s(x)", "a static method"),
    Edit(
        "class C:\n    k = {}\n    @classmethod\n    def s(cls): return cls.k\ns = C.s",
        "2",
        "3",
        "s()",
        "a class method",
    ),
    Edit("class C:\n    def __getattr__(self, n): return {}", "2.0", "3.0", "C().anything", "__getattr__"),
    Edit("class B:\n    def s(self): return {}\nclass C(B): pass", "2.0", "3.0", "C().s()", "an inherited method"),
    Edit(
        "class B:\n    def s(self): return {}\nclass C(B):\n    def s(self): return super().s()\nrun = C.s",
        *("2.0", "3.0", "run(C())", "what super() finds"),
    ),
    Edit(
        "class B:\n    def __init_subclass__(cls, k): cls.k = k\nclass C(B, k={}): pass",
        "2",
        "3",
        "C.k",
        "a class's argument",
    ),
    Edit(
        "class M(type):\n    @property\n    def k(cls): return {}\nclass C(metaclass=M): pass",
        "2",
        "3",
        "C.k",
        "a metaclass",
    ),
    Edit(
        "class M(type):\n    def __call__(cls): return {}\nclass C(metaclass=M): pass",
        *("2.0", "3.0", "C()", "a metaclass's __call__"),
    ),
    Edit(
        "from typing import Protocol\nclass B(Protocol):\n    def go(self): return {}\nclass C(B): pass",
        *("2.0", "3.0", "C().go()", "a base that is a Protocol"),
    ),
    Edit(
        "from typing import Generic, TypeVar\nT = TypeVar('T')\n"
        "class B(Generic[T]):\n    def go(self): return {}\nC = B[float]",
        *("2.0", "3.0", "C().go()", "an alias of a generic class"),
    ),
    Edit(
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass B(Generic[T]):\n    def go(self): return {}\n"
        "class C(B[float]): pass",
        *("2.0", "3.0", "C().go()", "a base that is a generic alias"),
    ),
    Edit(
        "from abc import ABC, abstractmethod\nclass B(ABC):\n    @abstractmethod\n    def k(self): ...\n"
        "    def go(self): return {}\nclass C(B):\n    def k(self): return 1",
        *("2.0", "3.0", "C().go()", "an abstract base"),
    ),
    Edit(
        "import functools\nclass C:\n    @functools.cached_property\n    def k(self): return {}",
        *("2.0", "3.0", "C().k", "a cached property"),
    ),
    Edit(
        "import functools\nclass C:\n    def m(self, k, x): return x * k\n    h = functools.partialmethod(m, {})",
        *("2.0", "3.0", "C().h(x)", "a partial method"),
    ),
    Edit("class V:\n    def __mul__(self, o): return {}", "2.0", "3.0", "V() * V()", "an operator"),
    Edit(
        "import numpy as np\nW = np.array([{}]); W.flags.writeable = False\nclass C:\n    _w = W",
        *("2.0", "3.0", "C._w", "an array of a class"),
    ),
)


def of(write: Write, edit: Edit, stands: str) -> Fingerprint:
    """Return the fingerprint of f with one of the edit's two texts."""
    text = dedent(edit.text).replace("{}", stands) + f"\n\ndef f(x):\n    return x * {edit.body}\n"
    return fingerprint((write(text).f,), Terms("mine"))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.id)
def test_an_edit_of_a_class_is_seen(write: Write, edit: Edit) -> None:
    """Every part of a class that decides what it does is in the fingerprint, and nothing that a process makes anew."""
    old, new = of(write, edit, edit.old), of(write, edit, edit.new)
    assert old.opaque == new.opaque == ""
    assert old.digest == of(write, edit, edit.old).digest
    assert old.digest != new.digest


SAME = (
    Edit("class C:\n    {}\n    k = 1.0", '"""Doc."""', "# no doc", "C.k", "a docstring"),
    Edit("class C:\n    k: {} = 1.0", "float", "int", "C.k", "an annotation"),
    Edit(DATACLASS + "    a: {} = 1.0", "float", "int", "C().a", "an annotation of a field"),
    Edit(
        DATACLASS + "    a: float\n    _: KW_ONLY\n    b: float = 1.0\n    c: tuple = field(default_factory=tuple)\n"
        "    d: ClassVar[float] = 4.0{}",
        *("", "\nC.__init__.__defaults__ = None", "C(2.0).b", "defaults that are as the fields say"),
    ),
    Edit(
        DATACLASS + "    a: float = 2.0\n    b: tuple = field(default_factory=tuple){}",
        *("", "\nC.__init__.__defaults__ = (*C.__init__.__defaults__,)", "C().a", "a copy of the defaults"),
    ),
    Edit("class C:\n    k = 1.0  {}", "# one", "# two", "C.k", "a comment"),
)


@pytest.mark.parametrize("edit", SAME, ids=lambda edit: edit.id)
def test_what_says_nothing_is_left_out(write: Write, edit: Edit) -> None:
    """Docstrings, annotations and comments of a class are not in a fingerprint."""
    assert of(write, edit, edit.old).digest == of(write, edit, edit.new).digest is not None


MADE = {
    "a dataclass": DATACLASS + "    w: float = 2.0\nMADE = C()",
    "one with order and slots": DATACLASS.replace("True", "True, order=True, slots=True") + "    w: int\nMADE = C(2)",
    "a named tuple": TUPLE + "    w: float\nMADE = C(2.0)",
    "one without types": "from collections import namedtuple\nC = namedtuple('C', 'w', defaults=(1,))\nMADE = C(2)",
}


@pytest.mark.parametrize("text", MADE.values(), ids=MADE.keys())
def test_generated_functions_are_none_of_the_users(write: Write, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where "<string>" has a source, as of a Python 3.13 that was begun with -c: pools begin their processes so."""
    module = write(text, "made")
    before = fingerprint([module.MADE], Terms("made"))
    monkeypatch.setitem(linecache.cache, "<string>", (9, None, ["import os\n"], "<string>"))
    after = fingerprint([module.MADE], Terms("made"))
    assert (before.opaque, after.opaque) == ("", "")
    assert before.digest == after.digest


def test_a_method_without_a_source_is_no_generated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a dataclass that was made by `exec`: nobody can say what its method does."""
    monkeypatch.delitem(linecache.cache, "<string>", raising=False)
    made: Any = ModuleType("made")
    monkeypatch.setitem(sys.modules, "made", made)
    exec(DATACLASS + "    w: float = 2.0\n    def twice(self):\n        return 2 * self.w", vars(made))
    assert fingerprint([made.C()], Terms("made")).opaque == "function 'C.twice' has no source"
