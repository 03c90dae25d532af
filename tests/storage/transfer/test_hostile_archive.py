"""Archives made by hand, with digests that all fit: each is refused with what is wrong, or is as good as our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whiteboard as wb
from tests.storage.samples import run_python
from whiteboard import cli
from whiteboard.errors import ArchiveError
from whiteboard.storage.commits.log import seal
from whiteboard.storage.page import codec, page_checks
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, Moved, moved, pack
from whiteboard.storage.transfer import archive, compare
from whiteboard.storage.transfer.archive import COMMIT, HEAD, NODES, PAGE, SYSTEM, Writer
from whiteboard.storage.transfer.import_archive import import_archive

UUID = "u" * 32
Write = Callable[[Writer], None]


def made(path: Path, *writes: Write) -> Path:
    """An archive of what some functions write, between a first and a last frame."""
    with path.open("wb") as file:
        writer = Writer(file, archive.whole_digest())
        writer.start()
        writer.fields(HEAD, 1, {"source": "0"})
        for write in writes:
            write(writer)
        writer.done({})
    return path


def raw(kind: bytes, header: bytes, data: bytes = b"", number: int = 0) -> Write:
    """A frame of these very bytes."""
    return lambda writer: writer.blob(kind, number, Blob(header, digest_of(header, data), data))


def system(name: object = "evil", **more: Any) -> Write:
    """The frame of a system, with other fields than it should have."""
    fields = {"name": name, "uuid": UUID, "spec": None, "origin": None, **more}
    return lambda writer: writer.fields(SYSTEM, 0, fields)


def nodes(meta: Mapping[str, Any] | None = None, drop: str = "", **arrays: NDArray[Any]) -> Blob:
    """A page of three nodes, with other arrays than it should have."""
    columns: dict[str, NDArray[Any]] = {
        "ids": np.arange(3, dtype=np.int64),
        "versions": np.zeros(3, np.int64),
        "fixed": np.zeros(3, np.bool_),
        "values": np.ones((3, 2)),
        **arrays,
    }
    columns.pop(drop, None)
    return pack({"system": UUID, "number": 0, "attr": "theta", **(meta or {})}, columns).joined()


def commit(*blobs: Blob, parts: object = None, uuid: str = UUID, sealed: object = None, **odd: Any) -> Write:
    """A first commit and its node pages, sealed over whatever it says."""
    values: dict[str, Any] = {"number": 0, "parent": None, "changed": 3, "stress": None, "residual_norm": None}
    values |= {"digest": "0" * 32, "rows": 3 * len(blobs), "keyframe": 1, **odd}
    seal_of = seal(uuid, values, [blob.digest for blob in blobs]).hex() if sealed is None else sealed
    fields = {**values, "seal": seal_of, "parts": len(blobs) if parts is None else parts}

    def write(writer: Writer) -> None:
        writer.fields(COMMIT, 0, fields)
        for part, blob in enumerate(blobs):
            writer.blob(NODES, part, blob)

    return write


def page(meta: Mapping[str, Any] | None = None, n: int = 1, drop: str = "", **arrays: NDArray[Any]) -> Write:
    """A page of packages, with another header or other arrays than it should have."""
    columns: dict[str, NDArray[Any]] = {"keys": np.arange(16 * n, dtype=np.uint8).reshape(n, 16)}
    columns |= {"a:y": np.zeros((n, 1)), "a:g0": np.zeros((n, 1))}
    columns |= {name.replace("__", ":"): array for name, array in arrays.items()}
    columns.pop(drop, None)
    blob = pack({"op": "tanh", "n": n, "cost_ns": 1, **(meta or {})}, columns).joined()
    return lambda writer: writer.blob(PAGE, 1, blob)


def named(spec: object) -> list[Write]:
    """A whole system of some specification."""
    return [system(spec=spec), commit(nodes())]


@dataclass(frozen=True)
class Expect:
    """What an archive holds, and what the error says of it: nothing, where it is as good as our own."""

    id: str
    writes: list[Write]
    word: str = ""


DEEP = "[" * 100_000 + "]" * 100_000
INT, I8 = np.int64, np.int8

SYSTEMS = [
    Expect("a system", named(None)),
    Expect("a spec", named('{"a": [1, "x", null, true]}')),
    Expect("a spec of a surrogate", named(json.dumps({"a": "\udc80"}))),
    Expect("a name that is a path", [system("../../etc/passwd"), commit(nodes())]),
    Expect("two commits' worth of parts", [system(), commit(nodes(), nodes(values=np.ones((3, 5))))]),
    Expect("an attribute p", [system(), commit(nodes({"attr": "p"}))]),
    Expect("float32", [system(), commit(nodes(values=np.ones((3, 2), np.float32)))]),
    Expect("values of no size", [system(), commit(nodes(values=np.ones((3, 0))))]),
    Expect("no nodes", [system(), commit()]),
    Expect("an infinite stress", [system(), commit(nodes(), stress=float("inf"))]),
    Expect("a system of no commits", [system()]),
    Expect("spec: no JSON", named("{bad"), "Expecting property name"),
    Expect("spec: a list", named("[1]"), "spec is '[1]'"),
    Expect("spec: a number", named("7"), "spec is '7'"),
    Expect("spec: no text", named({"a": 1}), "spec is {'a': 1}"),
    Expect("spec: deep", named(f'{{"a":{DEEP}}}'), "nested too deeply"),
    Expect("spec: wide", named('{"a":[' + "[]," * 200_000 + "0]}"), "more than 262144 values"),
    Expect("spec: infinite", named('{"a": 1e999}'), "Out of range float"),
    Expect("spec: not a number", named('{"a": NaN}'), "Out of range float"),
    Expect("spec: not ASCII", [system(spec='{"a":"\udc80"}'), commit(nodes())], "spec is"),
    Expect("name: missing", [system(None)], "name is None"),
    Expect("name: empty", [system("")], "name is ''"),
    Expect("name: a list", [system(["a"])], "name is ['a']"),
    Expect("name: a surrogate", [system("ev\udc80il")], r"name is 'ev\udc80il'"),
    Expect("name: escapes", [system("\x1b[31m")], r"name is '\x1b[31m'"),
    Expect("name: twice", [system(), commit(nodes()), system()], "'evil' is there twice"),
    Expect("uuid: a surrogate", [system(uuid="\udc80")], r"uuid is '\udc80'"),
    Expect("uuid: missing", [system(uuid=None)], "uuid is None"),
    Expect("a system: no JSON", [raw(SYSTEM, b"{")], "SYST frame"),
    Expect("a system: UTF-16", [raw(SYSTEM, "{}".encode("utf-16"))], "SYST frame"),
    Expect("a system: deep", [raw(SYSTEM, f'{{"name":{DEEP}}}'.encode())], "nested too deeply"),
    Expect("a system: a list", [raw(SYSTEM, b"[]")], "no JSON object"),
    Expect("origin: itself", [system(origin=["evil", 0])], "is not before it"),
    Expect("origin: infinite", [system(origin=["good", float("inf")])], "its origin is ['good', inf]"),
    Expect("origin: huge", [system(origin=["good", 10**30])], "its origin is"),
    Expect("origin: a text", [system(origin="x0")], "its origin is 'x0'"),
    Expect("origin: no commit", [system("a"), commit(nodes()), system(origin=["a", 5])], "commit 5 of 'a'"),
    Expect("base: infinite", [system(base=[float("inf"), "00"])], "its base is"),
    Expect("base: below 0", [system(base=[-1, "00"])], "its base is"),
    Expect("base: no digits", [system(base=[1, "xy"])], "non-hexadecimal"),
    Expect("base: of a system that is not there", [system(base=[3, "00" * 16])], "bring its earlier commits first"),
]
ODD: dict[str, list[Any]] = {
    "number": ["0", True, -1, 10**30, 0.0, None],
    "parent": [5, "x", 0, -1, False],
    "changed": [10**30, "x", -1, 1.5, None, True],
    "stress": ["abc", [1], float("nan"), 1, True],
    "residual_norm": ["abc", {}, float("nan"), 1],
    "digest": ["\x1b[31m", [1], "", "0" * 31, "G" * 32, None],
    "rows": [-5, "3", 3.0, None],
    "keyframe": [0, "a", 2, True, None, 1.0],
}
COMMITS = [
    Expect(f"{name}: {value!r:.20}", [system(), commit(nodes(), **{name: value})], f"commit 0: {name} is ")
    for name, values in ODD.items()
    for value in values
]
COMMITS += [
    Expect("rows: more than there are", [system(), commit(nodes(), rows=4)], "it has 3 rows, and says 4"),
    Expect("rows: without a page", [system(), commit(rows=3)], "it has 0 rows, and says 3"),
    Expect("number: not the next", [system(), commit(nodes({"number": 1}), number=1, parent=0)], "it is number 1"),
    Expect("seal: of another", [system(), commit(nodes(), uuid="other")], "not those that were written"),
    Expect("seal: no digits", [system(), commit(nodes(), sealed="xy")], "non-hexadecimal"),
    Expect("seal: a list", [system(), commit(nodes(), sealed=[])], "its seal, or how many"),
    Expect("parts: huge", [system(), commit(nodes(), parts=10**18)], "node pages are missing"),
    Expect("parts: below 0", [system(), commit(parts=-1)], "its seal, or how many"),
    Expect("parts: too few", [system(), commit(nodes(), parts=0, rows=0)], "not those that were written"),
    Expect("a commit: of no system", [commit(nodes())], "belongs to no system"),
    Expect("a commit: behind a page", [system(), page(), commit(nodes())], "belongs to no system"),
    Expect("a commit: twice", [system(), commit(nodes()), commit(nodes())], "commit 1: it is number 0"),
    Expect("a commit: a list", [system(), raw(COMMIT, b"[]")], "no JSON object"),
    Expect("a node page: of no commit", [system(), lambda w: w.blob(NODES, 0, nodes())], "belongs to no commit"),
]
NODE_PAGES = [
    Expect(f"a node page: {label}", [system(), commit(blob)], word)
    for label, blob, word in [
        ("another system's", nodes({"system": "other"}), "that of another commit"),
        ("another number's", nodes({"number": 1}), "that of another commit"),
        ("number true", nodes({"number": False}), "that of another commit"),
        ("attr evil", nodes({"attr": "e\x1bvil"}), "attribute 'e\\x1bvil', which can be none"),
        ("attr said", nodes({"attr": "version"}), "attribute 'version', which can be none"),
        ("attr a list", nodes({"attr": []}), "attribute [], which can be none"),
        ("no versions", nodes(drop="versions"), "the arrays of a node page"),
        ("one array more", nodes(more=np.zeros(3)), "the arrays of a node page"),
        ("ids twice", nodes(ids=np.zeros(3, INT)), "do not ascend"),
        ("ids that descend", nodes(ids=np.arange(3, dtype=INT)[::-1].copy()), "do not ascend"),
        ("ids of floats", nodes(ids=np.array([0.5, 1.5, np.nan])), "the ids of a node page are of dtype float64"),
        ("ids in two axes", nodes(ids=np.zeros((3, 2), INT)), "the ids of a node page"),
        ("ids without axes", nodes(ids=np.array(1)), "of a node page are of dtype"),
        ("too few ids", nodes(ids=np.arange(2)), "of a node page are of dtype"),
        ("versions below 0", nodes(versions=np.full(3, -1)), "a version is below 0"),
        ("versions of bytes", nodes(versions=np.zeros(3, I8)), "the versions of a node page"),
        ("fixed of bytes", nodes(fixed=np.zeros(3, I8)), "the fixed of a node page"),
        ("values of bytes", nodes(values=np.ones((3, 2), I8)), "the values of a node page"),
        ("values of complex", nodes(values=np.ones((3, 2), complex)), "the values of a node page"),
        ("values of the other endianness", nodes(values=np.ones((3, 2), ">f8")), "the values of a node page"),
        ("values without axes", nodes(values=np.array(1.0)), "the values of a node page"),
        ("p in one axis", nodes({"attr": "p"}, values=np.ones(3)), "the values of a node page"),
    ]
]
KEYS = np.zeros((3, 16), np.uint8)
PAGES = [
    Expect("a page", [page()]),
    Expect("a page twice", [page(), page()]),
    Expect("keys twice", [page(n=3, keys=KEYS)]),
    Expect("an op of escapes", [page({"op": "\x1b[31m\n"})]),
    Expect("op: empty", [page({"op": ""})], "op is ''"),
    Expect("op: a surrogate", [page({"op": "\udc80"})], "surrogates not allowed"),
    Expect("op: a list", [page({"op": []})], "op is []"),
    Expect("n: another", [page({"n": 2})], "is in no page of 2 packages"),
    Expect("n: none", [page(n=0)], "a page of 0 packages"),
    Expect("n: huge", [page({"n": 10**30})], "n is 1000"),
    Expect("n: true", [page({"n": True})], "n is True"),
    Expect("cost_ns: huge", [page({"cost_ns": 10**40})], "cost_ns is 1000"),
    Expect("cost_ns: below 0", [page({"cost_ns": -1})], "cost_ns is -1"),
    Expect("cost_ns: infinite", [page({"cost_ns": float("inf")})], "cost_ns is inf"),
    Expect("lineage: deep", [page({"lineage": DEEP})], "nested too deeply"),
    Expect("lineage: a list", [page({"lineage": "[]"})], "lineage is '[]'"),
    Expect("lineage: no text", [page({"lineage": {}})], "lineage is {}"),
    Expect("keys: none", [page(drop="keys")], "the array 'keys' is missing"),
    Expect("keys: of 8 bytes", [page(keys=np.zeros((1, 8), np.uint8))], "an array 'keys'"),
    Expect("keys: of int8", [page(keys=np.zeros((1, 16), I8))], "an array 'keys'"),
    Expect("y: none", [page(drop="a:y")], "the array 'a:y' is missing"),
    Expect("y: without axes", [page(a__y=np.array(1.0))], "an array 'a:y'"),
    Expect("y: of two packages", [page(a__y=np.zeros((2, 1)))], "an array 'a:y'"),
    Expect("another column", [page(a__z=np.zeros((1, 1)))], "an array 'a:z'"),
    Expect("a column of no kind", [page(z=np.zeros((1, 1)))], "an array 'z'"),
    Expect("src_ids: in three axes", [page(src_ids=np.zeros((1, 2, 2), INT))], "an array 'src_ids'"),
    Expect("src_ids: of floats", [page(src_ids=np.full((1, 2), np.nan))], "an array 'src_ids'"),
    Expect(
        "src_ids: more than versions",
        [page(src_ids=np.zeros((1, 2), INT), versions=np.zeros((1, 3), INT))],
        "an array 'versions'",
    ),
    Expect("tokens: of complex", [page(tokens=np.zeros((1, 2), complex))], "an array 'tokens'"),
    Expect("tokens: of 8 bytes", [page(tokens=np.zeros((1, 2, 8), np.uint8))], "an array 'tokens'"),
    Expect("a page: no JSON", [raw(PAGE, b"{bad")], "PAGE frame"),
    Expect("a page: no arrays", [raw(PAGE, b'{"op":"x","n":1,"cost_ns":1}')], "the header cannot be read"),
    Expect("a page: arrays of another kind", [raw(PAGE, b'{"arrays":[1,2]}')], "the header cannot be read"),
    Expect(
        "a page: an array outside of it",
        [raw(PAGE, b'{"op":"x","n":1,"cost_ns":1,"arrays":[["keys","|u1",[1,16],"raw",0,16]]}')],
        "array 'keys' lies outside of the data",
    ),
]
FRAMES = [
    Expect("two first frames", [raw(HEAD, b"{}")], "there is a first frame before it"),
    Expect("last: deep", [raw(archive.DONE, f'{{"digest":{DEEP}}}'.encode())], "nested too deeply"),
    Expect("last: another digest", [raw(archive.DONE, b'{"digest":"00"}')], "does not fit"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds a system and a package."""
    path = tmp_path_factory.mktemp("good") / "good.db"
    with wb.open(path) as board:
        one = board.system("good", {"a": 1})
        one.add_nodes(range(3), theta=np.ones((3, 2)))
        one.commit()
        board.call("mul", [1.0], [2.0])
    return path


