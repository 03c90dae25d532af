"""Folders of diskcache and joblib with results of `mul`, good and bad, and the functions that say what they are of.

``python -m tests.legacy`` writes `ASSETS` again.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ASSETS = Path(__file__).with_name("assets")
GOOD = range(24)

MAPPING = '''
import ast
import numpy as np


def sources(key):
    """The sources of a key: ("mul", seed)."""
    if key == "skip":
        return None
    if key == "raise":
        raise ValueError("not mine")
    return inputs(key[1])


def of_arguments(arguments):
    """The sources of a result of joblib, whose arguments come as text."""
    return inputs(ast.literal_eval(arguments["seed"]))


def of_axis(key):
    """The sources and the parameters of a sum."""
    return [inputs(key[1])[0]], {"axis": key[2]}


def inputs(seed):
    rng = np.random.default_rng(seed)
    size = 3 + seed % 3
    return [rng.normal(size=size), rng.normal(size=size)]
'''


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


class Sleepy:
    """Keeps the process that unpickles it for a long time."""

    def __reduce__(self) -> Any:
        import time

        return time.sleep, (60,)


def inputs(seed: int) -> list[NDArray[np.float64]]:
    """The sources of result number `seed`."""
    rng = np.random.default_rng(seed)
    size = 3 + seed % 3
    return [rng.normal(size=size), rng.normal(size=size)]


def result(seed: int) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    """The value and the gradients of a product."""
    a, b = inputs(seed)
    return a * b, (b, a)


def diskcache_folder(folder: Path, seeds: range = GOOD) -> Path:
    """Make a folder of diskcache with results of `mul` and nothing else."""
    import diskcache

    with diskcache.Cache(str(folder)) as cache:
        for seed in seeds:
            cache["mul", seed] = result(seed)
    return folder


def joblib_folder(folder: Path, seeds: range = GOOD) -> Path:
    """Make a folder of joblib's Memory, some results compressed; return the one of the function."""
    import joblib

    for compress in (False, True):
        memory = joblib.Memory(folder, verbose=0, compress=compress)
        cached = memory.cache(result)
        for seed in seeds[compress::2]:
            cached(seed)
    return next(folder.rglob("output.pkl")).parent.parent


def unpacked(kind: str, folder: Path) -> Path:
    """Unpack a folder that the real library wrote."""
    with tarfile.open(ASSETS / f"legacy-{kind}.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # Python 3.11.4 has it
        archive.extractall(folder)
    return folder / kind


def freeze() -> None:
    """Write the assets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        diskcache_folder(folder / "diskcache")
        joblib_folder(folder / "memory").rename(folder / "joblib")
        for kind in ("diskcache", "joblib"):
            with tarfile.open(ASSETS / f"legacy-{kind}.tar.gz", "w:gz") as archive:
                archive.add(folder / kind, kind, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    # func_code.py names the place of the function's file
    return None if member.name.endswith("func_code.py") else member


if __name__ == "__main__":
    freeze()
