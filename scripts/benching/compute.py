"""Computing: misses and hits beside hand-written NumPy, HIPS autograd and JAX, and where the time of a job goes.

Figures are µs a job, or ratios, medians of runs taken in turns. The boards are in memory and write nothing
(``persist="never"``); jobs are a `JobBatch` over nodes that lie scattered in one arena. All jobs are misses:

    pipeline        every job has sources of its own, never hashed before: the worst case
    graph           each node is in 20 jobs, and never hashed before: a round of an experiment
    tokens known    as pipeline, the nodes hashed before: another op over the same nodes
    bins alone      gather, forward, backward, separate: what is left without keys and store
    kernel          the op by hand on stacked sources; gathered: from the nodes' matrix, into whole columns;
                    stack+split: from one array a source, to one array a result
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import whiteboard as wb
from scripts.benching import measure, peers
from scripts.benching.peers import PEERS
from whiteboard import ops
from whiteboard.evaluation import bins, pipeline, queue, separate, session
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.identity import keys
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.systems import answering, node_sources, propagate, submission
from whiteboard.systems.nodes import Nodes

SIZES = (8, 64, 1024)
BINS = (1, 16, 256)
FEW = 200
"""Jobs by joblib, which is slow."""

DEGREE = 20
"""Jobs that a node of a graph is in: an edge of 21 cities is a job, and each city has 20."""

Setup = Callable[[], Any]
Work = tuple[Callable[[Any], object], Setup]


class Ready(NamedTuple):
    """A board with nodes, and the batch to process."""

    board: wb.Board
    system: wb.System
    batch: wb.JobBatch

    def process(self) -> None:
        """Answer the batch."""
        self.system.process(self.batch)


class Bench:
    """n jobs of one op at one size of source."""

    def __init__(self, op: str, d: int, n: int) -> None:
        self.op, self.n, self.arity = op, n, PEERS[op].arity
        rng = np.random.default_rng(0)
        self.theta = rng.normal(size=(n * self.arity, d))
        self.ids = rng.permutation(n * self.arity).reshape(n, self.arity)
        few, job = max(2, self.arity * n // DEGREE), np.arange(n)
        self.graph = np.stack([job % few, (job % few + 1 + job // few) % few], axis=1)[:, : self.arity]
        self.stacked = [self.theta[slot] for slot in self.ids.T]
        self.jobs = list(zip(*(list(x) for x in self.stacked), strict=True))

    def ready(self, *, hashed: bool = False, graph: bool = False, thrifty: bool = False, **options: Any) -> Ready:
        """Return a new board whose nodes have their tokens, or have not; in a graph each is in `DEGREE` jobs.

        A thrifty one has answered the same jobs before, of other values: what costs less than a key needs none.
        """
        options = {"persist": "auto", **options} if thrifty else options
        made = wb.open(":memory:", **{"persist": "never", **options})
        nodes = made.system("bench")
        nodes.add_nodes(np.arange(len(self.theta)), theta=self.theta)
        if thrifty:
            warm = made.system("warm")
            warm.add_nodes(np.arange(len(self.theta)), theta=self.theta + 1.0)
            for _ in range(2):  # from the second on it knows
                warm.process(wb.JobBatch(self.op, self.ids))
        if hashed:
            nodes.nodes.arenas[0].tokens(np.arange(len(self.theta)))
        return Ready(made, nodes, wb.JobBatch(self.op, self.graph if graph else self.ids))

    def nodes(self) -> node_sources.NodeSources:
        """Return the sources of all jobs, as a pipeline gets them."""
        made = Nodes()
        count = np.arange(len(self.theta))
        made.add(count, np.zeros_like(count), np.zeros(len(count), np.bool_), {"theta": self.theta})
        return node_sources.NodeSources(made, self.ids, list(made.arenas) * self.arity, self.ids)

    def compute(self, nodes: node_sources.NodeSources, size: int) -> None:
        """Gather, run one session a bin and put its results into columns: what is left of a job without its key."""
        spec, pool = ops.get(self.op), BufferPool()
        params = spec.bind(None)
        shape = spec.shape(self.op, nodes.shapes, params) or ()
        columns = [np.empty((self.n, *each), nodes.dtype) for each in (shape, *nodes.shapes)]
        for rows in bins.cut(np.arange(self.n), 1, size, size):
            with pool.lend() as lend, session.Session(spec, params, nodes.gather(rows, lend), shape) as one:
                for column, part in zip(columns, (one.forward(), *one.backward()), strict=True):
                    column[rows[0] : rows[0] + len(rows)] = part

    def works(self, size: int, jax: Callable[..., peers.Results] | None) -> dict[str, Work]:
        """Return everything that is timed for bins of one size."""
        kernel = PEERS[self.op].by_hand
        works: dict[str, Work] = {
            "pipeline": (Ready.process, lambda: self.ready(bin_jobs=size, bin_bytes=2**30)),
            "bins alone": (lambda nodes: self.compute(nodes, size), self.nodes),
            "thrifty": (Ready.process, lambda: self.ready(bin_jobs=size, bin_bytes=2**30, thrifty=True)),
            "tokens known": (Ready.process, lambda: self.ready(bin_jobs=size, bin_bytes=2**30, hashed=True)),
            "kernel": (lambda _: peers.in_bins(kernel, size, self.stacked, None), lambda: None),
            "kernel, gathered": (
                lambda _: peers.in_bins(kernel, size, [self.theta] * self.arity, list(self.ids.T)),
                lambda: None,
            ),
            "kernel, stack+split": (lambda _: peers.stack_and_split(kernel, size)(self.jobs), lambda: None),
            "autograd": (lambda _: peers.autograd_jobs(self.op)(self.jobs), lambda: None),
        }
        if self.arity > 1:
            works["graph"] = (
                Ready.process,
                lambda: self.ready(bin_jobs=size, bin_bytes=2**30, graph=True),
            )
        if jax is not None:
            compiled = jax
            compiled(*(x[:size] for x in self.stacked))  # compiled before it is timed
            works["jax"] = (lambda _: peers.in_bins(compiled, size, self.stacked, None), lambda: None)
            works["jax, stack+split"] = (lambda _: peers.stack_and_split(compiled, size)(self.jobs), lambda: None)
        return works


def misses(op: str, d: int, size: int, runs: int, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one row of times and one of ratios: an op at one size of source and of bin."""
    n = min(most, (512 if d == 1024 else 4096) if size > 1 else 256)
    seconds = measure.interleaved(Bench(op, d, n).works(size, peers.jax_bin(op)), runs=runs, twice=True)
    us = {name: value / n * 1e6 for name, value in seconds.items()}
    where = {"op": op, "D": d, "bin": size}
    ratios: dict[str, Any] = {}
    for name in ("pipeline", "thrifty", "graph", "tokens known", "bins alone"):
        if name not in us:
            continue
        ratios[f"{name} ÷ stack+split"] = us[name] / us["kernel, stack+split"]
        ratios[f"autograd ÷ {name}"] = us["autograd"] / us[name]
        if "jax" in us:
            ratios[f"jax ÷ {name}"] = us["jax, stack+split"] / us[name]
    return where | us, where | ratios


