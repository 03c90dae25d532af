"""A store that is moved, removed, replaced or linked while it is open is noticed; nothing is acknowledged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_code
from tests.storage.samples import run_python
from tests.systems.test_takeover import step
from whiteboard.cli import status
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge


def replaced(path: Path) -> None:
    """As a backup that is restored does."""
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


DEEDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "moved": (lambda path: path.rename(path.with_name("b.db")), "moved, removed or replaced"),
    "removed": (Path.unlink, "moved, removed or replaced"),
    "replaced": (replaced, "moved, removed or replaced"),
    "linked": (lambda path: path.with_name("b.db").hardlink_to(path), "has a second name"),
    "its log removed": (lambda path: Path(f"{path}-wal").unlink(), "the log .* was moved, removed"),
    "its log's index removed": (lambda path: Path(f"{path}-shm").unlink(), "the index of the log .* was moved"),
    "its folder moved": (lambda path: path.parent.rename(path.parent.with_name("other")), "moved, removed or replaced"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("deed", DEEDS)
def test_what_happens_to_the_file_is_noticed(tmp_path: Path, deed: str) -> None:
    """At the next read, flush and commit: a StoreError, and the system stands where it stood."""
    do, says = DEEDS[deed]
    place = tmp_path / "place"
    place.mkdir()
    board = wb.open(place / "a.db")
    system = board.system("s")
    step(system)
    before = system.digest()
    board.call("exp", np.arange(3.0))
    do(place / "a.db")
    if "its log" not in deed:
        with pytest.raises(wb.StoreError, match=says):
            board.call("exp", np.arange(4.0))
    with pytest.raises(wb.StoreError, match=says):
        board.flush()
    with pytest.raises(wb.StoreError, match=says):
        step(system)
    assert (system.digest(), system.head is not None and system.head.id) == (before, 0)
    with pytest.raises(wb.StoreError, match=says):
        board.close()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("deed", [deed for deed in DEEDS if "its log" not in deed])
def test_a_hit_of_one_key_proves_itself(tmp_path: Path, deed: str) -> None:
    """The package is that of the file that was opened; whatever is none tells of what happened."""
    do, says = DEEDS[deed]
    place, x = tmp_path / "place", np.random.default_rng(0).normal(size=(300, 40))
    place.mkdir()
    with wb.open(place / "a.db") as board:
        whole = board.call_many("exp", x)
    board = wb.open(place / "a.db", memory_bytes=0)
    assert board.call("exp", x[3]).hit == "disk"
    do(place / "a.db")
    again = board.call("exp", x[7])
    assert (again.hit, again.y.tobytes()) == ("disk", whole.y[7].tobytes())
    for ask in (lambda: board.call("exp", x[7] + 1), lambda: board.call_many("exp", x)):
        with pytest.raises(wb.StoreError, match=says):
            ask()
    with pytest.raises(wb.StoreError, match=says):
        board.close()


def test_a_file_with_two_names_is_not_opened(tmp_path: Path) -> None:
    """Under either name, and for reading too: the log of the other name would not be seen."""
    wb.open(tmp_path / "a.db").close()
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    for name in ("a.db", "b.db"):
        for readonly in (True, False):
            with pytest.raises(wb.StoreError, match="second name"):
                wb.open(tmp_path / name, readonly=readonly)


def test_a_store_is_not_merged_into_itself_by_any_name(tmp_path: Path) -> None:
    """A link, another way to its folder, a URL: one store."""
    (tmp_path / "place").mkdir()
    path = tmp_path / "place" / "a.db"
    wb.open(path).close()
    (tmp_path / "b.db").symlink_to(path)
    (tmp_path / "other").symlink_to(path.parent)
    for name in (path, tmp_path / "b.db", tmp_path / "other" / "a.db", f"sqlite:///{path}"):
        with pytest.raises(wb.StoreError, match="they are one store"):
            merge(path, [name])


def test_the_files_of_a_store_are_nothing_else(tmp_path: Path) -> None:
    """Neither its file nor what lies beside it is read as an archive or written as a log or a picture."""
    path = tmp_path / "a.db"
    with wb.open(path) as board:
        step(board.system("s"))
        (tmp_path / "b").symlink_to(path)
        for name in ("a.db", "a.db-wal", "a.db-shm", "a.db.lock", "b"):
            with pytest.raises(wb.StoreError, match="is a file of the store"):
                import_archive(tmp_path / "c.db", tmp_path / name)
    for option, name in (("--log", ""), ("--log", "-wal"), ("--log", ".lock"), ("--plot", "")):
        store = tmp_path / "n.png"
        assert status(["run", "europe", "--store", str(store), option, f"{store}{name}"]) == 1
        assert not store.exists()


_OPENED = """
import os, sys
from pathlib import Path
import numpy as np

