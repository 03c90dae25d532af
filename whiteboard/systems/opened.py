"""The systems of one store that are open: each of them once, as its last commit left it, or new."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from whiteboard import ops
from whiteboard.errors import ParamError, UnknownSystemError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.records.systems import State, SystemRecord
from whiteboard.storage.base import Store
from whiteboard.systems import specification
from whiteboard.systems.history import Commit
from whiteboard.systems.system import System

_log = logging.getLogger(__name__)


class Claim(Protocol):
    """Becomes the one writer of a system."""

    def __call__(self, name: str, *, takeover: bool = False) -> None: ...


class OpenSystems:
    """The systems of one store that are open.

    Parameters
    ----------
    store : Store
    pipeline : Pipeline
        What answers their jobs.
    claim : Claim
    lock : RLock
        Held while one is opened or made; for whoever lets one go, too.
    """

    def __init__(self, store: Store, pipeline: Pipeline, claim: Claim, lock: Any) -> None:
        self._store, self._pipeline, self._claim, self._lock = store, pipeline, claim, lock
        self._systems: dict[str, System] = {}

    def system(self, name: str, spec: Mapping[str, Any] | None, *, takeover: bool) -> System:
        """Open a system at its last commit, or create it; see `Board.system`."""
        spec = None if spec is None else specification.plain(name, spec)
        with self._lock:
            if takeover:
                self._take_over(name, spec)
            system = self._systems.get(name) or self._load(name, spec)
        specification.expect(name, system.spec, spec)
        return system

    def only(self, where: str) -> System:
        """Return the only one that is open.

        Raises
        ------
        ParamError
            There are others, or none; `where` opens the message.
        """
        if len(self._systems) != 1:
            msg = f"{where}: say which system: the board has {len(self._systems)} open"
            raise ParamError(msg)
        (system,) = self._systems.values()
        return system

    def look(self, name: str) -> System:
        """Return an existing system as it stands, of which nothing is kept; see `Board.look`."""
        specification.check_name(name)
        record = self._store.versions.system(name)
        if record is None:
            msg = f"{self._store} has no system {name!r}"
            raise UnknownSystemError(msg)
        return self._made(record, self._store.versions.state(name))

    def let_go(self, name: str) -> None:
        """Keep a system no longer, as it was removed."""
        self._systems.pop(name, None)

    def _take_over(self, name: str, spec: Mapping[str, Any] | None) -> None:
        """Become the writer of a system that is not another one, and let what is older than the store's go."""
        specification.check_name(name)
        record = self._store.versions.system(name)
        if record is not None:
            specification.expect(name, record.spec, spec)
        self._claim(name, takeover=True)  # before it is read, so that nobody moves it on after that
        if name in self._systems and self._systems[name].head != self._head(name):
            del self._systems[name]

    def _head(self, name: str) -> Commit | None:
        """The last commit of a system in the store."""
        if self._store.versions.system(name) is None:
            return None
        return next((Commit.of(record) for record in self._store.versions.commits(name)[-1:]), None)

    def _load(self, name: str, spec: Mapping[str, Any] | None) -> System:
        specification.check_name(name)
        record = self._store.versions.system(name)
        kept = None if record is None else self._store.versions.state(name)
        _log.info("system %r: %s", name, "new" if kept is None else f"goes on from commit {kept.commit.number}")
        if record is None:
            record = SystemRecord(name, os.urandom(16).hex(), spec)
        return self._make(record, kept)

    def _make(self, record: SystemRecord, kept: State | None) -> System:
        with self._lock:
            system = self._systems[record.name] = self._made(record, kept)
            return system

    def _made(self, record: SystemRecord, kept: State | None) -> System:
        claim = partial(self._claim, record.name)
        return System(record, kept, self._store.versions, self._pipeline, ops.get, self._make, claim)
