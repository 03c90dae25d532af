"""Explain: why a job is a hit or a miss, told from the nearest package of the same op."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ParamError
from whiteboard.evaluation import contents
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.sources import Sources, StackedSources, scheme
from whiteboard.identity import keys, lineage
from whiteboard.inspection import proof
from whiteboard.ops import name_of
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import PageSummary
from whiteboard.systems.jobs import Job, batches
from whiteboard.systems.node_sources import NodeSources, locate
from whiteboard.systems.nodes import Nodes
from whiteboard.systems.residuals import residual
from whiteboard.types import Array, Params

_WORDS: Final = {
    "ones": "the VJP of ones",
    "cotangent": "the VJP of a cotangent",
    "jacobian": "the Jacobian",
    "none": "no gradient",
}
_ROUNDING: Final = {
    "portable": "where it was computed, NumPy adds in another order, or denormals are flushed or results rounded "
    "another way, as the op is portable: its bits follow neither the processor nor BLAS",
    **dict.fromkeys(
        ("exact", "tolerance"),
        "where it was computed, the processor, NumPy, or BLAS round otherwise, BLAS runs another number of threads, or "
        "denormals are flushed",
    ),
}
_LINEAGE: Final = ("version", "fingerprint", "exactness", "params", "gradient", "arithmetic")


@dataclass(frozen=True, slots=True)
class Package:
    """A package in the store: key, page, row, and the nodes that it was computed from, where its sources were nodes."""

    op: str
    key: str
    page: int
    row: int
    src_ids: tuple[int, ...] | None
    versions: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a job differs from a package; `what` is one of

    ``scheme``, ``op version``, ``fingerprint``, ``exactness``, ``dtype``, ``shape``, ``source``, ``params``,
    ``cotangent``, ``arithmetic``; `text` says the rest.
    """

    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is a hit or a miss.

    Attributes
    ----------
    op, key : str
    hit : bool
    package : Package or None
        What a hit is answered from; of a miss, the nearest package of the op.
    differences : tuple of Difference
        Of a miss and the nearest package; the first one alone makes it a miss.
    reason : str
        All of it in one sentence.
    """

    op: str
    key: str
    hit: bool
    package: Package | None
    differences: tuple[Difference, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as it is compared: its key, what the key is made of, and its sources."""

    op: str
    key: bytes
    lineage: Mapping[str, Any]
    opaque: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]
    tokens: NDArray[np.uint8]
    first: NDArray[np.uint8]
    """The tokens that schemes 1 and 2 made of the same."""
    src_ids: tuple[int, ...] | None
    versions: tuple[int, ...] | None


def asked(spec: OpSpec, params: Params | None, sources: Sources, cotangent: Array | None = None) -> Asked:
    """Return what identifies the one job of `sources`, or its package of the VJP of a cotangent, (1, *y_shape)."""
    known, gradient = spec.bind(params), contents.kind(spec, cotangent)
    spec = spec.at(sources.shapes, sources.dtype, known)
    opaque = spec.opaque if spec.fingerprint is None else ""
    try:
        identity = keys.Identity.of(spec, known, gradient)
    except ParamError as error:
        opaque, known = str(error), {}
        identity = keys.Identity.of(spec, known, gradient)
    tokens = sources.tokens()
    with BufferPool().lend() as lend:
        first = proof.tokens_of(sources.gather(np.zeros(1, np.int64), lend), keys.SMALL)
    if cotangent is not None:
        tokens = np.concatenate([tokens, keys.tokens(cotangent)[:, None]], axis=1)
        first = np.concatenate([first, keys.first_tokens(cotangent)[:, None]], axis=1)
    named = scheme(sources, cotangent)
    prefix = keys.key_prefix(identity, len(sources.shapes), named)
    at = sources.provenance(np.zeros(1, np.int64))
    ids, versions = (None, None) if at is None else (tuple(column[0].tolist()) for column in at)
    return Asked(
        spec.name,
        keys.keys(prefix, tokens)[0],
        json.loads(lineage.record(identity, known, named)),
        opaque,
        sources.dtype.str,
        sources.shapes,
        tokens[0],
        first[0],
        ids,
        versions,
    )


def over_nodes(nodes: Nodes, job: Job) -> Sources:
    """Return the sources of a job over a system's nodes.

    Raises
    ------
    UnknownNodeError
    """
    ((_, batch),) = batches([job])
    index, arena, rows = locate(nodes, batch)
    sources = NodeSources(nodes, index, [nodes.arenas[number] for number in arena[0].tolist()], rows)
    return StackedSources(name_of(job.op), sources) if job.stack else sources


