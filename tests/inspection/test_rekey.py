"""Rekey: every package under its new key with its bits, none lost, and none under a key that is not proven."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests import rekeying
from tests.rekeying import A, Answer, B, N, as_before, asked, code, filled, names, rewritten, stored
from tests.storage.moving import assert_whole
from tests.storage.samples import transaction
from whiteboard.errors import ParamError, StoreError
from whiteboard.identity import keys, lineage
from whiteboard.inspection import rekey
from whiteboard.inspection.rekey import Change, Code, Held
from whiteboard.ops.fingerprint.encoding import encode_params
from whiteboard.records.packages import Page, Renamed
from whiteboard.storage import open_store
from whiteboard.storage.page.grouping import take
from whiteboard.storage.upkeep.rename_keys import Report, headers, rename

SIZES = {"arrays": N, "params": 50, "nodes": 20, "cotangent": 20}
TOTAL = sum(SIZES.values())


pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def changed(path: Path, **options: Any) -> Report:
    """Rekey the op's packages from its first body to its second, which is registered afterwards."""
    old, new = code(0).fingerprint, code(1).fingerprint
    assert old
    assert new
    change = rekey.change("product", rekey.held(headers(path, "product")), old, new)
    return rename(path, change.concerns, change.rename, **options)


@pytest.fixture
def in_first_scheme(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Answer]]:
    """Return a function that makes a store as `filled` does, with the keys of scheme 1."""

    def fill(path: Path) -> dict[str, Answer]:
        with monkeypatch.context() as patch:
            for module in (keys, lineage):
                patch.setattr(module, "encode_params", keys.encode_first)
            patch.setattr(keys, "scheme_of", lambda _: lineage.FIRST_SCHEME)
            return filled(path)

    return fill


Filled = Callable[[Path], dict[str, Answer]]


def test_every_package_hits_under_the_new_code(tmp_path: Path) -> None:
    """Packages of arrays, parameters, nodes and cotangents hit under the new code, in the same bits, and only there."""
    path = tmp_path / "a.db"
    bits = filled(path)
    report = changed(path)
    assert (report.packages, report.renamed, +report.kept) == (TOTAL, TOTAL, {})
    assert asked(path) == {name: (1, data) for name, (_, data) in bits.items()}
    assert len(stored(path)) == TOTAL
    code(0)
    assert asked(path)["arrays"] == (0, bits["arrays"][1])
    assert_whole(path)
    again = changed(path)
    assert (again.pages, again.packages) == (0, 0)
    with wb.open(path, readonly=True) as board:
        assert board.audit().ok


def test_a_forecast_writes_nothing(tmp_path: Path) -> None:
    """A dry run counts what the run after it does, and leaves every byte of the file."""
    path = tmp_path / "a.db"
    filled(path)
    before = path.read_bytes()
    forecast = changed(path, dry_run=True)
    assert path.read_bytes() == before
    assert forecast == changed(path)
    assert forecast.rows == TOTAL + forecast.pages


def test_use_is_kept(tmp_path: Path) -> None:
    """A page that has another key was used as often, and last used when, it was before: eviction goes by that."""
    path = tmp_path / "a.db"
    filled(path)

    def uses(*, change: bool = False) -> list[Any]:
        with open_store(path) as stores, transaction(stores.database) as connection:
            if change:
                connection.exec_driver_sql("UPDATE page_access SET last_use = page_id, hits = 2 * page_id")
            return list(connection.exec_driver_sql("SELECT last_use, hits FROM page_access ORDER BY last_use"))

    before = uses(change=True)
    changed(path)
    assert uses() == before


def test_pages_with_short_tokens(tmp_path: Path, in_first_scheme: Filled) -> None:
    """Of pages with 32 bits of each token, those of nodes are rekeyed by the nodes' values; the others stay."""
    path = tmp_path / "a.db"
    bits = in_first_scheme(path)
    rewritten(path, as_before)
    report = changed(path)
    assert report.renamed == SIZES["nodes"]
    assert report.kept == {rekey.NO_TOKENS: N + SIZES["params"], rekey.NO_COTANGENT: SIZES["cotangent"]}
    assert asked(path)["nodes"] == (1, bits["nodes"][1])
    assert asked(path)["arrays"] == (0, bits["arrays"][1])
    assert set(names(code(0), lineage.FIRST_SCHEME)) <= stored(path)
    assert len(stored(path)) == TOTAL
    assert_whole(path)


