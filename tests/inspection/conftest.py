"""What all tests of inspection rely on: a batch is one bin, and so one page, however long computing takes here."""

from __future__ import annotations

import pytest

from whiteboard.evaluation.costs import Costs
from whiteboard.ops.spec import OpSpec


@pytest.fixture(autouse=True)
def _one_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(_: Costs, spec: OpSpec, at_most: int) -> int:
        return at_most

    monkeypatch.setattr(Costs, "jobs", jobs)
    monkeypatch.setattr("whiteboard.evaluation.pipeline.DEAR_NS", 2**62)  # written with the rest, not at once
    monkeypatch.setattr(Costs, "first", staticmethod(lambda _: 10_000))
