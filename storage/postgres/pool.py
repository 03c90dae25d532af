"""Connections to a server that are used one after another: those that are idle wait here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus


class Pool:
    """Idle connections, the latest first; there are as many as were used at the same time.

    Parameters
    ----------
    make : callable
        Opens a connection.
    """

    def __init__(self, make: Callable[[], psycopg.Connection[Any]]) -> None:
        self._make = make
        self._idle: list[psycopg.Connection[Any]] = []
        self._closed = False

    def take(self) -> psycopg.Connection[Any]:
        """A connection in no transaction; one that has ended meanwhile is found so when it is used."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def give(self, session: psycopg.Connection[Any]) -> None:
        """Take a connection back; what it has begun and not committed is undone."""
        with suppress(psycopg.Error):
            if session.info.transaction_status != TransactionStatus.IDLE:
                session.rollback()
            if session.info.transaction_status == TransactionStatus.IDLE and not self._closed:
                self._idle.append(session)
                return
        session.close()

    def clear(self) -> None:
        """Close those that are idle: one was lost, and so are the others, most likely."""
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    def forget(self) -> None:
        """Leave all to a parent, in its forked child."""
        self._idle = []

    def close(self) -> None:
        """Close those that are idle, and each that comes back."""
        self._closed = True
        self.clear()
