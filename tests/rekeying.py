"""An op whose code changes without changing a bit, a store with its packages of every kind, and what is asked of it."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import whiteboard as wb
from tests.one_page import one_page
from tests.storage.samples import transaction
from whiteboard.identity import keys
from whiteboard.identity.arithmetic import arithmetic_class
from whiteboard.identity.lineage import FIRST_SCHEME
from whiteboard.ops.fingerprint.encoding import encode_params
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.storage import open_store
from whiteboard.storage.cache.page_summaries import summaries
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.page.format import Blob, decode_page, encode_page
from whiteboard.storage.sql.location import locate_lasting
from whiteboard.storage.sqlite.database import Database

BODIES = ("x * y * scale", "y * x * scale")
N = 1500
A, B = np.random.default_rng(0).normal(size=(2, N, 8))

Answer = tuple[float, bytes]
"""The share of hits, and the bytes."""


def code(number: int, version: int = 1, *, keep_sources: bool = False) -> OpSpec:
    """Register the op ``product`` with one of its bodies, which give the same bits."""
    source = f"def product(x, y, *, scale=1.0):\n    return {BODIES[number]}\n"
    file = f"<product {number}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": "made_for_a_test"}
    exec(compile(source, file, "exec"), space)
    wb.op("product", version=version, keep_sources=keep_sources, replace=True)(space["product"])
    return wb.ops.get("product")


def answers(board: wb.Board) -> dict[str, Answer]:
    """Ask for packages of arrays, of other parameters, of nodes, of a cotangent, and of another op."""
    system = board.system("s")
    if system.head is None:
        system.add_nodes(range(40), theta=A[:40])
        system.commit()
    pairs = np.array([(i, i + 20) for i in range(20)])
    residual = np.random.default_rng(1).normal(size=(20, 8))
    found: dict[str, Any] = {
        "arrays": board.call_many("product", A, B),
        "params": board.call_many("product", A[:50], B[:50], params={"scale": 3.0}),
        "nodes": system.process(wb.JobBatch("product", pairs)),
        "cotangent": system.process(wb.JobBatch("product", pairs, residual=residual)),
        "another op": board.call_many("mul", A[:50], B[:50]),
    }
    return {name: ((r.hit > 0).mean(), bits(r)) for name, r in found.items()}


def bits(result: Any) -> bytes:
    """All bytes of a batch of results."""
    return b"".join(x.tobytes() for x in (result.y, *result.grads))


_made: dict[bytes, tuple[dict[str, Answer], bytes]] = {}
"""What `filled` has made once, by the scheme of its keys."""


def filled(path: Path) -> dict[str, Answer]:
    """Make a store with the packages of the first body; returns their bits.

    However long they take, they are written together at the end, and so in the same pages.
    """
    code(0)
    scheme = keys.scheme_of([A[0].nbytes])
    if scheme not in _made:
        late = partial(WriteBehind, cost_ns=2**62, worth=2**62, seconds=3600.0)
        with one_page(), mock.patch("whiteboard.storage.WriteBehind", late), wb.open(path) as board:
            found = answers(board)
        _made[scheme] = found, path.read_bytes()
    found, data = _made[scheme]
    path.write_bytes(data)
    return found


def asked(path: Path) -> dict[str, Answer]:
    """What the store answers to the op as it is registered now; nothing is written."""
    with wb.open(path, readonly=True) as board:
        return answers(board)


def names(spec: OpSpec, scheme: bytes | None = None) -> list[bytes]:
    """The keys of the packages of arrays."""
    identity = keys.Identity(
        spec.name,
        spec.version,
        spec.fingerprint or b"",
        spec.exactness,
        arithmetic_class(blas=spec.blas),
        encode_params(spec.bind(None)),
        "ones",
    )
    return keys.SCHEMES[scheme or keys.SMALL](identity, np.stack([keys.tokens(A), keys.tokens(B)], axis=1))


def stored(path: Path, op: str = "product") -> set[bytes]:
    """The keys of an op's packages that the store finds."""
    with open_store(path, readonly=True) as stores:
        known = [key.tobytes() for page in summaries(stores.database, op) for key in page.keys]
        found = stores.packages.find(known)
        return {key for key, page in zip(known, found.page.tolist(), strict=True) if page >= 0}


def rewritten(path: Path, change: Callable[[Page], Page], op: str = "product") -> None:
    """Write every page of the op as another version, or somebody hostile, would have written it."""
    database = Database(locate_lasting(path))
    with transaction(database) as connection:
        rows = connection.exec_driver_sql("SELECT id, header, digest, data FROM page WHERE op = ?", (op,)).all()
        for page_id, *blob in rows:
            new = encode_page(change(decode_page(Blob(*blob), provenance=True))).joined()
            connection.exec_driver_sql(
                "UPDATE page SET header = ?, digest = ?, data = ? WHERE id = ?",
                (new.header, new.digest, new.data, page_id),
            )
    database.close()


def as_before(page: Page) -> Page:
    """A page as it was written when pages kept the first 32 bits of tokens, and the texts of parameters alone."""
    fields = json.loads(page.lineage or "")
    assert fields["scheme"] == FIRST_SCHEME.decode(), "pages of that time had keys of that scheme"
    for name in ("scheme", "encoded"):
        fields.pop(name, None)
    assert page.tokens is not None
    short = np.ascontiguousarray(page.tokens[..., :4]).view("<u4")[..., 0]
    return replace(page, lineage=json.dumps(fields, separators=(",", ":")), tokens=short)
