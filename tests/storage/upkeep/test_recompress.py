"""Recompress: other bytes for the same packages, twice is once, and nothing else in the store moves."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.processes import run_code
from tests.storage.moving import assert_whole, fill_system, held, killed, numbers_held, rows
from tests.storage.samples import page_of
from whiteboard.errors import ParamError, ReadOnlyError, StoreError
from whiteboard.records.packages import Page
from whiteboard.storage import open_store
from whiteboard.storage.cache.eviction import evict
from whiteboard.storage.page.codec import DEFAULT, Encoding
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.sql.location import locate_lasting
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep import recompress
from whiteboard.storage.upkeep.recompress_plan import Form

SIZES = (1, 3, 700, 40, 1, 1, 300, 64, 1023, 5)


def filled(path: Path) -> Path:
    """Make a store of pages of many sizes, two ops, provenance, lineage, tokens and uses, and two systems."""
    path.write_bytes(_made())
    return path


@cache
def _made() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        _fill(path)
        return path.read_bytes()


def _fill(path: Path) -> None:
    with open_store(path, memory_bytes=0) as stores:
        for page in pages():
            stores.packages.put(page)
            stores.packages.flush()
        stores.packages.find([row.tobytes() for row in page_of(range(1000)).keys])
        fill_system(stores, "a")


def pages() -> Iterator[Page]:
    """Yield the pages of the store: smooth ones, which compress, and random ones, which do not."""
    first = 0
    for number, n in enumerate(SIZES):
        page = page_of(range(first, first + n), op=("mul", "sum")[number % 2], cost_ns=1001)
        first += n
        smooth = np.linspace(0, number, n * 64).reshape(n, 64)
        tokens = np.arange(2 * n, dtype=np.uint32).reshape(n, 2)
        lineage = json.dumps({"params": {"k": number % 4}})
        yield replace(page, arrays={**page.arrays, "g2": smooth}, lineage=lineage, tokens=tokens)


def packages(path: Path) -> dict[int, Any]:
    """Everything that is known of each package, by hash, however it lies."""
    found = {}
    with sqlite3.connect(path) as connection:
        blobs = {row[0]: Blob(*row[1:]) for row in connection.execute("SELECT id, header, digest, data FROM page")}
        decoded = {page_id: decode_page(blob, provenance=True) for page_id, blob in blobs.items()}
        index = connection.execute("SELECT * FROM package").fetchall()
        for page_id, hashes in connection.execute("SELECT * FROM recent"):
            index += [(hashed, page_id, slot) for slot, hashed in enumerate(np.frombuffer(hashes, "<i8").tolist())]
        for hashed, page_id, slot in index:
            page = decoded[page_id]
            columns = (page.keys, *page.arrays.values(), page.src_ids, page.versions, page.tokens)
            bits = tuple(None if column is None else (column.dtype.str, column[slot].tobytes()) for column in columns)
            found[hashed] = (page.op, bits, page.lineage)
    connection.close()
    return found


def sums(path: Path) -> list[Any]:
    """What may be split between pages, and must be the same in sum: packages, costs, hits."""
    with sqlite3.connect(path) as connection:
        (one,) = connection.execute("SELECT sum(n), sum(cost_ns) FROM page").fetchall()
        (other,) = connection.execute("SELECT max(last_use), sum(hits) FROM page_access").fetchall()
    connection.close()
    return [one, other]


class Expect(NamedTuple):
    """A form and what has to come of it: pages after, and whether the rows are larger or smaller than before."""

    form: Form
    pages: int
    smaller: bool | None
    id: str


FORMS = [
    Expect(Form(), 6, None, "joined"),
    Expect(Form(Encoding("zstd", 9)), 6, True, "zstd-9"),
    Expect(Form(Encoding("lz4", 5)), 6, None, "lz4"),
    Expect(Form(Encoding("blosclz", 9)), 6, None, "blosclz"),
    Expect(Form(Encoding("raw", 0)), 6, False, "raw"),
    Expect(Form(page_bytes=40_000), 42, None, "cut"),
    Expect(Form(page_bytes=1), sum(SIZES), False, "a-page-each"),
    Expect(Form(page_bytes=8 * 2**20), 4, None, "one-page-a-signature"),
]


@pytest.mark.parametrize("case", FORMS, ids=lambda case: case.id)
def test_everything_else_is_the_same(case: Expect, tmp_path: Path) -> None:
    """Bits, provenance, lineage, tokens, costs, uses and systems are as they were; a second call writes no row."""
    path = filled(tmp_path / "a.db")
    before, systems, numbers = packages(path), held(path), sums(path)
    planned = recompress.forecast(path, case.form)
    done = recompress.recompress(path, case.form)
    assert asdict(planned) == {**asdict(done), "measured": "all pages"}
    assert (done.packages, done.damaged, done.changed) == (sum(SIZES), 0, 0)
    assert done.rewritten + done.right == done.pages == len(SIZES)
    if case.smaller is not None:
        assert (done.bytes_after < done.bytes_before) is case.smaller
    assert packages(path) == before
    assert held(path) == systems
    assert sums(path) == numbers
    assert_whole(path)
    kept = rows(path)
    again = recompress.recompress(path, case.form)
    assert (again.rewritten, again.right, again.bytes_before) == (0, done.pages_after, done.bytes_after)
    assert rows(path) == kept
    assert done.pages_after == case.pages


def test_there_and_back(tmp_path: Path) -> None:
    """A page that goes through other forms and back has its first bytes again."""
    path = filled(tmp_path / "a.db")
    recompress.recompress(path, Form())
    before = rows(path)
    for codec in ("lz4", "blosclz", "zstd"):
        assert recompress.recompress(path, Form(Encoding(codec, 9))).rewritten == 6
    assert recompress.recompress(path, Form()).rewritten == 6
    assert rows(path) == before


def test_only_some_ops(tmp_path: Path) -> None:
    """Pages of other ops stay as they are; an op that is not there is refused with those that are."""
    path = filled(tmp_path / "a.db")
    form = Form(Encoding("raw", 0))
    done = recompress.recompress(path, form, ops=["sum"])
    assert (done.pages, done.rewritten) == (5, 5)
    with sqlite3.connect(path) as connection:
        headers = connection.execute("SELECT op, header FROM page").fetchall()
    connection.close()
    assert {(op, json.loads(header).get("encoding")) for op, header in headers} == {("mul", None), ("sum", "raw:0")}
    with pytest.raises(ParamError, match="no packages of op 'exp'; it has mul, sum"):
        recompress.recompress(path, form, ops=["exp"])


def test_a_killed_call_goes_on(tmp_path: Path) -> None:
    """Killed after any step, the store is whole and holds everything, and the next call ends it."""
    whole = filled(tmp_path / "whole.db")
    form = Form(Encoding("lz4", 1), 40_000)
    before = packages(whole)
    recompress.recompress(whole, form)
    code = (
        "from whiteboard.storage.upkeep import recompress\n"
        "from whiteboard.storage.page.codec import Encoding\n"
        "from whiteboard.storage.upkeep.recompress_plan import Form\n"
        "recompress.BATCH_BYTES = 1\n"
        "recompress.recompress(sys.argv[1], Form(Encoding('lz4', 1), 40_000), progress=progress)"
    )
    for at in (1, 3, 5, 7):
        path = filled(tmp_path / f"{at}.db")
        assert killed(code, at, str(path)).returncode == -9
        assert_whole(path)
        assert packages(path) == before
        left = recompress.recompress(path, form)
        assert left.right > 0
        assert packages(path) == before
        assert recompress.recompress(path, form).rewritten == 0


def test_a_damaged_page_is_left_as_it_is(tmp_path: Path) -> None:
    """Pages that fail the gate are counted and not touched, the others are done, and twice is still once."""
    path = filled(tmp_path / "a.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE page SET data = zeroblob(length(data)) WHERE id IN (3, 5)")
        connection.execute("UPDATE page SET header = 'no header' WHERE id = 7")
        damaged = connection.execute("SELECT * FROM page WHERE id IN (3, 5, 7)").fetchall()
    connection.close()
    form = Form(Encoding("zstd", 5))
    assert recompress.forecast(path, form).damaged == 3
    done = recompress.recompress(path, form)
    assert (done.damaged, done.rewritten) == (3, len(SIZES) - 3)
    kept = rows(path)
    again = recompress.recompress(path, form)
    assert (again.damaged, again.rewritten) == (3, 0)
    assert rows(path) == kept
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM page WHERE id IN (3, 5, 7)").fetchall() == damaged
    connection.close()


def test_others_write_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others put, use and evict while it runs is neither lost nor brought back."""
    path = filled(tmp_path / "a.db")
    monkeypatch.setattr(recompress, "BATCH_BYTES", 1)
    late = range(100_000, 100_050)
    with open_store(path, memory_bytes=0) as other:

        def progress(done: int, total: int) -> None:
            if done == 3:
                other.packages.put(page_of(late))
                other.packages.flush()
                evict(other.database, 0)

        done = recompress.recompress(path, Form(page_bytes=40_000), progress=progress)
    assert done.changed > 0
    assert numbers_held(path, [*range(sum(SIZES)), *late]) == set()
    assert_whole(path)


