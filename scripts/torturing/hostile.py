"""Give stores and archives of others to everything that reads them: each answer is right, or a clear error.

Each hostile file is made of a valid one by one change, and is used in a process of its own with a bound on memory and
time: through the library, through the command line, and by `merge` or `import` into a good store, which must hold
afterwards what it held before. A traceback of another kind than `WhiteboardError`, a hang, a peak over the bound or a
wrong answer is a fault, and is printed with the name of the change, which ``--only`` takes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

import whiteboard as wb
from scripts.torturing.archive_mutants import archives
from scripts.torturing.store_mutants import stores
from scripts.torturing.workload import finish
from whiteboard import cli
from whiteboard.errors import ArchiveError, WhiteboardError
from whiteboard.storage import open_store
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge

MEMORY: Final = 128 * 2**20
"""Bytes that a process may take beside what it had when it was forked."""

ADDRESSES: Final = 3 * 2**30
PATIENCE: Final = 60.0
ANSWERS: Final = np.arange(12.0)
SOURCES: Final = np.arange(12.0).reshape(4, 3)
TAKES_WHAT_IT_READS: Final = ("audit", "table mul --json", "table keeps")
"""Steps that decode pages that a hit need not: these take what their packages take."""

Step = tuple[str, Callable[[], Any]]


# -- what is right


@wb.op(keep_sources=True, gradient="returned", identity="hostile")
def keeps(x: Any) -> Any:
    """An op whose pages hold its sources."""
    return x.sum(), np.ones_like(x)


def make(path: Path, *, more: bool) -> None:
    """Make a store of two systems, one a fork, and packages; with `more`, one that has gone on from there."""
    with wb.open(path) as board:
        for name in ("a", "b"):
            system = board.system(name, {"of": name})
            system.add_nodes(range(6), theta=np.ones((6, 3)), p=np.zeros((6, 2)), fixed=[True] + [False] * 5)
            for step in range(3):
                system.impulse(1 + step, None, "mul", [0.5, 1.0, step])
                system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3))
        board.call_many("mul", ANSWERS[:6], ANSWERS[:6] + 1)
        board.call_many("keeps", SOURCES)
        fork = system.fork("b forked", at=1)
        fork.impulse(2, None, "mul", [1.0, 1.0, 1.0])
        fork.commit(wb.rules.Relax(0.1, 1e-3, 1e-3))
        if more:
            system.process(wb.JobBatch("mul", [[1, 2], [2, 3]], target=np.ones((2, 3))))
            system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3))
            board.system("c").add_nodes([1], theta=[[1.0]])
            board.system("c").commit()
            board.call_many("mul", ANSWERS, ANSWERS + 1)
            board.call("sum", np.zeros(5000))


def told(path: Path) -> dict[str, Any]:
    """Return what a store says of every commit of every system."""
    with open_store(path, readonly=True) as found:
        return {record.name: _system(found.versions, record.name) for record in found.versions.systems()}


def _system(versions: Any, name: str) -> list[Any]:
    rows = []
    for commit in versions.commits(name):
        columns = versions.state(name, commit.number).columns
        fields = ("ids", "versions", "fixed", "values")
        rows.append((commit, [(c.attr, *(getattr(c, each).tobytes() for each in fields)) for c in columns]))
    return rows


# -- what is done with a hostile file


def use_store(path: Path, good: Path, whole: dict[str, Any]) -> Iterator[Step]:
    """Everything that reads a store, and at last what mends it."""
    ask = partial(_command, path, None)
    yield "board", partial(_boarded, path, whole)
    tables = TAKES_WHAT_IT_READS[1:]
    for words in ("ls", "ls --json", "info", "verify", "audit", *tables, "gc --dry-run", "db current"):
        yield words, partial(ask, *words.split())
    for name in ("a", "b forked"):
        for command in ("show", "log"):
            yield f"{command} {name}", partial(ask, command, "--", name)
    yield "export", partial(export, path, path.with_suffix(".wb"))
    yield "merge", partial(merge, good, [path])
    yield "verify --repair", partial(ask, "verify", "--repair")
    yield "write", partial(_written, path)
    for name in ("b forked", "a"):
        yield f"rm {name}", partial(ask, "rm", "--", name)
    yield "gc", partial(ask, "gc", "--max-bytes", "0")


def use_archive(path: Path, good: Path, whole: dict[str, Any]) -> Iterator[Step]:
    """Its import, twice; then everything that reads the store it came into, of which nothing may be refused."""
    ask = partial(_command, good, 0)
    yield "import", partial(import_archive, good, path)
    yield "import again", partial(import_archive, good, path)
    yield "board", partial(_boarded, good, whole)
    names = list(told(good))
    for words in ("ls --json", "info", "verify", "gc --dry-run"):
        yield words, partial(ask, *words.split())
    for words in TAKES_WHAT_IT_READS:  # they tell what they leave out
        yield words, partial(_command, good, None, *words.split())
    for name in names:
        for command in ("show", "log"):
            yield f"{command} {name[:40]!r}", partial(ask, command, "--", name)
    yield "export", partial(export, good, good.with_suffix(".out.wb"))
    for name in sorted(set(names) - whole.keys(), reverse=True):
        yield f"fork {name[:40]!r}", partial(ask, "fork", "--", name, "f")
        yield "rm f", partial(ask, "rm", "--", "f")
        yield f"rm {name[:40]!r}", partial(ask, "rm", "--", name)


def _boarded(path: Path, whole: dict[str, Any]) -> None:
    """Ask all that a board answers; one thing refused keeps nothing from the next."""
    with wb.open(path) as board:
        y = board.call_many("mul", ANSWERS, ANSWERS + 1)
        _right(np.array_equal(y.y, ANSWERS * (ANSWERS + 1)), "y of mul")
        _right(np.array_equal(y.grads[0], ANSWERS + 1) and np.array_equal(y.grads[1], ANSWERS), "gradients of mul")
        _right(board.call("sum", np.zeros(5000)).y == 0, "y of sum")
        board.stats()
        refused: list[WhiteboardError] = []
        try:
            rows = [row["x0"] for row in board.each_row("keeps") if row.get("x0") is not None]
            _right({row.tobytes() for row in rows} <= {row.tobytes() for row in SOURCES}, "sources of keeps")
        except WhiteboardError as error:
            refused.append(error)
        for name in whole:
            try:
                found = _system(board._store.versions, name)
                _right(found[: len(whole[name])] == whole[name], f"system {name!r}")
                system = board.system(name)
                system.digest(), system.history(), system.at(0)
            except WhiteboardError as error:
                refused.append(error)
        board.systems(), board.info()
        if refused:
            raise refused[0]


def _written(path: Path) -> None:
    with wb.open(path) as board:
        system = board.system("new")
        system.add_nodes([1, 2], theta=np.ones((2, 2)))
        system.commit()
        board.call("mul", 2.0, 3.0)
        board.flush()


class _Wrong(AssertionError):
    """An answer that is neither right nor an error."""


def _right(there: object, what: str) -> None:
    if not there:
        raise _Wrong(what)


def _command(store: Path, want: int | None, command: str, *arguments: str) -> None:
    said = io.StringIO()
    # `db current` has its options behind its second word.
    words = [command, *arguments[:1]] if command == "db" else [command]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.status([*words, "--store", str(store), *arguments[len(words) - 1 :]])
    lines = said.getvalue().strip().splitlines()
    if want is not None:
        _right(status == want, f"status {status}: {lines[-1][:200] if lines else ''}")
    elif status == 1:
        _right(lines, "status 1 and no line that says why")


# -- one process each


@dataclass(slots=True)
class Seen:
    """What a process said of one hostile file."""

    outcomes: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    nbytes: int = 0
    seconds: float = 0.0


def child(kind: str, folder: Path, truth: dict[str, Any], say: Callable[[str], None]) -> None:
    """Use one hostile file, and say what became of each step; `truth` is what each store held."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hostile, good = folder / f"hostile.{kind}", folder / "good.db"
    seen = Seen()
    _peak()
    resident = _peak()
    steps = use_store(hostile, good, truth["source"]) if kind == "store" else use_archive(hostile, good, truth["good"])
    before = good.read_bytes()
    while (step := next(steps, None)) is not None:
        name, work = step
        say(name)
        try:
            work()
            seen.outcomes[name] = "ok"
        except WhiteboardError as error:
            seen.outcomes[name] = type(error).__name__
            if len(str(error)) > 4000 or "\n" in str(error):
                seen.faults.append(f"{name}: an error of {len(str(error))} characters, or of several lines")
            if name == "import" and isinstance(error, ArchiveError):
                _look(
                    seen, "after a refusal", lambda: _right(good.read_bytes() == before, "the store is not as it was")
                )
                break
        except _Wrong as error:
            seen.outcomes[name] = "wrong"
            seen.faults.append(f"{name}: {error}")
        except BaseException as error:
            seen.outcomes[name] = type(error).__name__
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            seen.faults.append(f"{name}: {type(error).__name__} at {where}: {str(error)[:150]}")
        taken = _peak() - resident
        seen.nbytes = max(seen.nbytes, 0 if name in TAKES_WHAT_IT_READS else taken)
        if taken > MEMORY and name not in TAKES_WHAT_IT_READS:
            seen.faults.append(f"{name}: it took {taken // 2**20} MB")
    say("good store")
    _look(seen, "good store", lambda: _good(good, truth["good"]))
    say(json.dumps({"outcomes": seen.outcomes, "faults": seen.faults, "nbytes": seen.nbytes}))


