"""What every test runs under: no deadlines, poisoned buffers, and no store of the person who runs it."""

from __future__ import annotations

import os

from hypothesis import settings

# in CI Hypothesis has loaded its own profile by now, and this one inherits from it
settings.register_profile("whiteboard", settings(deadline=None))
settings.load_profile("whiteboard")

# what a session borrowed is NaN once it has gone back, so that a result that still aliases it fails loudly
os.environ["WHITEBOARD_POISON"] = "1"

for _name in ("WHITEBOARD_STORE", "WHITEBOARD_VENV"):
    os.environ.pop(_name, None)