@pytest.fixture
def store(good: Path, tmp_path: Path) -> Path:
    """A store of one's own with the same in it."""
    path = tmp_path / "s.db"
    path.write_bytes(good.read_bytes())
    return path


@pytest.mark.parametrize("case", [*SYSTEMS, *COMMITS, *NODE_PAGES, *PAGES, *FRAMES], ids=lambda case: case.id)
def test_an_archive_is_refused_or_good(case: Expect, store: Path, tmp_path: Path) -> None:
    """What is refused leaves the store byte for byte as it was; what is imported every command accepts, and removes."""
    path, before = made(tmp_path / "a.wb", *case.writes), store.read_bytes()
    if case.word:
        with pytest.raises((ArchiveError, wb.WhiteboardError)) as caught:
            import_archive(store, path)
        said = str(caught.value)
        assert case.word in said
        assert "\n" not in said
        assert len(said) < 500
        if isinstance(caught.value, ArchiveError):
            assert str(path) in said
            assert "frame at byte" in said
        assert store.read_bytes() == before
        return
    import_archive(store, path)
    after = import_archive(store, path)
    assert (after.packages.added, after.systems.commits) == (0, 0)
    assert _refused(store, tmp_path) == []
    with wb.open(store) as board:
        assert board.systems() == ["good"]


