"""Stores and archives of before are right: arrays lay one after another, and digests were by other hashes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.storage import open_store
from whiteboard.storage.commits import log, versions
from whiteboard.storage.page import digests, format
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.gc import gc
from whiteboard.storage.upkeep.verify import verify

X = np.arange(36.0).reshape(12, 3)
WAYS = [
    ("blake2b", "blake3"),
    ("sha256", "blake3"),
    ("blake3", "sha256"),
    ("blake2b", "sha256"),
    ("columns", "blake3"),
    ("blake3", "columns"),
]


@contextmanager
def machine(name: str) -> Iterator[None]:
    """Pages are written as they are now, or with another hash as they were before; so are seals."""
    if name in ("blake3", "columns"):
        with mock.patch.object(format, "_ROWS", 10**9) if name == "columns" else nullcontext():
            yield
        return

    def digest(header: bytes, *data: bytes) -> bytes:
        return digests._digest(name, header, data)

    def seal(*of: Any) -> bytes:
        return blake2b(log._sealed(*of), digest_size=16).digest()

    with (
        mock.patch.object(format, "blocks_of", return_value={}),
        mock.patch.object(format, "digest_of", digest),
        mock.patch.object(versions, "seal", seal),
    ):
        yield


def filled(path: Path) -> str:
    """A store with packages and a system; returns the system's digest."""
    with wb.open(path) as board:
        board.call_many("square", X)
        system = board.system("s")
        system.add_nodes([1, 2], theta=X[:2])
        system.process([wb.Job("square", (1,), 2, residual=1.0)])
        system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3))
        return system.digest()


def answers(path: Path) -> tuple[int, str]:
    """How many packages a store answers with, and its system's digest."""
    with wb.open(path, readonly=True) as board:
        return int((board.call_many("square", X).hit != 0).sum()), board.system("s").digest()


@pytest.mark.parametrize(("there", "here"), WAYS)
def test_a_store_of_before(tmp_path: Path, there: str, here: str) -> None:
    """It answers, is found whole, goes on and is tidied."""
    path = tmp_path / "a.db"
    with machine(there):
        digest = filled(path)
    with machine(here):
        assert answers(path) == (len(X), digest)
        with open_store(path) as stores:
            assert verify(stores.database).ok
        with wb.open(path) as board:
            board.call_many("square", X + 100)
            board.system("s").fork("t")
        with open_store(path) as stores:
            gc(stores.database, max_bytes=10**9)
            assert verify(stores.database).ok
    with machine(there), open_store(path) as stores:
        assert verify(stores.database).ok


@pytest.mark.parametrize(("there", "here"), WAYS)
def test_an_archive_and_a_merge(tmp_path: Path, there: str, here: str) -> None:
    """Exported here, imported there, merged here: nothing is taken for damaged."""
    with machine(there):
        digest = filled(tmp_path / "a.db")
    with machine(here):
        done = export(tmp_path / "a.db", tmp_path / "a.wb")
        assert (done.damaged, done.packages) == (0, len(X))
    with machine(there):
        import_archive(tmp_path / "b.db", tmp_path / "a.wb")
        assert answers(tmp_path / "b.db") == (len(X), digest)
    with machine(here):
        merge(tmp_path / "c.db", [tmp_path / "b.db"])
        assert answers(tmp_path / "c.db") == (len(X), digest)