def cotangent_of(spec: OpSpec, sources: Sources, job: Job, y: Array) -> Array | None:
    """Return the cotangent, (1, *y_shape), that a job with residual or target needs a package for, or None."""
    ((_, batch),) = batches([job])
    driven = residual(batch, y)
    if driven is None or spec.gradient in ("jacobian", "none") or driven[0].constant[0]:
        return None
    if contents.is_diagonal(spec, sources.shapes, y.shape[1:]):
        return None
    return np.ascontiguousarray(driven[0].values)


def explain(
    job: Asked,
    holder: Callable[[bytes], tuple[PageSummary, int] | None],
    kin: Callable[[str], Iterable[PageSummary]],
) -> Explanation:
    """Explain one job.

    Parameters
    ----------
    job : Asked
    holder : callable
        ``holder(key)``: the page and row that a key's package lies in, or None.
    kin : callable
        ``kin(op)``: the pages of an op, the newest first.
    """
    if job.opaque:
        return _of(job, None, (), f"op {job.op!r} is computed every time and never cached: {job.opaque}")
    if (found := holder(job.key)) is not None:
        return by_key(job.key, found)
    nearest = None
    for page in kin(job.op):
        row, score = _nearest(job, page)
        if row >= 0 and (nearest is None or score < nearest[0]):
            nearest = score, page, row
    if nearest is None:
        return _of(job, None, (), f"a miss: the store has no package of op {job.op!r}")
    _, page, row = nearest
    package = _package(page, row)
    differences = tuple(_differences(job, page, row))
    first = differences[0].text if differences else "what its page was written too early to say"
    return _of(
        job, package, differences, f"a miss: the nearest package of op {job.op!r}, {_where(package)}, has {first}"
    )


def by_key(key: bytes, found: tuple[PageSummary, int] | None) -> Explanation:
    """Explain a key: what its package is, or that there is none."""
    if found is None:
        return Explanation("", key.hex(), hit=False, package=None, differences=(), reason="no package has this key")
    package = _package(*found)
    return Explanation(
        package.op, key.hex(), True, package, (), f"a hit: the package of op {package.op!r}, {_where(package)}"
    )


def _of(job: Asked, package: Package | None, differences: tuple[Difference, ...], reason: str) -> Explanation:
    return Explanation(job.op, job.key.hex(), hit=False, package=package, differences=differences, reason=reason)


def _package(page: PageSummary, row: int) -> Package:
    ids, versions = (None if c is None else tuple(c[row].tolist()) for c in (page.src_ids, page.versions))
    return Package(page.op, page.keys[row].tobytes().hex(), page.page_id, row, ids, versions)


def _where(package: Package) -> str:
    if package.src_ids is None or package.versions is None:
        return f"computed from arrays (page {package.page}, row {package.row})"
    nodes = ", ".join(f"{node} at version {at}" for node, at in zip(package.src_ids, package.versions, strict=True))
    word = "node" if len(package.src_ids) == 1 else "nodes"
    return f"computed from {word} {nodes} (page {package.page}, row {package.row})"


def _nearest(job: Asked, page: PageSummary) -> tuple[int, tuple[int, int]]:
    """The row of a page that differs least, and how far: other nodes come after the same ones."""
    if not len(page.keys):
        return -1, (2, 0)
    n = len(page.keys)
    other = np.ones(n, np.int64)
    apart = np.zeros(n, np.int64)
    if page.src_ids is not None and job.src_ids is not None and page.src_ids.shape[1] == len(job.src_ids):
        other = (page.src_ids != np.array(job.src_ids)).any(axis=1).astype(np.int64)
    if page.tokens is not None and page.tokens.shape[1] >= len(job.tokens):
        apart += lineage.apart(page.tokens[:, : len(job.tokens)], _tokens(job, page)).sum(axis=1)
    elif page.versions is not None and job.versions is not None and page.versions.shape[1] == len(job.versions):
        apart += (page.versions != np.array(job.versions)).sum(axis=1)
    apart += sum(field in page.lineage and page.lineage[field] != job.lineage.get(field) for field in _LINEAGE)
    apart += 2 * (_shapes(page) not in (None, job.shapes)) + 2 * (_dtype(page) != job.dtype)
    row = int(np.lexsort((apart, other))[0])
    return row, (int(other[row]), int(apart[row]))


def _scheme(page: PageSummary) -> str:
    return str(page.lineage.get("scheme", lineage.FIRST_SCHEME.decode()))


def _tokens(job: Asked, page: PageSummary) -> NDArray[np.uint8]:
    """A job's tokens as the page's scheme makes them."""
    return job.tokens if _scheme(page).encode() == keys.LARGE else job.first


