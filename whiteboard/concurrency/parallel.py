"""Work that releases the interpreter (hashing, compressing, copying) of a few items at a time, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def overlapped(function: Callable[[T], R], items: Iterable[T], ahead: int | None = None) -> Generator[R, None, None]:
    """Yield ``function(item)`` of each item, in order, with a few under way at once where there is more than one core.

    Items are taken by the calling thread. The threads end with the iteration, so that a fork or an exit never meets
    one that is idle; and no more than a few items and results are held at once, however many there are, or those that
    are `ahead` of the one that is asked for.
    """
    left = iter(items)
    first = list(islice(left, 2))
    if (threads := cores()) < 2 or len(first) < 2:
        yield from map(function, chain(first, left))
        return
    with ThreadPoolExecutor(threads, "whiteboard") as pool:
        under_way: deque[Future[R]] = deque()
        try:
            for item in chain(first, left):
                under_way.append(_submitted(pool, function, item))
                if len(under_way) > (threads if ahead is None else ahead):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:  # nobody asks for them any more
                future.cancel()


def _submitted(pool: ThreadPoolExecutor, function: Callable[[T], R], item: T) -> Future[R]:
    try:
        return pool.submit(function, item)
    except RuntimeError:
        # The interpreter ends, and no thread can be started any more.
        done: Future[R] = Future()
        done.set_result(function(item))
        return done


def cores() -> int:
    """How many threads are worth having: the cores that this process may use, at most four."""
    try:
        return min(4, len(os.sched_getaffinity(0)))
    except AttributeError:  # only Linux tells what this process may use
        return min(4, os.cpu_count() or 1)
