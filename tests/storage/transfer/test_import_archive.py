"""Import: everything arrives through the gate, nothing is replaced, and after a kill the next call goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import run_code
from tests.storage.moving import assert_whole, filled, held, killed, numbers_held, other_bits, rows
from tests.storage.samples import run_python
from whiteboard.errors import ArchiveError, ConflictError
from whiteboard.storage import open_store
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob
from whiteboard.storage.transfer import archive
from whiteboard.storage.transfer.archive import Reader, Writer
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive


def test_a_store_comes_through(tmp_path: Path) -> None:
    """Packages, provenance, systems, forks, every commit and every state are the same on the other side."""
    store = filled(tmp_path / "a.db", systems=("a", "b"))
    done = import_archive(tmp_path / "b.db", export(store, tmp_path / "a.wb").path)
    assert (done.packages.added, done.packages.present, done.packages.conflicts) == (240, 0, 0)
    assert done.systems.created == ["a", "a forked", "b", "b forked"]
    assert held(tmp_path / "b.db") == held(store)
    assert numbers_held(tmp_path / "b.db", range(300)) == set(range(240))
    assert_whole(tmp_path / "b.db")
    export(tmp_path / "b.db", tmp_path / "b.wb")


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    """The second import finds everything and writes no row."""
    path = export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path
    target = tmp_path / "b.db"
    import_archive(target, path)
    before = rows(target)
    done = import_archive(target, path)
    assert (done.packages.added, done.packages.present, done.systems.commits) == (0, 240, 0)
    assert done.systems.unchanged == ["a", "a forked"]
    assert rows(target) == before


def test_a_killed_import_goes_on(tmp_path: Path) -> None:
    """Killed at any frame, the store is whole, and the next call ends with what an undisturbed one has."""
    store = filled(tmp_path / "a.db")
    path = export(store, tmp_path / "a.wb").path
    code = (
        "from whiteboard.storage.transfer import import_archive, merge_packages, merge_systems\n"
        "merge_packages.BATCH_BYTES = 1; merge_systems.BATCH_BYTES = 1\n"
        "import_archive.import_archive(sys.argv[1], Path(sys.argv[2]), progress=progress)"
    )
    for at in (1, 3, 6, 9, 11, 14, 19):
        target = tmp_path / f"{at}.db"
        assert killed(code, at, str(target), str(path)).returncode == -9
        assert_whole(target)
        import_archive(target, path)
        assert held(target) == held(store)
        assert numbers_held(target, range(240)) == set(range(240))
        assert_whole(target)


def test_a_damaged_archive_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """Truncated or altered, an archive is refused before anything is written, and makes no store."""
    path = export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path
    whole = path.read_bytes()
    target = filled(tmp_path / "b.db", first=1000, systems=())
    before = rows(target)
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:5000] + b"x" + whole[5001:]):
        path.write_bytes(data)
        for store in (target, tmp_path / "none.db"):
            with pytest.raises(ArchiveError):
                import_archive(store, path)
    assert rows(target) == before
    assert not (tmp_path / "none.db").exists()


def _rewritten(path: Path, kind: bytes, change: object) -> None:
    """Write an archive again with the first frame of a kind changed, and with digests that fit."""
    with path.open("rb") as file:
        frames = list(Reader(path, file).frames())
    with path.open("w+b") as file:
        writer = Writer(file, archive.whole_digest())
        writer.start()
        for frame in frames[:-1]:
            blob = Blob(frame.header, frame.digest, frame.data[:])
            if frame.kind == kind and callable(change):
                header, data = change(blob.header, blob.data)
                blob, change = Blob(header, digest_of(header, data), data), None
            writer.blob(frame.kind, frame.number, blob)
        writer.done({})


def test_a_forged_page_fails_the_gate(tmp_path: Path) -> None:
    """A page whose digests all fit but whose header lies is refused by the gate, and no store is made."""
    path = export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path
    _rewritten(path, archive.PAGE, lambda header, data: (header.replace(b"<f8", b"|O8", 1), data))
    with pytest.raises(ArchiveError, match=r"PAGE frame at byte \d+: dtype"):
        import_archive(tmp_path / "b.db", path)
    assert not (tmp_path / "b.db").exists()


def test_a_forged_commit_fails_its_seal(tmp_path: Path) -> None:
    """A commit that says something else than its seal is refused with its number."""
    path = export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path
    _rewritten(path, archive.COMMIT, lambda header, data: (header.replace(b'"stress":0.5', b'"stress":0.1'), data))
    with pytest.raises(ArchiveError, match="system 'a', commit 0"):
        import_archive(tmp_path / "b.db", path)
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/tmp/x", "C:\\x", "a/b"])
def test_a_path_inside_an_archive_is_a_name(name: str, tmp_path: Path) -> None:
    """A system whose name looks like a path is a system of that name: no file is touched."""
    store = filled(tmp_path / "a.db", systems=(name,))
    path = export(store, tmp_path / "a.wb").path
    before = {each.name for each in tmp_path.parent.iterdir()}
    import_archive(tmp_path / "b.db", path)
    assert held(tmp_path / "b.db") == held(store)
    assert {each.name for each in tmp_path.parent.iterdir()} == before


def test_conflicts_keep_what_is_there(tmp_path: Path) -> None:
    """A key with other bytes is reported, and the store's own package stays."""
    path = export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path
    target = tmp_path / "b.db"
    other_bits(target, [3, 4])
    done = import_archive(target, path)
    assert (done.packages.added, done.packages.conflicts) == (238, 2)
    assert [(c.op, c.sources, c.array, c.ulps) for c in done.packages.described] == [
        ("mul", (3,), "y", 1),
        ("mul", (4,), "y", 1),
    ]
    assert numbers_held(target, set(range(240)) - {3, 4}) == set(range(240)) - {3, 4}


