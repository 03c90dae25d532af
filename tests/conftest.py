"""What every test runs under: no deadlines, poisoned buffers, and no store of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# in CI Hypothesis has loaded its own profile by now, and this one inherits from it
settings.register_profile("whiteboard", settings(deadline=None))
settings.load_profile("whiteboard")

# what a session borrowed is NaN once it has gone back, so that a result that still aliases it fails loudly
os.environ["WHITEBOARD_POISON"] = "1"

for _name in ("WHITEBOARD_STORE", "WHITEBOARD_VENV"):
    os.environ.pop(_name, None)


@pytest.fixture
def builtin_ops_only() -> Iterator[None]:
    """Forget, after a test, the ops that it registered, and no others: a module of ops is imported once."""
    from whiteboard.ops import registry  # not before the environment is what it has to be
    from whiteboard.ops.catalogue import FAMILY

    before = {name: entry for name, entry in registry._entries.items() if name not in FAMILY}
    yield
    for name in registry._entries.keys() - FAMILY.keys():
        del registry._entries[name]
    registry._entries.update(before)
