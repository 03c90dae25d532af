"""Pages encoded in a thread while their caller computes the next ones, so that a flush has only to write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from whiteboard.storage.base import Page
from whiteboard.storage.overlap import cores
from whiteboard.storage.pages import cut
from whiteboard.storage.rows import PageRow


class EncodeAhead:
    """Rows in the making, by the number of the pending page that they are made of. Not locked: its owner is.

    Parameters
    ----------
    encode : callable
        Makes the row of a page.
    """

    def __init__(self, encode: Callable[[Page], PageRow]) -> None:
        self._encode = encode
        self._pool: ThreadPoolExecutor | None = None
        self._rows: dict[int, list[Future[PageRow]]] = {}

    def start(self, number: int, page: Page) -> None:
        """Begin with a page; one that is to be joined with others waits for them."""
        if not (parts := cut(page)) or cores() < 2:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "whiteboard encode")
        self._rows[number] = [self._pool.submit(self._encode, part) for part in parts]

    def take(self, number: int) -> Sequence[Future[PageRow]]:
        """Return the rows of a page, none where they were not begun."""
        return self._rows.get(number, ())

    def forget(self, number: int) -> None:
        """Let the rows of a page go."""
        for row in self._rows.pop(number, ()):
            row.cancel()

    def wait(self) -> None:
        """Return when nothing is under way, so that a fork meets no thread in the middle of something."""
        wait([row for rows in self._rows.values() for row in rows])

    def forked(self) -> None:
        """Hear that this is the child of a fork, which the thread is not in."""
        self._pool = None
        self._rows.clear()

    def close(self) -> None:
        """End the thread."""
        for number in list(self._rows):
            self.forget(number)
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
