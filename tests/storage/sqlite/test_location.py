"""What may be opened: every refusal names the path, says what to do, and leaves the file as it was."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.samples import Model, assert_found, key_of, page_of, run_python
from whiteboard.errors import ParamError, ReadOnlyError, SchemaError, StoreError
from whiteboard.storage import open_store
from whiteboard.storage.sqlite import location, schema


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (1)")
    connection.close()


def _store(path: Path) -> None:
    with open_store(path) as stores:
        stores.packages.put(page_of(range(2000)))


def _truncated(path: Path) -> None:
    _store(path)
    os.truncate(path, path.stat().st_size - 10_000)


def _revision(revision: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        _store(path)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE whiteboard_alembic_version SET version_num = ?", (revision,))
        connection.close()

    return make


def _format(path: Path) -> None:
    _store(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _without_version(path: Path) -> None:
    _store(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM whiteboard_alembic_version")
    connection.close()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda path: path.write_text("a,b\n1,2\n" * 50), StoreError, "not a SQLite file"),
        (lambda path: path.write_bytes(b"SQLite"), StoreError, "truncated"),
        (lambda path: path.write_bytes(b"abc"), StoreError, "not a SQLite file"),
        (_truncated, StoreError, "truncated"),
        (_foreign, SchemaError, "another application"),
        (_revision("9999"), SchemaError, "newer"),
        (_format, SchemaError, "newer"),
        (_without_version, SchemaError, "no whiteboard schema"),
    ],
    ids=["text", "six bytes", "three bytes", "truncated", "foreign", "newer", "newer format", "no version"],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_refused_keeps_every_byte(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception], says: str, readonly: bool
) -> None:
    """A file that is no store of this version is a one-line error that names it, and nothing is written to it."""
    path = tmp_path / "a.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(error, match=says) as caught:
        open_store(path, readonly=readonly)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert not Path(f"{path}-wal").exists() or readonly


def _journal(pages: int) -> bytes:
    """The header of a rollback journal of a file that had so many pages."""
    magic = bytes.fromhex("d9d505f920a163d7")
    return struct.pack(">8s5I", magic, 0, 7, pages, 512, 8192).ljust(512, b"\0")


@pytest.mark.parametrize(
    "left",
    [
        lambda page: bytes(len(page)),
        lambda page: page[:512],
        lambda page: bytes(512) + page[512:],
        lambda page: page[:512] + bytes(len(page) - 512),
        lambda page: page,
    ],
    ids=["no sector", "the first one alone", "all but the first", "the first one", "all"],
)
def test_a_store_whose_making_a_power_cut_ended_is_made_again(tmp_path: Path, left: Callable[[bytes], bytes]) -> None:
    """Of its first page any sectors may be there: the journal says that there was none, so nothing is lost."""
    whole, path = tmp_path / "whole.db", tmp_path / "a.db"
    _store(whole)
    path.write_bytes(left(whole.read_bytes()[:8192]))
    Path(f"{path}-journal").write_bytes(_journal(0))
    with pytest.raises(StoreError, match="its making was interrupted; open it once for writing"):
        open_store(path, readonly=True)
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
    with open_store(path, readonly=True) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)


@pytest.mark.parametrize(
    "journal", [_journal(1), b"", _journal(0)[:20], bytes(512)], ids=["of a page", "empty", "cut", "zeros"]
)
def test_a_journal_of_something_else_makes_no_store_of_a_file(tmp_path: Path, journal: bytes) -> None:
    """What is no SQLite file stays as it is, unless its journal says that it was empty."""
    path = tmp_path / "a.db"
    path.write_bytes(b"a,b\n1,2\n" * 50)
    Path(f"{path}-journal").write_bytes(journal)
    with pytest.raises(StoreError, match="not a SQLite file"):
        open_store(path)
    assert (path.read_bytes(), Path(f"{path}-journal").read_bytes()) == (b"a,b\n1,2\n" * 50, journal)


def test_a_foreign_file_keeps_its_journals(tmp_path: Path) -> None:
    """Another application's write-ahead log is neither replayed nor removed."""
    source, path = tmp_path / "source.db", tmp_path / "a.db"
    connection = sqlite3.connect(source)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{path}{suffix}")
    connection.close()
    before = {each.name: each.read_bytes() for each in tmp_path.glob("a.db*")}
    with pytest.raises(StoreError):
        open_store(path)
    assert {each.name: each.read_bytes() for each in tmp_path.glob("a.db*")} == before


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("no/such/folder/a.db", "does not exist; make it first"),
        (".", "is a folder"),
        ("", "does not name a store"),
        ("a\x00b", "does not name a store"),
        ("a" * 300, "File name too long"),
        ("a\udcff.db", "no text in UTF-8"),
    ],
    ids=["no folder", "a folder", "nothing", "a zero byte", "too long", "no text"],
)
def test_paths_that_name_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, says: str) -> None:
    """A path that cannot hold a store is an error that says why."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=says):
        open_store(where)
    assert list(tmp_path.iterdir()) == []


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    """A socket or a pipe is refused at once: opening one could wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(StoreError, match="not a regular file"):
                open_store(tmp_path / name)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///a.db?mode=ro", "unknown query keys"),
        ("sqlite:///a.db?cache=shared&x=1", r"\['cache', 'x'\]"),
        ("mysql://host/db", "no storage backend for 'mysql'"),
        ("sqlite+aiosqlite:///a.db", "cannot read the store URL"),
        ("sqlite://host/a.db", "cannot read the store URL"),
        ("://", "cannot read the store URL"),
    ],
)
def test_urls_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    """A URL with query keys, another dialect or another form is refused, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=says):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.db", "with space.db", "per%20cent?#&.db", "ünïcode-数.db", "-dash"])
def test_any_name_works(tmp_path: Path, name: str) -> None:
    """A file may have any name, as a str, a Path or a URL, and is created with mode 0600."""
    path = tmp_path / name
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
        assert stores.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in tmp_path.iterdir()} <= {name, f"{name}.lock"}
    with open_store(str(path)) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)


def test_a_url_and_a_path_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite:///PATH` is the store at PATH, and a change of folder does not move a store that is open."""
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///a.db") as stores:
        monkeypatch.chdir("/")
        stores.packages.put(page_of([1]))
    with open_store(tmp_path / "a.db", readonly=True) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)


