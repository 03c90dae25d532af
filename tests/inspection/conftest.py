"""What all tests of inspection rely on: a batch is one bin, and a flush one page, however long computing takes here."""

from __future__ import annotations

import pytest

from whiteboard.evaluation.costs import Costs
from whiteboard.ops.spec import OpSpec
from whiteboard.storage.cache.write_behind import Pending


@pytest.fixture(autouse=True)
def _one_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(_: Costs, spec: OpSpec, at_most: int) -> int:
        return at_most

    monkeypatch.setattr(Costs, "jobs", jobs)
    monkeypatch.setattr("whiteboard.evaluation.pipeline.DEAR_NS", 2**62)  # written with the rest, not at once
    monkeypatch.setattr(Costs, "first", staticmethod(lambda _: 10_000))
    monkeypatch.setattr(Pending, "full", lambda *_: False)
