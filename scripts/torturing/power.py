"""Cut the power at random moments; nothing that was acknowledged may be lost, and nothing may be wrong.

Scenes (a life of commits at each durability, a log that is cut again and again, gc, recompress, upgrade, export and
import) run while every call that changes a file is recorded. Then images are made of what a disk may hold after a cut:
what was not synced is missing, in part, out of order or torn, and so are the names, on file systems that keep their
order and on those that do not. Each is opened: what was acknowledged is there, all answers are right, verify finds
nothing, the command that was cut is made again, and the next commit works.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from scripts.torturing.calls import Calls, preloaded
from scripts.torturing.images import FATES, Call, Disk, Image, read_folder, read_log
from scripts.torturing.scenes import SCENES, Acknowledged, Scene, look
from scripts.torturing.workload import apart, finish

T = TypeVar("T")

_PASSES = 8
"""Times that the moments of a scene are gone through for images that were not seen yet."""


def recorded(calls: Calls, scene: Scene, folder: Path) -> tuple[dict[str, tuple[int, bytes]], list[Call]]:
    """Run a scene; return what was on the disk before, and the calls that were made.

    Raises
    ------
    AssertionError
        The calls do not lead to what is there in the end: some were not recorded, and images would be of no disk.
    """
    folder.mkdir()
    path, log = folder / "a.db", folder.with_suffix(".log")

    def do(what: str, work: Callable[[], T], says: Callable[[T], str] | None = None) -> T:  # noqa: ARG001
        result = work()
        if says is not None:
            calls.note(says(result))
        return result

    def run() -> None:
        calls.record(folder, log)
        scene.run(path, do)

    apart(partial(scene.before, path))
    before = read_folder(folder)
    apart(run)
    made = read_log(log)
    disk = Disk(before, journalled=True)
    for call in made:
        disk.do(call)
    whole, after = disk.whole(), {name: content for name, (_, content) in read_folder(folder).items()}
    differ = [name for name in whole.keys() | after.keys() if whole.get(name) != after.get(name)]
    if missed := sorted(name for name in differ if not name.endswith("-shm")):  # which is written through mmap
        message = f"calls that changed {', '.join(missed)} were not recorded"
        raise AssertionError(message)
    return before, made


def cuts(disk: Disk, made: list[Call], chance: random.Random, count: int) -> Iterator[tuple[list[str], str, Image]]:
    """Cut the power `count` times; gives what was acknowledged before, how it was cut, and what is there then."""
    # Syncs, names and acknowledgements are where it matters, and a cut just before or after them.
    edges = [number for number, call in enumerate(made) if call.kind in "SAURLC"]
    moments = [chance.choice(edges) + chance.choice([0, 1]) for _ in range(count // 2)]
    moments += [chance.randrange(len(made) + 1) for _ in range(count - len(moments))]
    said: list[str] = []
    at = 0
    for moment in sorted(moments):
        for call in made[at:moment]:
            disk.do(call)
            if call.kind == "A":
                said.append(call.first)
        at = moment
        fate = chance.choice(FATES)
        where = f"{moment} of {len(made)} calls, {'journalled' if disk.journalled else 'posix'}, {fate}"
        yield said, where, disk.after_cut(chance, fate)


def torture(name: str, calls: Calls, folder: Path, count: int, chance: random.Random, *, show: bool) -> Counter[str]:
    """Look at `count` images of one scene, no two of which are the same."""
    scene, counts, seen = SCENES[name], Counter[str](), set[bytes]()
    before, made = recorded(calls, scene, folder / name)
    there = folder / f"{name}-cut"
    for turn in range(_PASSES):
        disk = Disk(before, journalled=bool(turn % 2))
        for said, where, image in cuts(disk, made, chance, -(-count // 2)):
            kept = [*scene.given, *(said if scene.survives else ())]
            told = hashlib.blake2b(repr((kept, sorted(image.items()))).encode()).digest()
            if counts["images"] == count or told in seen:
                continue
            seen.add(told)
            counts["images"] += 1
            shutil.rmtree(there, ignore_errors=True)
            there.mkdir()
            for each, content in image.items():
                (there / each).write_bytes(content)
            try:
                found, computed = apart(partial(look, there / "a.db", scene, Acknowledged.of(kept)))
            except AssertionError as error:
                found, computed = [f"wrong: {error}"], 0
            counts["computed"] += computed
            counts["lost"] += any(each.startswith("lost") for each in found)
            counts["wrong"] += any(each.startswith("wrong") for each in found)
            if found or show:
                print(f"{name}, cut after {where}: {'; '.join(found) or 'right'}", flush=True)
    shutil.rmtree(there, ignore_errors=True)
    counts["calls"], counts["syncs"] = len(made), sum(call.kind == "S" for call in made)
    return counts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="images of all scenes")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only these scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="tell each image")
    options = parser.parse_args()
    calls = preloaded("power")
    with tempfile.TemporaryDirectory() as folder:  # what is imported and known before the forks is so after them
        look(Path(folder) / "a.db", SCENES["normal"], Acknowledged())
    chance, scenes = random.Random(options.seed), options.scene or list(SCENES)
    totals: Counter[str] = Counter({"images": 0, "lost": 0, "wrong": 0, "computed": 0})
    each: dict[str, dict[str, int]] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(scenes):
            count = options.images // len(scenes) + (number < options.images % len(scenes))
            found = torture(name, calls, Path(folder).resolve(), count, chance, show=options.show)
            totals.update({key: found[key] for key in totals})
            each[name] = dict(found)
            print(f"{name}: {dict(found)}, {time.monotonic() - started:.0f} s so far", file=sys.stderr, flush=True)
    totals["wrong"] += totals["lost"]
    finish("power", {**totals, "scenes": each, "seconds": round(time.monotonic() - started, 1)})


if __name__ == "__main__":
    main()
