"""Archives made by hand, with digests that all fit: each is refused with what is wrong, or is as good as our own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.transfer.forging import Write, commit, made, named, nodes, page, raw, system
from whiteboard import cli
from whiteboard.errors import ArchiveError
from whiteboard.storage.transfer import archive
from whiteboard.storage.transfer.archive import COMMIT, HEAD, NODES, PAGE, SYSTEM
from whiteboard.storage.transfer.import_archive import import_archive


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
