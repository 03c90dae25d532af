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
def builtin_ops_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide the ops that other test modules registered, and forget, after a test, those that it registered.

    Test modules are all imported before the first test runs, and only once.
    """
    from whiteboard.ops import registry  # not before the environment is what it has to be
    from whiteboard.ops.catalogue import FAMILY

    def others() -> dict[str, registry.Entry]:
        return {name: entry for name, entry in registry._entries.items() if name not in FAMILY}

    before = others()
    for name, entry in before.items():
        if getattr(entry.code[0], "__module__", None) != request.module.__name__:
            del registry._entries[name]
    yield
    for name in others():
        del registry._entries[name]
    registry._entries.update(before)
