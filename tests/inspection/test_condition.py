"""Conditions: what they say of a row, what has no value, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.errors import ParamError
from whiteboard.inspection.condition import LONGEST, parse

ROW: dict[str, Any] = {
    "mach": 0.8,
    "n": 3,
    "name": "fine",
    "axis": None,
    "on": True,
    "y": np.array([[1.0, 2.0], [3.0, np.nan]]),
    "x0": np.float64(2.5),
    "params.y": 7,
    "ids": (4, 5),
}

HOLDS = {
    "mach > 0.7": True,
    "mach>0.7": True,
    " mach >= 0.8 ": True,
    "mach < 0.8": False,
    "0.7 < mach < 0.9": True,
    "0.7 < mach < 0.75": False,
    "mach == 0.8 and n != 4": True,
    "mach > 1 or n == 3": True,
    "not mach > 1": True,
    "not (mach > 1 or n == 3)": False,
    "name == 'fine'": True,
    'name != "fine"': False,
    "name < 'g'": True,
    "n > -1": True,
    "n > +1": True,
    "n == 3.0": True,
    "on": True,
    "not on": False,
    "on == True": True,
    "axis == None": True,
    "axis != None": False,
    "mach != None": True,
    "axis == 0": False,
    "x0 > 2": True,
    "y[0, 0] == 1": True,
    "y[0, -1] == 2": True,
    "y[1, 1] == y[1, 1]": False,
    "params.y == 7": True,
    "ids[1] == 5": True,
    "gone == None": True,
    "gone > 1": False,
    "gone < 1": False,
    "not gone > 1": False,
    "not gone < 1 or mach > 0.7": True,
    "gone > 1 and mach > 0.7": False,
    "gone[0] > 1": False,
    "gone": False,
    "not gone": False,
    "mach > n": False,
    "(\nmach > 0.7\n)": True,
}


@pytest.mark.parametrize(("text", "holds"), HOLDS.items(), ids=HOLDS.keys())
def test_what_holds(text: str, holds: bool) -> None:
    """A condition says of a row what it would say in Python; where a value is missing, nothing but == and != holds."""
    assert parse(text).holds(ROW.get) is holds


def test_the_columns_that_are_named() -> None:
    """Every column is known before a row is looked at."""
    said = parse("mach > 0.7 and (y[0, 1] < 2 or not on) and params.y == 'mach' and 1 < n < gone")
    assert said.columns == {"mach", "y", "on", "params.y", "n", "gone"}


NOT_TAKEN = [
    "",
    " ",
    "mach >",
    "mach = 0.7",
    "mach > 0.7)",
    "mach > 0.7; n",
    "0.7",
    "'mach'",
    "None",
    "mach + n > 1",
    "mach * 2 > 1",
    "f(mach) > 1",
    "__import__('os').system('true')",
    "mach.real > 1",
    "params.y.z > 1",
    "other.y > 1",
    "().__class__ == 1",
    "y[n] > 1",
    "y[0:1] > 1",
    "y[0.5] > 1",
    "y[True] > 1",
    "y['a'] > 1",
    "y[0][0] > 1",
    "y[(0, 1), 0] > 1",
    "mach in (1, 2)",
    "mach is None",
    "mach > [1]",
    "mach > (1, 2)",
    "mach > 1j",
    "mach > b'a'",
    "mach > ...",
    "mach > ~1",
    "mach > -'a'",
    "mach > -True",
    "mach > not n",
    "lambda: 1",
    "[x for x in y] == 1",
    "mach if on else n",
    "(n := 1) > 0",
    "f'{mach}' == 'a'",
    "await mach > 1",
    "yield",
    "*mach > 1",
    "mach > 0.7 # and n\nor on",
    "\x00",
    "mach > '\udc80",
    "mach > \u202e1",
    "(" * 400 + "on" + ")" * 400,
    "-" * 900 + "1 > 0",
    "~" * 900 + "n > 0",
    "n > " + "9" * 5000,
    "on and " * LONGEST + "on",
]


@pytest.mark.parametrize("text", NOT_TAKEN, ids=range(len(NOT_TAKEN)))
def test_what_is_not_taken(text: str) -> None:
    """Whatever is more than comparisons of columns and constants is refused in one short line, and is not run."""
    with pytest.raises(ParamError, match=r"^where: ") as refused:
        parse(text)
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("odd", [None, 3, b"mach > 1", ["mach"]])
def test_what_is_no_text(odd: Any) -> None:
    """A condition is a text."""
    with pytest.raises(ParamError, match="expected a text"):
        parse(odd)


WRONG_VALUES = {
    "name > 0.7": "'fine' and 0.7 cannot be compared",
    "y > 1": r"shape \(2, 2\) is compared element by element",
    "y == y": "element by element",
    "y[0] > 1": r"y is of shape \(2, 2\), and has no element \[0\]",
    "y[2, 0] > 1": r"no element \[2, 0\]",
    "y[-3, 0] > 1": "no element",
    "mach[0] > 1": r"mach is of shape \(\), and has no element",
    "mach": "0.8 is neither true nor false",
    "name and on": "'fine' is neither true nor false",
}


@pytest.mark.parametrize(("text", "says"), WRONG_VALUES.items(), ids=WRONG_VALUES.keys())
def test_values_that_do_not_go_together(text: str, says: str) -> None:
    """What cannot be compared is said, with both values."""
    with pytest.raises(ParamError, match=says):
        parse(text).holds(ROW.get)


@given(st.text(max_size=60) | st.text("mach nory0.7<>=!()[]'\"\\and- ", max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """No text raises anything else, or warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            said = parse(text)
            assert said.holds(ROW.get) in (True, False)
        except ParamError as error:
            assert str(error).startswith("where: ")  # noqa: PT017


def test_many_nots() -> None:
    """The deepest condition that fits is answered."""
    assert parse("not " * 200 + "on").holds(ROW.get)
