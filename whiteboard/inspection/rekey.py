"""Rekey: other keys for packages whose op's code, or whose key scheme, has changed and whose values have not.

A page's lineage and tokens say what its keys were made of, and nothing vouches for them but the keys: a package gets
another key only where its present one comes out of what the page says, to the last bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ParamError
from whiteboard.identity import keys, lineage
from whiteboard.inspection import proof
from whiteboard.records.packages import Page, PageHeader, Renamed, RowSize
from whiteboard.records.systems import NodeValues

NO_LINEAGE: Final = "their page was written too early to say what their keys are made of"
NO_PARAMS: Final = "their page does not say their parameters exactly"
NO_SCHEME: Final = "their key scheme is not known here"
NO_TOKENS: Final = "their page has no whole tokens, and their sources were no nodes"
OTHER_TOKENS: Final = "the tokens of large sources are others now, and their page does not keep their sources"
NO_SIZES: Final = "their page does not say whether their sources are large; keys of small ones are right already"
NO_COTANGENT: Final = "their page has no whole token of the cotangent"
NO_VALUES: Final = "their page has no whole tokens, and no commit holds the values of their sources"
OTHER_KEY: Final = "what their page says of their keys does not give them"


class Code(NamedTuple):
    """A version of an op: what it calls itself, and the fingerprint of its code."""

    version: int
    fingerprint: bytes


@dataclass(slots=True)
class Held:
    """What a store holds of one version of an op; `code` is None for pages that do not say theirs."""

    code: Code | None
    packages: int = 0
    pages: int = 0
    was: frozenset[str] = frozenset()
    """The fingerprints that packages were rekeyed from."""


def held(pages: Iterable[PageHeader]) -> list[Held]:
    """Count the pages of one op by its versions, those that are found first first."""
    found: dict[Code | None, Held] = {}
    for page in pages:
        said = lineage.said(page.lineage)
        code = None if said is None else Code(said.version, said.fingerprint)
        row = found.setdefault(code, Held(code))
        row.packages += page.packages
        row.pages += 1
        row.was |= {said.was} if said is not None and said.was else set()
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Change:
    """Which packages get other keys: those of an op's old code, or, without an op, of older schemes than the present.

    Its methods are what `whiteboard.storage.upkeep.rename_keys.rename` asks for.
    """

    op: str | None = None
    old: Code | None = None
    new: Code | None = None

    def concerns(self, page: PageHeader) -> bool:
        """Whether packages of a page are to get other keys, or may be."""
        if self.op not in (None, page.op):
            return False
        if (said := lineage.said(page.lineage)) is None:
            return True
        return self._concerns(said, page.sizes)

    def _concerns(self, said: lineage.Said, sizes: Mapping[str, RowSize]) -> bool:
        if self.op is None:
            present = _present(said, sizes)
            return said.scheme != (keys.LARGE if present is None else present)
        return Code(said.version, said.fingerprint) == self.old

    def rename(self, page: Page, values: Sequence[NodeValues]) -> Renamed:
        """Tell the new keys of a page's packages; `values` are what systems hold, for pages without whole tokens."""
        said = lineage.said(page.lineage)
        if said is None or page.lineage is None:
            return _unchanged(page, NO_LINEAGE)
        sizes = _sizes(page)
        if self.op not in (None, page.op) or not self._concerns(said, sizes):
            return _unchanged(page, OTHER_KEY)  # the row, or its header, says another op than the page
        if said.scheme not in keys.SCHEMES:
            return _unchanged(page, NO_SCHEME)
        if (old := proof.named(page.op, said)) is None or said.now is None:
            return _unchanged(page, NO_PARAMS)
        if (scheme := _present(said, sizes)) is None:
            if self.op is None and said.scheme == keys.SMALL:
                return _unchanged(page, NO_SIZES)
            scheme = said.scheme if said.scheme == keys.LARGE else keys.SMALL
        new = old.identity._replace(params=said.now)
        if self.new is not None:
            new = new._replace(version=self.new.version, fingerprint=self.new.fingerprint)
        proven, tokens, kept = _renewed(page, old.scheme, scheme, *_proven(page, old, values))
        made = proof.Names(scheme, new).keys(tokens)
        return Renamed(proven, made, tokens, lineage.renewed(page.lineage, new, scheme), kept)