def test_links(tmp_path: Path) -> None:
    """A link to a store opens it; a link that leads nowhere is refused for creation."""
    path = tmp_path / "a.db"
    link, nowhere = tmp_path / "link.db", tmp_path / "nowhere.db"
    link.symlink_to(path)
    with pytest.raises(StoreError, match="symbolic link"):
        open_store(link)
    assert not path.exists()
    _store(path)
    with open_store(link) as stores:
        assert stores.path == path
    nowhere.symlink_to(nowhere)
    with pytest.raises(StoreError, match=r"nowhere\.db"):
        open_store(nowhere)


def test_a_missing_file_is_not_made_for_reading(tmp_path: Path) -> None:
    """`readonly=True` on a file that is not there, is empty, or is in memory is an error and makes nothing."""
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "a.db", readonly=True)
    (tmp_path / "b.db").touch()
    with pytest.raises(StoreError, match="is empty"):
        open_store(tmp_path / "b.db", readonly=True)
    with pytest.raises(StoreError, match="memory"):
        open_store(":memory:", readonly=True)
    assert [each.name for each in tmp_path.iterdir()] == ["b.db"]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """A file of no bytes, as `mktemp` makes it, is a new store."""
    path = tmp_path / "a.db"
    path.touch()
    _store(path)
    assert schema.current(path) == schema.HEAD


@pytest.mark.parametrize(
    "options",
    [
        {"persist": "sometimes"},
        {"durability": "none"},
        {"memory_bytes": -1},
        {"memory_bytes": None},
        {"memory_bytes": True},
        {"max_bytes": -5},
        {"max_bytes": 1.5},
        {"readonly": "no"},
        {"readonly": None},
    ],
    ids=str,
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    """An option with a value that it cannot have is an error that names it, before anything is made."""
    with pytest.raises(ParamError, match=next(iter(options))):
        open_store(tmp_path / "a.db", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_readonly_writes_nothing(tmp_path: Path) -> None:
    """A store opened for reading finds everything, keeps what is put in memory only, and refuses a commit."""
    path = tmp_path / "a.db"
    model = Model("a", 3)
    commit, changed = model.step()
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
        stores.versions.append(model.record, commit, changed, model.columns)
    before = path.read_bytes()
    with open_store(path, readonly=True) as stores:
        stores.packages.put(page_of([2]))
        assert_found(stores.packages.find([key_of(1), key_of(2)]), [1, 2], lambda _: True)
        assert stores.versions.state("a").commit == commit
        with pytest.raises(ReadOnlyError, match="readonly=True"):
            stores.versions.append(model.record, *model.step(), model.columns)
        stores.packages.flush()
    assert path.read_bytes() == before


@pytest.mark.parametrize("url", [None, 1, b"a.db", ["a.db"]], ids=str)
def test_what_is_no_path_is_refused(url: object) -> None:
    """What is neither text nor a path is an error that names the argument."""
    with pytest.raises(ParamError, match=r"^url: expected the path of a file"):
        open_store(url)  # type: ignore[arg-type]


_AS_ANOTHER_USER = """
import os, sys
import blosc2, numpy.ma, numpy.random, numpy.testing
from tests.storage.samples import assert_found, key_of, page_of
from whiteboard.errors import StoreError
from whiteboard.storage import open_store

path = sys.argv[1]
with open_store(":memory:", memory_bytes=0) as stores:  # imports all that somebody else may not be let read
    stores.packages.put(page_of([1]))
    stores.packages.flush()
    assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
if os.geteuid() == 0:  # root may write anything, so somebody else asks
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    open_store(path)
except StoreError as error:
    assert sys.argv[2] in str(error), error
else:
    raise SystemExit("it was opened for writing")
if sys.argv[3:]:
    with open_store(path, readonly=True) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555)], ids=["file", "folder"])
def test_what_cannot_be_written_can_be_read(file_mode: int, folder_mode: int) -> None:
    """A read-only file, or one in a read-only folder, is refused for writing and works with `readonly=True`."""
    # Not in pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "a.db"
        _store(path)
        Path(f"{path}.lock").unlink(missing_ok=True)
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        before = path.read_bytes()
        done = run_python(_AS_ANOTHER_USER, str(path), "read-only", "read")
        folder.chmod(0o755)
        assert done.returncode == 0, done.stderr
        assert path.read_bytes() == before


def test_a_folder_that_may_not_be_entered_is_one_line() -> None:
    """Whether a file is there cannot be told where its folder may not be entered: that is said, with the path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "closed"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(0)
        done = run_python(_AS_ANOTHER_USER, str(folder / "a.db"), f"{folder / 'a.db'}: Permission denied")
        folder.chmod(0o755)
        assert done.returncode == 0, done.stderr


def test_a_store_that_another_closes_meanwhile_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size was asked for before the log was moved into it, and the log was gone afterwards."""
    path = tmp_path / "a.db"
    _store(path)
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)

    def closed(_: Path) -> int:
        path.write_bytes(whole)
        return 0

    monkeypatch.setattr(location, "wal_bytes", closed)
    assert location.probe(path, readonly=False) is False
