"""What looks after packages does so on a server too: each is tried once, behind a board that goes on."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy.engine import make_url

import whiteboard as wb
from tests import postgres
from tests.rekeying import A, B, code
from whiteboard.inspection import rekey
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form
from whiteboard.storage.upkeep.rename_keys import headers, rename

pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def test_upkeep(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are recompressed and get other keys, damaged ones are told and dropped, old ones go; answers stay right."""
    monkeypatch.setattr("whiteboard.storage.postgres.rows._PART_ROWS", 200)  # of 1,550
    old = code(0)
    with wb.open(url, memory_bytes=0) as board:
        first = board.call_many("product", A, B)
        board.call_many("mul", A[:50], B[:50])
        board.flush()
        done = recompress(url, Form())
        assert (done.damaged, done.changed) == (0, 0)
        assert recompress(url, Form()).rewritten == 0
        new = code(1)
        assert old.fingerprint is not None
        assert new.fingerprint is not None
        change = rekey.change("product", rekey.held(headers(url, "product")), old.fingerprint, new.fingerprint)
        assert rename(url, change.concerns, change.rename).renamed == len(A)
        assert board.explain("product", A[0], B[0]).hit
        again = board.call_many("product", A, B)
        assert (again.hit == 2).all()
        assert again.y.tobytes() == first.y.tobytes()
        schema = make_url(url).query["schema"]
        ((damaged, lost),) = postgres.run(
            f'UPDATE "{schema}".page SET data = substring(data from 1 for 90) '
            f"WHERE id = (SELECT min(id) FROM \"{schema}\".page WHERE op = 'product') RETURNING id, n"
        )
        assert [page.page_id for page in board.verify().damaged] == [damaged]
        board.verify(repair=True)
        assert board.verify().ok
        third = board.call_many("product", A, B)
        assert (third.hit == 0).sum() == lost
        assert third.y.tobytes() == first.y.tobytes()
        board.flush()
        assert board.gc(max_bytes=40_000).bytes_after <= 40_000
        assert board.verify().ok
        assert not np.any(board.call_many("product", A[:1], B[:1]).hit == 1)