def _look(seen: Seen, name: str, work: Callable[[], Any]) -> None:
    try:
        work()
    except BaseException as error:
        seen.faults.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")


def _good(path: Path, whole: dict[str, Any]) -> None:
    """The good store holds what it held before, and is whole."""
    found = told(path)
    for name, rows in whole.items():
        _right(found.get(name, [])[: len(rows)] == rows, f"system {name!r}")
    with wb.open(path) as board:
        _right(board.verify().ok, "verify finds damage")
        y = board.call_many("mul", ANSWERS[:6], ANSWERS[:6] + 1)
        _right((y.hit > 0).all() and np.array_equal(y.y, ANSWERS[:6] * (ANSWERS[:6] + 1)), "packages")


def watched(kind: str, folder: Path, truth: dict[str, Any]) -> Seen:
    """Fork a process for one hostile file, and wait for each of its steps no longer than `PATIENCE`."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(reading)
        status = 1
        try:
            child(kind, folder, truth, lambda text: print_to(writing, text))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    lines, hangs = _lines(reading)
    os.close(reading)
    if hangs:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    last = lines[-1] if lines else ""
    seen = Seen(seconds=time.monotonic() - begun)
    if status == 0 and last.startswith("{"):
        said = json.loads(last)
        seen.outcomes, seen.faults, seen.nbytes = said["outcomes"], said["faults"], said["nbytes"]
    else:
        seen.faults.append(f"{last}: {'it hangs' if hangs else f'the process ended with status {status}'}")
    return seen


def print_to(fd: int, text: str) -> None:
    """Write a line to a pipe."""
    os.write(fd, f"{text}\n".encode("utf-8", "backslashreplace"))


def _lines(fd: int) -> tuple[list[str], bool]:
    """Return what a process said until its end, and whether it was silent for too long instead."""
    said = b""
    while select.select([fd], [], [], PATIENCE)[0]:
        part = os.read(fd, 65536)
        if not part:
            return said.decode().splitlines(), False
        said += part
    return said.decode().splitlines(), True


def _peak() -> int:
    """Return the most bytes that were resident since this was last asked; since the beginning where that is unknown."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    with contextlib.suppress(OSError):
        forget.write_text("5")
    return int(peak) * 1024