@pytest.mark.parametrize("lineage", [None, "", "[]", "{}", "nonsense", '{"version":1}', "[" * 10_000])
def test_pages_without_lineage_stay(lineage: str | None, tmp_path: Path) -> None:
    """A page that does not say what its keys are made of keeps them, and is counted."""
    path = tmp_path / "a.db"
    bits = filled(path)
    rewritten(path, lambda page: replace(page, lineage=lineage) if page.src_ids is None else page)
    report = changed(path)
    assert report.kept == {rekey.NO_LINEAGE: N + SIZES["params"]}
    code(0)
    assert asked(path)["arrays"] == (1, bits["arrays"][1])


def test_parameters_that_are_too_long_to_keep(tmp_path: Path) -> None:
    """Packages of parameters whose encoding is longer than a page keeps stay under their keys."""
    path = tmp_path / "a.db"
    filled(path)

    def without(page: Page) -> Page:
        fields = json.loads(page.lineage or "")
        del fields["encoded"]
        return replace(page, lineage=json.dumps({**fields, "params": {"scale": "ndarray " + "0" * 32}}))

    rewritten(path, without)
    assert changed(path).kept == {rekey.NO_PARAMS: TOTAL}
    assert len(stored(path)) == TOTAL
    spec = code(0)
    for count, known in ((100, True), (1000, False)):
        params = {"scale": tuple(range(count))}
        said = lineage.said(lineage.record(keys.Identity.of(spec, params), params, keys.SMALL))
        assert said
        assert (said.identity("product") is not None) == known


def _said(**fields: Any) -> Callable[[Page], Page]:
    return lambda page: replace(page, lineage=json.dumps({**json.loads(page.lineage or ""), **fields}))


def _tokens(change: Callable[[Any], Any]) -> Callable[[Page], Page]:
    return lambda page: replace(page, tokens=change(page.tokens))


