"""The suites of `whiteboard.testing`: a backend of dicts passes them, and with any one fault it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

import whiteboard.testing
from tests.storage.samples import environment, run_python

BACKEND = Path(__file__).with_name("mine.py").read_text("utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", whiteboard.testing.__doc__ or "", re.DOTALL)


class Fault(NamedTuple):
    """A change of the backend, and the tests that have to find it."""

    id: str
    right: str
    wrong: str
    found_by: str


FAULTS = [
    Fault("row", "numbers[id(page)], row, DISK", "numbers[id(page)], 0, DISK", "test_what_was_put_is_found"),
    Fault("tier", "row, DISK", "row, 0", "test_what_was_put_is_found"),
    Fault("page of another key", "numbers[id(page)], row", "0, row", "test_first_put_stays"),
    Fault("answer for a miss", "found.page[i] = -1", "pass", "test_unknown_keys_are_misses"),
    Fault("the last put", "self.held.setdefault(key.tobytes(), (kept, row))", "self.held[key.tobytes()] = (kept, row)",
          "test_first_put_stays"),
    Fault("no copy", "copy = array.copy()", "copy = array.view()", "test_the_caller_may_reuse_a_larger_buffer"),
    Fault("writable", "copy.flags.writeable = False", "pass", "test_found_arrays_are_read_only"),
    Fault("one dtype", "frozen(array) for name", "frozen(array.astype(float)) for name",
          "test_every_dtype_and_shape"),
    Fault("bits of NaN", "frozen(array) for name", "frozen(np.nan_to_num(array)) for name",
          "test_odd_floats_keep_their_bits"),
    Fault("any dtype", 'array.dtype.kind not in "biufc"', "False", "test_bad_pages_are_refused[object]"),
    Fault("any rows", "array.shape[:1] != (page.n,)", "False", "test_bad_pages_are_refused[rows differ]"),
    Fault("use after the end", "if self.closed:", "if False:", "test_close_twice"),
    Fault("a counter less", '"collisions", ', "", "test_stats_count"),
    Fault("packages of its own", "PACKAGES.setdefault(folder, {})", "{}", "test_read_behind_the_back"),
    Fault("always the last commit", "return kept[number]", "return kept[-1]", "test_every_commit_stays"),
    Fault("changed rows alone", "in everything()", "in changed", "test_every_commit_stays"),
    Fault("names in any order", "iter(sorted(self.held))", "iter(list(self.held))", "test_systems_by_name"),
    Fault("a late commit", "if commit.parent != head:", "if False:", "test_a_late_commit_is_refused"),
    Fault("any number", "if commit.number != len(kept):", "if False:", "test_a_number_that_does_not_follow"),
    Fault("any uuid", "[0].uuid != system.uuid", "[0].uuid is None", "test_a_name_twice"),
    Fault("any commit", "if not 0 <= number < len(kept):", "if False:", "test_unknown_names"),
    Fault("a fork that is its origin", "[: number + 1])", ")", "test_a_fork_goes_its_own_way"),
    Fault("systems of its own", "SYSTEMS.setdefault(folder, {})", "{}", "test_another_view_sees_each_commit"),
]  # fmt: skip


class Outcome(NamedTuple):
    """What one run of pytest over all backends said: its summary, and the tests that failed, by backend."""

    summary: str
    output: str
    failed: dict[str, set[str]]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run the example of the docstring, as it stands, over the backend as it is and with each fault."""
    folder = tmp_path_factory.mktemp("suites")
    for number, fault in enumerate([None, *FAULTS]):
        source = BACKEND
        if fault is not None:
            assert source.count(fault.right) == 1, fault.id
            source = source.replace(fault.right, fault.wrong)
        (folder / f"mine_{number}.py").write_text(source, "utf-8")
        (folder / f"test_{number}.py").write_text(EXAMPLE.replace("from mine import", f"from mine_{number} import"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "--tb=line"],
        cwd=folder,
        env={**environment(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = defaultdict(set)
    for number, test in re.findall(r"^FAILED test_(\d+)\.py::\w+::(test_\w+(?:\[[^]]*\])?)", done.stdout, re.MULTILINE):
        failed[number].add(test)
    return Outcome(done.stdout.splitlines()[-1], done.stdout, failed)


def test_a_backend_of_dicts_passes(outcome: Outcome) -> None:
    """The example of the docstring runs as it stands, no test is skipped, and a backend without a fault passes."""
    assert re.fullmatch(r"\d+ failed, \d+ passed in .*", outcome.summary), outcome.output
    assert outcome.failed["0"] == set()


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault.id for fault in FAULTS])
def test_a_fault_is_found(number: int, outcome: Outcome) -> None:
    """Each fault fails the test of the sentence that it breaks."""
    assert FAULTS[number].found_by in outcome.failed[str(number + 1)]


def test_a_failure_shows_the_values(outcome: Outcome) -> None:
    """The assertions of the suites are rewritten: a failed one says what was compared."""
    assert "samples.py" in outcome.output
    assert ": assert np.uint8(0) != 0" in outcome.output


def test_a_hook_that_is_left_out_is_named() -> None:
    """A suite without its hooks cannot be made, and the error says which is missing."""
    with pytest.raises(TypeError, match="behind"):
        type("TestMine", (whiteboard.testing.PackageStoreSuite,), {"store": None})()


def test_without_pytest_one_line_says_what_to_install() -> None:
    """Where pytest is missing the import is a `MissingExtraError` that tells how to get it."""
    done = run_python("import sys; sys.modules['pytest'] = None; import whiteboard.testing")
    assert done.returncode == 1
    last = "whiteboard.errors.MissingExtraError: whiteboard.testing needs pytest: pip install pytest"
    assert done.stderr.splitlines()[-1] == last


def test_the_library_imports_neither() -> None:
    """`import whiteboard` imports neither the suites nor pytest."""
    done = run_python(
        "import sys, whiteboard, whiteboard.cli; print({'pytest', 'whiteboard.testing'} & {*sys.modules})"
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