@pytest.mark.parametrize("nbytes", [40_000, 8 * 2**20], ids=["cut", "joined"])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_store_that_is_being_read_page_by_page(nbytes: int, at: int, tmp_path: Path) -> None:
    """An export, killed and gone on with or not, and a merge hold everything, whenever the pages are rewritten."""
    path = filled(tmp_path / "a.db")
    every = set(range(sum(SIZES)))

    def progress(done: int, total: int) -> None:
        if done == at:
            recompress.recompress(path, Form(page_bytes=nbytes))

    export(path, tmp_path / "a.wb", progress=progress)
    import_archive(tmp_path / "b.db", tmp_path / "a.wb")
    assert numbers_held(tmp_path / "b.db", every) == every
    path = filled(tmp_path / "other.db")
    merge(tmp_path / "c.db", [path], progress=progress)
    assert numbers_held(tmp_path / "c.db", every) == every
    path = filled(tmp_path / "again.db")
    code = (
        "from whiteboard.storage.transfer.export import export\n"
        "export(sys.argv[1], Path(sys.argv[2]), progress=progress)"
    )
    assert killed(code, at, str(path), str(tmp_path / "again.wb")).returncode == -9
    progress(at, 0)
    export(path, tmp_path / "again.wb")
    import_archive(tmp_path / "d.db", tmp_path / "again.wb")
    assert numbers_held(tmp_path / "d.db", every) == every


