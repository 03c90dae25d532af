"""What is done to a store while its disk is tortured, and what must be true of the store afterwards.

All values follow from numbers: commit n of system ``x`` moves every node to `values(n)`, and round n asks for the
packages of `ROWS` rows of `SOURCES`; so what is there can be compared with what must be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import autograd.numpy as anp
import numpy as np
from numpy.typing import NDArray

import whiteboard as wb
from whiteboard.storage.base import Durability
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.sqlite import schema, wal
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form

T = TypeVar("T")

NODES: Final = 20
ROWS: Final = 24
_SLOW: Final = 5
"""Of them, those that the user's function is asked for."""
ROUNDS: Final = 10
_OLD: Final = "0002"
SOURCES: Final = np.random.default_rng(0).normal(size=(ROUNDS * ROWS, 32))


@wb.op
def swing(x: NDArray[Any]) -> Any:
    """A user's function, differentiated by autograd."""
    return anp.sin(3.0 * x) * x


class Do(Protocol):
    """Runs one step of a scene; `says` makes of its result what is acknowledged by it."""

    def __call__(self, what: str, work: Callable[[], T], says: Callable[[T], str] | None = None) -> T:
        """Return what `work` returns."""


def plainly(what: str, work: Callable[[], T], says: Callable[[T], str] | None = None) -> T:  # noqa: ARG001
    """Run a step and acknowledge nothing."""
    return work()


# -- what must be


def values(number: int) -> NDArray[Any]:
    """The nodes at a commit."""
    return np.random.default_rng(number).normal(size=(NODES, 8)) if number else np.zeros((NODES, 8))


@cache
def digests() -> tuple[str, ...]:
    """The digest of each commit, from a store in memory."""
    with wb.open(":memory:") as board:
        system = board.system("x")
        system.add_nodes(range(NODES), theta=values(0))
        found = [system.commit().digest]
        for number in range(1, 2 * ROUNDS):
            move(system, number)
            found.append(system.commit().digest)
    return tuple(found)


