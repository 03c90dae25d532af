"""Kill, stop and wake processes that compute the same keys on one store: each key is computed once.

Some clients ask round after round for the same keys, of an op that costs some milliseconds, and write down each
evaluation that they begin; with ``--workers`` each has that many processes compute. At random instants one is killed
with SIGKILL and replaced, or stopped with SIGSTOP for shorter or longer than a lease, and woken; so are its workers.
Only what was under way then may be computed again, nobody who is not stopped may be without progress for long, no
worker may outlive its client, and in the end a system made of the results has the digest of one that was computed
alone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

import whiteboard as wb
from scripts.torturing.workload import finish
from whiteboard.evaluation import elsewhere
from whiteboard.storage import open_store
from whiteboard.storage.upkeep.verify import verify
from whiteboard.workers.client import AHEAD

KEYS = 24
CLIENTS = 4
COST = 0.025
LEASE = 1.0
LONGEST_STOP = 2.5
PATIENCE = 30.0
"""Seconds without progress that are too many: a lease, a stop inside a write, and a loaded machine."""
ENDING = 5.0
"""Seconds that a worker which has only begun may outlive its client: it looks for it when it has imported itself."""


def register(log: Path | None) -> None:
    """Register the op, which says what it begins, and for which client."""
    client, cost = os.getpid(), COST  # what goes to a worker goes by value

    def slow(x: Any) -> Any:
        if log is not None:
            with log.open("ab", buffering=0) as file:
                file.write(f"{int(x[0])} {client}\n".encode())
            time.sleep(cost)
        return np.square(x).sum()

    wb.op("slow", vjp=lambda cotangent, _, x: 2 * x * cotangent, identity="torture 1", kind="scalar", replace=True)(
        slow
    )


def batch(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The sources of one round."""
    first: np.ndarray[Any, np.dtype[np.float64]] = np.arange(KEYS * number, KEYS * (number + 1), dtype=float)
    return np.stack([first, 0.5 * first], axis=1)