FORGERIES: dict[str, Callable[[Page], Page]] = {
    "arithmetic": _said(arithmetic="00" * 16),
    "exactness": _said(exactness="tolerance"),
    "gradient": _said(gradient="twos"),
    "params": _said(encoded="00"),
    "tokens of others": _tokens(lambda tokens: np.roll(tokens, 1, axis=0)),
    "tokens in another order": _tokens(lambda tokens: tokens[:, ::-1].copy()),
    "one bit of each": _tokens(lambda tokens: tokens ^ 1),
    "a token less": _tokens(lambda tokens: tokens[:, :1].copy()),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_page_that_lies_gets_no_other_key(forgery: Callable[[Page], Page], tmp_path: Path) -> None:
    """Where a page with a good digest says what its keys are not made of, every key stays as it is."""
    path = tmp_path / "a.db"
    filled(path)
    rewritten(path, lambda page: forgery(page) if page.n > 100 else page)
    before = stored(path)
    report = changed(path)
    assert report.kept[rekey.OTHER_KEY] > 0
    assert not stored(path) & set(names(code(1)))
    assert stored(path) & set(names(code(0))) == before & set(names(code(0)))


def test_a_page_that_lies_in_part_is_parted(tmp_path: Path) -> None:
    """Of a page with some wrong tokens the packages that are proven get their new keys, and the rest stays found."""
    path = tmp_path / "a.db"
    bits = filled(path)
    wrong = np.arange(N) % 3 == 1

    def forged(page: Page) -> Page:
        if page.n < 100 or page.tokens is None:
            return page
        rows = wrong[[number_of[key.tobytes()] for key in page.keys]]
        return replace(page, tokens=np.where(rows[:, None, None], page.tokens ^ 255, page.tokens).astype(np.uint8))

    old, new = names(code(0)), names(code(1))
    number_of = {key: number for number, key in enumerate(old)}
    rewritten(path, forged)
    report = changed(path)
    assert report.kept == {rekey.OTHER_KEY: int(wrong.sum())}
    here = stored(path)
    assert [key in here for key in old] == wrong.tolist()
    assert [key in here for key in new] == (~wrong).tolist()
    with wb.open(path, readonly=True) as board:
        assert rekeying.bits(board.call_many("product", A, B)) == bits["arrays"][1]
    assert_whole(path)


def test_what_the_new_key_holds_already_stays(tmp_path: Path) -> None:
    """Equal bytes under a new key make the old package go; other bytes are a conflict, and both packages stay."""
    path = tmp_path / "a.db"
    filled(path)
    old, new = names(code(0)), names(code(1))
    with wb.open(path) as board:
        board.call_many("product", A[:30], B[:30])
    with open_store(path) as stores:
        found = stores.packages.find(old[30:33])
        page = take(found.pages[0], found.slot)
        wrong = [np.frombuffer(new[number], np.uint8) for number in (30, 31, 32)]
        y = np.nextafter(A[30:33] * B[30:33], np.inf)
        stores.packages.put(replace(page, keys=np.stack(wrong), arrays={"y": y, "g0": B[30:33], "g1": A[30:33]}))
    for _ in range(2):
        forecast = changed(path, dry_run=True)
        report = changed(path)
        assert report == forecast
        assert report.conflicts == 3
        assert {(each.key, each.array, each.ulps) for each in report.described} == {
            (key.hex(), "y", 1) for key in new[30:33]
        }
        assert {each.op for each in report.described} == {"product"}
        assert set(new) <= stored(path)
        assert stored(path) & set(old) == set(old[30:33])
        assert_whole(path)
    assert report.present == 0
    code(1)
    with wb.open(path, readonly=True) as board:
        assert (board.call_many("product", A[30:33], B[30:33]).y == y).all()


def test_a_page_that_goes_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    """What was evicted after it was read, and before it is written, stays evicted."""
    path = tmp_path / "a.db"
    filled(path)
    change = Change("product", Code(1, code(0).fingerprint or b""), Code(1, code(1).fingerprint or b""))

    def evicting(page: Page, values: Any) -> Renamed:
        with wb.open(path) as board:
            board.gc(max_bytes=0)
        return change.rename(page, values)

    rename(path, change.concerns, evicting)
    assert stored(path) == set()
    assert_whole(path)


def test_a_damaged_page_is_counted(tmp_path: Path) -> None:
    """A page that fails the gate is left as it is, and the others get their keys."""
    path = tmp_path / "a.db"
    filled(path)
    with open_store(path) as stores, transaction(stores.database) as connection:
        connection.exec_driver_sql("UPDATE page SET data = zeroblob(length(data)) WHERE n = 50 AND op = 'product'")
    report = changed(path)
    assert (report.damaged_pages, report.renamed) == (1, TOTAL - SIZES["params"])


def test_another_version_of_the_op(tmp_path: Path) -> None:
    """A new version number comes with the new fingerprint, and a fingerprint of two versions needs the old one."""
    path = tmp_path / "a.db"
    bits = filled(path)
    old = code(0, version=4)
    with wb.open(path) as board:
        board.call_many("product", A[:5], B[:5])
    new = code(1, version=7)
    assert old.fingerprint
    assert new.fingerprint
    held = rekey.held(headers(path, "product"))
    with pytest.raises(ParamError, match=r"versions 1, 4 .*--from-version"):
        rekey.change("product", held, old.fingerprint, new.fingerprint)
    change = rekey.change("product", held, old.fingerprint, new.fingerprint, 1, 7)
    assert rename(path, change.concerns, change.rename).renamed == TOTAL
    assert asked(path)["arrays"] == (1, bits["arrays"][1])
    code(1, version=8)  # the number alone
    for renamed in (TOTAL, 0):
        held = rekey.held(headers(path, "product"))
        change = rekey.change("product", held, new.fingerprint, new.fingerprint, to_version=8)
        assert rename(path, change.concerns, change.rename).renamed == renamed
        assert asked(path)["arrays"] == (1, bits["arrays"][1])


class Refused(NamedTuple):
    """Fingerprints and versions that make no change, and what is said of them."""

    old: bytes
    new: bytes
    version: int | None
    match: str


CODES = [bytes([number] * 16) for number in range(4)]
HELD = [
    Held(Code(1, CODES[0]), 7, 2),
    Held(Code(2, CODES[1]), 5, 1, frozenset({CODES[2].hex()})),
    Held(None, 3, 1),
]


@pytest.mark.parametrize(
    "case",
    [
        Refused(CODES[3], CODES[1], None, "no package has .*0000 .version 1, 7 packages, 2 pages.*0101.*not say"),
        Refused(CODES[0], CODES[1], 2, "fingerprint 0000.* and version 2"),
        Refused(CODES[0], CODES[0], None, "nothing would change"),
    ],
    ids=["unknown", "version", "same"],
)
def test_a_change_of_nothing_is_refused(case: Refused) -> None:
    """Fingerprints that match nothing are an error that lists what the store has; one that is done already is none."""
    with pytest.raises(ParamError, match=case.match):
        rekey.change("product", HELD, case.old, case.new, case.version)
    assert rekey.change("product", HELD, CODES[2], CODES[1]) == Change("product")


@pytest.mark.parametrize("before", [False, True], ids=["named", "not named"])
def test_another_key_scheme(before: bool, tmp_path: Path, in_first_scheme: Filled) -> None:
    """A store whose keys are of an older scheme misses, and hits with the same bits once it is rekeyed."""
    path = tmp_path / "a.db"
    bits = in_first_scheme(path)
    if before:
        rewritten(path, lambda page: replace(as_before(page), tokens=page.tokens))
    assert asked(path)["arrays"][0] == 0
    with wb.open(path) as board:
        found = board.explain(wb.Job("product", (0, 20)), board.system("s"))
    assert [each.what for each in found.differences] == ["scheme"]
    report = rename(path, Change().concerns, Change().rename)
    assert (report.renamed, +report.kept) == (TOTAL + 50, {})
    assert asked(path) == {name: (1, data) for name, (_, data) in bits.items()}
    assert rename(path, Change().concerns, Change().rename).pages == 0
    assert_whole(path)


class Written(NamedTuple):
    """Parameters of a page of scheme 1 by their texts, and what they are: None where the texts do not tell."""

    texts: dict[str, str]
    params: dict[str, Any] | None
    id: str


WRITTEN = (
    Written({"a": "[0, 1]", "b": "(0, 1)"}, {"a": [0, 1], "b": (0, 1)}, "a list and a tuple"),
    Written({"a": "{'y': 1, 'x': 2.0}"}, {"a": {"y": 1, "x": 2.0}}, "a dict in its order"),
    Written(
        {"a": "None", "b": "True", "c": "'t'", "d": "b'u'", "e": "-1"},
        dict(zip("abcde", (None, True, "t", b"u", -1), strict=True)),
        "constants",
    ),
    Written({"a": "np.float64(2.0)"}, None, "a NumPy number"),
    Written({"a": "array([1., 2.])"}, None, "an array"),
    Written({"a": "<Mode.FAST: 1>"}, None, "an enum"),
    Written({"a": "Law(rate=1.0)"}, None, "an object"),
    Written({"a": "tuple " + "0" * 90}, None, "a digest"),
)


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.id)
def test_parameters_of_scheme_1_are_told_by_their_texts(case: Written) -> None:
    """Scheme 1 took a list for a tuple, say: only what the page says of each parameter tells which it was."""
    fields = {"version": 1, "fingerprint": "00", "exactness": "exact", "arithmetic": "00", "gradient": "ones"}
    said = lineage.said(json.dumps(fields | {"params": case.texts}))
    assert said is not None
    assert said.now == (None if case.params is None else encode_params(case.params))


