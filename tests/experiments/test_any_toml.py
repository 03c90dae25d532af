"""A TOML file of any shape is an experiment or one line that names file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whiteboard.errors import ExperimentError
from whiteboard.experiments import load

GOOD = """name = "t"
[[nodes]]
ids = [0, 1, 2]
p = { random = { seed = 1, shape = [3, 2], scale = 1.0 } }
[[jobs]]
op = "distance"
src_ids = [[0, 1], [1, 2]]
target = [1.0, 2.0]
attr = "p"
[rule]
kind = "StressDescent"
omega = 0.9
[stop]
change = 1e-12
"""

ODD = """
1 | -1 | 1.5 | nan | inf | "x" | "" | true | [] | [[]] | [[1], [1, 2]] | {} | 1979-05-27T07:32:00Z | 07:32:00
99999999999999999999999999 | [99999999999999999999999999] | ["a"] | [{}] | {a = 1} | [1.5, "x"] | "\\u0000"
{csv = 1} | {csv = "x"} | {csv = "x", columns = 1} | {csv = "/", columns = "a"} | {npy = 1} | {npy = "/"}
{npy = "/dev/null"} | {random = 1} | {random = {}} | {random = {shape = 1}} | {random = {shape = [-1]}}
{random = {shape = [99999999999, 99999999]}} | {random = {shape = [3, 2], seed = -1}} | {random = {shape = ["x"]}}
{random = {shape = [3, 2], seed = "x"}} | {random = {shape = [3, 2], scale = -1.0}} | {random = {shape = [1e3]}}
"""
VALUES = [value.strip() for line in ODD.strip().splitlines() for value in line.split(" | ")]
KEYS = re.findall(r"^(\w+) = ", GOOD, re.MULTILINE)
TABLES = ("[[nodes]]", "[[jobs]]", "[rule]", "[stop]")


def with_value(key: str, value: str) -> str:
    """Return the good file with another value of a key."""
    return re.sub(rf"^{key} = .*$", lambda _: f"{key} = {value}", GOOD, flags=re.MULTILINE)


def with_table(head: str, value: str) -> str:
    """Return the good file with a value in the place of a table."""
    start = GOOD.index(head)
    end = GOOD.find("\n[", start + 1)
    return f"{head.strip('[]')} = {value}\n{GOOD[:start]}{GOOD[end if end > 0 else len(GOOD) :]}"


def with_more(key: str, value: str) -> str:
    """Return the good file with one key more."""
    if key == "weight":
        return GOOD.replace('attr = "p"', f'attr = "p"\n{key} = {value}')
    return f"{key} = {value}\n{GOOD}"


FILES = {
    **{f"{key}, {value}": with_value(key, value) for key in KEYS for value in VALUES},
    **{f"{head} {value}": with_table(head, value) for head in TABLES for value in VALUES},
    **{f"{key} {value}": with_more(key, value) for key in ("measure", "options", "weight", "x") for value in VALUES},
    "empty": "",
    "twice": GOOD + GOOD,
    "deep": "a = " + "[" * 100_000,
}


def test_a_file_of_any_shape_is_one_line(tmp_path: Path) -> None:
    """Wrong types at every key, tables that are none, and files that are no TOML: never another error."""
    path = tmp_path / "e.toml"
    refused = taken = 0
    for name, text in FILES.items():
        path.write_text(text, "utf-8")
        try:
            load(str(path))
            taken += 1
        except ExperimentError as error:
            refused += str(error).startswith(f"{path}:")
        except Exception as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
    assert refused + taken == len(FILES)
    assert refused > 0.9 * len(FILES)


@pytest.mark.parametrize("data", [bytes(range(256)), b"name = '\xe9'", b"\0", b"\xff\xfe"])
def test_a_file_that_is_no_text_is_one_line(tmp_path: Path, data: bytes) -> None:
    """What is not UTF-8 is named."""
    (tmp_path / "e.toml").write_bytes(data)
    with pytest.raises(ExperimentError, match=r"e\.toml: "):
        load(str(tmp_path / "e.toml"))


def test_a_mark_of_byte_order_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Editors of other systems write one."""
    (tmp_path / "e.toml").write_text("\ufeff" + GOOD, "utf-8")
    assert load(str(tmp_path / "e.toml")).name == "t"
