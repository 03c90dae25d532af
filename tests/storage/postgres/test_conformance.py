"""Stores on a server against the suites that every backend passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from whiteboard.storage import Stores, open_store
from whiteboard.storage.base import PackageStore, VersionStore
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.testing import PackageStoreSuite, VersionStoreSuite


class TestTierOverPostgres(PackageStoreSuite):
    """Packages on a server, behind a memory tier."""

    memory_bytes = 2**20

    @pytest.fixture
    def store(self, url: str) -> Iterator[PackageStore]:
        self.url = url
        with open_store(url, memory_bytes=self.memory_bytes) as stores:
            yield stores.packages

    def behind(self, store: PackageStore) -> PackageStore | None:
        return open_store(self.url, memory_bytes=self.memory_bytes).packages


class TestPostgres(TestTierOverPostgres):
    """Packages on a server alone."""

    @pytest.fixture
    def store(self, url: str) -> Iterator[PackageStore]:
        self.url = url
        with open_store(url) as stores:
            assert isinstance(stores.packages, MemoryTier)
            yield stores.packages.inner


class TestVersionsOnPostgres(VersionStoreSuite):
    """Versions on a server."""

    @pytest.fixture
    def versions(self, url: str) -> Iterator[VersionStore]:
        self.url, self.others = url, list[Stores]()
        with open_store(url) as stores:
            yield stores.versions
            for other in self.others:
                other.close()

    def behind(self, versions: VersionStore) -> VersionStore | None:
        self.others.append(open_store(self.url))
        return self.others[-1].versions
