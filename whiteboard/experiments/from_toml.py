"""Experiments written as TOML files: nodes, jobs, a rule and a stop.

::

    name = "triangle"                  # default: the file's name
    measure = "relative_stress"        # or "mse"
    errors = "raise"                   # or "collect": rounds go on without the impulses of jobs that fail

    [[nodes]]
    ids = [0, 1, 2]
    p = { random = { seed = 1, shape = [3, 2], scale = 1.0 } }
    attrs = { ctrl = [1.0, 2.0, 3.0] } # any others

    [[jobs]]
    op = "distance"
    src_ids = { csv = "edges.csv", columns = ["a", "b"] }
    target = { csv = "edges.csv", columns = "length" }
    attr = "p"

    [rule]
    kind = "StressDescent"             # or "Relax"; the other keys are its arguments
    omega = 0.9

    [stop]
    change = 1e-12
    rounds = 10
    relative = false

    [options]                          # keywords of wb.open
    persist = "auto"

An array is a (nested) list of numbers, ``{ csv = FILE, columns = NAME or [NAMES] }``, ``{ npy = FILE }``, or
``{ random = { seed, shape, scale } }`` (normal). Files are found beside the TOML file. Jobs take the fields of
`JobBatch`: op, src_ids, out_ids, residual, target, scale, weight, params, attr (a name, or one a slot).
"""

from __future__ import annotations

import csv
import errno
import re
import reprlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from whiteboard import ops
from whiteboard.errors import ExperimentError, WhiteboardError
from whiteboard.experiments.definition import Experiment, Stop
from whiteboard.identity.keys import digest, encode_first
from whiteboard.systems.jobs import ATTRS, JobBatch
from whiteboard.systems.rules import Relax, Rule, StressDescent
from whiteboard.systems.specification import check_name
from whiteboard.systems.system import System
from whiteboard.types import Array, Errors

TOP = {"name", "measure", "errors", "nodes", "jobs", "rule", "stop", "options"}
NODES = {"ids", "theta", "p", "fixed", "attrs"}
JOBS = {"op", "src_ids", "out_ids", "residual", "target", "scale", "weight", "params", "attr"}
RULES: Mapping[str, type[StressDescent | Relax]] = {"StressDescent": StressDescent, "Relax": Relax}
OPTIONS = {"memory_bytes", "max_bytes", "persist", "durability"}
INTEGERS = {"ids", "src_ids", "out_ids"}


def from_toml(path: Path, seed: int | None = None) -> Experiment:
    """Read an experiment; `seed`, where given, takes the place of every seed in the file.

    Raises
    ------
    ExperimentError
        Names the file, the line and the key.
    """
    reader = _Reader(path, seed)
    table = reader.table
    reader.known(table, TOP, ())
    nodes = [reader.nodes(part, number) for number, part in enumerate(reader.tables("nodes"))]
    attrs = list(dict.fromkeys((*ATTRS, *chain.from_iterable(part.get("attrs", ()) for part in nodes))))
    jobs = [reader.jobs(part, number, attrs) for number, part in enumerate(reader.tables("jobs"))]
    rule, stop = reader.rule(), reader.stop()
    options = reader.one_table("options")
    reader.known(options, OPTIONS, ("options",))

    def setup(system: System) -> None:
        for number, columns in enumerate(nodes):
            with reader.blame("nodes", number):
                system.add_nodes(**columns)

    content = [nodes, [[getattr(batch, name) for name in sorted(JOBS)] for batch in jobs]]
    name = reader.text_of("name", path.stem)
    with reader.blame("name"):
        check_name(name)
    with reader.blame():
        settings = {"content": digest(encode_first(content)).hex()}
    with reader.blame("measure"):
        return Experiment(
            name,
            setup,
            jobs,
            rule,
            stop,
            measure=reader.text_of("measure", "relative_stress"),
            errors=cast(Errors, reader.text_of("errors", "raise")),
            settings=settings,
            options=options,
        )