def test_an_unknown_scheme_stays(tmp_path: Path) -> None:
    """Keys of a scheme that this version does not know are left alone and counted."""
    path = tmp_path / "a.db"
    filled(path)
    rewritten(path, _said(scheme="whiteboard-key-9"))
    assert rename(path, Change().concerns, Change().rename).kept == {rekey.NO_SCHEME: TOTAL}


def test_code_and_scheme_at_once(tmp_path: Path, in_first_scheme: Filled) -> None:
    """A change of code brings pages of an older scheme to the present one too."""
    path = tmp_path / "a.db"
    bits = in_first_scheme(path)
    changed(path)
    assert asked(path)["nodes"] == (1, bits["nodes"][1])


def test_an_explanation_after_rekeying(tmp_path: Path) -> None:
    """A hit of a rekeyed package is explained as any other, and a miss for other code says so."""
    path = tmp_path / "a.db"
    filled(path)
    changed(path)
    with wb.open(path) as board:
        assert board.explain(wb.Job("product", (0, 20)), board.system("s")).hit
        code(0)
        found = board.explain(wb.Job("product", (0, 20)), board.system("s"))
    assert [each.what for each in found.differences] == ["fingerprint"]


def with_sources(path: Path) -> dict[str, Answer]:
    """Make a store as `filled` does, whose packages keep their sources."""
    code(0, keep_sources=True)
    with wb.open(path) as board:
        return rekeying.answers(board)


