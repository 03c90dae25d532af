"""Flip bits anywhere in a store's file and use it: each answer is right, or an error of the store."""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import suppress
from pathlib import Path

from scripts.torturing.workload import PACKAGES, append, columns_of, commit_of, finish, keys_of, page_of, wrong_packages
from whiteboard.errors import StoreError, UnknownCommitError, UnknownSystemError
from whiteboard.storage import Stores, open_store
from whiteboard.storage.upkeep.verify import verify

COMMITS = 60


def make(path: Path) -> None:
    """Make a store of two systems and their packages."""
    with open_store(path) as stores:
        for name in ("a", "b"):
            for number in range(COMMITS):
                stores.packages.put(page_of(name, range(PACKAGES * number, PACKAGES * (number + 1))))
                append(stores, name, number)


def wrong_answers(stores: Stores) -> int:
    """Count answers of the store that are neither right nor an error."""
    wrong = 0
    for name in ("a", "b"):
        keys = keys_of(name, range(PACKAGES * COMMITS))
        with suppress(StoreError):
            wrong += wrong_packages(stores.packages.find(keys), keys)
        for number in (COMMITS - 1, 7):
            with suppress(StoreError, UnknownSystemError, UnknownCommitError):
                state = stores.versions.state(name, number)
                wrong += state.commit != commit_of(number)
                for got, want in zip(state.columns, columns_of(name, number), strict=True):
                    fields = ("ids", "versions", "fixed", "values")
                    wrong += any(getattr(got, f).tobytes() != getattr(want, f).tobytes() for f in fields)
        with suppress(StoreError, UnknownSystemError):
            wrong += stores.versions.commits(name) != [commit_of(number) for number in range(COMMITS)]
        with suppress(StoreError, UnknownSystemError):
            # The last commit that can be read is the last one: a lost end must not pass for the head.
            wrong += stores.versions.state(name).commit.number != COMMITS - 1
    return wrong


def torture(flips: int, seed: int, folder: Path) -> dict[str, int]:
    """Flip bits in `flips` copies of one store and return counts."""
    whole = folder / "whole.db"
    make(whole)
    content = whole.read_bytes()
    chance = random.Random(seed)
    counts = {"flips": 0, "refused": 0, "found_by_verify": 0, "wrong": 0}
    for number in range(flips):
        damaged = bytearray(content)
        # Mostly one bit; now and then a torn sector.
        for _ in range(chance.choice([1, 1, 1, 8])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path = folder / f"{number}.db"
        path.write_bytes(damaged)
        counts["flips"] += 1
        try:
            with open_store(path) as stores:
                wrong = wrong_answers(stores)
                report = verify(stores.database, repair=True)
                counts["found_by_verify"] += not report.ok
                for name in ("a", "b"):
                    stores.packages.put(page_of(name, range(PACKAGES * COMMITS)))
                    with suppress(StoreError):
                        stores.packages.flush()
                wrong += wrong_answers(stores)
        except StoreError:
            counts["refused"] += 1
            wrong = 0
        if wrong:
            print(f"flip {number}: {wrong} wrong answers", flush=True)
        counts["wrong"] += wrong
        for each in folder.glob(f"{number}.db*"):
            each.unlink()
    return counts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish("flips", torture(options.flips, options.seed, Path(folder)))


if __name__ == "__main__":
    main()