class _Reader:
    """One TOML file: its table, and where each key stands."""

    def __init__(self, path: Path, seed: int | None) -> None:
        self.path, self.seed = path, seed
        try:
            self.text = _regular(path).read_text(encoding="utf-8-sig")
            self.table: dict[str, Any] = tomllib.loads(self.text)
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
            raise ExperimentError(msg) from error
        except (ValueError, RecursionError) as error:
            msg = f"{path}: not TOML: {error}"
            raise ExperimentError(msg) from error

    def fail(self, message: str, *keys: str | int) -> ExperimentError:
        """Return an error that names file, line and key."""
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        return ExperimentError(f"{self.path}:{self.line(*keys)}: {name}: {message}")

    def line(self, *keys: str | int) -> int:
        """Return the line of a key, or of the nearest table above it that has a line."""
        lines = self.text.splitlines()
        start, end = 0, len(lines)
        names = [str(key) for key in keys if isinstance(key, str)]
        number = next((key for key in keys if isinstance(key, int)), 0)
        if names:
            heads = [i for i, text in enumerate(lines) if re.match(rf"\s*\[+\s*{re.escape(names[0])}\s*\]+", text)]
            if heads:
                start = heads[min(number, len(heads) - 1)]
                end = next((i for i in range(start + 1, end) if lines[i].lstrip().startswith("[")), end)
        for i in range(start, end):
            if names and re.match(rf"\s*{re.escape(names[-1])}\s*=", lines[i]):
                return i + 1
        return start + 1

    @contextmanager
    def blame(self, *keys: str | int) -> Iterator[None]:
        """Give an error inside the block the file, the line and the key."""
        try:
            yield
        except ExperimentError:
            raise
        except WhiteboardError as error:
            raise self.fail(str(error), *keys) from error
        except Exception as error:  # whatever a value of another type or size does to what it is given to
            msg = f"{type(error).__name__}: {error}"
            raise self.fail(msg, *keys) from error

    def known(self, table: Mapping[str, Any], names: set[str], keys: tuple[str | int, ...]) -> None:
        """Raise for a key that is not one of `names`."""
        if unknown := sorted(table.keys() - names):
            msg = f"unknown key; expected one of {', '.join(sorted(names))}"
            raise self.fail(msg, *keys, unknown[0])

    def one_table(self, name: str) -> dict[str, Any]:
        """Return a copy of a table, which may be left out."""
        return dict(self.expect_table(self.table.get(name, {}), name))

    def expect_table(self, value: Any, *keys: str | int) -> dict[str, Any]:
        """Return a table, or raise for any other value."""
        if isinstance(value, dict):
            return value
        msg = f"expected a table, got {value!r:.80}"
        raise self.fail(msg, *keys)

    def text_of(self, name: str, default: str) -> str:
        """Return a text."""
        value = self.table.get(name, default)
        if isinstance(value, str):
            return value
        msg = f"expected a text, got {value!r:.80}"
        raise self.fail(msg, name)

    def tables(self, name: str) -> list[dict[str, Any]]:
        """Return a table, or an array of tables, as a list that is not empty."""
        found = self.table.get(name, [])
        found = [found] if isinstance(found, dict) else found
        if not isinstance(found, list) or not found or not all(isinstance(part, dict) for part in found):
            msg = f"expected at least one table [[{name}]]"
            raise self.fail(msg, name)
        return found

    def nodes(self, part: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the columns of one group of nodes."""
        self.known(part, NODES, ("nodes", number))
        if "ids" not in part:
            msg = "missing"
            raise self.fail(msg, "nodes", number, "ids")
        others = self.expect_table(part.get("attrs", {}), "nodes", number, "attrs")
        columns: dict[str, Any] = {
            name: self.array(value, "nodes", number, name) for name, value in part.items() if name != "attrs"
        }
        if others:
            columns["attrs"] = {
                name: self.array(value, "nodes", number, "attrs", name) for name, value in others.items()
            }
        return columns

    def jobs(self, part: dict[str, Any], number: int, attrs: Sequence[str]) -> JobBatch:
        """Return one batch of jobs over nodes that have these attributes."""
        self.known(part, JOBS, ("jobs", number))
        for name in ("op", "src_ids"):
            if name not in part:
                msg = "missing"
                raise self.fail(msg, "jobs", number, name)
        plain = {"op", "weight", "params", "attr"}
        columns = {
            name: value if name in plain else self.array(value, "jobs", number, name) for name, value in part.items()
        }
        asked = columns.get("attr", "theta")
        if any(name not in attrs for name in (asked if isinstance(asked, list) else [asked])):
            msg = f"expected one of {', '.join(map(repr, attrs))}, got {asked!r:.80}"
            raise self.fail(msg, "jobs", number, "attr")
        with self.blame("jobs", number, "op"):
            ops.get(columns["op"]).bind(columns.get("params"))
        with self.blame("jobs", number):
            return JobBatch(**columns)

    def rule(self) -> Rule:
        """Return the rule."""
        part = self.one_table("rule")
        kind = part.pop("kind", None)
        if not isinstance(kind, str) or kind not in RULES:
            msg = f"expected one of {', '.join(RULES)}, got {kind!r}"
            raise self.fail(msg, "rule", "kind")
        self.known(part, {field.name for field in fields(RULES[kind])}, ("rule",))
        with self.blame("rule"):
            made: Rule = RULES[kind](**part)
            return made

    def stop(self) -> Stop:
        """Return the stop."""
        part = self.one_table("stop")
        self.known(part, {field.name for field in fields(Stop)}, ("stop",))
        with self.blame("stop"):
            return Stop(**{"change": 1e-12, "rounds": 10, **part})

    def array(self, value: Any, *keys: str | int) -> Any:
        """Return the array that a value describes."""
        name = str(keys[-1])
        with self.blame(*keys):
            if isinstance(value, dict):
                self.known(value, {"csv", "columns", "npy", "random"}, keys)
                value = self.described(value, *keys)
            array = np.asarray(value)
            if array.dtype.kind not in "biuf":
                msg = f"expected numbers, got {reprlib.repr(value)}"
                raise self.fail(msg, *keys)
            if name in INTEGERS or name == "fixed":
                return array
            return array.astype(np.float64) if array.dtype.kind in "iu" else array

    def described(self, value: dict[str, Any], *keys: str | int) -> Array:
        """Return the array that a table describes: a CSV file's columns, an NPY file, or random numbers."""
        if "random" in value:
            how = self.expect_table(value["random"], *keys, "random")
            self.known(how, {"seed", "shape", "scale"}, (*keys, "random"))
            if "shape" not in how:
                msg = "missing"
                raise self.fail(msg, *keys, "random", "shape")
            rng = np.random.default_rng(how.get("seed", 0) if self.seed is None else self.seed)
            return rng.normal(scale=how.get("scale", 1.0), size=tuple(how["shape"]))
        try:
            if "npy" in value:
                loaded: Array = np.load(_regular(self.path.parent / value["npy"]), allow_pickle=False)
                return loaded
            return _columns(self.path.parent / value["csv"], value["columns"], integers=keys[-1] in INTEGERS)
        except OSError as error:
            msg = f"{error.filename}: {error.strerror}"
            raise self.fail(msg, *keys) from error
        except KeyError as error:
            msg = f"missing {error}"
            raise self.fail(msg, *keys) from error


def _regular(path: Path) -> Path:
    """Return the path of a file that has an end: a pipe's may never come."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path


def _columns(path: Path, columns: str | list[str], *, integers: bool) -> Array:
    """Return one column of a CSV file as (rows,), or several as (rows, columns)."""
    with _regular(path).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    kind = int if integers else float
    if isinstance(columns, str):
        return np.array([kind(row[columns]) for row in rows])
    return np.array([[kind(row[name]) for name in columns] for row in rows])