opened = []
folder = Path(sys.argv[1])
files = {str(folder / f"{name}.db{suffix}") for name in "abc" for suffix in ("", "-wal", "-shm")}
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]) in files else None)

import whiteboard as wb
from tests.storage.samples import run_python
from tests.systems.test_takeover import step
from whiteboard.cli import status
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.cli import status
from whiteboard.storage.sqlite import schema
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.upkeep.gc import gc
from whiteboard.storage.transfer.merge import merge
from whiteboard.cli.copy import copied as copy

path = folder / "a.db"
with wb.open(path) as board:
    step(board.system("s"))
    board.call_many("tanh", np.ones((4, 8)))
    board.flush()
    with wb.open(path, readonly=True) as other:
        other.verify(), other.audit(), other.stats(), other.info()
    with wb.open(path) as other:
        other.gc(max_bytes=10), other.forget("tanh")
    export(path, folder / "a.wb")
    import_archive(folder / "b.db", folder / "a.wb")
    merge(folder / "c.db", [path, folder / "b.db"])
    schema.current(path), schema.upgrade(path), schema.differences(path)
    for command in ("ls", "info", "show s", "log s", "verify", "audit", "gc", "gc --dry-run", "db current",
                    "db upgrade", "db check", "fork s t", "rm t", "forget --op exp", "explain s"):
        status([*command.split(), "--store", str(path)])
    for bad in ("sqlite:///" + str(path) + "?x=1", folder / "none.db", folder):
        try:
            wb.open(bad, readonly=True)
        except wb.WhiteboardError:
            pass
    pid = os.fork()
    if not pid:
        board.call("exp", 1.0)
        board.close()
        os._exit(bool(opened))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    step(board.system("s"))
assert opened == [], opened
open(path, "rb").close()
assert opened, "the hook hears nothing"
"""


def test_no_file_of_a_store_is_opened_but_by_sqlite(tmp_path: Path) -> None:
    """Whatever is done with a store: a descriptor of its own, once closed, would drop the locks that SQLite holds."""
    done = run_python(_OPENED, str(tmp_path))
    assert done.returncode == 0, done.stderr


_OTHER = "import whiteboard as wb\nwith wb.open(__import__('sys').argv[1]) as b: b.call('mul', 1.0, 2.0)"

SECOND: dict[str, Callable[[Path], object]] = {
    "opened": lambda path: wb.open(path, readonly=True).close(),
    "opened for writing": lambda path: wb.open(path).close(),
    "exported": lambda path: export(path, Path(f"{path}.wb")),
    "looked at": lambda path: status(["ls", "--store", str(path)]),
    "merged": lambda path: merge(path.with_name("b.db"), [path]),
}


@pytest.mark.parametrize("second", SECOND)
def test_what_is_acknowledged_after_a_second_use_in_the_process_is_kept(tmp_path: Path, second: str) -> None:
    """The locks of the first board stand: another process that opens and closes the store leaves its log in place."""
    path = tmp_path / "a.db"
    board = wb.open(path)
    system = board.system("s")
    step(system)
    SECOND[second](path)
    done = run_code(_OTHER, str(path))
    assert done.returncode == 0, done.stderr
    for _ in range(3):
        step(system)
    head = system.head
    assert head is not None
    seen = run_code(
        "import sys, whiteboard as wb\nwith wb.open(sys.argv[1], readonly=True) as b: print(b.system('s').head.id)",
        str(path),
    )
    assert (seen.stdout.strip(), seen.returncode) == (str(head.id), 0), seen.stderr
    board.close()


def test_a_second_name_may_go_again(tmp_path: Path) -> None:
    """Then the board goes on: nothing was lost meanwhile."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        step(system)
        os.link(tmp_path / "a.db", tmp_path / "b.db")
        with pytest.raises(wb.StoreError, match="second name"):
            step(system)
        (tmp_path / "b.db").unlink()
        assert system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3)).id == 1
