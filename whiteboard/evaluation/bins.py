"""Bins: jobs of equal signature, cut to a size in bytes and jobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from whiteboard.types import Ids, Shape

MAX_JOBS = 1024
MAX_BYTES = 2**20
"""What one bin computes, and one page then holds.

A bin costs some 50 µs whatever is in it, and one that does not fit in a core's second cache costs more a job: of
bins of 64 KiB to 2 MiB those of 1 MiB were within a seventh of the fastest at 8, 64 and 1,024 numbers a source
(`scripts/bench compute`), and larger ones are much to evict at once.
"""


def by_signature(arenas: Ids) -> list[Ids]:
    """Return the positions of the jobs of each signature, in order of first appearance.

    `arenas` is (n, k): the arena number of each source, which stands for its exact shape and dtype.
    """
    if not len(arenas) or np.all(arenas == arenas[0]):
        return [np.arange(len(arenas), dtype=np.int64)]
    _, first, inverse = np.unique(arenas, axis=0, return_index=True, return_inverse=True)
    return [np.flatnonzero(inverse.reshape(-1) == group) for group in np.argsort(first)]


def job_bytes(y: Shape, beside: Sequence[Shape], itemsize: int) -> int:
    """Return the bytes of one job's package, which holds arrays of these shapes beside y."""
    return itemsize * sum(math.prod(shape) for shape in (y, *beside))


def cut(positions: Ids, bytes_per_job: int, max_bytes: int = MAX_BYTES, max_jobs: int = MAX_JOBS) -> Iterator[Ids]:
    """Yield `positions` in bins of at most `max_bytes` and `max_jobs`, at least one job each."""
    size = most(bytes_per_job, max_bytes, max_jobs)
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def most(bytes_per_job: int, max_bytes: int, max_jobs: int) -> int:
    """Return how many jobs a bin of at most `max_bytes` and `max_jobs` has, at least one."""
    return max(1, min(max_jobs, max_bytes // max(1, bytes_per_job)))
