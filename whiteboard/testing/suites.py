"""What every store must do: a test for each sentence of the contract, over whatever store a subclass makes."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from whiteboard.errors import ClosedError, ConflictError, DtypeError, ShapeError, SpecError, UnknownSystemError
from whiteboard.records.packages import Page
from whiteboard.records.systems import CommitRecord, NodeColumns, SystemRecord
from whiteboard.storage.base import PackageStore, VersionStore
from whiteboard.testing.samples import Model, assert_found, assert_state, key_of, page_of


class PackageStoreSuite(ABC):
    """The contract of a `PackageStore`."""

    @pytest.fixture
    @abstractmethod
    def store(self, tmp_path: Any) -> Any:
        """A new, empty store."""

    @abstractmethod
    def behind(self, store: PackageStore) -> PackageStore | None:
        """Another view of the same packages that shares no memory with `store`, None where there can be none."""

    def test_what_was_put_is_found(self, store: PackageStore) -> None:
        """A package is found with its key and its bits, before and after a flush."""
        store.put(page_of(range(10)))
        assert_found(store.find([key_of(i) for i in range(10)]), range(10), lambda _: True)
        store.flush()
        assert_found(store.find([key_of(i) for i in range(10)]), range(10), lambda _: True)

    def test_unknown_keys_are_misses(self, store: PackageStore) -> None:
        """A batch of known, unknown and repeated keys answers each in its place."""
        store.put(page_of([3, 1, 4]))
        numbers = [9, 4, 4, 2, 3, 9, 1]
        assert_found(store.find([key_of(i) for i in numbers]), numbers, lambda i: i in (1, 3, 4))

    def test_an_empty_batch(self, store: PackageStore) -> None:
        """No keys, no answers, no error; an empty page is taken and holds nothing."""
        found = store.find([])
        assert (len(found.page), len(found.slot), len(found.tier), found.pages) == (0, 0, 0, [])
        store.put(page_of([]))
        store.flush()

    def test_first_put_stays(self, store: PackageStore) -> None:
        """A key that is held already keeps its first package."""
        store.put(page_of([1, 2]))
        other = page_of([2, 5])
        store.put(Page(other.op, other.keys, {"y": other.arrays["y"] + [[1.0], [0.0]], **_grads(other)}, 1))
        store.flush()
        assert_found(store.find([key_of(i) for i in (1, 2, 5)]), (1, 2, 5), lambda _: True)

    def test_found_arrays_are_read_only(self, store: PackageStore) -> None:
        """Nobody can change what the store handed out."""
        store.put(page_of([1]))
        store.flush()
        page = store.find([key_of(1)]).pages[0]
        with pytest.raises(ValueError, match="read-only"):
            page.arrays["y"][0] = 0

    def test_every_dtype_and_shape(self, store: PackageStore) -> None:
        """Each numeric dtype and shape comes back as it was, in dtype, shape and bits."""
        dtypes = ("?", "i1", "u2", "<i4", ">i8", "f2", "f4", "f8", ">f8", "c8", "c16")
        shapes = ((2,), (2, 0), (2, 300), (2, 3, 1, 4))
        for at, (dtype, shape) in enumerate(itertools.product(dtypes, shapes)):
            values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
            store.put(Page("op", page_of([2 * at, 2 * at + 1]).keys, {"y": values}))
            store.flush()
            found = store.find([key_of(2 * at + 1)])
            y = found.pages[found.page[0]].arrays["y"]
            assert y.dtype == values.dtype
            assert y[found.slot[0]].tobytes() == values[1].tobytes()
            assert y.shape[1:] == shape[1:]

    def test_odd_floats_keep_their_bits(self, store: PackageStore) -> None:
        """Signed zeros, infinities, subnormals and NaN payloads are bits like any others."""
        bits = np.array([[0, 1 << 63, 0x7FF0 << 48, 0x7FF8DEADBEEF0001, 1, 0xFFF << 52]], np.uint64)
        store.put(Page("op", page_of([1]).keys, {"y": bits.view(np.float64)}))
        store.flush()
        found = store.find([key_of(1)])
        assert found.pages[0].arrays["y"].tobytes() == bits.tobytes()

    def test_the_caller_may_reuse_a_larger_buffer(self, store: PackageStore) -> None:
        """A page cut from a larger array keeps its bits when the rest of that array is written to."""
        page = page_of(range(4))
        buffer = np.vstack([page.arrays["y"]] * 2)
        store.put(Page(page.op, page.keys, {"y": buffer[:4], **_grads(page)}))
        buffer[:] = 0
        store.flush()
        assert_found(store.find([key_of(i) for i in range(4)]), range(4), lambda _: True)

    @pytest.mark.parametrize(
        ("page", "error"),
        [
            (Page("op", np.zeros((2, 15), np.uint8), {"y": np.zeros(2)}), ShapeError),
            (Page("op", np.zeros((2, 16), np.uint8), {"y": np.zeros(3)}), ShapeError),
            (Page("op", np.zeros((2, 16), np.uint8), {"y": np.array(0.0)}), ShapeError),
            (Page("op", np.zeros((1, 16), np.uint8), {"y": np.array([None])}), DtypeError),
            (Page("op", np.zeros((1, 16), np.uint8), {"y": np.array(["a"])}), DtypeError),
        ],
        ids=["short keys", "rows differ", "no rows", "object", "string"],
    )
    def test_bad_pages_are_refused(self, store: PackageStore, page: Page, error: type[Exception]) -> None:
        """A page that cannot be stored is an error that names its op."""
        with pytest.raises(error, match="op 'op'"):
            store.put(page)

    def test_stats_count(self, store: PackageStore) -> None:
        """The counters that every store has are there and count."""
        store.put(page_of(range(5)))
        store.flush()
        stats = store.stats()
        assert set(stats) >= {"puts", "packages", "pages", "bytes_memory", "bytes_disk", "collisions", "corrupt"}
        assert stats["collisions"] == stats["corrupt"] == 0

    def test_close_twice(self, store: PackageStore) -> None:
        """Closing twice is allowed; using a closed store is a `ClosedError`."""
        store.put(page_of([1]))
        store.close()
        store.close()
        with pytest.raises(ClosedError):
            store.put(page_of([2]))
        with pytest.raises(ClosedError):
            store.find([key_of(1), key_of(9)])

    def test_read_behind_the_back(self, store: PackageStore) -> None:
        """What was flushed is there for another view of the store; what was not is not promised."""
        other = self.behind(store)
        if other is None:
            pytest.skip("nothing is behind this store")
        store.put(page_of(range(20)))
        store.flush()
        assert_found(other.find([key_of(i) for i in range(20)]), range(20), lambda _: True)
        other.close()

    def test_write_behind_the_back(self, store: PackageStore) -> None:
        """What another view of the store flushed is found, though this one had missed it."""
        other = self.behind(store)
        if other is None:
            pytest.skip("nothing is behind this store")
        assert_found(store.find([key_of(1)]), [1], lambda _: False)
        other.put(page_of([1, 2]))
        other.flush()
        assert_found(store.find([key_of(1), key_of(2)]), [1, 2], lambda _: True)
        store.put(page_of([2, 3]))
        store.flush()
        assert_found(other.find([key_of(i) for i in (1, 2, 3)]), [1, 2, 3], lambda _: True)
        other.close()


class VersionStoreSuite(ABC):
    """The contract of a `VersionStore`."""

    @pytest.fixture
    @abstractmethod
    def versions(self, tmp_path: Any) -> Any:
        """A new, empty store."""

    @abstractmethod
    def behind(self, versions: VersionStore) -> VersionStore | None:
        """Another view of the same systems, None where there can be none."""

    def test_every_commit_stays(self, versions: VersionStore) -> None:
        """Each commit of a history, with few or all rows changed, gives back exactly its state."""
        model = _written(versions, Model("a", 50), [slice(None), slice(3), slice(40, 50), slice(None), slice(1)] * 4)
        for commit, columns in model.kept:
            assert_state(versions.state("a", commit.number), commit, columns)
        assert_state(versions.state("a"), *model.kept[-1])
        assert versions.commits("a") == [commit for commit, _ in model.kept]

    def test_systems_by_name(self, versions: VersionStore) -> None:
        """Systems are listed by name with what they were created with, and an unknown one is None."""
        for name in ("b", "a"):
            _written(versions, Model(name, 2), [slice(None)])
        assert [record.name for record in versions.systems()] == ["a", "b"]
        assert list(versions.names()) == ["a", "b"]
        assert versions.system("a") == SystemRecord("a", "uuid of a", {"seed": 0})
        assert versions.system("c") is None

    def test_a_late_commit_is_refused(self, versions: VersionStore) -> None:
        """A commit on a parent that is not the head is a `ConflictError` with both numbers and writes nothing."""
        model = _written(versions, Model("a", 4), [slice(None)] * 3)
        late = CommitRecord(2, 1, 4, None, None, "late")
        with pytest.raises(ConflictError, match=r"'a'.*2.*1"):
            versions.append(model.record, late, model.columns(), model.columns)
        assert_state(versions.state("a"), *model.kept[-1])

    def test_a_number_that_does_not_follow(self, versions: VersionStore) -> None:
        """A commit's number is its parent's plus one."""
        model = _written(versions, Model("a", 4), [slice(None)])
        with pytest.raises(ConflictError, match="cannot follow"):
            versions.append(model.record, CommitRecord(7, 0, 4, None, None, ""), model.columns(), model.columns)

    def test_a_name_twice(self, versions: VersionStore) -> None:
        """A first commit on a name that is taken is a `SpecError`; one of another system with that name conflicts."""
        _written(versions, Model("a", 4), [slice(None)])
        model = Model("a", 4)
        stranger = SystemRecord("a", "another uuid", model.record.spec)
        with pytest.raises(SpecError, match="'a'"):
            versions.append(stranger, model.step()[0], model.columns(), model.columns)
        with pytest.raises(ConflictError, match="another"):
            versions.append(stranger, CommitRecord(1, 0, 4, None, None, ""), model.columns(), model.columns)

    def test_a_commit_twice(self, versions: VersionStore) -> None:
        """A commit that is the head already is there once, and another of its number is refused."""
        model = Model("a", 4)
        for _ in range(2):
            commit, changed = model.step()
            versions.append(model.record, commit, changed, model.columns)
            versions.append(model.record, commit, changed, model.columns)
            assert versions.commits("a") == [each for each, _ in model.kept]
        with pytest.raises(ConflictError):
            versions.append(model.record, replace(commit, digest="another"), changed, model.columns)

    def test_unknown_names(self, versions: VersionStore) -> None:
        """Unknown systems and commits are errors that name them."""
        model = _written(versions, Model("a", 4), [slice(None)])
        for call in (versions.state, versions.commits):
            with pytest.raises(UnknownSystemError, match="'b'"):
                call("b")
        for number in (1, -1, 99):
            with pytest.raises(KeyError, match=f"no commit {number}"):
                versions.state("a", number)
        with pytest.raises(UnknownSystemError, match="'b'"):
            versions.fork(SystemRecord("c", "u", None, ("b", 0)))
        with pytest.raises(KeyError, match="no commit 5"):
            versions.fork(SystemRecord("c", "u", None, ("a", 5)))
        lost = SystemRecord("x", "u")
        with pytest.raises(UnknownSystemError, match="'x'"):
            versions.append(lost, CommitRecord(1, 0, 4, None, None, ""), model.columns(), model.columns)
        assert [record.name for record in versions.systems()] == ["a"]

    def test_a_fork_goes_its_own_way(self, versions: VersionStore) -> None:
        """A fork has its origin's history up to its commit, then its own; neither sees what the other writes later."""
        model = _written(versions, Model("a", 20), [slice(None), slice(4), slice(2)])
        origin = list(model.kept)
        fork = Model("b", 20)
        fork.record = SystemRecord("b", "uuid of b", None, ("a", 1))
        fork.values, fork.versions = origin[1][1][0].values.copy(), origin[1][1][0].versions.copy()
        fork.number, fork.kept = 1, origin[:2]
        versions.fork(fork.record)
        assert versions.system("b") == fork.record
        assert_state(versions.state("b"), *origin[1])
        _written(versions, fork, [slice(5, 7), slice(1)])
        _written(versions, model, [slice(9)])
        for name, each in (("a", model), ("b", fork)):
            assert versions.commits(name) == [commit for commit, _ in each.kept]
            for commit, columns in each.kept:
                assert_state(versions.state(name, commit.number), commit, columns)
        with pytest.raises(KeyError, match="no commit 4"):
            versions.fork(SystemRecord("c", "u", None, ("a", 4)))
        with pytest.raises(SpecError, match="'b'"):
            versions.fork(SystemRecord("b", "u", None, ("a", 0)))

    def test_a_fork_of_a_fork(self, versions: VersionStore) -> None:
        """A fork may start at a commit that its origin has from its own origin, or at its origin's last."""
        model = _written(versions, Model("a", 6), [slice(None), slice(2), slice(3)])
        versions.fork(SystemRecord("b", "ub", None, ("a", 2)))
        versions.fork(SystemRecord("c", "uc", None, ("b", 1)))
        versions.fork(SystemRecord("d", "ud", None, ("c", 1)))
        for name, last in (("b", 2), ("c", 1), ("d", 1)):
            assert_state(versions.state(name), *model.kept[last])
            assert len(versions.commits(name)) == last + 1

    def test_several_arenas(self, versions: VersionStore) -> None:
        """Attributes, shapes and dtypes are arenas of their own; a node that moves to another is in that one only."""
        record = SystemRecord("a", "u")
        first = [
            _columns("ctrl", [2], np.full((1, 1), 4.0)),
            _columns("p", [1, 2], np.zeros((2, 2))),
            _columns("theta", [7], np.ones((1, 2, 2))),
            _columns("theta", [1, 2], np.ones((2, 3), np.float32)),
        ]
        versions.append(record, CommitRecord(0, None, 3, None, None, "0"), first, lambda: first)
        moved = [_columns("theta", [2], np.full((1, 2, 2), 5.0))]
        all_rows = [
            *first[:2],
            _columns("theta", [2, 7], np.stack([np.full((2, 2), 5.0), np.ones((2, 2))])),
            _columns("theta", [1], np.ones((1, 3), np.float32)),
        ]
        commit = CommitRecord(1, 0, 1, 0.25, 0.5, "1")
        versions.append(record, commit, moved, lambda: all_rows)
        assert_state(versions.state("a"), commit, all_rows)
        assert_state(versions.state("a", 0), CommitRecord(0, None, 3, None, None, "0"), first)

    def test_a_system_without_nodes(self, versions: VersionStore) -> None:
        """A commit may have no rows, and rows may come later."""
        record = SystemRecord("a", "u", {"what": ["nothing", 1, None]})
        versions.append(record, CommitRecord(0, None, 0, None, None, "0"), [], list)
        assert versions.state("a").columns == []
        rows = [_columns("p", [3], np.zeros((1, 2)))]
        commit = CommitRecord(1, 0, 1, None, None, "1")
        versions.append(record, commit, rows, lambda: rows)
        assert_state(versions.state("a"), commit, rows)

    def test_another_view_sees_each_commit(self, versions: VersionStore) -> None:
        """What one view commits another reads at once, and goes on from."""
        other = self.behind(versions)
        if other is None:
            pytest.skip("nothing is behind this store")
        model = _written(versions, Model("a", 5), [slice(None)] * 2)
        assert_state(other.state("a"), *model.kept[-1])
        _written(other, model, [slice(2)])
        assert_state(versions.state("a"), *model.kept[-1])
        _written(versions, model, [slice(1)])
        assert_state(other.state("a"), *model.kept[-1])


def _written(versions: VersionStore, model: Model, steps: list[slice]) -> Model:
    for rows in steps:
        commit, changed = model.step(slice(None) if model.number < 0 else rows)
        versions.append(model.record, commit, changed, model.columns)
    return model


def _columns(attr: str, ids: list[int], values: Any) -> NodeColumns:
    n = len(ids)
    return NodeColumns(attr, np.array(ids, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_), values)


def _grads(page: Page) -> dict[str, Any]:
    return {name: array for name, array in page.arrays.items() if name != "y"}
