"""Specifications of systems: NumPy's numbers are taken, what JSON cannot hold is named by its key, True is not 1."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.test_takeover import step
from whiteboard.systems import specification


class Colour(enum.StrEnum):
    """A text that is an enum's."""

    RED = "red"


TAKEN: dict[str, tuple[Any, Any]] = {
    "float64": (np.float64(0.5), 0.5),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(3), 3),
    "bool": (np.True_, True),
    "tuple": ((1, np.int8(2)), [1, 2]),
    "enum": (Colour.RED, "red"),
    "mapping": ({"a": {"b": np.float64(1)}}, {"a": {"b": 1.0}}),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "array": (np.arange(3), "spec: x: expected what JSON can hold .*, got ndarray"),
    "nan": (float("nan"), "spec: x: expected .*, got nan"),
    "inside": ({"a": [1, {2}]}, r"spec: x: a\[1\]: expected .*, got set"),
    "key": ({1: 2}, "spec: x: expected texts as keys, got 1"),
    "complex": (np.complex128(1), "spec: x: expected .*, got complex128"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_taken(what: str) -> None:
    """With Python's own types, so that it equals what is read again."""
    given, kept = TAKEN[what]
    found = specification.plain("s", {"x": given})
    assert found == {"x": kept}
    assert type(found["x"]) is type(kept)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named(what: str) -> None:
    """By the keys that lead to it."""
    given, says = REFUSED[what]
    with pytest.raises(wb.ParamError, match=says):
        specification.plain("s", {"x": given})


def test_what_contains_itself_is_refused() -> None:
    """And so is what is no mapping."""
    loop: dict[str, Any] = {}
    loop["x"] = loop
    with pytest.raises(wb.ParamError, match="contains itself"):
        specification.plain("s", loop)
    with pytest.raises(wb.ParamError, match="expected a mapping"):
        specification.plain("s", [1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [(True, 1, False), (0, False, False), (1, 1.0, True), ([True], [1], False), ({"a": 1}, {"a": True}, False)],
)
def test_true_is_not_one_at_resume(tmp_path: Path, then: Any, now: Any, same: bool) -> None:
    """A system goes on with the specification that it was made with."""
    with wb.open(tmp_path / "a.db") as board:
        step(board.system("s", {"x": then}))
    with wb.open(tmp_path / "a.db") as board:
        if same:
            board.system("s", {"x": now})
        else:
            with pytest.raises(wb.SpecError, match="x is "):
                board.system("s", {"x": now})


def test_ids_of_jobs_are_told_as_numbers(tmp_path: Path) -> None:
    """Whatever type of NumPy's they have."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        step(system)
        with pytest.raises(wb.WhiteboardError) as caught:
            system.process([wb.Job("square", (7,), 2, job_id=np.int64(5))])
        assert "job 5" in str(caught.value)
        assert "np." not in str(caught.value)


def test_a_csv_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Excel writes it: the first column has its name all the same."""
    from whiteboard.experiments.from_toml import _columns

    (tmp_path / "edges.csv").write_text("a,b\n1,2\n3,4\n", encoding="utf-8-sig")
    assert np.asarray(_columns(tmp_path / "edges.csv", ["a", "b"], integers=True)).tolist() == [[1, 2], [3, 4]]