def test_sources_that_are_kept_give_tokens(tmp_path: Path) -> None:
    """Packages whose page has no tokens get their new keys by their sources, the cotangent included, and keep these."""
    path = tmp_path / "a.db"
    bits = with_sources(path)
    rewritten(path, lambda page: replace(page, tokens=None))
    assert changed(path).renamed == TOTAL
    assert asked(path) == {name: (1, found) for name, (_, found) in bits.items()}
    with wb.open(path) as board:
        table = board.table("product", grads=True)
        assert len(table["y"]) == TOTAL
        assert not any(x is None for x in table["x0"])
        assert board.audit().ops["product"].kept == TOTAL
    assert_whole(path)


@pytest.mark.parametrize("tokens", ["kept", "gone"])
def test_sources_of_others_give_no_tokens(tokens: str, tmp_path: Path) -> None:
    """A key that does not come out of what its page keeps stays; where tokens say the truth, sources are not asked."""
    path = tmp_path / "a.db"
    with_sources(path)

    def lie(page: Page) -> Page:
        sources = tuple(source + 1 for source in page.sources or ())
        return replace(page, tokens=page.tokens if tokens == "kept" else None, sources=sources)

    rewritten(path, lie)
    report = changed(path)
    assert (report.renamed, report.kept) == ((TOTAL, {}) if tokens == "kept" else (0, {rekey.OTHER_KEY: TOTAL}))


def test_a_scheme_of_other_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large sources have other tokens since: packages that keep theirs get keys of the new ones, and others stay."""
    path = tmp_path / "a.db"
    with_sources(path)
    code(0)
    with wb.open(path) as board:
        board.call_many("product", A[:30] + 1, B[:30])
    before, lies = stored(path), []

    def lie(page: Page) -> Page:
        if page.sources is None or page.src_ids is None:
            return page
        first = page.sources[0].copy()
        first[0] += 1
        lies.append(page)
        return replace(page, sources=(first, *page.sources[1:]))

    rewritten(path, lie)
    assert rename(path, Change().concerns, Change().rename).pages == 0
    monkeypatch.setattr(keys, "LARGE_BYTES", A[0].nbytes)  # as if they had been stored when all tokens were alike
    with wb.open(path, readonly=True) as board:
        told = board.explain("product", A[0], B[0])
    assert [each.what for each in told.differences] == ["scheme"]
    report = rename(path, Change().concerns, Change().rename)
    assert report.kept == {rekey.OTHER_TOKENS: 30 + 50 + len(lies)}  # 50 are of another op
    assert (report.renamed, len(lies) >= 2) == (TOTAL - len(lies), True)
    assert set(keys.tokens(A)[0]) != set(keys.first_tokens(A)[0])
    made = names(wb.ops.get("product"), keys.LARGE)
    assert set(made) <= stored(path)
    assert not set(made) & before
    assert rename(path, Change().concerns, Change().rename).renamed == 0


def test_sources_of_unknown_size(tmp_path: Path) -> None:
    """A page of y alone may be of large sources, under keys of before these had their own: it stays, and is counted."""

    @wb.op("alone", gradient="none", identity="alone", keep_sources=False)
    def _alone(x: Any) -> Any:
        return x.sum()

    path = tmp_path / "a.db"
    with wb.open(path) as board:
        small = board.call_many("alone", A)
        board.call_many("alone", np.tile(A, (1, keys.LARGE_BYTES)))
    report = rename(path, Change().concerns, Change().rename)
    assert (report.renamed, report.kept) == (0, {rekey.NO_SIZES: len(A)})
    with wb.open(path) as board:
        again = board.call_many("alone", A)
    assert (again.hit > 0).all()
    assert again.y.tobytes() == small.y.tobytes()


def test_no_store_is_made(tmp_path: Path) -> None:
    """A store that is not there is an error, and is not there afterwards."""
    for dry_run in (False, True):
        with pytest.raises(StoreError):
            rename(tmp_path / "a.db", Change().concerns, Change().rename, dry_run=dry_run)
    with pytest.raises(StoreError):
        headers(tmp_path / "a.db")
    assert list(tmp_path.iterdir()) == []