@cache
def answers(op: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """What an op gives for all sources: y and the gradient."""
    with wb.open(":memory:") as board:
        many = board.call_many(op, SOURCES)
        return many.y, many.grads[0]


def move(system: wb.System, number: int) -> None:
    """Write what the nodes are at a commit."""
    for node, row in enumerate(values(number)):
        system.write(node, theta=row)


class WrongAnswerError(AssertionError):
    """A board has given another result than the op's."""


def ask(board: wb.Board, numbers: range) -> set[int]:
    """Ask for the packages of some rounds, compare them, and return the rounds of which some were computed."""
    computed: set[int] = set()
    for op, count in (("tanh", ROWS), ("swing", _SLOW)):
        rows = np.array([number * ROWS + row for number in numbers for row in range(count)])
        y, gradient = (array[rows] for array in answers(op))
        many = board.call_many(op, SOURCES[rows])
        one = board.call(op, SOURCES[rows[0]])
        same = (many.y, y), (many.grads[0], gradient), (one.y, y[0]), (one.grads[0], gradient[0])
        if not all(np.array_equal(got, want) for got, want in same):
            message = f"another answer of {op} in rounds {numbers}"
            raise WrongAnswerError(message)
        computed.update((rows[many.hit == 0] // ROWS).tolist())
    return computed


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a scene was told is done: its lines, read.

    Attributes
    ----------
    commit : int
        The last commit, -1 for none.
    packages : frozenset of int
        Rounds whose packages are on disk.
    done : frozenset of str
        Other work: ``export``, ``upgrade``.
    """

    commit: int = -1
    packages: frozenset[int] = frozenset()
    done: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lines: Iterable[str]) -> Acknowledged:
        """Read the lines."""
        said = cls()
        for line in lines:
            what, *numbers = line.split()
            if what == "commit":
                said = replace(said, commit=int(numbers[0]))
            elif what == "packages":
                said = replace(said, packages=said.packages | set(map(int, numbers)))
            elif what == "evicted":
                said = replace(said, packages=frozenset())
            else:
                said = replace(said, done=said.done | {what})
        return said


# -- what is done


def begin(system: wb.System, do: Do) -> None:
    """Make the nodes and commit 0."""
    do("add_nodes", lambda: system.add_nodes(range(NODES), theta=values(0)))
    do("commit", system.commit, lambda commit: f"commit {commit.id}")


def rounds(path: Path, do: Do, numbers: range, durability: Durability, *, flush: int = -1, gc: int = -1) -> None:
    """Open a board, do some rounds, each of calls and a commit that carries their packages, and close it."""
    board = do("open", lambda: wb.open(path, durability=durability, memory_bytes=2**18))
    system = do("system", lambda: board.system("x"))
    if system.head is None:
        begin(system, do)
    for number in numbers:
        do("call", partial(ask, board, range(number, number + 1)))
        if number == flush:
            do("flush", board.flush)
        do("write", partial(move, system, number))
        do("commit", system.commit, lambda commit: f"commit {commit.id}")
        if number == gc:
            do("gc", lambda: board.gc(max_bytes=100_000), lambda _: "evicted")
    kept = " ".join(str(number) for number in numbers if number > gc)
    do("close", board.close, lambda _: f"packages {kept}")


def _new(path: Path, do: Do) -> None:
    rounds(path, do, range(0), "full")


def _full(path: Path, do: Do) -> None:
    rounds(path, do, range(1, 7), "full", flush=2, gc=4)
    rounds(path, do, range(7, 9), "full")


def _normal(path: Path, do: Do) -> None:
    rounds(path, do, range(1, 7), "normal", flush=2, gc=4)
    rounds(path, do, range(7, 9), "normal")


def _cut(path: Path, do: Do) -> None:
    """The log is cut again and again, in the background and by whoever writes."""
    before = wal._CUT_BYTES, wal._MOST_BYTES, wal._BURST_BYTES, wal._CUT_AGAIN_BYTES
    wal._CUT_BYTES, wal._MOST_BYTES, wal._BURST_BYTES, wal._CUT_AGAIN_BYTES = 100_000, 300_000, 300_000, 50_000
    try:
        rounds(path, do, range(1, ROUNDS), "full")
    finally:
        wal._CUT_BYTES, wal._MOST_BYTES, wal._BURST_BYTES, wal._CUT_AGAIN_BYTES = before


def _gc(path: Path, do: Do) -> None:
    board = do("open", lambda: wb.open(path, durability="full"))
    do("gc", lambda: board.gc(max_bytes=100_000))
    do("forget", lambda: board.forget(op="tanh"))
    do("verify", lambda: board.verify(repair=True))
    do("close", board.close)


def _recompress(path: Path, do: Do) -> None:
    do("recompress", lambda: recompress(path, Form(Encoding("zstd", 9), 20_000)))


def _upgrade(path: Path, do: Do) -> None:
    do("upgrade", lambda: schema.upgrade(path), lambda _: "upgrade")


def _archive(path: Path) -> Path:
    return path.with_suffix(".wb")


def _export(path: Path, do: Do) -> None:
    if not _archive(path).exists():
        do("export", lambda: export(path, _archive(path)), lambda _: "export")


def _source(path: Path) -> Path:
    """An archive outside of the folder whose disk is tortured."""
    return path.parent.with_name("source.wb")


def _import(path: Path, do: Do) -> None:
    do("import", lambda: import_archive(path, _source(path)), lambda _: "import")


def _nothing(path: Path) -> None:
    pass


def _base(path: Path) -> None:
    rounds(path, plainly, range(1, ROUNDS), "full")


def _old(path: Path) -> None:
    _base(path)
    schema.downgrade(path, _OLD)


def _exported(path: Path) -> None:
    store = _source(path).with_suffix(".db")
    _base(store)
    export(store, _source(path))


@dataclass(frozen=True, slots=True)
class Scene:
    """What is done to a store.

    Attributes
    ----------
    before : callable
        Makes what is there when it begins, which nothing threatens.
    run : callable
    given : str
        The last commit in what is there.
    again : bool
        Whether it may be done again, as after a crash it is.
    survives : bool
        Whether what it acknowledges survives a power cut, and not only the end of the process.
    syncs : bool
        Whether all that its commits and exports sync is what they acknowledge; else the log is cut in them, too.
    """

    before: Callable[[Path], None]
    run: Callable[[Path, Do], None]
    given: tuple[str, ...] = ()
    again: bool = False
    survives: bool = True
    syncs: bool = True


_GIVEN: Final = (f"commit {ROUNDS - 1}",)

SCENES: Final[dict[str, Scene]] = {
    "new": Scene(_nothing, _new),
    "full": Scene(_nothing, _full),
    "normal": Scene(_nothing, _normal, survives=False, syncs=False),
    "cut": Scene(_nothing, _cut, syncs=False),
    "gc": Scene(_base, _gc, _GIVEN, again=True),
    "recompress": Scene(_base, _recompress, _GIVEN, again=True),
    "upgrade": Scene(_old, _upgrade, _GIVEN, again=True, survives=False),
    "export": Scene(_base, _export, _GIVEN, again=True),
    "import": Scene(_exported, _import, again=True, survives=False),
}


# -- what is there


def look(path: Path, scene: Scene, said: Acknowledged) -> tuple[list[str], int]:
    """Return what is wrong with what a scene has left, and of how many rounds packages were computed again.

    Lost is what was acknowledged and is not there, wrong is all else; what is found is told in one line each.
    """
    warnings.simplefilter("ignore", RuntimeWarning)
    found: list[str] = []
    computed = 0
    found += _told(partial(_archive_faults, path, said))
    if not path.exists() and said.commit >= 0:
        return [*found, "lost: the store"], 0
    if scene.before is _old:
        found += _told(partial(_upgrade_faults, path, said))
    else:
        more, computed = _store_faults(path, said)
        found += more
    if scene.again and not found:
        found += _told(partial(_again, path, scene))
        found += _store_faults(path, said)[0]
        found += _told(partial(_archive_faults, path, said))
    return found, computed


def _again(path: Path, scene: Scene) -> Iterable[str]:
    scene.run(path, plainly)
    return ()


def _told(step: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(step())
    except Exception as error:
        return [f"wrong: {type(error).__name__}: {error}"]


def _store_faults(path: Path, said: Acknowledged) -> tuple[list[str], int]:
    computed = 0

    def looked() -> Iterable[str]:
        nonlocal computed
        with wb.open(path, memory_bytes=0) as board:
            system = board.system("x")
            history = system.history()
            head = history[-1].id if history else -1
            if head < said.commit:
                yield f"lost: commit {said.commit} was acknowledged, the last one is {head}"
            if tuple(commit.digest for commit in history) != digests()[: len(history)]:
                yield "wrong: another history"
            if history and system.digest() != digests()[head]:
                yield "wrong: the state is not the head's"
            if not (report := board.verify()).ok:
                yield f"wrong: verify finds {report}"
            missing = ask(board, range(ROUNDS))
            computed = len(missing)
            if lost := sorted(missing & said.packages):
                yield f"lost: packages of rounds {lost}"
            if history:
                move(system, head + 1)
            else:
                begin(system, plainly)
            if history and system.commit().digest != digests()[head + 1]:
                yield "wrong: it goes on to another commit"
        with wb.open(path, readonly=True) as board:
            after = board.system("x").history()
            if len(after) != max(0, head) + (2 if history else 1) or not board.verify().ok:
                yield "wrong: what goes on from there does not last"

    return _told(looked), computed


def _archive_faults(path: Path, said: Acknowledged) -> Iterable[str]:
    """What has an archive's name is whole, and one that was acknowledged is there."""
    archive = _archive(path)
    if not archive.exists():
        return ["lost: the archive"] if "export" in said.done else []
    copy = path.with_name("imported.db")
    for suffix in ("", "-wal", "-shm", ".lock"):
        with suppress(FileNotFoundError):
            Path(f"{copy}{suffix}").unlink()
    import_archive(copy, archive)
    with wb.open(copy, readonly=True) as board:
        history = [commit.digest for commit in board.system("x").history()]
    return [] if tuple(history) == digests()[: len(history)] and history else ["wrong: the archive holds other commits"]


def _upgrade_faults(path: Path, said: Acknowledged) -> Iterable[str]:
    """The schema is the old or the new one, and of what was before the new one there is a whole copy."""
    current = schema.current(path)
    if current not in (_OLD, schema.HEAD):
        yield f"wrong: the schema is {current}"
    if "upgrade" in said.done and current != schema.HEAD:
        yield f"lost: the upgrade; the schema is {current}"
    copies = [each for each in path.parent.glob(f"{path.name}.before-*") if ".part" not in each.name]
    if current == schema.HEAD and not copies:
        yield "lost: the copy before the upgrade"
    for copy in copies:
        if (found := schema.current(copy)) != _OLD:
            yield f"wrong: the copy before the upgrade has schema {found}"
