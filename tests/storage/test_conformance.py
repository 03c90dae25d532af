"""Every store and every way of opening one, against the suites that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.samples import packages_at
from whiteboard.storage import open_store
from whiteboard.storage.base import PackageStore, VersionStore
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.commits.versions import SqliteVersions
from whiteboard.storage.commits.writers import Writers
from whiteboard.testing import PackageStoreSuite, VersionStoreSuite


class TestSqliteFile(PackageStoreSuite):
    """Packages in a file, without a memory tier."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[PackageStore]:
        store = packages_at(str(tmp_path / "a.db"))
        yield store
        store.close()

    def behind(self, store: PackageStore) -> PackageStore | None:
        assert isinstance(store, SqlitePackages)
        return packages_at(str(store.database.location))


class TestSqliteMemory(PackageStoreSuite):
    """Packages in an SQLite database in memory."""

    @pytest.fixture
    def store(self) -> Iterator[PackageStore]:
        store = packages_at(":memory:")
        yield store
        store.close()

    def behind(self, store: PackageStore) -> PackageStore | None:
        return None


class TestTier(PackageStoreSuite):
    """The memory tier in front of a file."""

    memory_bytes = 2**20

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[PackageStore]:
        store = MemoryTier(packages_at(str(tmp_path / "a.db")), self.memory_bytes)
        yield store
        store.close()

    def behind(self, store: PackageStore) -> PackageStore | None:
        assert isinstance(store, MemoryTier)
        assert isinstance(store.inner, SqlitePackages)
        return packages_at(str(store.inner.database.location))


class TestTinyTier(TestTier):
    """A memory tier that has to evict all the time."""

    memory_bytes = 6000


class TestNoTier(TestTier):
    """A memory tier of no bytes."""

    memory_bytes = 0


class TestVersionsInFile(VersionStoreSuite):
    """Versions in a file."""

    @pytest.fixture
    def versions(self, tmp_path: Path) -> Iterator[VersionStore]:
        with open_store(tmp_path / "a.db") as stores:
            yield stores.versions

    def behind(self, versions: VersionStore) -> VersionStore | None:
        assert isinstance(versions, SqliteVersions)
        packages = packages_at(str(versions.database.location))
        return SqliteVersions(packages.database, packages, Writers(packages.database))


class TestVersionsInMemory(VersionStoreSuite):
    """Versions in an SQLite database in memory."""

    @pytest.fixture
    def versions(self) -> Iterator[VersionStore]:
        with open_store(":memory:") as stores:
            yield stores.versions

    def behind(self, versions: VersionStore) -> VersionStore | None:
        return None