def hits(runs: int, n: int) -> list[dict[str, Any]]:
    """Return what a hit in memory costs, by `JobBatch` and by `call_many`, beside diskcache and joblib."""
    bench = Bench("mul", 64, n)
    ready = bench.ready()
    ready.process()
    works: dict[str, Work] = {
        "JobBatch": (lambda _: ready.process(), lambda: None),
        "call_many": (lambda _: ready.board.call_many("mul", *bench.stacked), lambda: None),
    }
    packages = [(a * b, b.copy(), a.copy()) for a, b in bench.jobs]
    with tempfile.TemporaryDirectory() as folder:
        closing = _cached_peers(works, bench, packages, folder)
        seconds = measure.interleaved(works, runs=runs)
        for close in closing:
            close()
    ready.board.close()
    counts = dict.fromkeys(works, n) | {"joblib hit": min(n, FEW)}
    us = {name: value / counts[name] * 1e6 for name, value in seconds.items()}
    rows = []
    for name, value in us.items():
        row: dict[str, Any] = {"hits in memory": name, "µs a job": value}
        for peer in ("diskcache get", "joblib hit"):
            if peer in us and name in ("JobBatch", "call_many"):
                row[f"× {peer}"] = us[peer] / value
        rows.append(row)
    return rows


def _cached_peers(works: dict[str, Work], bench: Bench, packages: list[Any], folder: str) -> list[Callable[[], Any]]:
    """Add diskcache and joblib where they are installed; return what closes them."""
    closing: list[Callable[[], Any]] = []
    try:
        import diskcache
    except ImportError:
        pass
    else:
        cache = diskcache.Cache(f"{folder}/diskcache")
        closing.append(cache.close)
        with cache.transact():
            for number, package in enumerate(packages):
                cache[number] = package
        works["diskcache get"] = (lambda _: [cache.get(number) for number in range(len(packages))], lambda: None)
    try:
        import joblib
    except ImportError:
        pass
    else:
        memory = joblib.Memory(f"{folder}/joblib", verbose=0)
        cached = memory.cache(PEERS["mul"].by_hand)
        few = bench.jobs[:FEW]
        for xs in few:
            cached(*xs)
        works["joblib hit"] = (lambda _: [cached(*xs) for xs in few], lambda: None)
    return closing


def identity(runs: int, n: int) -> list[dict[str, Any]]:
    """Return what a token and a key cost."""
    rows = []
    for d in SIZES:
        values = np.random.default_rng(0).normal(size=(n, 2, d))
        tokens = keys.tokens(values.reshape(2 * n, d)).reshape(n, 2, 16)
        prefix = keys.key_prefix(keys.Identity("mul", 1, b"", "exact", b"", keys.NO_PARAMS, "ones"), 2, keys.SMALL)

        def hash_all(_: Any, values: Any = values, d: int = d) -> None:
            keys.tokens(values.reshape(2 * n, d))

        def name_all(_: Any, tokens: Any = tokens, prefix: bytes = prefix) -> None:
            keys.keys(prefix, tokens)

        token, key = measure.timed(hash_all, runs=runs), measure.timed(name_all, runs=runs)
        rows.append({"D": d, "token, µs a source": token / n / 2 * 1e6, "key at k = 2, µs a job": key / n * 1e6})
    return rows