def _refused(store: Path, folder: Path) -> list[list[str]]:
    """The commands that do not take a store: all that read it, and then those that remove what came into it."""
    with wb.open(store) as board:
        names = board.systems()
    commands = [["ls"], ["info"], ["verify"], ["gc", "--dry-run"], ["log", "good"]]
    commands += [[command, "--", name] for name in names if name != "good" for command in ("show", "log")]
    commands += [["fork", "--", name, f"fork {at}"] for at, name in enumerate(names)]
    commands += [["rm", "--", f"fork {at}"] for at, _ in enumerate(names)]
    commands += [["rm", "--", name] for name in names if name != "good"]
    export = ["export", str(store), str(folder / "out.wb")]
    with_store = [[command[0], "--store", str(store), *command[1:]] for command in commands]
    with_commits = [each for each in [*with_store[:5], export, *with_store[5:]] if each]
    return [command for command in with_commits if cli.status(command) != 0]


def test_a_frame_header_is_bounded(tmp_path: Path) -> None:
    """A frame whose header would be longer than a reader takes is not written."""
    with pytest.raises(ArchiveError, match="more than 16777216"):
        made(tmp_path / "a.wb", raw(PAGE, bytes(17 * 2**20)))


def _hole(path: Path, header: int, data: int) -> None:
    """An archive whose last frame claims more than was written of it, and a file of that size."""
    made(path)
    with path.open("ab") as file:
        file.write(archive._FRAME.pack(PAGE, 1, header, data, bytes(16)))
        file.truncate(file.tell() + header + data)