def ask(path: Path, log: Path, rounds: Path, first: int, workers: int) -> None:
    """Ask for round after round until killed; each that was answered is a line: its number, process and faults."""
    register(log)
    done = os.open(rounds, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with wb.open(path, memory_bytes=0, executor=workers or None) as board:
        number = first
        while True:
            x = batch(number)
            try:
                result = board.call_many("slow", x)
            except wb.errors.JobsError as error:
                if not all(isinstance(each, wb.errors.ExecutorError) for each in error.exceptions):
                    raise
                continue  # a worker was killed: what it was at is asked for again
            faults = int((result.y != np.square(x).sum(1)).sum()) + int((result.grads[0] != 2 * x).sum())
            os.write(done, f"{number} {os.getpid()} {faults}\n".encode())
            number += 1


@dataclass(slots=True)
class Client:
    """One that asks."""

    process: BaseProcess
    rounds: int = 0
    since: float = field(default_factory=time.monotonic)
    wake_at: float | None = None

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


def lines(path: Path) -> list[list[int]]:
    """Whole lines of numbers."""
    text = path.read_text() if path.exists() else ""
    return [list(map(int, line.split())) for line in text.split("\n")[:-1]]


def children(pid: int) -> list[int]:
    """Processes that a process began."""
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
        return [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:  # it ends
        return []


def runs(pid: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def digest(path: Path, rounds: int) -> str:
    """The digest of a system that took a step by the results of all rounds."""
    theta = np.concatenate([batch(number) for number in range(rounds)])
    ids = np.arange(len(theta))
    with wb.open(path) as board:
        system = board.system("all")
        system.add_nodes(ids, theta=theta)
        system.commit()
        system.process(wb.JobBatch("slow", ids[:, None], residual=1.0))
        system.commit(wb.rules.Relax(eta=0.1, rtol=1e-3, atol=1e-3))
        return system.digest()


class Clients:
    """All who ask, and what was done to them."""

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        self.workers = workers
        self.bereft: set[int] = set()
        self.chance = random.Random(seed)
        self.path, self.log, self.rounds = (folder / name for name in ("a.db", "log", "rounds"))
        self.context = get_context("fork")
        self.touched: set[int] = set()
        self.counts = Counter({"kills": 0, "stops": 0, "wrong": 0})
        self.slowest = 0.0
        self.all: list[Client] = []

    def begin(self) -> None:
        """Begin those that are missing, a little behind the others."""
        first = max(0, max((number for number, _, _ in lines(self.rounds)), default=0) - 1)
        while len(self.all) < CLIENTS:
            arguments = (self.path, self.log, self.rounds, first, self.workers)
            process = self.context.Process(target=ask, args=arguments, daemon=True)
            process.start()
            self.all.append(Client(process))

    def hurt(self) -> None:
        """Kill one, or stop one for a while."""
        client = self.chance.choice(self.all)
        self.touched.add(client.pid)
        workers = children(client.pid) if self.workers else []
        if workers and self.chance.random() < 0.5:
            self.hurt_worker(self.chance.choice(workers))
            return
        if self.chance.random() < 0.5 and client.wake_at is None:
            os.kill(client.pid, signal.SIGSTOP)
            client.wake_at = time.monotonic() + self.chance.uniform(0.05, LONGEST_STOP)
            self.counts["stops"] += 1
            return
        os.kill(client.pid, signal.SIGKILL)
        client.process.join()
        self.all.remove(client)
        self.bereft.update(workers)
        self.counts["kills"] += 1

    def hurt_worker(self, pid: int) -> None:
        """Kill a worker, or stop it for a while."""
        try:
            if self.chance.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
                self.counts["kills"] += 1
                return
            os.kill(pid, signal.SIGSTOP)
            self.counts["stops"] += 1
            time.sleep(self.chance.uniform(0.05, 0.5))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # it ended by itself
            return

    def look(self) -> None:
        """Wake who has slept enough, and see that the others get on."""
        now = time.monotonic()
        done = Counter(pid for _, pid, _ in lines(self.rounds))
        for client in self.all:
            if client.process.exitcode is not None:
                self.wrong(f"process {client.pid} ended by itself with {client.process.exitcode}")
                self.all.remove(client)
                return
            if client.wake_at is not None and now >= client.wake_at:
                os.kill(client.pid, signal.SIGCONT)
                client.wake_at, client.since = None, now
            if done[client.pid] != client.rounds or client.wake_at is not None:
                client.rounds, client.since = done[client.pid], now
            self.slowest = max(self.slowest, now - client.since)
            if now - client.since > PATIENCE:
                self.wrong(f"process {client.pid} got nowhere for {PATIENCE:.0f} s")
                client.since = now

    def wrong(self, what: str) -> None:
        """Say what is wrong, and count it."""
        print(what, flush=True)
        self.counts["wrong"] += 1

    def end(self) -> None:
        """End all."""
        for client in self.all:
            client.process.kill()
            client.process.join()
            self.touched.add(client.pid)

    def most(self) -> int:
        """How many can have been under way at what was done to them."""
        hurt = self.counts["kills"] + self.counts["stops"] + CLIENTS
        return hurt * round(0.1 / COST) * max(1, AHEAD * self.workers)

    def check(self) -> None:
        """Compare what was begun with what had to be."""
        end = time.monotonic() + ENDING
        while (alive := [pid for pid in self.bereft if runs(pid)]) and time.monotonic() < end:
            time.sleep(0.05)
        if alive:
            self.wrong(f"workers {alive} outlive their clients")
        begun = lines(self.log)
        rounds = lines(self.rounds)
        twice = Counter(key for key, pid in begun if pid not in self.touched)
        for key, times in twice.items():
            if times > 1:
                self.wrong(f"key {key} was computed {times} times by processes that nobody touched")
        keys = {key for key, _ in begun}
        again = len(begun) - len(keys)
        if again > self.most():
            self.wrong(f"{again} were computed again, where {self.most()} can have been under way")
        self.counts.update(rounds=len(rounds), keys=len(keys), again=again)
        self.counts["wrong"] += sum(faults for _, _, faults in rounds)


def torture(seconds: float, seed: int, folder: Path, workers: int = 0) -> dict[str, Any]:
    """Hurt clients for some seconds and return counts."""
    defaults: tuple[Any, ...] = elsewhere.Elsewhere.__init__.__defaults__ or ()
    elsewhere.Elsewhere.__init__.__defaults__ = (LEASE, *defaults[1:])
    clients = Clients(folder, seed, workers)
    wb.open(clients.path).close()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            clients.begin()
            hurt_at = time.monotonic() + clients.chance.uniform(0.1, 1.0)
            while time.monotonic() < hurt_at:
                clients.look()
                time.sleep(0.02)
            clients.hurt()
    finally:
        clients.end()
    clients.check()
    register(None)
    rounds = max((number for number, _, _ in lines(clients.rounds)), default=0) + 1
    with wb.open(clients.path) as board:
        result = board.call_many("slow", np.concatenate([batch(number) for number in range(rounds)]))
        if missing := int((result.hit == 0).sum()):
            clients.wrong(f"{missing} packages that were answered are not there")
    if digest(clients.path, rounds) != digest(folder / "serial.db", rounds):
        clients.wrong("a system has another digest than one that was computed alone")
    with open_store(clients.path) as stores:
        stores.gc()
        if left := stores.info()["claims"]:
            clients.wrong(f"{left} claims of the dead are left")
        if not (report := verify(stores.database)).ok:
            clients.wrong(f"verify: {report}")
    return {**clients.counts, "slowest": round(clients.slowest, 2)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that compute for each client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish("claims", torture(options.seconds, options.seed, Path(folder), options.workers))


if __name__ == "__main__":
    main()
