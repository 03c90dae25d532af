"""``whiteboard run``: start or resume an experiment, with a progress bar, safe to interrupt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.cli.computing import computing
from whiteboard.cli.options import MOST, dask_option, echo, json_option, store_option, workers_option
from whiteboard.cli.progress import INTERRUPTED, answered, interrupts, progress
from whiteboard.cli.terminal import say
from whiteboard.errors import PlotError
from whiteboard.experiments import load
from whiteboard.experiments.definition import Experiment, Outcome, Plot
from whiteboard.experiments.draw import check_plot
from whiteboard.experiments.drive import drive
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.file_identity import refuse
from whiteboard.systems.history import Commit
from whiteboard.systems.sinks import JsonlSink, NullSink
from whiteboard.systems.system import System


@click.command(epilog="For example: whiteboard run europe --plot europe.png")
@click.argument("experiment")
@store_option
@click.option("--name", help="Name of the system; the experiment's where it is not given.")
@click.option("--rounds", type=click.IntRange(0, MOST), help="Stop at this many rounds in all.")
@click.option("--seed", type=click.IntRange(0, MOST), help="Start at random from this seed.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the result into this file (.png, .svg, .pdf).")
@click.option("--log", type=click.Path(path_type=Path), help="Append one JSON line for each commit to this file.")
@click.option("--takeover", is_flag=True, help="Write the system although a writer on another host claims it.")
@workers_option
@dask_option
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@json_option
def run(
    experiment: str,
    store: str,
    name: str | None,
    rounds: int | None,
    seed: int | None,
    plot: Path | None,
    log: Path | None,
    workers: int | None,
    dask: str | None,
    *,
    takeover: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run EXPERIMENT, or resume it where it was stopped.

    EXPERIMENT is a built-in name (europe, diabetes), a TOML file, or module:function of a function that returns a
    `whiteboard.experiments.Experiment`. Ctrl-C stops after the commit under way.
    """
    wanted = load(experiment, seed)
    if plot is not None:
        if wanted.plot is None:
            msg = f"experiment {wanted.name!r} draws nothing: leave --plot {plot} out"
            raise PlotError(msg)
        check_plot(plot)
    for path in (log, plot):
        if path is not None:
            refuse(path, [locate(store).path])
    began = time.monotonic()
    with (
        _log(log) as logged,
        computing(workers, dask) as executor,
        boards.open(store, **{**wanted.options, "executor": executor}) as board,
        interrupts() as interrupted,
    ):
        system = board.system(wanted.name if name is None else name, wanted.spec, takeover=takeover)
        with progress("round", rounds, quiet=quiet or as_json) as show:

            def committed(commit: Commit, measure: float | None) -> None:
                logged.publish(commit)
                show(commit.id, partial(_text, board, wanted.measure, measure))

            outcome = drive(
                wanted,
                system,
                rounds=rounds,
                started=lambda resumed: None if quiet or as_json else _started(system.name, resumed, wanted.notes),
                committed=committed,
                stop=interrupted,
            )
        board.flush()
        if plot is not None and wanted.plot is not None:
            _draw(wanted.plot, system, outcome, plot)
        fields = _fields(board, wanted, system.name, outcome, time.monotonic() - began)
        if as_json:
            echo(fields, as_json=True)
        elif not quiet:
            _summary(fields, wanted.measure, outcome, plot)
        if interrupted() and not outcome.done:
            if not quiet:
                say(f"stopped at commit {outcome.commit.id}; the same command goes on from there", err=True)
            return INTERRUPTED
    return 0


def _draw(draw: Plot, system: System, outcome: Outcome, path: Path) -> None:
    try:
        draw(system, outcome, path)
    except OSError as error:
        msg = f"cannot draw {path}: {error.strerror or error}"
        raise PlotError(msg) from error


def _log(path: Path | None) -> AbstractContextManager[JsonlSink | NullSink]:
    return nullcontext(NullSink()) if path is None else JsonlSink(path)


def _started(name: str, resumed: int | None, notes: str) -> None:
    state = "started" if resumed is None else f"resumed at commit {resumed}"
    say(f"{name}: {state}{notes and f'; {notes}'}", err=True)


def _fields(board: Board, experiment: Experiment, name: str, outcome: Outcome, seconds: float) -> dict[str, Any]:
    stats = board.stats()
    return {
        "name": name,
        "commit": outcome.commit.id,
        "rounds": outcome.rounds,
        "resumed_from": outcome.resumed_from,
        "digest": outcome.commit.digest,
        experiment.measure: outcome.measure,
        **{key: int(stats[key]) for key in ("misses", "hits_memory", "hits_disk")},
        "seconds": round(seconds, 3),
        **({"failed": outcome.failed} if outcome.failed else {}),
    }


def _summary(fields: Mapping[str, Any], measure: str, outcome: Outcome, plot: Path | None) -> None:
    answered = fields["misses"] + fields["hits_memory"] + fields["hits_disk"]
    state = "done" if outcome.done else "not done"
    value = "-" if outcome.measure is None else f"{outcome.measure:.10g}"
    say(f"{fields['name']}: {state} at commit {fields['commit']}, {measure} {value}")
    say(f"digest {fields['digest']}")
    say(
        f"{outcome.rounds} rounds in {fields['seconds']:.2f} s; "
        f"of {answered:,} packages {fields['misses']:,} computed, "
        f"{fields['hits_memory']:,} from memory, {fields['hits_disk']:,} from disk"
    )
    if outcome.failed:
        say(f"{outcome.failed:,} jobs failed: the rounds went on without their impulses")
    if plot is not None:
        say(f"drawn to {plot}")


def _text(board: Board, name: str, measure: float | None) -> str:
    return f"{name} {'-' if measure is None else f'{measure:.8g}'}  {answered(board)}"
