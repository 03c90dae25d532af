"""Writers: a living one is named, a dead one is replaced, one far away is left to the user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.storage.samples import transaction
from whiteboard.concurrency.processes import boot
from whiteboard.errors import ConflictError, StoreError
from whiteboard.storage import open_store

CLAIM = (
    "import sys, time; from whiteboard.storage import open_store\n"
    "s = open_store(sys.argv[1]); s.writers.claim('s'); print('claimed', flush=True); time.sleep(600)\n"
)


@pytest.mark.parametrize("reaped", [True, False], ids=["waited for", "a zombie"])
def test_a_living_process_is_named_and_a_killed_one_is_replaced(tmp_path: Path, reaped: bool) -> None:
    """A second process is refused with the first one's pid, and takes over once that is killed, waited for or not."""
    path = tmp_path / "x.db"
    with subprocess.Popen([sys.executable, "-c", CLAIM, str(path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "claimed\n"
        with open_store(path) as stores:
            with pytest.raises(ConflictError, match=f"'s' is written by process {first.pid} on this machine"):
                stores.writers.claim("s")
            stores.writers.claim("other")
            first.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
            if reaped:
                first.wait()
            stores.writers.claim("s")
            stores.writers.claim("s")


def test_a_process_whose_first_thread_has_ended_lives(tmp_path: Path) -> None:
    """The system shows it as one that has ended, as long as its other threads go on."""
    path = tmp_path / "x.db"
    code = CLAIM.replace("time.sleep(600)", "").replace("; print('claimed', flush=True)", "")
    code += (
        "import ctypes, threading\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('claimed', flush=True), time.sleep(600))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "claimed\n"
        with open_store(path) as stores:
            if Path("/proc/self/stat").exists():
                assert Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            with pytest.raises(ConflictError, match=f"'s' is written by process {first.pid} on this machine"):
                stores.writers.claim("s")
        first.kill()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"host": "elsewhere"}, f"process {os.getpid()} on elsewhere, of which"),
        ({"boot": "before"}, None),
        ({"boot": boot().partition("/")[0] + "/1"}, f"process {os.getpid()} in another PID namespace of .*, of which"),
        ({"boot": boot().partition("/")[0]}, "another board of this process"),
        ({"started": 1}, None),
        ({}, "another board of this process"),
    ],
    ids=["elsewhere", "before a boot", "another namespace", "no namespace", "another start", "itself"],
)
def test_what_a_claim_says_of_its_writer_decides(change: dict[str, Any], refused: str | None, tmp_path: Path) -> None:
    """A claim of another boot or start time is dead; one of a place that cannot be seen stands until a takeover."""
    path = tmp_path / "x.db"
    with open_store(path) as one, open_store(path) as two:
        one.writers.claim("s")
        if change:
            with transaction(two.database) as connection:
                for column, value in change.items():
                    connection.exec_driver_sql(f"UPDATE writer SET {column} = ?", (value,))
        if refused is None:
            two.writers.claim("s")
        else:
            with pytest.raises(ConflictError, match=refused):
                two.writers.claim("s")
            two.writers.claim("s", takeover=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("end", ["stores.close()", "stores.writers.release('s')", "sys.exit(0)"])
def test_a_forked_child_leaves_the_claim_of_its_parent(tmp_path: Path, end: str) -> None:
    """Whatever the child does as it ends, the parent stays the writer."""
    path = tmp_path / "x.db"
    program = (
        "import os, sys; from whiteboard.storage import open_store\n"
        "stores = open_store(sys.argv[1]); stores.writers.claim('s')\n"
        f"pid = os.fork()\nif not pid:\n    {end}\n    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\nprint('ended', flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ended\n"
    with open_store(path) as stores:
        with pytest.raises(ConflictError, match=f"'s' is written by process {parent.pid} on this machine"):
            stores.writers.claim("s")
        parent.communicate("")
        stores.writers.claim("s")


def test_a_closed_store_has_released_its_claims(tmp_path: Path) -> None:
    """After close the next one may write; a store that is only read claims nothing."""
    path = tmp_path / "x.db"
    with open_store(path) as stores:
        stores.writers.claim("s")
    with open_store(path, readonly=True) as reader, open_store(path) as stores:
        reader.writers.claim("s")
        stores.writers.claim("s")


def test_a_close_that_failed_is_made_again(tmp_path: Path) -> None:
    """A claim that could not be given back is not in the way of the next board of the process."""
    path, lock = tmp_path / "x.db", tmp_path / "x.db.lock"
    stores = open_store(path)
    stores.writers.claim("s")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(StoreError, match="its lock file"):
        stores.close()
    lock.rmdir()
    stores.close()
    assert stores.database.closed
    with open_store(path) as again:
        again.writers.claim("s")
