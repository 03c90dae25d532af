"""Tests that take for granted which packages share a page: no clock has a part in it then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from whiteboard.evaluation.costs import Costs
from whiteboard.storage.cache.write_behind import Pending


@contextmanager
def one_page() -> Iterator[None]:
    """Make a batch one bin, and a flush one page of each kind, however long computing takes here."""
    far = 2**62
    with ExitStack() as stack:
        for target, name, value in (
            (Costs, "jobs", lambda _, spec, at_most: at_most),
            (Costs, "first", staticmethod(lambda _: 10_000)),
            (Pending, "full", lambda *_: False),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        for place in ("pipeline.DEAR_NS", "execution.BIN_NS"):  # written with the rest, and handed over with it
            stack.enter_context(mock.patch(f"whiteboard.evaluation.{place}", far))
        yield
