"""Two clients, one server that ends sessions, any order of things: what was acknowledged stays, no answer is wrong."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test

from tests import postgres
from tests.storage.postgres.conftest import empty
from tests.storage.sqlite.test_machine import Other, TwoProcesses
from tests.storage.sqlite.told import do
from whiteboard.storage import open_store


class _Other:
    """Another client, in this process: what makes two is that each has sessions of its own."""

    def __init__(self, url: str) -> None:
        self._stores = open_store(url, memory_bytes=20_000)

    def ask(self, what: str, numbers: list[int]) -> list[int]:
        return do(self._stores, what, numbers)

    def end(self, *, kill: bool) -> None:
        packages = self._stores.packages.inner  # type: ignore[attr-defined]
        if kill:
            packages._pending.clear()
            packages._used.clear()
            packages._touched.clear()
        self._stores.close()


class TwoClients(TwoProcesses):
    """As two processes on a file, and the server may end all sessions before any step."""

    def begin_other(self) -> Other:
        return _Other(self.path)

    @rule()
    def end_sessions(self) -> None:
        """What was begun on them is begun again on others."""
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'whiteboard'")


def test_two_clients(url: str) -> None:
    """Any history of two clients leaves what they were told is there."""

    def machine() -> TwoClients:
        empty(url)
        return TwoClients(url)

    run_state_machine_as_test(machine, settings=settings(max_examples=3, stateful_step_count=20, deadline=None))  # type: ignore[arg-type]
