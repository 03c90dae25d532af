"""Many processes on one file: no lock errors, and what a killed writer had acknowledged is there."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.storage.samples import Model, assert_found, assert_state, environment, key_of
from whiteboard.storage import open_store
from whiteboard.storage.upkeep.verify import verify

_WRITER = """
import json, sys
from tests.storage.samples import Model, page_of
from whiteboard.storage import open_store

path, name = sys.argv[1:]
model = Model(name, 30, seed=int(name))
with open_store(path) as stores:
    while True:
        first = 1000 * int(name) + 5 * (model.number + 1)
        numbers = range(first, first + 5)
        stores.packages.put(page_of(numbers))
        stores.versions.append(model.record, *model.step(slice(4) if model.number >= 0 else slice(None)), model.columns)
        print(json.dumps([model.number, *numbers]), flush=True)
"""

_READER = """
import sys
from tests.storage.samples import assert_found, key_of
from whiteboard.storage import open_store

with open_store(sys.argv[1], readonly=True, memory_bytes=0) as stores:
    while True:
        numbers = [1000 * name + i for name in range(6) for i in range(20)]
        assert_found(stores.packages.find([key_of(i) for i in numbers]), numbers, lambda i: False)
        for system in stores.versions.systems():
            assert stores.versions.state(system.name).columns
        print(1, flush=True)
"""


def _start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tempfile.gettempdir(),
        env=environment(),
    )


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Writers and readers share a file; the writers are killed at any instant; each acknowledged commit is whole."""
    path = tmp_path / "a.db"
    open_store(path).close()
    chance = random.Random(0)
    writers = [_start(_WRITER, str(path), str(name)) for name in range(6)]
    readers = [_start(_READER, str(path)) for _ in range(2)]
    for process in (*writers, *readers):
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]
    for process in writers:
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
    for process in readers:
        assert process.poll() is None, process.communicate()[1]
        process.kill()
    with open_store(path) as stores:
        for name, process in enumerate(writers):
            lines, errors = process.communicate()
            assert errors == ""
            acknowledged = [json.loads(line) for line in lines.splitlines() if line.endswith("]")]
            last, numbers = (acknowledged[-1][0], [i for line in acknowledged for i in line[1:]]) if lines else (0, [])
            model = Model(str(name), 30, seed=name)
            state = stores.versions.state(str(name))
            assert state.commit.number >= last
            for _ in range(state.commit.number + 1):
                model.step(slice(4) if model.number >= 0 else slice(None))
            assert_state(state, *model.kept[-1])
            assert_found(stores.packages.find([key_of(i) for i in numbers]), numbers, lambda _: True)
        assert verify(stores.database).ok
    for process in readers:
        process.communicate()


def test_writers_take_turns(tmp_path: Path) -> None:
    """Writers that never pause all get on: none waits while another writes again and again."""
    path = tmp_path / "a.db"
    open_store(path).close()
    writers = [_start(_WRITER, str(path), str(name)) for name in range(4)]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]
    time.sleep(1)
    for process in writers:
        process.kill()
    counts = [len(process.communicate()[0].splitlines()) for process in writers]
    assert min(counts) > 0
