"""The scripts, with stand-ins for Python and pip: what they say, what they call, and what they leave behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "scripts" / name for name in ("setup", "run", "test", "check", "docs")] + [ROOT / ".ci" / "run"]

bash = shutil.which("bash")
if bash is None:
    pytest.skip("the scripts need bash", allow_module_level=True)
BASH: str = bash

TOOLS = "bash basename cat chmod cp dirname env flock grep head ln ls mkdir mktemp mv readlink rm"

PYTHON = """#!/usr/bin/env bash
# A stand-in for Python: makes environments that hold itself, and writes down what it is asked to install.
here=$(dirname -- "$0")
case "$*" in
    *"import ensurepip"*) [ -n "${ENSUREPIP:-}" ] ;;
    *"-c "*) printf '%s\\n%s\\n%s\\n' "${VERSION:-3.12}" /usr "$STAND_IN" ;;
    *"-m venv"*)
        echo "venv" >>"$LOG"
        for place; do :; done
        mkdir -p "$place/bin"
        cp "$STAND_IN" "$place/bin/python"
        : >"$place/pyvenv.cfg" ;;
    *"-m ensurepip"*) : >"$here/has-pip" ;;
    *"-m pip --version"*) [ "$0" = "$STAND_IN" ] || [ -e "$here/has-pip" ] ;;
    *"-m pip --python"*) echo "from outside: $*" >>"$LOG"; : >"$(dirname -- "$4")/has-pip" ;;
    *"-m pip install"*)
        asked=$*
        echo "${asked#*install }" >>"$LOG"
        echo "noise of pip"
        if [ -n "${PIP_FAILS:-}" ]; then exit 1; fi
        for name in whiteboard pytest; do
            printf '#!/usr/bin/env bash\\nprintf "%%s\\\\n" "$(basename "$0")" "$PWD" "$@"\\n' >"$here/$name"
        done
        chmod +x "$here/whiteboard" "$here/pytest" ;;