def _present(said: lineage.Said, sizes: Mapping[str, RowSize]) -> bytes | None:
    """Return the scheme that keys of such packages have now; None of a page that does not tell its sources' sizes."""
    y, grads = sizes.get("y"), [size for name, size in sizes.items() if name.startswith("g")]
    if "x0" in sizes:  # with the cotangent
        return keys.scheme_of(size.nbytes for name, size in sizes.items() if name.startswith("x"))
    if y is None or not grads:
        return None
    if said.gradient == "jacobian":
        return keys.scheme_of(size.nbytes // max(y.numbers, 1) for size in grads)
    return keys.scheme_of(size.nbytes for size in ((*grads, y) if said.gradient == "cotangent" else grads))


def _sizes(page: Page) -> dict[str, RowSize]:
    columns = {**page.arrays, **{f"x{slot}": source for slot, source in enumerate(page.sources or ())}}
    return {name: RowSize(each.itemsize, math.prod(each.shape[1:])) for name, each in columns.items()}


def change(
    op: str,
    found: Sequence[Held],
    old: bytes,
    new: bytes,
    from_version: int | None = None,
    to_version: int | None = None,
) -> Change:
    """Return the change of an op's code from one fingerprint to another.

    Parameters
    ----------
    op : str
    found : sequence of Held
        What the store holds of it.
    old, new : bytes
        Fingerprints.
    from_version, to_version : int, optional
        The op's version, where packages of several have the old fingerprint; and the new one, where it is another.

    Raises
    ------
    ParamError
        No package has the old fingerprint or had it before, or the version has to be said. The message lists what
        there is.
    """

    def after(code: Code) -> Code:
        return Code(code.version if to_version is None else to_version, new)

    if old == new and to_version in (None, from_version):
        msg = f"op {op!r}: from fingerprint {old.hex()} to the same one: nothing would change"
        raise ParamError(msg)
    codes = [row.code for row in found if row.code and row.code.fingerprint == old]
    left = [code for code in codes if from_version in (None, code.version) and code != after(code)]
    if len(left) > 1:
        several = ", ".join(str(code.version) for code in left)
        msg = f"op {op!r}: packages of versions {several} have fingerprint {old.hex()}; say which by --from-version"
        raise ParamError(msg)
    if left:
        return Change(op, left[0], after(left[0]))
    if any(row.code and row.code.fingerprint == new and old.hex() in row.was for row in found):
        return Change(op)  # it is done, and this is a second call
    version = "" if from_version is None else f" and version {from_version}"
    msg = f"op {op!r}: no package has fingerprint {old.hex()}{version}; the store has {_listed(found)}"
    raise ParamError(msg)


def _listed(found: Sequence[Held]) -> str:
    rows = [
        f"{row.code.fingerprint.hex()} (version {row.code.version}, {row.packages:,} packages, {row.pages:,} pages)"
        if row.code
        else f"{row.packages:,} packages on {row.pages:,} pages that do not say"
        for row in found
    ]
    return ", ".join(rows) or "none of it"


def _unchanged(page: Page, why: str) -> Renamed:
    none = np.empty(0, np.intp)
    return Renamed(none, page.keys[none], np.empty((0, 1, keys.DIGEST_BYTES), np.uint8), "", {why: page.n})


def _proven(
    page: Page, old: proof.Names, values: Sequence[NodeValues]
) -> tuple[NDArray[np.intp], NDArray[np.uint8], Counter[str]]:
    """The rows whose keys come out of their tokens, these, and why the others' do not."""
    proven, met = np.zeros(page.n, np.bool_), np.zeros(page.n, np.bool_)
    tokens = np.empty((page.n, 0, keys.DIGEST_BYTES), np.uint8)
    for rows, made in _tokens(page, old, values):
        if not tokens.shape[1]:
            tokens = np.zeros((page.n, *made.shape[1:]), np.uint8)
        met[rows] = True
        right = old.prove(made, page.keys[rows])
        tokens[rows[right]], proven[rows[right]] = made[right], True
    gradient = old.identity.gradient
    kept = Counter({OTHER_KEY: int((met & ~proven).sum()), _without(page, gradient): int((~met).sum())})
    return np.flatnonzero(proven), tokens[proven], +kept


def _renewed(
    page: Page,
    old: bytes,
    new: bytes,
    rows: NDArray[np.intp],
    tokens: NDArray[np.uint8],
    kept: Counter[str],
) -> tuple[NDArray[np.intp], NDArray[np.uint8], Counter[str]]:
    """The same with tokens of the present scheme: where it makes others, only rows whose sources are kept have them."""
    if keys.TOKENS[old] is keys.TOKENS[new] or not len(rows):
        return rows, tokens, kept
    right = proof.faithful(page, old)[rows]
    kept += Counter({OTHER_TOKENS: int((~right).sum())})
    rows = rows[right]
    sources = [] if page.sources is None else [source[rows] for source in page.sources]
    return rows, proof.tokens_of(sources, new) if len(rows) else tokens[:0], kept


def _tokens(
    page: Page, old: proof.Names, values: Sequence[NodeValues]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """Rows with tokens that may be theirs: what the page has, or keeps, else those of values that its sources had."""
    if (stored := proof.tokens_in(page, old.scheme)) is not None:
        yield np.arange(page.n), stored
        return
    if _without(page, old.identity.gradient) != NO_VALUES or page.src_ids is None or page.versions is None:
        return
    pairs = np.stack([page.src_ids, page.versions], axis=-1).reshape(-1, 2)
    places, inverse = np.unique(pairs, axis=0, return_inverse=True)
    shape = page.src_ids.shape
    for each in values:
        found = [each.at(*place) for place in places.tolist()]
        known = np.array([value is not None for value in found])[inverse].reshape(shape).all(axis=1)
        token = keys.TOKENS[old.scheme]
        made = [bytes(keys.DIGEST_BYTES) if value is None else token(value[None]).tobytes() for value in found]
        tokens = np.frombuffer(b"".join(made), np.uint8).reshape(-1, keys.DIGEST_BYTES)[inverse]
        yield np.flatnonzero(known), tokens.reshape(*shape, keys.DIGEST_BYTES)[known]


def _without(page: Page, gradient: str) -> str:
    """Why a page without whole tokens has none."""
    if gradient != "ones":
        return NO_COTANGENT
    ids, versions = page.src_ids, page.versions
    nodes = ids is not None and versions is not None and ids.ndim == 2 and ids.shape[1] and ids.shape == versions.shape
    return NO_VALUES if nodes else NO_TOKENS