# -- all of them


def torture(kind: str, count: int, seed: int, only: str, folder: Path) -> dict[str, Any]:
    """Use `count` hostile files of a kind (0 for all that there are), and return counts."""
    good, source, whole_archive = folder / "whole.db", folder / "source.db", folder / "whole.wb"
    if not good.exists():
        make(good, more=False)
        make(source, more=True)
        export(source, whole_archive)
    truth = {"good": told(good), "source": told(source)}
    chance = random.Random(seed)
    made = stores(source, seed, 400) if kind == "store" else archives(whole_archive, seed, 200)
    chosen = [mutant for mutant in made if only in mutant.name]
    if 0 < count < len(chosen):
        chosen = chance.sample(chosen, count)
    outcomes: Counter[str] = Counter()
    counts: dict[str, Any] = {"mutants": 0, "impossible": 0, "faulty": 0, "peak_mb": 0, "slowest_seconds": 0.0}
    for mutant in chosen:
        place = folder / "one"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        shutil.copyfile(good, place / "good.db")
        try:
            mutant.make(place / f"hostile.{kind}")
        except Exception as error:
            if "sqlite3" not in type(error).__module__ and not isinstance(error, UnicodeEncodeError | WhiteboardError):
                raise
            counts["impossible"] += 1
            continue
        seen = watched(kind, place, truth)
        counts["mutants"] += 1
        first = "import" if kind == "archive" else "board"
        outcomes[seen.outcomes.get(first, "none")] += 1
        counts["faulty"] += bool(seen.faults)
        counts["peak_mb"] = max(counts["peak_mb"], seen.nbytes // 2**20)
        counts["slowest_seconds"] = round(max(counts["slowest_seconds"], seen.seconds), 2)
        for fault in seen.faults:
            print(
                f"{kind} {mutant.name!r} (--seed {seed}): {fault}".encode(errors="backslashreplace").decode(),
                flush=True,
            )
    return {**counts, "first": dict(outcomes)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, default=300, help="hostile stores; 0 for all, -1 for none")
    parser.add_argument("--archives", type=int, default=300, help="hostile archives; 0 for all, -1 for none")
    parser.add_argument("--seed", type=int, default=0, help="which of them, and which bytes are flipped")
    parser.add_argument("--only", default="", help="only changes whose name contains this")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in (("archive", options.archives), ("store", options.stores)):
            if count >= 0:
                found[kind] = torture(kind, count, options.seed, options.only, Path(folder))
                print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    wrong = sum(each["faulty"] for each in found.values())
    finish("hostile", {**found, "seconds": round(time.monotonic() - begun), "wrong": wrong})


if __name__ == "__main__":
    main()
