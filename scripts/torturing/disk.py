"""Fill a disk of 3 MB under a store: clear errors, no committed state lost, and the same board goes on with room.

Where this process may mount a file system, the disk is one of memory; else (or with --rlimit) it is a limit on the
size of files. Then the file system, or the limit, is made larger.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from scripts.torturing.workload import append, finish, keys_of, page_of, wrong_packages, wrong_state
from whiteboard.errors import StoreError
from whiteboard.storage import Stores, open_store
from whiteboard.storage.upkeep.verify import verify

DISK_BYTES = 3 * 2**20


@contextmanager
def small_disk(folder: Path, *, mount: bool) -> Iterator[Callable[[], None] | None]:
    """Mount a file system of 3 MB over a folder; gives the function that enlarges it, or None if it cannot be done."""
    if not mount or not _mount(folder, f"size={DISK_BYTES}"):
        yield None
        return
    try:
        yield lambda: print("no room could be made") if not _mount(folder, "remount,size=256m") else None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(folder: Path, options: str) -> bool:
    tool = shutil.which("mount")
    command = [tool or "", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return tool is not None and not subprocess.run(command, capture_output=True, check=False).returncode


@contextmanager
def small_files(most: int) -> Iterator[Callable[[], None]]:
    """Let no file grow beyond a size; gives the function that lifts the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Faults:
    """What went wrong, told as it is found."""

    def __init__(self) -> None:
        self.count = 0

    def expect(self, what: str, *, holds: bool) -> None:
        """Count and tell what does not hold."""
        if not holds:
            self.count += 1
            print(what, flush=True)


def life(path: Path, chance: random.Random, faults: Faults, make_room: Callable[[], None]) -> dict[str, int]:
    """Fill the disk, go on without room, make room, go on; return what happened."""
    counts = {"commits": 0, "errors": 0, "packages": 0}
    size = chance.choice([16, 64, 300])
    with open_store(path, memory_bytes=0) as stores:
        committed, put = -1, 0

        def attempt(what: Callable[[], object]) -> bool:
            try:
                what()
            except StoreError as error:
                counts["errors"] += 1
                line = str(error)
                faults.expect(f"an error that is not clear: {line!r}", holds=str(path) in line and "\n" not in line)
                return False
            return True

        def more(number: int) -> bool:
            nonlocal put
            count = chance.randrange(50, 300)
            stores.packages.put(page_of("a", range(put, put + count), size))
            put += count
            if chance.random() < 0.5:
                return attempt(stores.packages.flush)
            return attempt(partial(append, stores, "a", number))

        # Until a few attempts in a row have failed: flushes fail first, commits when not even they find room.
        failed = 0
        while failed < 4:
            before = committed
            failed = 0 if more(committed + 1) else failed + 1
            known = stores.versions.system("a")
            committed = stores.versions.state("a").commit.number if known else -1
            faults.expect(f"commit {before} became {committed}", holds=committed in (before, before + 1))
            _answers(stores, put, size, committed, faults)
        make_room()
        faults.expect("no flush with room", holds=attempt(stores.packages.flush))
        for number in range(committed + 1, committed + 4):
            faults.expect("no commit with room", holds=attempt(partial(append, stores, "a", number)))
        committed += 3
        _answers(stores, put, size, committed, faults)
    with open_store(path, memory_bytes=0) as stores:
        _answers(stores, put, size, committed, faults)
        faults.expect("verify finds damage", holds=verify(stores.database).ok)
    return {"commits": counts["commits"] + committed + 1, "errors": counts["errors"], "packages": put}


def _answers(stores: Stores, put: int, size: int, committed: int, faults: Faults) -> None:
    """Everything put is found, whether it could be written or waits in memory, and the state is the last commit."""
    keys = keys_of("a", range(put))
    wrong = wrong_packages(stores.packages.find(keys), keys, size, missing=True)
    faults.expect(f"{wrong} packages of {put} are wrong or lost", holds=not wrong)
    number, wrong = wrong_state(stores, "a", committed)
    faults.expect(f"the state at commit {number}: {wrong} faults", holds=not wrong and number == committed)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rlimit", action="store_true", help="limit the size of files, and mount nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    warnings.simplefilter("ignore", RuntimeWarning)  # packages are kept in memory: what is to be seen below
    chance, faults = random.Random(options.seed), Faults()
    totals = {"lives": 0, "mounted": 0, "commits": 0, "errors": 0, "packages": 0}
    for _ in range(options.lives):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "disk"
            folder.mkdir()
            with small_disk(folder, mount=not options.rlimit) as enlarge:
                if enlarge is not None:
                    done = life(folder / "a.db", chance, faults, enlarge)
                else:
                    with small_files(chance.randrange(10**6, DISK_BYTES)) as lift:
                        done = life(folder / "a.db", chance, faults, lift)
        totals["lives"] += 1
        totals["mounted"] += enlarge is not None
        for key, count in done.items():
            totals[key] += count
    finish("disk", {**totals, "wrong": faults.count})


if __name__ == "__main__":
    main()
