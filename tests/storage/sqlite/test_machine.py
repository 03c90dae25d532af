"""Two processes, one file, any order of things: what was acknowledged stays, and no answer is ever wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Protocol

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.storage.samples import Model, assert_found, assert_state, environment, key_of, page_of
from whiteboard.storage import Stores, open_store
from whiteboard.storage.upkeep.gc import gc
from whiteboard.storage.upkeep.verify import verify

NUMBERS = st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True)

_SERVER = """
import json, sys
from tests.storage.sqlite.told import do
from whiteboard.storage import open_store

with open_store(sys.argv[1], memory_bytes=20_000) as stores:
    for line in sys.stdin:
        print(json.dumps(do(stores, *json.loads(line))), flush=True)
"""


class Other(Protocol):
    """One who has the store open, and does what it is told."""

    def ask(self, what: str, numbers: list[int]) -> list[int]: ...
    def end(self, *, kill: bool) -> None: ...


class _Other:
    """Another process."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
            env=environment(),
        )

    def ask(self, what: str, numbers: list[int]) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, numbers]) + "\n")
        self.process.stdin.flush()
        answer: list[int] = json.loads(self.process.stdout.readline())
        return answer

    def end(self, *, kill: bool) -> None:
        if kill:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        assert kill or code == 0


class TwoProcesses(RuleBasedStateMachine):
    """`put` numbers were handed over, `safe` ones are on disk and nobody evicted since."""

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = where or str(self.folder / "a.db")
        self.stores: Stores = open_store(self.path, memory_bytes=20_000)
        self.other = self.begin_other()
        self.put: set[int] = set()
        self.mine: set[int] = set()
        self.theirs: set[int] = set()
        self.safe: set[int] = set()
        self.model = Model("mine", 10, seed=3)
        self.other_model = Model("other", 10, seed=7)

    def begin_other(self) -> Other:
        """Another who has the store open."""
        return _Other(self.path)

    @rule(numbers=NUMBERS, there=st.booleans())
    def hand_over(self, numbers: list[int], there: bool) -> None:
        self.put.update(numbers)
        if there:
            self.other.ask("put", numbers)
            self.theirs.update(numbers)
        else:
            self.stores.packages.put(page_of(numbers))
            self.mine.update(numbers)

    @rule(there=st.booleans())
    def flush(self, there: bool) -> None:
        if there:
            self.other.ask("flush", [])
            self.safe |= self.theirs
            self.theirs = set()
        else:
            self.stores.packages.flush()
            self.safe |= self.mine
            self.mine = set()

    @rule(numbers=NUMBERS)
    def find(self, numbers: list[int]) -> None:
        found = self.stores.packages.find([key_of(number) for number in numbers])
        assert_found(found, numbers, lambda number: number in self.safe | self.mine)
        assert all(number in self.put for number, page in zip(numbers, found.page, strict=True) if page >= 0)

    @rule(numbers=NUMBERS)
    def find_there(self, numbers: list[int]) -> None:
        found = set(self.other.ask("find", numbers))
        assert found >= set(numbers) & (self.safe | self.theirs)
        assert found <= self.put

    @rule(part=st.floats(0, 1))
    def evict(self, part: float) -> None:
        gc(self.stores.database, max_bytes=int(part * self.stores.database.live_bytes()))
        # Evicted from the file; a tier may hold it still, and what a put found stored was not written again.
        self.safe = set()

    @rule()
    def reopen(self) -> None:
        self.stores.close()
        self.stores = open_store(self.path, memory_bytes=20_000)
        self.safe |= self.mine
        self.mine = set()

    @rule(kill=st.booleans())
    def end_other(self, kill: bool) -> None:
        self.other.end(kill=kill)
        if not kill:
            self.safe |= self.theirs
        self.theirs = set()
        self.other = self.begin_other()

    @rule()
    def commit(self) -> None:
        commit, changed = self.model.step(slice(3) if self.model.number >= 0 else slice(None))
        self.stores.versions.append(self.model.record, commit, changed, self.model.columns)
        self.safe |= self.mine
        self.mine = set()

    @precondition(lambda self: self.other_model.number < 6)
    @rule()
    def commit_there(self) -> None:
        self.other_model.step(slice(3) if self.other_model.number >= 0 else slice(None))
        self.other.ask("commit", [self.other_model.number + 1])
        self.safe |= self.theirs
        self.theirs = set()

    @invariant()
    def commits_stay(self) -> None:
        for model in (self.model, self.other_model):
            if model.kept:
                assert_state(self.stores.versions.state(model.record.name), *model.kept[-1])

    def teardown(self) -> None:
        try:
            for model in (self.model, self.other_model):
                for commit, columns in model.kept:
                    assert_state(self.stores.versions.state(model.record.name, commit.number), commit, columns)
            assert verify(self.stores.database).ok
        finally:
            self.other.end(kill=True)
            self.stores.close()
            shutil.rmtree(self.folder)


TestTwoProcesses: Any = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
