"""Fail the k-th call of a kind on a store's files, for each k; nothing that was acknowledged may be lost or wrong.

Scenes (those of ``power``) run again and again, and in each run another write, sync, truncate, open, link, unlink,
read or lock fails: once, or from then on until an error is seen, as on a disk that is full. The step in which it fails
gives a `StoreError` of one line, or the right result; then the fault is gone, and the same step on the same open board
has to succeed, and all that come after it. What is left is looked at by a process without faults.
"""

from __future__ import annotations

import argparse
import errno
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from scripts.torturing.calls import Calls, preloaded
from scripts.torturing.scenes import SCENES, Acknowledged, Scene, look
from scripts.torturing.workload import apart, finish
from whiteboard.errors import StoreError

T = TypeVar("T")

_LAST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """Which calls fail, and how.

    Attributes
    ----------
    calls : str
        Of `calls.c`, separated by commas.
    error : int
        What they say.
    lasts : bool
        Whether those after it fail too, until an error is seen.
    half : bool
        Whether the first writes half of what it was given, and says so.
    """

    calls: str
    error: int
    lasts: bool = False
    half: bool = False


KINDS: Final[dict[str, Kind]] = {
    "write-eio": Kind("write", errno.EIO),
    "write-enospc": Kind("write", errno.ENOSPC, lasts=True),
    "write-edquot": Kind("write", errno.EDQUOT, lasts=True),
    "write-short": Kind("write", errno.ENOSPC, half=True),
    "write-short-full": Kind("write", errno.ENOSPC, lasts=True, half=True),
    "sync-eio": Kind("file-sync", errno.EIO),
    "sync-enospc": Kind("file-sync", errno.ENOSPC, lasts=True),
    "folder-sync-eio": Kind("folder-sync", errno.EIO),
    "truncate-eio": Kind("truncate", errno.EIO),
    "open-enospc": Kind("open", errno.ENOSPC),
    "open-emfile": Kind("open", errno.EMFILE, lasts=True),
    "name-eio": Kind("name", errno.EIO, lasts=True),
    "name-enospc": Kind("name", errno.ENOSPC),
    "unlink-eio": Kind("unlink", errno.EIO),
    "read-eio": Kind("read", errno.EIO),
    "read-eio-lasting": Kind("read", errno.EIO, lasts=True),
    "lock-enolck": Kind("lock", errno.ENOLCK),
}

_SYNCED: Final = {"file-sync": ("commit", "export"), "folder-sync": ("export",)}
"""The steps that must not return when their last such sync has failed. (SQLite takes no notice of one of a folder.)"""


class EndedError(Exception):
    """A step could not be done without a fault either."""


class Trial:
    """One run of a scene on a disk that fails, and what came of it."""

    def __init__(self, calls: Calls, folder: Path, synced: Collection[str], failing: range) -> None:
        self._calls, self._folder, self._synced, self._failing = calls, folder, synced, failing
        self.said: list[str] = []
        self.errors: list[str] = []
        self.wrong: list[str] = []

    def do(self, what: str, work: Callable[[], T], says: Callable[[T], str] | None = None) -> T:
        """Run a step; after an error, again without a fault."""
        fired = self._calls.fired
        try:
            result = work()
            # (A commit that fails with packages that wait is written again without them.)
            if what in self._synced and self._calls.fired > fired and self._calls.counted in self._failing:
                self.wrong.append(f"lost: {what} returned though what it wrote could not be synced")
        except Exception as error:
            self._calls.lift()
            self._look_at(what, error)
            try:
                result = work()
            except Exception as again:
                self.wrong.append(f"wrong: {what} fails without a fault too: {type(again).__name__}: {again}")
                raise EndedError from again
        if says is not None:
            self.said.append(says(result))
        return result

    def _look_at(self, what: str, error: Exception) -> None:
        line = f"{what}: {type(error).__name__}: {error}"
        if not isinstance(error, StoreError):
            self.wrong.append(f"wrong: {line}")
        elif "\n" in line or str(self._folder) not in line:
            self.wrong.append(f"wrong: an error that is not clear: {line!r}")
        if (archive := self._folder / "a.wb").exists() and what == "export":
            self.wrong.append(f"wrong: an export that failed has left {archive}")
        self.errors.append(line.replace(str(self._folder), "…"))


