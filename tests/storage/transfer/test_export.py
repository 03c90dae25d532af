"""Export: all of a store or what is named of it, resumed after a kill, and never over a file that exists."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import run_code
from tests.storage.moving import filled, held, killed, numbers_held
from whiteboard.errors import ArchiveError, ParamError, UnknownCommitError, UnknownSystemError
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive


class Expect(NamedTuple):
    """Filters, the packages and the systems that get through, and the commits that are written."""

    filters: dict[str, Any]
    packages: int
    systems: tuple[str, ...]
    commits: int
    id: str


CASES = [
    Expect({}, 240, ("a", "a forked", "b", "b forked"), 12, "everything"),
    Expect({"systems": ["a"]}, 0, ("a",), 5, "one-system"),
    Expect({"systems": ["b forked"]}, 0, ("b", "b forked"), 6, "a-fork-brings-its-origin"),
    Expect({"systems": ["*"]}, 0, ("a", "a forked", "b", "b forked"), 12, "all-systems"),
    Expect({"ops": ["sum"]}, 120, (), 0, "one-op"),
    Expect({"ops": ["*"], "systems": ["a"]}, 240, ("a",), 5, "all-packages-one-system"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_is_named_is_exported(case: Expect, tmp_path: Path) -> None:
    """Naming nothing exports everything; naming one kind exports that, and nothing of the other."""
    store = filled(tmp_path / "a.db", systems=("a", "b"))
    done = export(store, tmp_path / "a.wb", **case.filters)
    assert (done.packages, done.systems, done.commits) == (case.packages, len(case.systems), case.commits)
    import_archive(tmp_path / "b.db", tmp_path / "a.wb")
    assert len(numbers_held(tmp_path / "b.db", range(240))) == case.packages
    assert held(tmp_path / "b.db") == {name: held(store)[name] for name in case.systems}


def test_commits_since(tmp_path: Path) -> None:
    """With `since` only later commits are written, and they go on where an earlier archive has ended."""
    store = filled(tmp_path / "a.db", steps=3)
    export(store, tmp_path / "first.wb", systems=["a"])
    longer = filled(tmp_path / "longer.db", steps=6)
    assert export(longer, tmp_path / "more.wb", systems=["a"], since=2).commits == 3
    import_archive(tmp_path / "b.db", tmp_path / "first.wb")
    assert import_archive(tmp_path / "b.db", tmp_path / "more.wb").systems.extended == ["a"]
    assert held(tmp_path / "b.db")["a"] == held(longer)["a"]
    with pytest.raises(UnknownCommitError, match="begin after 2"):
        import_archive(tmp_path / "c.db", tmp_path / "more.wb")


BAD = [
    ({"systems": ["x"]}, UnknownSystemError, "no system 'x'; it has a, a forked"),
    ({"ops": ["exp"]}, ParamError, "no packages of op 'exp'; it has mul, sum"),
    ({"since": 1}, ParamError, "name that system"),
    ({"systems": ["a"], "since": 9}, UnknownCommitError, "no commit 9"),
]


@pytest.mark.parametrize(("filters", "kind", "word"), BAD)
def test_a_wrong_name_writes_nothing(filters: Any, kind: type[Exception], word: str, tmp_path: Path) -> None:
    """A system, op or commit that is not there is refused with what there is, and no file is left."""
    store = filled(tmp_path / "a.db")
    with pytest.raises(kind, match=word):
        export(store, tmp_path / "a.wb", **filters)
    assert not list(tmp_path.glob("a.wb*"))


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    """An archive is never written over anything."""
    (tmp_path / "a.wb").write_text("mine")
    with pytest.raises(ArchiveError, match="it exists"):
        export(filled(tmp_path / "a.db"), tmp_path / "a.wb")
    assert (tmp_path / "a.wb").read_text() == "mine"


def test_a_killed_export_goes_on(tmp_path: Path) -> None:
    """Killed at each step, an export that is called again writes the archive that an undisturbed one writes."""
    store = filled(tmp_path / "a.db")
    whole = export(store, tmp_path / "whole.wb").path.read_bytes()
    code = (
        "from whiteboard.storage.transfer.export import export\n"
        "export(sys.argv[1], Path(sys.argv[2]), progress=progress)"
    )
    for at in range(1, 9):
        path = tmp_path / f"{at}.wb"
        assert killed(code, at, str(store), str(path)).returncode == -9
        assert not path.exists()
        export(store, path)
        assert path.read_bytes() == whole
        assert not left(path)


def test_any_cut_of_a_part_goes_on(tmp_path: Path) -> None:
    """Whatever a crash left of a file, the archive is the same; what the store got since then is not in it."""
    store = filled(tmp_path / "a.db")
    whole = export(store, tmp_path / "whole.wb").path.read_bytes()
    path = tmp_path / "a.wb"
    part = part_of(store, path)
    for length in range(0, len(whole), 997):
        written(part, whole[:length])
        done = export(store, path)
        assert path.read_bytes() == whole, length
        assert done.resumed == (length > 500)
        path.unlink()


def written(part: Path, data: bytes) -> None:
    """Write a part as an export does: for this user alone."""
    part.touch(0o600)
    part.write_bytes(data)


def left(path: Path) -> list[Path]:
    """What exports to `path` left half written."""
    return sorted(path.parent.glob(f"{path.name}.*.part"))


def part_of(store: Path, path: Path, **filters: Any) -> Path:
    """Where an export that is stopped after its first page leaves what it wrote."""

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    before = set(left(path))
    with pytest.raises(Stop):
        export(store, path, progress=stop, **filters)
    (part,) = set(left(path)) - before
    return part


def test_the_part_of_another_export_is_not_gone_on_with(tmp_path: Path) -> None:
    """A half-written archive of another store, or with other filters, is let be."""
    one, other = filled(tmp_path / "a.db"), filled(tmp_path / "b.db", first=1000)
    parts = [part_of(other, tmp_path / "x.wb"), part_of(one, tmp_path / "x.wb", ops=["mul"])]
    before = [part.read_bytes() for part in parts]
    assert not export(one, tmp_path / "x.wb").resumed
    assert [part.read_bytes() for part in parts] == before
    assert left(tmp_path / "x.wb") == sorted(parts)


def _a_link(part: Path) -> None:
    part.rename(part.with_name("other"))
    part.symlink_to("other")


def _a_pipe(part: Path) -> None:
    part.unlink()
    os.mkfifo(part, 0o600)


DEEDS: dict[str, Callable[[Path], object]] = {
    "others may write it": lambda part: part.chmod(0o620),
    "others may read it": lambda part: part.chmod(0o604),
    "another's": lambda part: os.chown(part, 65534, 65534),
    "it has another name too": lambda part: part.with_name("other").hardlink_to(part),
    "a link": _a_link,
    "a pipe": _a_pipe,
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_part_that_is_not_this_users_alone_is_not_gone_on_with(tmp_path: Path, deed: str) -> None:
    """What another user could have written, or can read, is neither read nor written; the archive is right."""
    if deed == "another's" and os.geteuid():
        pytest.skip("only root gives files away")
    store = filled(tmp_path / "a.db")
    whole = export(store, tmp_path / "whole.wb").path.read_bytes()
    part = part_of(store, tmp_path / "x.wb")
    DEEDS[deed](part)
    before = part.lstat()
    done = export(store, tmp_path / "x.wb")
    assert not done.resumed
    assert done.path.read_bytes() == whole
    after = part.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


def test_two_exports_to_one_name_share_nothing(tmp_path: Path) -> None:
    """The second writes a file of its own; the first to be whole gets the name, and the other says so."""
    store = filled(tmp_path / "a.db")
    path = tmp_path / "x.wb"
    whole = export(store, tmp_path / "whole.wb").path.read_bytes()
    begun: list[int] = []

    def other(done: int, total: int) -> None:
        if not begun:
            begun.append(done)
            assert not export(store, path).resumed
            assert (path.read_bytes(), done < total) == (whole, True)

    with pytest.raises(ArchiveError, match="it exists by now"):
        export(store, path, progress=other)
    assert path.read_bytes() == whole
    (part,) = left(path)
    assert part.read_bytes() == whole
    assert part.stat().st_mode & 0o777 == 0o600


def test_damaged_pages_are_left_out_and_counted(tmp_path: Path) -> None:
    """A page of the store that fails its digest is not exported, and the others are."""
    store = filled(tmp_path / "a.db")
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
    connection.close()
    done = export(store, tmp_path / "a.wb")
    assert (done.damaged, done.pages, done.packages) == (1, 5, 200)


def test_a_full_disk_is_one_line_and_can_be_gone_on_with(tmp_path: Path) -> None:
    """Where the file may not grow, the error says so and how to go on; with room the same call ends."""
    store = filled(tmp_path / "a.db")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from whiteboard.errors import ArchiveError\n"
        "from whiteboard.storage.transfer.export import export\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "try: export(sys.argv[1], Path(sys.argv[2]))\n"
        "except ArchiveError as error: sys.exit(str(error))"
    )
    done = run_code(code, str(store), str(tmp_path / "a.wb"))
    assert "make room and run the same command again" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 40_000
    assert export(store, tmp_path / "a.wb").packages == 240


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize(("code", "lasts"), [(errno.EIO, False), (errno.ENOSPC, False), (errno.EINVAL, True)])
def test_an_archive_has_its_name_only_where_that_lasts(
    code: int, lasts: bool, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that could not be synced is an error, and the next call goes on; one that cannot be synced is none."""
    store, path, sync = filled(tmp_path / "a.db"), tmp_path / "x.wb", os.fsync

    def failing(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        sync(fd)

    def unlinked(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        if not links:
            patch.setattr(os, "link", unlinked)
        if lasts:
            export(store, path)
        else:
            with pytest.raises(ArchiveError, match="cannot write the archive"):
                export(store, path)
            assert len(left(path)) == 1
            assert not path.exists()
    if not lasts:
        assert export(store, path).resumed
    assert left(path) == []
    assert import_archive(tmp_path / "b.db", path).pages == 6