class _Zeros:
    """Data of zeros that is nowhere."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self.length)
        return bytes(end - start)


def _hollow(path: Path) -> None:
    """A page of one package of 150 MB, which is not compressed."""
    size = 150 * 2**20
    keys, y = ["keys", "|u1", [1, 16], "raw", 0, 16], ["a:y", "<f8", [1, size // 8 - 2], "raw", 16, size - 16]
    header = json.dumps({"op": "x", "n": 1, "cost_ns": 1, "arrays": [keys, y]}).encode()
    made(path, lambda writer: writer.blob(PAGE, 1, moved(Moved(header, b"", _Zeros(size)), header)))


def _bomb(path: Path) -> None:
    """Pages of a few kilobytes that decode to 480 MB, of one package and of many, and a node page of 160 MB."""
    one: dict[str, Any] = {"a__y": np.ones((1, 60 * 2**20 // 8)), "a__g0": np.zeros((1, 420 * 2**20 // 8))}
    many: dict[str, Any] = {name: array.reshape(3, -1) for name, array in one.items()}
    made(
        path,
        page(**one),
        page(n=3, keys=np.arange(48, dtype=np.uint8).reshape(3, 16) + 100, **many),
        page(n=3, **many),
        system(),
        commit(nodes(values=np.zeros((3, 160 * 2**20 // 24)))),
    )


def _wide(path: Path) -> None:
    """Headers of many small objects."""
    header = b'{"arrays":[' + b"[]," * (5 * 2**20) + b"0]}"
    made(path, raw(PAGE, header))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a header of 4 GB": lambda path: _hole(path, 2**32 - 1, 0),
    "data of 300 MB": lambda path: _hole(path, 0, 300 * 10**6),
    "raw": _hollow,
    "bombs": _bomb,
    "wide": _wide,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_an_archive_declares_takes_no_memory(kind: str, tmp_path: Path) -> None:
    """Import takes tens of megabytes, once and again, whatever lengths, shapes and values an archive claims to have."""
    HOSTILE[kind](tmp_path / "a.wb")
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np, blosc2\n"
        "from whiteboard.errors import ArchiveError\n"
        "from whiteboard.storage.transfer.import_archive import import_archive\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for _ in range(2):\n"
        "    try: import_archive(sys.argv[1] + '/s.db', Path(sys.argv[1] + '/a.wb'))\n"
        "    except ArchiveError as error: print(error)\n"
        "print(peak() - before)"
    )
    done = run_python(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 80_000, done.stdout


def _codecs() -> Iterator[tuple[str, NDArray[Any]]]:
    chance = np.random.default_rng(0)
    for dtype in ("<f8", "<f4", "|u1", "<c16", "<i8"):
        for n in (1000, 33_333, 600_007):
            yield f"{dtype} {n}", np.repeat(chance.integers(0, 50, n // 10 + 1), 10)[:n].astype(dtype)
    yield "zeros", np.zeros(3_000_000)


@pytest.mark.parametrize(("name", "array"), list(_codecs()), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("encoding", [Encoding("zstd", 1), Encoding("lz4", 9), Encoding("blosclz", 5)], ids=str)
def test_a_part_of_an_array_is_that_part_of_it(
    name: str, array: NDArray[Any], encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded a few blocks at a time, an array has the same bytes, from anywhere to anywhere."""
    monkeypatch.setattr(codec, "_PIECE_BYTES", 4_500_000)  # a block may be one of 4 MiB
    how, payload = codec.encode(array, encoding)
    data, whole = bytes(payload), array.tobytes()
    codec.check(how, data, array.nbytes)
    edges = [0, 1, array.nbytes // 3, array.nbytes // 2, array.nbytes - 1, array.nbytes]
    for start, end in pairwise(edges):
        assert codec.decode_part(how, data, array.nbytes, start, end) == whole[start:end]
    assert codec.decode_part(how, data, array.nbytes, 0, array.nbytes) == whole


def test_large_pages_come_in_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large page of which the store holds some packages adds the others, counts what differs, and twice is once."""
    monkeypatch.setattr(compare, "LARGE", 1000)
    monkeypatch.setattr(compare, "PART", 3000)
    chance = np.random.default_rng(0)
    keys, y = chance.integers(0, 256, (40, 16), np.uint8), chance.normal(size=(40, 100))
    first = made(tmp_path / "a.wb", page(n=10, keys=keys[:10], a__y=y[:10], a__g0=-y[:10]))
    other = y.copy()
    other[3, 7] = np.nextafter(y[3, 7], 9)
    second = made(tmp_path / "b.wb", page(n=40, keys=keys, a__y=other, a__g0=-y))
    smaller = made(tmp_path / "c.wb", page(n=40, keys=keys, a__y=y[:, :3], a__g0=-y[:, :3]))
    store = tmp_path / "s.db"
    assert _counts(store, first) == (10, 0, 0)
    assert _counts(store, second) == (30, 9, 1)
    assert _counts(store, second) == (0, 39, 1)
    assert _counts(store, first) == (0, 10, 0)
    assert _counts(store, smaller) == (0, 0, 40)
    with wb.open(store) as board:
        assert board.verify().ok
        found = board._store.packages.find([key.tobytes() for key in keys])
    got = np.array([found.pages[p].arrays["y"][slot] for p, slot in zip(found.page, found.slot, strict=True)])
    assert np.array_equal(got, y)


def _counts(store: Path, path: Path) -> tuple[int, int, int]:
    done = import_archive(store, path).packages
    return done.added, done.present, done.conflicts


def test_rows_of_a_page_are_those_rows(tmp_path: Path) -> None:
    """Some rows of a page that lies in a file are what the whole page has there."""
    chance = np.random.default_rng(0)
    arrays = {"keys": chance.integers(0, 256, (50, 16), np.uint8), "a:y": np.repeat(chance.normal(size=(50, 40)), 9, 1)}
    blob = pack({"op": "x", "n": 50, "cost_ns": 500}, arrays).joined()
    page_checks.check_packages(blob)
    for start, end in [(0, 1), (0, 50), (7, 31), (49, 50)]:
        found = page_checks.rows(blob, start, end)
        assert np.array_equal(found.keys, arrays["keys"][start:end])
        assert np.array_equal(found.arrays["y"], arrays["a:y"][start:end])
        assert found.cost_ns == 10 * (end - start)
