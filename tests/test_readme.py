"""The README: its code runs and prints what is shown, and its commands, options and names exist."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import diskcache
import numpy as np
import pytest

from tests import readme_program
from tests.readme import ROOT, Block, begins, blocks, difference, faults, shown, steps, unnamed
from whiteboard.cli import status

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = blocks(README)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "MPLBACKEND": "Agg"}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program, and return what it prints on both streams, as a terminal would show it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout
    return done.stdout


def command(words: tuple[str, ...], cwd: Path) -> str:
    """Run a command line of ours."""
    assert words[0] == "whiteboard", words
    return run(sys.executable, "-m", *words, cwd=cwd)


def programs(text: str) -> Iterator[list[Block]]:
    """Yield the Python blocks of a README: one that imports the library begins anew, the next ones go on from it."""
    program: list[Block] = []
    for block in blocks(text):
        if block.kind == "python" and not file_name(block):
            if "import whiteboard" in block.text and program:
                yield program
                program = []
            program.append(block)
    if program:
        yield program


def file_name(block: Block) -> str:
    """Return the name of the file that a Python block says it is, or an empty text."""
    first = block.text.partition("\n")[0].removeprefix("# ")
    return first if block.text.startswith("# ") and first.endswith(".py") else ""


def outputs(program: list[Block], folder: Path) -> list[str]:
    """Run a program, with warnings as errors, and return what each of its blocks prints."""
    files = []
    for block in program:
        files.append(folder / f"line_{block.line}.py")
        files[-1].write_text(block.text, "utf-8")
    printed = run(sys.executable, "-W", "error", readme_program.__file__, *files, cwd=folder)
    parts = printed.split(readme_program.END)
    assert len(parts) == len(program) + 1, f"the program ended in block {len(parts)}: {printed.splitlines()[-1]}"
    return parts[:-1]


def wrong_output(text: str, program: list[Block], folder: Path) -> str:
    """Run a program, and say where it prints something else than the README shows."""
    for block, printed in zip(program, outputs(program, folder), strict=True):
        expected = shown(text, block)
        if expected is not None and (found := difference(expected, printed)):
            return found
    return ""


PROGRAMS = list(programs(README))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"line {program[0].line}")
def test_python_prints_what_is_shown(program: list[Block], tmp_path: Path) -> None:
    """Each Python program of the README runs in an empty folder, prints what is shown, and its comments are right."""
    assert wrong_output(README, program, tmp_path) == ""


def test_every_python_block_runs() -> None:
    """A Python block is part of a program, or a file that a session uses."""
    ran = [block for program in PROGRAMS for block in program]
    assert [block.line for block in BLOCKS if block.kind == "python" and block not in ran] == [
        block.line for block in BLOCKS if file_name(block) == "mapping.py"
    ]


def test_python_is_typed(tmp_path: Path) -> None:
    """``mypy --strict`` finds nothing in what the README does with the library, whose own functions have no types."""
    pytest.importorskip("mypy", reason="mypy is not installed: scripts/setup check")
    files = []
    for program in PROGRAMS:
        files.append(tmp_path / f"line_{program[0].line}.py")
        files[-1].write_text("\n".join(block.text for block in program), "utf-8")
    words = ["--strict", "--allow-untyped-defs", "--allow-untyped-calls", "--no-warn-unused-ignores"]
    where: list[str | Path] = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    found = run(sys.executable, "-m", "mypy", *words, *where, *files, cwd=ROOT)
    assert found == f"Success: no issues found in {len(files)} source files\n"


def test_a_second_run_goes_on(tmp_path: Path) -> None:
    """The system of points goes on from commit 100 to 200, as the README says."""
    assert "goes on from commit 100 to 200" in README
    (program,) = [each for each in PROGRAMS if "points.db" in each[0].text]
    assert [outputs(program, tmp_path)[0].split()[0] for _ in range(2)] == ["100", "200"]


# Sessions: each in a folder that has what the README says or takes for granted


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which `scripts/run` was called, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    return folder, command(begins("scripts/run"), folder)


def after_the_first_run(folder: Path, first: Path) -> None:
    """Put what `scripts/run` leaves into a folder."""
    shutil.copytree(first, folder, dirs_exist_ok=True)


def with_another_store(folder: Path, first: Path) -> None:
    """Put another store beside it, with another start of the same experiment."""
    after_the_first_run(folder, first)
    command(("whiteboard", "run", "europe", "--seed", "1", "--rounds", "10", "--store", "other.db"), folder)


def with_an_older_schema(folder: Path, first: Path) -> None:
    """Put a store of the first schema there."""
    (folder / "old.db").write_bytes(gzip.decompress((ROOT / "tests/assets/schema-0001.db.gz").read_bytes()))


def with_packages_of_swish(folder: Path, first: Path) -> None:
    """Put a store there with 2,000 packages of the README's own op."""
    (source,) = [block.text for block in BLOCKS if "def swish" in block.text]
    op = source.partition("\n\n\nwith ")[0]
    calls = (
        "import numpy as np\n"
        "from whiteboard.evaluation.sources import ArraySources\n"
        "with wb.open(':memory:') as computed, wb.open('whiteboard.db') as board:\n"
        "    for x in np.random.default_rng(0).normal(size=(2, 1000, 16)):\n"
        "        r = computed.call_many('swish', x)\n"
        "        # in one page, however long computing took here\n"
        "        board.pipeline.adopt(wb.ops.get('swish'), None, ArraySources('swish', [x]), r.y, r.grads)\n"
        "        board.flush()\n"
    )
    (folder / "swish.py").write_text(f"{op}\n\n\n{calls}", "utf-8")
    assert run(sys.executable, "swish.py", cwd=folder) == ""