def test_rows_that_others_changed_are_left(tmp_path: Path) -> None:
    """A step whose pages are no longer what was read of them is not written."""
    path = filled(tmp_path / "a.db")
    database = Database(locate_lasting(path))
    todo, said = recompress._planned(database, Form(page_bytes=40_000), None)
    made = [recompress._make(database, step, DEFAULT, said) for step in todo.steps]
    recompress.recompress(path, Form(Encoding("lz4", 1)))
    before = rows(path)
    recompress._write(database, [each for each in made if each is not None], said)
    database.close()
    assert (said.rewritten, said.changed) == (0, sum(len(each.sources) for each in made if each is not None))
    assert rows(path) == before


def test_many_steps_are_forecast_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more steps than a sample has, some are measured; pages are exact, and bytes nearly so."""
    monkeypatch.setattr(recompress, "SAMPLE", 4)
    path = filled(tmp_path / "a.db")
    form = Form(Encoding("raw", 0))
    planned = recompress.forecast(path, form)
    assert planned.measured == "5 of 10 pages"
    done = recompress.recompress(path, form)
    assert (planned.rewritten, planned.pages_after) == (done.rewritten, done.pages_after)
    assert 0.5 < planned.bytes_after / done.bytes_after < 2


def test_a_full_disk_half_way(tmp_path: Path) -> None:
    """Where the store may not grow, the error is one line, the store is whole, and with room the next call ends it."""
    path = filled(tmp_path / "a.db")
    before = packages(path)
    code = (
        "import resource, sys\n"
        "from whiteboard.errors import StoreError\n"
        "from whiteboard.storage.upkeep import recompress\n"
        "from whiteboard.storage.page.codec import Encoding\n"
        "from whiteboard.storage.upkeep.recompress_plan import Form\n"
        "recompress.BATCH_BYTES = 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))\n"
        "try: recompress.recompress(sys.argv[1], Form(Encoding('raw', 0)))\n"
        "except StoreError as error: sys.exit(str(error))"
    )
    done = run_code(code, str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert_whole(path)
    assert packages(path) == before
    left = recompress.recompress(path, Form(Encoding("raw", 0)))
    assert left.rewritten > 0
    assert packages(path) == before


def test_what_cannot_be_rewritten(tmp_path: Path) -> None:
    """A store that is not there is not made, a file that may not be written is not touched, nonsense is refused."""
    with pytest.raises(StoreError, match="does not exist"):
        recompress.recompress(tmp_path / "none.db", Form())
    assert not list(tmp_path.iterdir())
    path = filled(tmp_path / "a.db")
    for length in (100, 5000):
        (tmp_path / "cut.db").write_bytes(path.read_bytes()[:length])
        with pytest.raises(StoreError, match="truncated"):
            recompress.recompress(tmp_path / "cut.db", Form())
    database = Database(locate_lasting(path), readonly=True)
    todo, said = recompress._planned(database, Form(page_bytes=1), None)
    made = recompress._make(database, todo.steps[-1], DEFAULT, said)
    assert made is not None
    with pytest.raises(ReadOnlyError):
        recompress._write(database, [made], said)
    database.close()
    for codec, level in (("zip", 1), ("zstd", 0), ("zstd", 10), ("raw", 1)):
        with pytest.raises(ParamError):
            Encoding(codec, level)
    for nbytes in (0, -1, 2**40):
        with pytest.raises(ParamError, match="page bytes"):
            Form(page_bytes=nbytes)