esac
"""


@dataclass
class House:
    """A project with the real scripts, on a machine with little more than a stand-in for Python."""

    root: Path
    bin: Path
    log: Path
    caller: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Call a script from a folder that is not the project's."""
        return subprocess.run(
            [BASH, self.root / "scripts" / script, *arguments],
            cwd=self.caller,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> list[str]:
        """Return what was asked of Python since the last call of this method."""
        lines = self.log.read_text("utf-8").splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return a project whose path has a space in it."""
    tmp_path = tmp_path.resolve()
    root, tools, caller = tmp_path / "the project", tmp_path / "bin", tmp_path / "caller"
    for folder in (root / "scripts", root / "whiteboard", root / "storage", root / "migrations", tools, caller):
        folder.mkdir(parents=True)
    for script in SCRIPTS[:-1]:
        shutil.copy(script, root / "scripts")
    shutil.copy(ROOT / "pyproject.toml", root)
    for name in TOOLS.split():
        found = shutil.which(name)
        if found is not None:
            (tools / name).symlink_to(found)
    python = tools / "python3"
    python.write_text(PYTHON, "utf-8")
    python.chmod(0o755)
    log = tmp_path / "log"
    environment = {"PATH": str(tools), "HOME": str(tmp_path), "LOG": str(log), "STAND_IN": str(python)}
    return House(root, tools, log, caller, {**environment, "ENSUREPIP": "yes"})


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed script said."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_parses_and_can_be_executed(script: Path) -> None:
    """Each script is valid bash, has its execute bit, and stops at the first error."""
    subprocess.run([BASH, "-n", script], check=True)
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text("utf-8")


@pytest.mark.parametrize("script", ["setup", "run", "test", "check", "docs"])
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.10"])
def test_an_old_python_is_told_in_one_line(house: House, script: str, version: str) -> None:
    """A Python that is too old ends each script with one line that says which was found and what is needed."""
    line = one_line(house.run(script, VERSION=version))
    assert "3.11 or newer" in line
    assert f"is {version}" in line
    assert house.asked() == []
    assert not house.venv.exists()


def test_no_python_is_told_in_one_line(house: House) -> None:
    """Without any Python the line says that none was found."""
    (house.bin / "python3").unlink()
    assert "no python3 on PATH" in one_line(house.run("run"))


def test_a_newer_python_of_another_name_is_found(house: House) -> None:
    """Where python3 is too old, python3.11 to python3.14 are tried."""
    (house.bin / "python3").rename(house.bin / "python3.13")
    (house.bin / "python3").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    (house.bin / "python3").chmod(0o755)
    assert house.run("setup", STAND_IN=str(house.bin / "python3.13")).returncode == 0


def test_a_named_python_is_not_replaced_by_another(house: House) -> None:
    """PYTHON names the interpreter: when it will not do, the line says so, and no other is taken."""
    old = house.bin / "old"
    old.write_text("#!/bin/sh\nprintf '3.9\\n/usr\\n/usr/bin/old\\n'\n", "utf-8")
    old.chmod(0o755)
    assert f"PYTHON={old} is 3.9" in one_line(house.run("setup", PYTHON=str(old)))
    assert "PYTHON=none is not a command" in one_line(house.run("setup", PYTHON="none"))


def test_a_second_setup_has_nothing_to_do(house: House) -> None:
    """The first call installs and prints the path alone; the second asks pip for nothing."""
    first = house.run("setup", "test")
    assert (first.returncode, first.stdout) == (0, f"{house.venv}\n")
    assert "noise" not in first.stderr
    assert house.asked() == ["venv", "pip>=25.1", "-e .[plot] --group test"]
    second = house.run("setup", "test")
    assert (second.returncode, second.stdout, second.stderr) == (0, f"{house.venv}\n", "")
    assert house.asked() == []


def test_groups_add_up(house: House) -> None:
    """A new group is installed into what is there, and calls for fewer groups do not undo it."""
    house.run("setup", "test")
    house.asked()
    house.run("setup", "check")
    assert house.asked() == ["pip>=25.1", "-e .[plot] --group check"]
    for groups in ([], ["test"], ["check"], ["test", "check"]):
        house.run("setup", *groups)
    assert house.asked() == []


def test_a_changed_pyproject_is_installed_again(house: House) -> None:
    """A change of pyproject.toml brings the environment up to date, without making a new one."""
    house.run("setup", "test")
    house.asked()
    with (house.root / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    house.run("setup")
    assert house.asked() == ["pip>=25.1", "-e .[plot]"]
    house.run("setup", "test")
    assert house.asked() == ["pip>=25.1", "-e .[plot] --group test"]


def test_a_failed_setup_shows_why_and_is_made_again(house: House) -> None:
    """When pip fails its output is shown, and what it left is not taken for an environment by the next call."""
    failed = house.run("run", PIP_FAILS="yes")
    assert failed.returncode == 1
    assert "noise of pip" in failed.stderr
    assert house.asked() == ["venv", "pip>=25.1"]
    (house.venv / "half").touch()
    assert house.run("setup").returncode == 0
    assert house.asked() == ["venv", "pip>=25.1", "-e .[plot]"]
    assert not (house.venv / "half").exists()


def test_another_python_makes_a_new_environment(house: House) -> None:
    """An environment of another Python version is made again."""
    house.run("setup")
    house.asked()
    assert house.run("setup", VERSION="3.13").returncode == 0
    assert house.asked()[0] == "venv"


def test_without_ensurepip_pip_comes_from_outside(house: House) -> None:
    """Where Python has no ensurepip, its own pip installs a pip into the environment."""
    house.run("setup", ENSUREPIP="")
    assert [line.split(":")[0] for line in house.asked()] == ["venv", "from outside", "pip>=25.1", "-e .[plot]"]


def test_a_foreign_folder_is_left_alone(house: House) -> None:
    """A folder that is not an environment is refused in one line, and keeps what is in it."""
    (house.caller / "mine").mkdir()
    (house.caller / "mine" / "letter").write_text("dear reader", "utf-8")
    line = one_line(house.run("setup", WHITEBOARD_VENV="mine"))
    assert str(house.caller / "mine") in line
    assert [path.name for path in (house.caller / "mine").iterdir()] == ["letter"]


def test_an_environment_of_the_user_is_used_and_kept(house: House) -> None:
    """An environment that somebody else made gets the installation, even after one that failed."""
    (house.venv / "bin").mkdir(parents=True)
    (house.venv / "pyvenv.cfg").touch()
    shutil.copy(house.bin / "python3", house.venv / "bin" / "python")
    (house.venv / "letter").touch()
    assert house.run("setup", PIP_FAILS="yes").returncode == 1
    assert house.run("setup").returncode == 0
    assert "venv" not in house.asked()
    assert (house.venv / "letter").exists()


def test_the_links_for_static_tools_are_made(house: House) -> None:
    """The links stand after a setup, are made again when they are gone, and never replace a folder."""
    for _ in range(2):
        house.run("setup")
        for name in ("storage", "migrations"):
            link = house.root / "whiteboard" / name
            assert link.readlink() == Path("..", name)
            link.unlink()
    (house.root / "whiteboard" / "storage").mkdir()
    assert "in the way" in one_line(house.run("setup"))


def test_run_starts_in_the_folder_of_the_caller(house: House) -> None:
    """`scripts/run` passes its arguments on, and the plot and the store are the caller's."""
    done = house.run("run", "--name", "two words")
    said = ["whiteboard", str(house.caller), "run", "europe", "--plot", "europe.png", "--name", "two words"]
    assert done.stdout.splitlines() == said


def test_test_starts_in_the_folder_of_the_project(house: House) -> None:
    """`scripts/test` installs the test group, with --peers also the peers, and passes its arguments on."""
    assert house.run("test", "-k", "a or b").stdout.splitlines() == ["pytest", str(house.root), "-k", "a or b"]
    assert house.asked()[-1] == "-e .[plot] --group test"
    assert house.run("test", "--peers", "-x").stdout.splitlines() == ["pytest", str(house.root), "-x"]
    assert house.asked()[-1] == "-e .[plot] --group test --group peers"


def test_docs_says_where_the_reference_is(house: House) -> None:
    """`scripts/docs` installs its group, takes away the last reference, and says where the first page is."""
    (house.root / ".docs").mkdir()
    assert house.run("docs").stdout == f"docs: {house.root / '.docs' / 'index.html'}\n"
    assert house.asked()[-1] == "-e .[plot] --group docs"
    assert not (house.root / ".docs").exists()