PLACES = (
    (queue.JobQueue, "submit", "queue"),
    (queue.JobQueue, "drain", "queue"),
    (submission, "answer", "queue"),
    (answering, "batches", "columns"),
    (propagate, "locate", "locate"),
    (answering, "locate", "locate"),
    (node_sources.NodeSources, "tokens", "token"),
    (pipeline.Pipeline, "_keys", "key"),
    (pipeline, "triage", "triage"),
    (MemoryTier, "find", "triage"),
    (bins, "cut", "bin"),
    (bins, "by_signature", "bin"),
    (node_sources.NodeSources, "gather", "gather"),
    (session.Session, "__init__", "session"),
    (session.Session, "forward", "forward"),
    (session.Session, "backward", "backward"),
    (MemoryTier, "put", "put"),
    (separate, "columns", "separate"),
    (wb.CallbackSink, "publish", "sink"),
)
"""Functions whose own time is a stage's; what is left over is in "rest"."""


def stages(runs: int, most: int) -> list[dict[str, Any]]:
    """Return where the time of a job goes: batches at each size, and jobs that are submitted one by one."""
    columns: dict[str, Mapping[str, float]] = {}
    for d in SIZES:
        bench = Bench("mul", d, min(most, 4096 if d < 1024 else 512))
        columns[f"misses, D={d}"] = _stages(bench, runs, _published)
    bench = Bench("mul", 64, min(most, 4096))
    columns["hits, D=64"] = _stages(bench, runs, _published, warm=True)
    columns["submitted, D=64"] = _stages(Bench("mul", 64, min(most, 1024)), runs, _submitted)
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    return [{"stage": name, **{title: column[name] for title, column in columns.items()}} for name in names]


def _published(ready: Ready) -> None:
    ready.system.process(ready.batch, wb.CallbackSink(lambda _: None))


def _submitted(ready: Ready) -> None:
    futures = [ready.board.submit(wb.Job(ready.batch.op, ids)) for ids in np.asarray(ready.batch.src_ids).tolist()]
    ready.board.drain()
    for future in futures:
        future.result()


def _same(ready: Ready) -> Ready:
    return ready


def _stages(bench: Bench, runs: int, work: Callable[[Ready], None], *, warm: bool = False) -> dict[str, float]:
    taken: list[dict[str, float]] = []
    for _ in range(runs):
        ready = bench.ready()
        if warm:
            ready.process()
        watch = measure.Stages()
        with watch.watching(PLACES):
            (whole,) = measure.timings(work, partial(_same, ready), runs=1)
        ready.board.close()
        rest = whole - sum(watch.seconds.values())
        taken.append({**watch.seconds, "rest": rest, "whole": whole})
    return {name: float(np.median([run[name] for run in taken])) / bench.n * 1e6 for name in taken[0]}


def bin_sizes(runs: int, most: int) -> list[dict[str, Any]]:
    """Return what the bound of a bin does, tokens known."""
    rows = []
    for d in SIZES:
        bench = Bench("mul", d, min(most, 8192 if d < 1024 else 1024))
        works: dict[str, Work] = {
            f"{kib} KiB": (Ready.process, partial(bench.ready, hashed=True, bin_bytes=kib * 2**10))
            for kib in (64, 128, 256, 512, 1024, 2048)
        }
        seconds = measure.interleaved(works, runs=runs)
        rows.append({"D": d, **{name: value / bench.n * 1e6 for name, value in seconds.items()}})
    return rows


def main() -> None:
    """Print the tables."""
    options = measure.parser(__doc__ or "")
    options.add_argument(
        "--jobs", type=int, default=10_000, help="jobs of a measurement at most (default: %(default)s)"
    )
    given = options.parse_args()
    runs, most = given.runs, given.jobs
    rows = [misses("mul", d, size, runs, most) for d in SIZES for size in BINS]
    rows += [misses(op, 64, 256, runs, most) for op in PEERS if op != "mul"]
    tables = {
        "Misses (µs a job)": [times for times, _ in rows],
        "Misses, against the kernel, autograd and JAX with stack and split (ratios)": [ratios for _, ratios in rows],
        "Hits of mul at D = 64 (µs a job)": hits(runs, most),
        "Tokens and keys": identity(runs, min(most, 4096)),
        "Where the time goes (µs a job)": stages(runs, most),
        "The bound of a bin, tokens known (µs a job)": bin_sizes(runs, most),
    }
    about = measure.machine("autograd", "jax", "diskcache", "joblib")
    if about["jax"] == "not installed":
        print("JAX is not installed: its columns are left out\n")
    measure.report(about, tables, given.json)


if __name__ == "__main__":
    main()
