"""What every benchmark needs: medians of repeated timings, tables, and what they were measured on."""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

RUNS = 5


def timed(work: Callable[[Any], object], setup: Callable[[], Any] = lambda: None, *, runs: int = RUNS) -> float:
    """Return the median seconds of ``work(setup())`` over some runs; the setup is not timed."""
    return median(timings(work, setup, runs=runs))


def timings(work: Callable[[Any], object], setup: Callable[[], Any] = lambda: None, *, runs: int = RUNS) -> list[float]:
    """Return the seconds of each of some runs of ``work(setup())``, without garbage collections among them."""
    seconds = []
    for _ in range(runs):
        given = setup()
        gc.collect()
        gc.disable()
        try:
            start = time.perf_counter()
            work(given)
            seconds.append(time.perf_counter() - start)
        finally:
            gc.enable()
    return seconds


def interleaved(
    works: Mapping[str, tuple[Callable[[Any], object], Callable[[], Any]]], *, runs: int = RUNS, twice: bool = False
) -> dict[str, float]:
    """Return median seconds by name of several (work, setup), in turns: a busy machine then slows all alike.

    With `twice`, each turn is done two times, and the second counts: what memory the first let go of is still there. A
    virtual machine may give free memory back to its host after 2 s, and has it again in 2 ms a MB.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, (work, setup) in works.items():
            seconds[name] += timings(work, setup, runs=1 + twice)[twice:]
    return {name: median(each) for name, each in seconds.items()}


class Stages:
    """Where time goes: each function named is timed without what it calls of the others."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[float] = []

    @contextmanager
    def watching(self, places: Sequence[tuple[Any, str, str]]) -> Iterator[Stages]:
        """Time (owner, attribute, stage) for as long as the block runs; several functions may share a stage."""
        before = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in places]
        try:
            for owner, attribute, stage in places:
                setattr(owner, attribute, self._timing(owner.__dict__[attribute], stage))
            yield self
        finally:
            for owner, attribute, function in before:
                setattr(owner, attribute, function)

    def _timing(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        self.seconds.setdefault(stage, 0.0)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            self._open.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                whole = time.perf_counter() - start
                self.seconds[stage] += whole - self._open.pop()
                if self._open:
                    self._open[-1] += whole

        return wrapper


def give_back() -> None:
    """Give free memory back to the system, where the C library can: else it is whoever allocates next who has it.

    To touch 24 MB of new memory for the first time takes longer than to read as much from a file.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_mb() -> float:
    """Return the peak of resident megabytes since this process began."""
    # (ru_maxrss would count the parent's memory from before the exec.)
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def machine(*distributions: str) -> dict[str, str]:
    """Return what figures depend on: processor, cores, system, Python, SQLite, and versions of distributions."""
    about = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for name in ("numpy", "whiteboard", *distributions):
        try:
            about[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            about[name] = "not installed"
    return about


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an aligned table under a title; the columns are the keys of the rows, in order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    left = [all(isinstance(row.get(name), str | None) for row in rows) for name in names]
    lines = [
        "  ".join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(*each, strict=True))
        for each in ((line, widths, left) for line in cells)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([title, "", lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:])])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def parser(about: str) -> argparse.ArgumentParser:
    """Return the options that all benchmarks share."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options.add_argument("--runs", type=int, default=RUNS, help="runs that a median is taken of (default: %(default)s)")
    return options


def report(about: Mapping[str, str], tables: Mapping[str, Sequence[Mapping[str, Any]]], file: Path | None) -> None:
    """Print the machine and the tables, and write them to a file where there is one."""
    print("  ".join(f"{name} {value}" for name, value in about.items()), end="\n\n")
    for title, rows in tables.items():
        print(table(title, rows), end="\n\n")
    sys.stdout.flush()
    if file is not None:
        file.write_text(json.dumps({"machine": about, "tables": tables}, indent=1) + "\n", "utf-8")