def test_a_system_that_is_written_is_left_alone(tmp_path: Path) -> None:
    """While a living process writes a system, an import that would go on with it is refused and names the process."""
    longer = filled(tmp_path / "a.db", steps=6)
    path = export(longer, tmp_path / "a.wb", systems=["a"]).path
    target = filled(tmp_path / "b.db", steps=3)
    with open_store(target) as stores:
        stores.writers.claim("a")
        with pytest.raises(ConflictError, match="another board of this process"):
            import_archive(target, path)
    assert len(held(target)["a"][2]) == 3
    import_archive(target, path)
    assert held(target)["a"] == held(longer)["a"]


def test_a_full_disk_half_way(tmp_path: Path) -> None:
    """Where the store may not grow, the error is one line, the store is whole, and with room the same call ends."""
    store = filled(tmp_path / "a.db")
    path = export(store, tmp_path / "a.wb").path
    target = tmp_path / "b.db"
    open_store(target).close()
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from whiteboard.errors import StoreError\n"
        "from whiteboard.storage.transfer import import_archive, merge_packages\n"
        "merge_packages.BATCH_BYTES = 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))\n"
        "try: import_archive.import_archive(sys.argv[1], Path(sys.argv[2]))\n"
        "except StoreError as error: sys.exit(str(error))"
    )
    done = run_code(code, target, path)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert_whole(target)
    import_archive(target, path)
    assert held(target) == held(store)
    assert_whole(target)


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """Export and import of eighty megabytes take no more memory than their imports and a few pages."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np, blosc2\n"
        "from whiteboard.storage import open_store\n"
        "from whiteboard.storage.base import Page\n"
        "from whiteboard.storage.transfer.export import export\n"
        "from whiteboard.storage.transfer.import_archive import import_archive\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rng = np.random.default_rng(0)\n"
        "if sys.argv[2] == 'make':\n"
        "    with open_store(sys.argv[1] + '/a.db', memory_bytes=0) as stores:\n"
        "        for _ in range(80):\n"
        "            keys = rng.integers(0, 256, (1024, 16), dtype=np.uint8)\n"
        "            stores.packages.put(Page('op', keys, {'y': rng.normal(size=(1024, 128))}))\n"
        "            stores.packages.flush()\n"
        "    sys.exit()\n"
        "before = peak()\n"
        "if sys.argv[2] == 'export': export(sys.argv[1] + '/a.db', Path(sys.argv[1] + '/a.wb'))\n"
        "else: import_archive(sys.argv[1] + '/b.db', Path(sys.argv[1] + '/a.wb'))\n"
        "print(peak() - before)"
    )
    assert run_python(code, str(tmp_path), "make").returncode == 0
    for what in ("export", "import"):
        done = run_python(code, str(tmp_path), what)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 40_000, what
