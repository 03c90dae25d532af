"""``whiteboard ops``: the list, one op, the check of each, and what is said of a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, assert_refused
from whiteboard import ops
from whiteboard.ops import registry
from whiteboard.ops.catalogue import FAMILY

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

BROKEN = """
import whiteboard as wb

@wb.op(name="five_times", kind="elementwise", vjp=lambda c, y, x: 5e-7 * c)
def five_times(x):
    "1e-7 x."
    return 1e-7 * x

@wb.op(name="needs")
def needs(x, *, power):
    return x**power
"""


def test_the_list_has_every_op(cli: Cli) -> None:
    """Each op is a line of name, arity, kind, exactness and subgradients."""
    done = cli("ops")
    head, *lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert head.split() == ["name", "arity", "kind", "exactness", "subgradients"]
    assert [line.split()[0] for line in lines] == ops.names()
    rows = {line.split()[0]: line for line in lines}
    assert rows["abs"].split() == ["abs", "1", "elementwise", "portable", "0", "at", "0"]
    assert rows["sum_k"].split()[:4] == ["sum_k", "any", "elementwise", "portable"]
    assert rows["exp"].split()[:4] == ["exp", "1", "elementwise", "exact"]
    assert rows["linear_gemm"].split()[:4] == ["linear_gemm", "3", "general", "tolerance"]


def test_the_list_as_json(cli: Cli) -> None:
    """One object with a row an op, JSON all through."""
    rows = json.loads(cli("ops", "--json").out)["ops"]
    assert [row["name"] for row in rows] == ops.names()
    clip = next(row for row in rows if row["name"] == "clip")
    assert (clip["arity"], clip["kind"], clip["params"]) == (1, "elementwise", {"lo": None, "hi": None})
    assert len(bytes.fromhex(clip["fingerprint"])) == 16


def test_one_op_is_shown_whole(cli: Cli) -> None:
    """Its details, by name or alias, with parameters that must be given marked."""
    shown = cli("ops", "multiply")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == ["name", "mul"]
    assert json.loads(cli("ops", "einsum", "--json").out)["params"] == {"subscripts": "required"}


def test_all_ops_pass_their_check(cli: Cli) -> None:
    """Every built-in op keeps its word, and the last line counts them."""
    done = cli("ops", "--check")
    assert [line for line in done.out.splitlines() if "failed" in line] == []
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"{len(FAMILY)} of {len(FAMILY)} passed"
    assert json.loads(cli("ops", "tanh", "--check", "--json").out)["check"] == "passed"


def test_a_broken_op_is_found_and_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's op with a VJP five times too large at 1e-7 fails the check, by name, with status 1."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [*FAMILY][5:]:
        monkeypatch.delitem(FAMILY, name)
        monkeypatch.delitem(registry._entries, name, raising=False)
    (tmp_path / "broken_ops.py").write_text(BROKEN, "utf-8")
    done = cli("ops", "five_times", "--module", "broken_ops", "--check", "--json")
    assert done.code == 1
    assert "op 'five_times': job 0: the gradient of source 0" in json.loads(done.out)["check"]
    done = cli("ops", "--module", "broken_ops", "--check")
    assert done.code == 1
    assert "failed: op 'needs': no example fits it" in done.out
    assert done.out.splitlines()[-1] == "5 of 7 passed"


def test_bad_use_is_one_line_and_status_2(cli: Cli) -> None:
    """An unknown op gets the nearest names, a module that cannot be imported its reason."""
    assert_refused(cli("ops", "tanhh"), 2, "whiteboard: unknown op 'tanhh': did you mean 'tanh'")
    why = "cannot import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    assert_refused(cli("ops", "--module", "no_such_module"), 2, f"whiteboard: --module no_such_module: {why}\n")
