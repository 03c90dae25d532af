"""Forks: parent and child each go on with a store that works, whatever the parent's threads were doing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.storage.samples import run_python

_FORK = """
import os, sys, threading, time
from tests.storage.samples import Model, assert_found, assert_state, key_of, page_of
from whiteboard.storage import open_store

path, how = sys.argv[1:]
model, other = Model("parent", 20), Model("child", 20)
stores = open_store(path)
stores.versions.append(model.record, *model.step(), model.columns)
stores.packages.put(page_of(range(10)))
stores.packages.flush()
stores.packages.put(page_of(range(10, 20)))
stop = threading.Event()

def busy():
    number = 1000
    while not stop.is_set():
        stores.packages.put(page_of([number, number + 1]))
        stores.packages.find([key_of(i) for i in range(990, number)])
        stores.packages.flush()
        number += 2

threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for round in range(5):
    time.sleep(0.02)
    pid = os.fork()
    if not pid:
        stop.set()
        assert_found(stores.packages.find([key_of(i) for i in range(20)]), range(20), lambda i: i < 10)
        if not round:
            stores.versions.append(other.record, *other.step(), other.columns)
        stores.packages.put(page_of([100 + round]))
        stores.close()
        os._exit(0) if how == "exit" else sys.exit(0)
    children.append(pid)
stop.set()
for thread in threads:
    thread.join()
stores.close() if how == "exit" else None
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert codes == [0] * 5, codes
other.step()
stores.close()
with open_store(path) as stores:
    assert_state(stores.versions.state("parent"), *model.kept[-1])
    assert_state(stores.versions.state("child"), *other.kept[0])
    numbers = [*range(20), *range(100, 105)]
    assert_found(stores.packages.find([key_of(i) for i in numbers]), numbers, lambda _: True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["exit", "finalize"])
def test_a_fork_in_the_middle(tmp_path: Path, how: str) -> None:
    """A process that forks while its threads write leaves parent and child with a store that works, and all data."""
    done = run_python(_FORK, str(tmp_path / "a.db"), how)
    assert done.returncode == 0, done.stderr


def test_a_fork_keeps_memory(tmp_path: Path) -> None:
    """A store in memory is copied by a fork, and each side goes on with its own."""
    code = """
import os
from tests.storage.samples import assert_found, key_of, page_of
from whiteboard.storage import open_store

stores = open_store(":memory:")
stores.packages.put(page_of([1]))
stores.packages.flush()
pid = os.fork()
stores.packages.put(page_of([2 if pid else 3]))
stores.packages.flush()
assert_found(stores.packages.find([key_of(i) for i in (1, 2, 3)]), (1, 2, 3), lambda i: i in (1, 2 if pid else 3))
if not pid:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
