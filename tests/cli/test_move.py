"""The commands that move packages and systems: counts as lines or JSON, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, assert_refused
from tests.storage.moving import filled, held, other_bits


def test_export_and_import(cli: Cli, tmp_path: Path) -> None:
    """A store goes through a file, and both commands count what went."""
    filled(tmp_path / "a.db")
    code, out, err = cli("export", "a.db", "a.wb", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["packages"], said["systems"], said["commits"], said["path"]) == (240, 2, 6, "a.wb")
    code, out, err = cli("import", "b.db", "a.wb", "--json")
    assert (code, err) == (0, "")
    assert {key: json.loads(out)[key] for key in ("added", "present", "conflicts", "systems_created")} == {
        "added": 240,
        "present": 0,
        "conflicts": 0,
        "systems_created": ["a", "a forked"],
    }
    assert held(tmp_path / "b.db") == held(tmp_path / "a.db")
    code, out, _ = cli("export", "a.db", "some.wb", "--system", "a", "--since", "2", "--op", "sum")
    assert code == 0
    assert "packages  120" in out
    assert "commits   2" in out


def test_merge_reports_conflicts(cli: Cli, tmp_path: Path) -> None:
    """A merge counts, and names op, sources and distance of each conflict."""
    filled(tmp_path / "a.db")
    other_bits(tmp_path / "b.db", [3])
    code, out, err = cli("merge", "a.db", "b.db")
    assert (code, err) == (0, "")
    assert "conflict: op 'mul' of nodes [3] at versions [4], y 1 ulps apart" in out
    code, out, _ = cli("merge", "a.db", "b.db", "--json")
    (row,) = json.loads(out)["merged"]
    assert (row["conflicts"], row["described"][0]["ulps"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("export", "none.db", "x.wb"), 1, "does not exist"),
        (("export", "a.db", "a.db"), 1, "it exists"),
        (("export", "a.db", "no/x.wb"), 1, "cannot write the archive"),
        (("export", "a.db", "x.wb", "--system", "y"), 1, "no system 'y'"),
        (("export", "a.db", "x.wb", "--since", "3"), 1, "name that system"),
        (("export", "a.db"), 2, "Missing argument"),
        (("import", "b.db", "none.wb"), 1, "cannot read the archive"),
        (("import", "b.db", "."), 1, "archive ."),
        (("import", "b.db", "a.db"), 1, "is not a whiteboard archive"),
        (("import", "b.db", "/dev/null"), 1, "not a regular file"),
        (("merge", "a.db"), 2, "Missing argument"),
        (("merge", "a.db", "a.db"), 1, "they are one store"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, word: str) -> None:
    """What cannot be done is one line on stderr with its status, and nothing is made."""
    filled(tmp_path / "a.db")
    assert_refused(cli(*arguments), code, word)
    assert {each.name.partition(".")[0] for each in tmp_path.iterdir()} == {"a"}