def _shapes(page: PageSummary) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of a page's sources: those of its gradients, or the ends of its Jacobians'; None where it has none."""
    if page.lineage.get("gradient") == "none":
        return None
    lead = len(page.arrays["y"][1]) if page.lineage.get("gradient") == "jacobian" and "y" in page.arrays else 0
    count = sum(name[0] == "g" for name in page.arrays)
    return tuple(page.arrays[f"g{slot}"][1][lead:] for slot in range(count) if f"g{slot}" in page.arrays)


def _dtype(page: PageSummary) -> str:
    return page.arrays["y"][0] if "y" in page.arrays else ""


def _differences(job: Asked, page: PageSummary, row: int) -> Iterable[Difference]:
    """What differs, in the order in which it decides."""
    said, mine = page.lineage, job.lineage
    alike = _shapes(page) in (None, job.shapes) and _dtype(page) == job.dtype
    if said and (then := _scheme(page)) != mine["scheme"] and alike:
        yield Difference(
            "scheme", f"keys of scheme {then}, now {mine['scheme']}: `whiteboard rekey --scheme` renews them"
        )
    if "version" in said and said["version"] != mine["version"]:
        yield Difference("op version", f"op version {said['version']}, now {mine['version']}")
    if "fingerprint" in said and said["fingerprint"] != mine["fingerprint"]:
        yield Difference("fingerprint", f"other code: {_parts(said.get('parts', {}), mine['parts'])}")
    if "exactness" in said and said["exactness"] != mine["exactness"]:
        yield Difference("exactness", f"mode {said['exactness']!r}, now {mine['exactness']!r}")
    if _dtype(page) != job.dtype:
        yield Difference("dtype", f"dtype {_dtype(page)}, now {job.dtype}")
    if (shapes := _shapes(page)) is not None and shapes != job.shapes:
        yield Difference("shape", f"sources of shapes {list(shapes)}, now {list(job.shapes)}")
    yield from _sources(job, page, row)
    encoded = mine.get("encoded")
    if "params" in said and (said["params"], said.get("encoded", encoded)) != (mine["params"], encoded):
        yield Difference("params", f"other parameters: {_params(said['params'], mine['params'])}")
    if "gradient" in said and said["gradient"] != mine["gradient"]:
        now = _WORDS[mine["gradient"]].replace("the VJP", "that")
        yield Difference("cotangent", f"{_WORDS.get(said['gradient'])}, now {now}")
    if "arithmetic" in said and said["arithmetic"] != mine["arithmetic"]:
        yield Difference("arithmetic", f"another class of arithmetic: {_ROUNDING[mine['exactness']]}")


def _sources(job: Asked, page: PageSummary, row: int) -> Iterable[Difference]:
    ids = None if page.src_ids is None else page.src_ids[row].tolist()
    versions = None if page.versions is None else page.versions[row].tolist()
    others = _others(job, page, row)
    for slot in range(len(job.tokens)):
        known = slot < len(others)
        if slot == len(job.shapes):
            if known and others[slot]:
                yield Difference("cotangent", "another cotangent")
            break
        if known and not others[slot]:
            continue
        then = now = ""
        moved = False
        if ids is not None and versions is not None and slot < len(ids):
            then = f": node {ids[slot]} at version {versions[slot]}"
            if job.src_ids is not None and job.versions is not None:
                now = f" node {job.src_ids[slot]} at version {job.versions[slot]}"
                moved = (ids[slot], versions[slot]) != (job.src_ids[slot], job.versions[slot])
        if known:
            yield Difference("source", f"other bytes in source {slot}{then}, now{now or ' others'}")
        elif moved:
            yield Difference("source", f"another source {slot}{then}, now{now}")


def _others(job: Asked, page: PageSummary, row: int) -> list[bool]:
    """Which of the job's tokens differ, as far as the page has tokens."""
    if page.tokens is None:
        return []
    known = min(page.tokens.shape[1], len(job.tokens))
    other: list[bool] = lineage.apart(page.tokens[row : row + 1, :known], _tokens(job, page)[:known])[0].tolist()
    return other


def _parts(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    if not then:
        return "its page does not say which part"  # it was rekeyed
    changed = [name for name in then if name in now and then[name] != now[name]]
    words = [("changed", changed), ("new", [*(now.keys() - then.keys())]), ("gone", [*(then.keys() - now.keys())])]
    text = "; ".join(f"{word}: {', '.join(sorted(names))}" for word, names in words if names)
    return text or "it is not told which part"


def _params(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    names: Sequence[str] = sorted(then.keys() | now.keys())
    return (
        ", ".join(
            f"{name} is {then.get(name, 'absent')}, now {now.get(name, 'absent')}"
            for name in names
            if then.get(name) != now.get(name)
        )
        or "equal as texts, of another type or layout"
    )