Ran = tuple[list[str], list[str], list[str], int, int]


def run(calls: Calls, scene: Scene, folder: Path, kind: Kind, at: int) -> Ran:
    """Run a scene in which a call fails; return what was said, errors, what is wrong, and calls counted and failed."""
    warnings.simplefilter("ignore", RuntimeWarning)  # packages that wait in memory: they are looked for at the end
    last = _LAST if kind.lasts else at
    trial = Trial(calls, folder, _SYNCED.get(kind.calls, ()) if scene.syncs else (), range(at, last + 1))
    calls.fail(folder, kind.calls, at, last, kind.error, half=kind.half)
    try:
        scene.run(folder / "a.db", trial.do)
    except EndedError:
        pass
    finally:
        counted, fired = calls.counted, calls.fired
        calls.lift()
    return trial.said, trial.errors, trial.wrong, counted, fired


class Torture:
    """Scenes, kinds, and counts."""

    def __init__(self, calls: Calls, folder: Path, *, show: bool) -> None:
        self._calls, self._folder, self._show = calls, folder, show
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def all_of(self, name: str, kinds: list[str], every: int) -> None:
        """Run a scene for each kind, failing every so many calls."""
        scene, before = SCENES[name], self._folder / name
        before.mkdir()
        apart(partial(scene.before, before / "a.db"))
        counted: dict[str, int] = {}
        for known in kinds:
            kind = KINDS[known]
            if kind.calls not in counted:
                counted[kind.calls] = self._once(scene, f"{name}, {known}, none", before, kind, _LAST)
            # Another first one for each kind, so that kinds of the same calls do not fail the same ones.
            for at in range(1 + list(KINDS).index(known) % every, counted[kind.calls] + 1, every):
                self._once(scene, f"{name}, {known}, call {at} of {counted[kind.calls]}", before, kind, at)

    def _once(self, scene: Scene, what: str, before: Path, kind: Kind, at: int) -> int:
        there = self._folder / f"{before.name}-now"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(before, there)
        counted = fired = 0
        errors: list[str] = []
        try:
            said, errors, found, counted, fired = apart(partial(run, self._calls, scene, there, kind, at))
            kept = Acknowledged.of([*scene.given, *said])
            found += apart(partial(look, there / "a.db", scene, kept))[0]
        except AssertionError as error:
            found = [f"wrong: {error}"]
        self.counts["runs"] += 1
        self.counts["faults"] += fired > 0
        self.counts["errors"] += bool(errors)
        self.counts["lost"] += any(each.startswith("lost") for each in found)
        self.counts["wrong"] += bool(found)
        self.errors.update(errors)
        if found or self._show:
            print(f"{what}: {'; '.join([*found, *errors]) or 'right'}", flush=True)
        return counted


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=5, metavar="N", help="fail every N-th call of a kind in turn")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these kinds")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only these scenes")
    parser.add_argument("--show", action="store_true", help="tell each run, and which errors came how often")
    options = parser.parse_args()
    calls = preloaded("faults")
    with tempfile.TemporaryDirectory() as folder:  # what is imported and known before the forks is so after them
        look(Path(folder) / "a.db", SCENES["normal"], Acknowledged())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(calls, Path(folder).resolve(), show=options.show)
        for name in options.scene or SCENES:
            torture.all_of(name, options.kind or list(KINDS), options.every)
            print(
                f"{name}: {dict(torture.counts)}, {time.monotonic() - started:.0f} s so far",
                file=sys.stderr,
                flush=True,
            )
    if options.show:
        for line, count in torture.errors.most_common():
            print(f"{count:6} {line}")
    if not torture.counts["faults"]:
        print("no call has failed: nothing was tested", flush=True)
        torture.counts["wrong"] += 1
    counts = {key: torture.counts[key] for key in ("runs", "faults", "errors", "lost", "wrong")}
    finish("faults", {**counts, "seconds": round(time.monotonic() - started, 1)})


if __name__ == "__main__":
    main()
