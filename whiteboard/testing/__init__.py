"""What a backend has to pass: suites of pytest that hold any store to the contract of `whiteboard.storage.base`.

`suites` has the tests, `samples` the pages and systems that they are of. Whoever writes a backend inherits the suites
in a test module of their own, and says how a store is made, and how a second view of the same data is had:

```python
from contextlib import closing

import pytest
from mine import MyPackages, MyVersions  # the backend

from whiteboard.testing import PackageStoreSuite, VersionStoreSuite


class TestMyPackages(PackageStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        with closing(MyPackages(tmp_path)) as store:
            yield store

    def behind(self, store):
        return MyPackages(store.folder)  # None for a store that nothing else can open


class TestMyVersions(VersionStoreSuite):
    @pytest.fixture
    def versions(self, tmp_path):
        return MyVersions(tmp_path)

    def behind(self, versions):
        return MyVersions(versions.folder)
```

Nothing else of Whiteboard imports this package, which needs pytest.

Raises
------
MissingExtraError
    On import, where pytest is not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from whiteboard.errors import MissingExtraError

if find_spec("pytest") is None:
    msg = "whiteboard.testing needs pytest: pip install pytest"
    raise MissingExtraError(msg)

import pytest

# before they are imported: a test that fails then says what the values were
pytest.register_assert_rewrite("whiteboard.testing.samples", "whiteboard.testing.suites")

from whiteboard.testing.suites import PackageStoreSuite, VersionStoreSuite  # noqa: E402

__all__ = ["PackageStoreSuite", "VersionStoreSuite"]
