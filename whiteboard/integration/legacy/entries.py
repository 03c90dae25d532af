"""The entries of a folder that holds pickles, read by another process, which may die of any of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from whiteboard.errors import ParamError
from whiteboard.integration.legacy.old_caches import Entry
from whiteboard.integration.legacy.wire import Fields, Receiver, WireError

_PROGRAM = Path(__file__).with_name("unpickler.py")

_START: Final = 60.0
"""Seconds for an interpreter to start and import, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Result:
    """One result: what it was asked with, as text, its op's parameters, and its arrays."""

    name: str
    params: dict[str, Any]
    sources: list[NDArray[Any]]
    y: NDArray[Any]
    grads: list[NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in (*self.sources, self.y, *self.grads))


@dataclass(frozen=True, slots=True)
class NoResult:
    """An entry that gives none: left out on purpose, or failed."""

    name: str
    why: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a folder's entries through child processes.

    Parameters
    ----------
    folder : Path
    kind : {"diskcache", "joblib"}
    function : str
        ``module:function`` from what an entry was asked with to its sources.
    patience : float
        Seconds that one entry may take.
    """

    folder: Path
    kind: str
    function: str
    patience: float = 60.0

    def read(self, entries: Sequence[Entry]) -> Iterator[Result | NoResult]:
        """Yield one for each entry, in order; an entry that kills its process, or hangs, has failed.

        Raises
        ------
        ParamError
            No entry can be read.
        """
        at = before = 0
        while at < len(entries):
            for got in self._some(entries, at):
                at += 1
                yield got
            if at == before:
                msg = "the process that reads pickles ended before it had read any"
                raise ParamError(msg)
            before = at

    def _some(self, entries: Sequence[Entry], first: int) -> Iterator[Result | NoResult]:
        """Yield from `first` on, up to the end or to an entry that ends the child."""
        request = {
            "kind": self.kind,
            "folder": str(self.folder.resolve()),
            "function": self.function,
            "entries": list(enumerate(entries))[first:],
        }
        command = [sys.executable, "-P", str(_PROGRAM)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        begun: int | None = None
        why = ""
        try:
            with child.stdin as stdin:
                stdin.write(json.dumps(request).encode())
            receiver = Receiver(child.stdout.fileno(), self.patience + _START)
            while (frame := receiver.receive()) is not None:
                receiver.patience = self.patience
                fields, arrays = frame
                if fields["state"] == "fatal":
                    raise ParamError(fields["why"])
                if fields["state"] == "begin":
                    begun = fields["number"]
                else:
                    yield _told(self._name(entries[fields["number"]], fields), fields, arrays)
                    begun = None
            child.wait(self.patience)
            why = _ended(child.returncode)
        except (TimeoutError, subprocess.TimeoutExpired):
            why = f"took longer than {self.patience:g} s"
        except (WireError, BrokenPipeError, KeyError, IndexError) as error:
            why = f"broke its process: {error}"
        finally:
            child.kill()
            child.stdout.close()
            child.wait()
        if begun is not None:
            yield NoResult(self._name(entries[begun], {}), f"unpickling it {why}", failed=True)

    def _name(self, entry: Entry, fields: Fields) -> str:
        place = f"{entry[0]}, row {entry[1]}" if entry[1] else entry[0]
        return f"{place} ({fields['shown']})" if fields.get("shown") else place


def _told(name: str, fields: Fields, arrays: list[NDArray[Any]]) -> Result | NoResult:
    if fields["state"] != "package":
        return NoResult(name, str(fields["why"]), failed=fields["state"] == "failed")
    k = fields["sources"]
    params = {each: _tupled(value) for each, value in fields["params"].items()}
    return Result(name, params, arrays[:k], arrays[k], arrays[k + 1 :])


def _tupled(value: Any) -> Any:
    """JSON has lists only, and a parameter that is one is a tuple."""
    if isinstance(value, list):
        return tuple(map(_tupled, value))
    return {name: _tupled(each) for name, each in value.items()} if isinstance(value, dict) else value


def _ended(status: int) -> str:
    if status < 0:
        return f"killed its process ({signal.Signals(-status).name})"
    return f"ended its process with status {status}"
