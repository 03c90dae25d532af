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


_OPENED = """
import os, signal, sys, threading
from whiteboard.concurrency import at_fork
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.database import Database

writes, forked, path = threading.Event(), threading.Event(), sys.argv[1]

def other():
    database = Database(locate(path))
    database.exclusive(lambda: (writes.set(), forked.wait(1)))
    database.close()

class Opens:
    fork_rank, fork_locks, thread = 5, (), None

    def before_fork(self):
        if self.thread is None:
            self.thread = threading.Thread(target=other)
            self.thread.start()
            writes.wait()

    def after_fork(self, *, child):
        pass

opens = Opens()
at_fork.watch(opens)
pid = os.fork()
if not pid:
    signal.alarm(20)  # ends it where it hangs
    Database(locate(path)).exclusive(lambda: None)
    os._exit(0)
forked.set()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
opens.thread.join()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_store_that_is_opened_while_others_are_made_quiet(tmp_path: Path) -> None:
    """The child inherits no lock of a store that another thread opened when the fork had begun."""
    done = run_python(_OPENED, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")


_LEFT = """
import os, sys
import numpy as np
import whiteboard as wb
from whiteboard.storage.sqlite.connection import Held

class Interrupted(Held):
    def execute(self, *given):
        if "query_only" in given[0]:
            raise KeyboardInterrupt
        return super().execute(*given)

board = wb.open(sys.argv[1])
board.call_many("mul", np.ones((2, 3)), np.ones((2, 3)))
import whiteboard.storage.sqlite.connecting as connecting
connecting.Held = Interrupted
left = board._store.database
left._pool.spare.clear()
try:
    board.call_many("mul", np.zeros((2, 3)), np.ones((2, 3)))
except KeyboardInterrupt as error:
    kept = error
connecting.Held = Held
pid = os.fork()
if not pid:
    names = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    os._exit(sum(os.readlink(name).startswith(sys.argv[1]) for name in names if os.path.lexists(name)))
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert board.call_many("mul", np.zeros((2, 3)), np.ones((2, 3))).y.tolist() == np.zeros((2, 3)).tolist()
board.close()
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not tell which files are open")
def test_a_connection_that_an_interrupt_left_is_not_inherited(tmp_path: Path) -> None:
    """SQLite would believe in the child that it holds the locks of its parent's connection."""
    done = run_python(_LEFT, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")


_INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import whiteboard as wb
from whiteboard.concurrency import at_fork

board = wb.open(sys.argv[1])
board.call_many("mul", np.ones((2, 3)), np.ones((2, 3)))
class Waits:
    fork_rank, fork_locks, times = 5, (threading.Lock(),), 0

    def before_fork(self):
        self.times += 1
        if self.times == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    def after_fork(self, *, child):
        pass

waits = Waits()
at_fork.watch(waits)
me, came, r, w = os.getpid(), False, *os.pipe()
try:
    pid = os.fork()
    if pid:
        time.sleep(5)
except KeyboardInterrupt:
    came = True
if os.getpid() != me:
    signal.alarm(30)
    time.sleep(0.1)
    assert board.call_many("tanh", np.ones((2, 3))).y.shape == (2, 3)
    os._exit(came)
code = os.waitstatus_to_exitcode(os.wait()[1])
assert came and waits.times == 2 and not waits.fork_locks[0].locked(), (came, waits.times)
board.call_many("mul", np.zeros((2, 3)), np.ones((2, 3)))
board.close()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_interrupt_while_a_fork_waits_comes_behind_it(tmp_path: Path) -> None:
    """Python would write it out and fork, with stores that are not quiet; the child does not hear of it."""
    done = run_python(_INTERRUPTED, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")


_ORDER = """
import os, signal, sys, threading
from whiteboard.concurrency import at_fork
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.database import Database

stores = [Database(locate(f"{sys.argv[1]}{number}")) for number in range(2)]
first, second = stores[:: int(sys.argv[2])]
forks, holds = threading.Event(), threading.Event()

def other():
    def both():
        holds.set()
        forks.wait()
        second.exclusive(lambda: None)
    first.exclusive(both)

class Begins:
    fork_rank, fork_locks = 5, ()

    def before_fork(self):
        threading.Timer(0.05, forks.set).start()

    def after_fork(self, *, child):
        pass

begins = Begins()
at_fork.watch(begins)
thread = threading.Thread(target=other)
thread.start()
holds.wait()
signal.alarm(20)  # ends it where it hangs
pid = os.fork()
if not pid:
    signal.alarm(20)
    for store in stores:
        store.exclusive(lambda: None)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
thread.join()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("order", ["1", "-1"])
def test_a_fork_while_another_thread_goes_from_one_store_to_another(tmp_path: Path, order: str) -> None:
    """Whoever merges two stores holds the lock of one and waits for the other's, which a fork may hold already."""
    done = run_python(_ORDER, str(tmp_path / "a.db"), order)
    assert (done.returncode, done.stderr) == (0, "")


_WITHIN = """
import os, signal, sys
import numpy as np
import whiteboard as wb

board = wb.open(sys.argv[1])
x = np.ones(3)
board.call("tanh", x)
tier, asked = board._store.packages, []
held = tier._lock

class Forks:
    def __enter__(self):
        held.acquire()
        if not asked:
            asked.append(os.fork())

    def __exit__(self, *_):
        held.release()

signal.alarm(20)  # ends it where it hangs
tier._lock = Forks()
y = board.call("tanh", x).y
assert y.tobytes() == np.tanh(x).tobytes()
assert board.call("exp", x).y.tobytes() == np.exp(x).tobytes()
if not asked[0]:
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(asked[0], 0)[1])
tier._lock = held
board.close()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_within_a_call(tmp_path: Path) -> None:
    """A signal's handler, or a finalizer, may fork while its own thread holds a lock of a store."""
    done = run_python(_WITHIN, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")