def with_a_sweep(folder: Path, first: Path) -> None:
    """Run the README's program that fills a store with packages of `lift`."""
    (program,) = [each for each in PROGRAMS if "sweep.db" in each[0].text]
    outputs(program, folder)


def with_an_older_cache(folder: Path, first: Path) -> None:
    """Put a folder of diskcache there, and the README's module that says what its entries are of."""
    (mapping,) = [block.text for block in BLOCKS if file_name(block) == "mapping.py"]
    (folder / "mapping.py").write_text(mapping, "utf-8")
    space: dict[str, Callable[[tuple[str, int]], list[np.ndarray]]] = {}
    exec(mapping, space)
    with diskcache.Cache(folder / "old") as cache, cache.transact():
        for seed in range(812):
            a, b = space["sources"](("mul", seed))
            cache["mul", seed] = (a * b, (b, a))


SCENES: dict[str, Callable[[Path, Path], None]] = {
    "run": after_the_first_run,
    "export": with_another_store,
    "table": with_a_sweep,
    "explain": after_the_first_run,
    "ls": with_an_older_schema,
    "rekey": with_packages_of_swish,
    "recompress": after_the_first_run,
    "import-legacy": with_an_older_cache,
}
"""What lies in the folder of each session, by its first command."""

SESSIONS = {steps(block)[0][0][1]: block for block in BLOCKS if block.kind == "session"}


def test_the_first_run_prints_what_is_shown(first_run: tuple[Path, str]) -> None:
    """`scripts/run`, the first command of the README, prints what stands below it, and draws the map."""
    (block,) = [block for block in BLOCKS if "scripts/run" in block.text]
    folder, printed = first_run
    assert difference(shown(README, block) or "", printed) == ""
    assert (folder / "europe.png").is_file()


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_prints_what_is_shown(name: str, first_run: tuple[Path, str], tmp_path: Path) -> None:
    """Each command of a session prints what is shown; a fingerprint that it shows first stands for the one here."""
    SCENES[name](tmp_path, first_run[0])
    here: dict[str, str] = {}
    for words, expected in steps(SESSIONS[name]):
        printed = command(tuple(here.get(word, word) for word in words), tmp_path)
        assert difference(expected, printed) == "", shlex.join(words)
        here |= {want: got for want, got in zip(expected.split(), printed.split(), strict=True) if len(want) == 32}


def test_an_imported_result_is_a_hit(tmp_path: Path) -> None:
    """After `import-legacy` the call that the README names is a hit."""
    call = 'board.call("mul", *sources(("mul", 7)))'
    assert f"`{call}` is a hit" in README
    with_an_older_cache(tmp_path, tmp_path)
    command(steps(SESSIONS["import-legacy"])[0][0], tmp_path)
    program = (
        "import whiteboard as wb\nfrom mapping import sources\nwith wb.open('whiteboard.db') as board:\n"
        f"    print({call}.hit)\n"
    )
    (tmp_path / "hit.py").write_text(program, "utf-8")
    assert run(sys.executable, "hit.py", cwd=tmp_path) == "disk\n"


