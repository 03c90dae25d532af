"""Autograd's primitives in fingerprints: the user's own gradients count, wherever they were registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import autograd.numpy as anp
import pytest
from autograd.core import primitive_vjps

from tests.ops.conftest import Write
from whiteboard.ops.fingerprint.digest import fingerprint
from whiteboard.ops.fingerprint.walk import Terms

HEAD = """
import numpy as np
import autograd.numpy as anp
from autograd.extend import primitive, defvjp, defvjp_argnum, defvjp_argnums
"""


@pytest.fixture(autouse=True)
def _rules_stay() -> Iterator[None]:
    """Take back what a test registers or puts in the place of autograd's own."""
    rules, names = dict(primitive_vjps), dict(vars(anp))
    yield
    primitive_vjps.clear()
    primitive_vjps.update(rules)
    vars(anp).update(names)


class Edit(NamedTuple):
    """A module with ``{}`` where the edit is."""

    text: str
    id: str


EDITS = (
    Edit(
        "@primitive\ndef g(x): return np.clip(x, -1, 1)\n"
        "defvjp(g, lambda ans, x: lambda g: g * {})\ndef f(x): return g(x)",
        "one's own",
    ),
    Edit(
        "@primitive\ndef g(x): return x * {}\ndefvjp(g, lambda ans, x: lambda g: g)\ndef f(x): return g(x)",
        "its forward",
    ),
    Edit("defvjp(anp.sign, lambda ans, x: lambda g: g * {})\ndef f(x): return anp.sign(x)", "a library's"),
    Edit(
        "defvjp_argnum(anp.sign, lambda n, ans, a, k: lambda g: g * {})\ndef f(x): return anp.sign(x)",
        "a library's by number",
    ),
    Edit(
        "from autograd.numpy import sign\ndefvjp(sign, lambda ans, x: lambda g: g * {})\ndef f(x): return sign(x)",
        "by its name",
    ),
    Edit("def mine(x): return x * {}\nanp.tanh = mine\ndef f(x): return anp.tanh(x)", "one that is rebound"),
    Edit(
        "@primitive\ndef mine(x): return x * {}\nanp.tanh = mine\ndef f(x): return anp.tanh(x)", "a rebound primitive"
    ),
    Edit(
        "class M:\n  def __init__(self):\n    self.p = primitive(self.y)\n    defvjp(self.p, self.g)\n"
        "  def y(self, x): return x\n  def g(self, ans, x): return lambda g: g * {}\ndef f(x): return M().p(x)",
        "one that is made by the op",
    ),
    Edit(
        "import autograd\ndef inner(x): return anp.sum(x ** {})\ng = autograd.grad(inner)\ndef f(x): return g(x)",
        "grad of one's own",
    ),
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.id)
def test_ones_own_gradients_count(write: Write, edit: Edit) -> None:
    """An edit of a gradient, or of what stands in the place of a library's function, is another fingerprint."""
    old, new = (fingerprint((write(HEAD + edit.text.replace("{}", n)).f,), Terms("mine")) for n in ("2", "3"))
    assert old.opaque == new.opaque == ""
    assert old.digest != new.digest


def test_autograds_own_functions_count_by_name(write: Write) -> None:
    """Functions of autograd.numpy are told apart, and by the version of the distribution, however they are named."""
    texts = (
        "anp.tanh(x)",
        "anp.sin(x)",
        "anp.linalg.norm(x)",
        "anp.fft.fft(x)",
        "anp.where(x, x, 1)",
        "anp.array([x])",
    )
    seen = [fingerprint((write(f"{HEAD}def f(x): return {text}").f,), Terms("mine")) for text in texts]
    assert [each.opaque for each in seen] == [""] * len(texts)
    assert len({each.digest for each in seen}) == len(texts)


def test_a_later_defvjp_is_noticed(write: Write) -> None:
    """A gradient that is registered again, or a function that is put in another's place, ends what was known."""
    module = write(
        HEAD
        + "@primitive\ndef g(x): return x\ndefvjp(g, lambda ans, x: lambda g: g)\ndef f(x): return g(x) + anp.sign(x)"
    )
    changes = (
        "defvjp(g, lambda ans, x: lambda g: g * 2)",
        "defvjp(anp.sign, lambda ans, x: lambda g: g * 2)",
        "anp.sign = lambda x: x",
    )
    digests = set()
    for number, change in enumerate(changes):
        seen = fingerprint((module.f,), Terms("mine"))
        assert seen.holds()
        digests.add(seen.digest)
        helper = write(f"from mine import *\nfrom mine import anp, g, defvjp\n{change}", f"more{number}")
        assert helper is not None
        assert not seen.holds()
    assert None not in digests
    assert len(digests) == len(changes)