def test_the_experiment_file_runs(tmp_path: Path) -> None:
    """The experiment of the README, as a file, finds the triangle that its table describes."""
    (block,) = [block for block in BLOCKS if block.kind == "toml"]
    (tmp_path / "triangle.toml").write_text(block.text, "utf-8")
    (tmp_path / "edges.csv").write_text("a,b,length\n0,1,3\n1,2,4\n0,2,5\n", "utf-8")
    assert "triangle: done at commit" in command(("whiteboard", "run", "triangle.toml"), tmp_path)


LOOKS = (
    "ops",
    "ops mul",
    "ops mul --check",
    "info",
    "ls",
    "show europe",
    "log europe",
    "diff europe europe",
    "table distance --limit 3",
    "explain --system europe --job distance 1 2 --attr p",
    "verify",
    "gc",
    "forget --op distance --dry-run",
    "rm europe --dry-run",
    "rekey --op distance --list",
    "recompress whiteboard.db --level 9 --dry-run",
    "copy whiteboard.db to.db --dry-run",
    "db current",
    "db check",
)


def test_commands_that_only_look(
    first_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands that change nothing run over the store of `scripts/run`, and have something to say."""
    monkeypatch.chdir(first_run[0])
    for line in LOOKS:
        assert (status(line.split()), capfd.readouterr().out != "") == (0, True), line


# What stands in the sentences


def test_commands_options_and_names_exist() -> None:
    """Every command line of the README can be called so, and every option and name in it exists."""
    assert faults(README) == []


def test_every_command_is_named() -> None:
    """No command is left out of the README."""
    assert unnamed(README) == []


class Wrong(NamedTuple):
    """A text that is wrong, and a word of what has to be said of it."""

    text: str
    word: str
    id: str


def block(text: str, kind: str = "") -> str:
    """Return a fenced block."""
    return f"```{kind}\n{text}\n```\n"


WRONG = [
    Wrong(block("$ whiteboard shw europe"), "no such command", "command"),
    Wrong(block("$ whiteboard db look"), "no such command", "command of a group"),
    Wrong(block("whiteboard show NAME · lss"), "no such command", "command of a table"),
    Wrong(block("whiteboard db current | upgrad"), "no such command", "alternative of a table"),
    Wrong(block("$ whiteboard ls --stoer a.db"), "--stoer", "option"),
    Wrong(block("whiteboard run EXPERIMENT [--wounds R]"), "--wounds", "option of a table"),
    Wrong(block("$ whiteboard show"), "NAME", "argument that is missing"),
    Wrong(block("whiteboard import-legacy FOLDER"), "--store", "option that is missing"),
    Wrong(block("$ whiteboard ls europe"), "unexpected", "argument too many"),
    Wrong(block("$ whiteboard run europe --rounds"), "requires an argument", "option without its value"),
    Wrong(block("$ whiteboard run europe --rounds many"), "many", "value of another kind"),
    Wrong(block("$ whiteboard ls --json=yes"), "does not take a value", "flag with a value"),
    Wrong(block("$ scripts/rum"), "no such script", "script"),
    Wrong(block("$ scripts/check --mend"), "--mend", "option of a script"),
    Wrong(block("$ scripts/setup tests"), "no group", "group of a script"),
    Wrong(block("scripts/run --wounds 3"), "--wounds", "option of the command that a script runs"),
    Wrong(block("scripts/recompress"), "STORE", "argument of the command that a script runs"),
    Wrong(block("scripts/torture maim"), "no program", "kind"),
    Wrong(block("scripts/bench measure"), "no program", "kind that is none"),
    Wrong(block("scripts/torture kill --lives 3"), "--lives", "option of a kind"),
    Wrong(block("scripts/torture kill --kills many"), "many", "value of a kind's option"),
    Wrong("`scripts/torture resume`, and with `--experimant mixed`", "--experimant", "option after its script"),
    Wrong("try `whiteboard expain`", "no such command", "command in a sentence"),
    Wrong("try `rekey --schema`", "--schema", "option in a sentence"),
    Wrong("try `--stoer`", "no command takes", "option alone"),
    Wrong("try `--verify most`", "no command takes", "choice"),
    Wrong("try `rekeys --scheme`", "no such command", "command that has an option"),
    Wrong("try `wb.opne`", "opne", "name of the library"),
    Wrong("try `whiteboard.integration.bridge_v3`", "bridge_v3", "module"),
    Wrong("try `board.cal(1)`", "Board has no cal", "method"),
    Wrong("try `take_over=True`", "nothing takes", "keyword"),
    Wrong("see `scripts/torturing/maim.py`", "no such file", "path"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.id)
def test_what_does_not_exist_is_found(wrong: Wrong) -> None:
    """One sentence is said of each thing that is wrong in a text, and it names the thing."""
    (fault,) = faults(wrong.text)
    assert wrong.word in fault


RIGHT = [
    "whiteboard run EXPERIMENT [--store S] [--rounds R]\nwhiteboard show NAME · ls · db current | downgrade REVISION",
    "$ whiteboard explain --system europe --job distance 1 2\na miss",
    "scripts/run --rounds 3\nscripts/bench storage --count 100\nscripts/torture kill --kills 3",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_exists_is_not_refused(text: str) -> None:
    """Nothing is said of what can be called."""
    assert faults(block(text)) == []


def test_a_command_that_is_not_named_is_found() -> None:
    """A README that names some commands leaves out the others."""
    left = unnamed(block("whiteboard show NAME · db check"))
    assert {"run", "ls", "db current"} <= set(left)
    assert not {"show", "db check"} & set(left)


BAD = [
    Wrong(block("print(1 + 1)", "python") + block("3"), "shown is '3', printed was '2'", "number"),
    Wrong(block("print('a', 0.5)", "python") + block("a 0.50001"), "0.50001", "digits"),
    Wrong(block("print('hit')", "python") + block("miss"), "miss", "word"),
    Wrong(block("print(1)", "python") + block("1\n2"), "2 lines", "line too many"),
    Wrong(block("print('0' * 31)", "python") + block("1" * 32), "0000", "digest that is none"),
    Wrong(block("print('x', 7)", "python") + block("x 7,001"), "7,001", "count"),
]


@pytest.mark.parametrize("wrong", BAD, ids=lambda wrong: wrong.id)
def test_another_output_is_found(wrong: Wrong, tmp_path: Path) -> None:
    """A program that prints something else than what is shown is told."""
    (program,) = programs(wrong.text)
    assert wrong.word in wrong_output(wrong.text, program, tmp_path)


FAILING = [
    Wrong(block("n = 2  # 3", "python"), "line 1: the comment says '3'", "value"),
    Wrong(block("[1, 2]  # [1, 3]", "python"), "[1, 2]", "value of an expression"),
    Wrong(block("import numpy as np\na, b = np.ones(3), np.ones((2, 4))  # (3,), (2, 3)", "python"), "(2, 4)", "shape"),
    Wrong(block("if True:\n    n = 2  # 3", "python"), "line 2", "value inside"),
    Wrong(block("n = 2", "python") + block("print(m)", "python"), "in block 2: NameError", "name"),
    Wrong(block("import warnings\nwarnings.warn('old')", "python"), "UserWarning", "warning"),
]


@pytest.mark.parametrize("wrong", FAILING, ids=lambda wrong: wrong.id)
def test_a_program_that_fails_is_found(wrong: Wrong, tmp_path: Path) -> None:
    """A program that raises, or has a comment that is wrong, is told by its last line."""
    (program,) = programs(wrong.text)
    with pytest.raises(AssertionError) as caught:
        outputs(program, tmp_path)
    assert wrong.word in str(caught.value)


def test_what_depends_on_the_machine_is_left_out() -> None:
    """Digests, times, folders, last digits and compressed sizes may be others; a later block goes on from a former."""
    expected = f"digest {'a' * 32}\n3 rounds in 0.51 s\nfrom /data/other.db\nstress 0.0141149336\nbytes 1,000\n"
    got = f"digest {'b' * 32}\n3 rounds in 12.10 s\nfrom /tmp/x/other.db\nstress 0.0141149337\nbytes 1,020\n"
    assert difference(expected, got) == ""


def test_a_block_goes_on_from_the_one_before(tmp_path: Path) -> None:
    """Blocks that import nothing share the names of those before them, and comments that are right are no fault."""
    text = block("n = 2  # 2", "python") + block("n + 1  # 3\nn = 4  # a word\nprint(n)", "python") + block("4")
    (program,) = programs(text)
    assert wrong_output(text, program, tmp_path) == ""
