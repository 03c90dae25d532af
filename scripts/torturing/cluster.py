"""Kill clients, their workers and the server under them: what was acknowledged is there, and nobody hangs.

Some clients ask round after round for the same keys of a store on a PostgreSQL server of their own, each with a worker
that computes; a writer commits step after step of a system. At random instants a client, a worker or the writer is
killed or stopped, a session of the server ended or killed, or the whole server stopped as a crash would, and started
again. Keys may be computed again that were under way then, or while there was no server to claim them at. In the end
every commit that was acknowledged is there, its digest and that of a system made of all results are those of a serial
run in a file, no claim is left, and verify finds nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

import whiteboard as wb
from scripts.torturing import claims
from scripts.torturing.claims import CLIENTS, Client, Clients, batch, digest, lines, register
from scripts.torturing.server import Server, programs
from scripts.torturing.workload import finish
from whiteboard.errors import ConflictError, ExecutorError, JobsError, StoreError
from whiteboard.evaluation import elsewhere
from whiteboard.storage import open_store
from whiteboard.storage.upkeep.verify import verify

PAUSE = 0.1
LONGEST_OUTAGE = 1.5


def ask(url: str, log: Path, rounds: Path, first: int, workers: int) -> None:
    """Ask for round after round until killed, again where the server is away or a worker was killed."""
    register(log)
    warnings.simplefilter("ignore")  # what is kept in memory while there is no server
    done = os.open(rounds, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    board, number = opened(url, workers), first
    while True:
        x = batch(number)
        try:
            result = board.call_many("slow", x)
        except (StoreError, ExecutorError):
            time.sleep(PAUSE)
            continue
        except JobsError as error:
            if not all(isinstance(each, ExecutorError) for each in error.exceptions):
                raise
            continue
        faults = int((result.y != np.square(x).sum(1)).sum()) + int((result.grads[0] != 2 * x).sum())
        os.write(done, f"{number} {os.getpid()} {faults}\n".encode())
        number += 1


def opened(url: str, workers: int = 0) -> wb.Board:
    """Open a board as soon as there is a server."""
    while True:
        try:
            return wb.open(url, memory_bytes=0, executor=workers or None)
        except StoreError:
            time.sleep(PAUSE)


def step(system: wb.System, number: int) -> None:
    """Commit one step of the writer's system."""
    if number == 0:
        system.add_nodes(range(8), theta=np.zeros((8, 3)))
    else:
        system.write(number % 8, theta=np.full(3, float(number)))
    system.commit()


def write(url: str, acknowledged: Path) -> None:
    """Commit step after step until killed, from wherever the system stands; each that returned is a line."""
    done = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        try:
            with opened(url) as board:
                system = board.system("steps")
                while True:
                    number = 0 if system.head is None else system.head.id + 1
                    step(system, number)
                    os.write(done, f"{number}\n".encode())
        except (StoreError, ConflictError):  # the server is away, or has not noticed that the last writer is dead
            time.sleep(PAUSE)


class Cluster(Clients):
    """All who ask, the one who writes, and the server."""

    def __init__(self, folder: Path, seed: int, server: Server) -> None:
        super().__init__(folder, seed, workers=1)
        self.server = server
        self.path = server.url.render_as_string()  # type: ignore[assignment]
        self.acknowledged = folder / "acknowledged"
        self.counts.update(crashes=0, sessions=0)
        self.writer: BaseProcess | None = None

    def begin(self) -> None:
        first = max(0, max((number for number, _, _ in lines(self.rounds)), default=0) - 1)
        while len(self.all) < CLIENTS - 1:
            arguments = (self.path, self.log, self.rounds, first, self.workers)
            process = self.context.Process(target=ask, args=arguments, daemon=False)
            process.start()
            self.all.append(Client(process))
        if self.writer is None or not self.writer.is_alive():
            self.writer = self.context.Process(target=write, args=(self.path, self.acknowledged), daemon=True)
            self.writer.start()

    def hurt(self) -> None:
        what = self.chance.random()
        if what < 0.45:
            super().hurt()
        elif what < 0.6:
            assert self.writer is not None
            self.writer.kill()
            self.writer.join()
            self.counts["kills"] += 1
        elif what < 0.85:
            self.hurt_session()
        else:
            self.everybody_is_touched()
            self.server.crash()
            time.sleep(self.chance.uniform(0, LONGEST_OUTAGE))
            self.server.start()
            self.counts["crashes"] += 1

    def hurt_session(self) -> None:
        """End a session, or kill its process."""
        url = self.server.url.set(drivername="postgresql").render_as_string()
        sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'whiteboard'"
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                pids = [pid for (pid,) in connection.execute(sql)]
                if not pids:
                    return
                self.everybody_is_touched()
                if self.chance.random() < 0.3:
                    self.server.kill_backend(self.chance.choice(pids))
                    self.counts["crashes"] += 1
                else:
                    connection.execute("SELECT pg_terminate_backend(%s)", (self.chance.choice(pids),))
                    self.counts["sessions"] += 1
        except psycopg.OperationalError:  # it recovers
            return

    def everybody_is_touched(self) -> None:
        """Claims may be lost whose holders go on."""
        self.touched.update(client.pid for client in self.all)

    def most(self) -> int:
        """How often keys may be computed again: where there was no server, each client goes on by itself."""
        return super().most() + CLIENTS * claims.KEYS * (self.counts["crashes"] + self.counts["sessions"])

    def end(self) -> None:
        super().end()
        if self.writer is not None:
            self.writer.kill()
            self.writer.join()

    def check_commits(self, folder: Path) -> None:
        """Compare the writer's system with one that was written alone."""
        told = [number for (number,) in lines(self.acknowledged)]
        with wb.open(self.path) as board, wb.open(folder / "steps.db") as alone:
            system, serial = board.system("steps"), alone.system("steps")
            steps = len(system.history())
            self.counts["commits"] = steps
            if told and (steps <= max(told) or len(set(told)) != len(told)):
                self.wrong(f"{steps} commits are there, and {max(told) + 1} were acknowledged")
            for number in range(steps):
                step(serial, number)
            if system.digest() != serial.digest():
                self.wrong("the writer's system has another digest than one that was written alone")


def torture(seconds: float, seed: int, folder: Path, server: Server) -> dict[str, Any]:
    """Hurt all for some seconds and return counts."""
    defaults: tuple[Any, ...] = elsewhere.Elsewhere.__init__.__defaults__ or ()
    elsewhere.Elsewhere.__init__.__defaults__ = (claims.LEASE, *defaults[1:])
    cluster = Cluster(folder, seed, server)
    wb.open(cluster.path).close()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            cluster.begin()
            hurt_at = time.monotonic() + cluster.chance.uniform(0.2, 1.5)
            while time.monotonic() < hurt_at:
                cluster.look()
                time.sleep(0.02)
            cluster.hurt()
    finally:
        cluster.end()
    cluster.check()
    register(None)
    cluster.check_commits(folder)
    rounds = max((number for number, _, _ in lines(cluster.rounds)), default=0) + 1
    if digest(cluster.path, rounds) != digest(folder / "serial.db", rounds):
        cluster.wrong("a system has another digest than one that was computed alone")
    with open_store(cluster.path) as stores:
        stores.gc()
        if left := stores.info()["claims"]:
            cluster.wrong(f"{left} claims of the dead are left")
        if not (report := verify(stores.database)).ok:
            cluster.wrong(f"verify: {report}")
    return {**cluster.counts, "slowest": round(cluster.slowest, 2)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    place = programs()
    if place is None:
        finish("cluster", {"skipped": "no PostgreSQL: install its server", "wrong": 0})
    assert place is not None
    with tempfile.TemporaryDirectory() as folder:
        server = Server(place)
        try:
            counts = torture(options.seconds, options.seed, Path(folder), server)
        finally:
            server.remove()
        finish("cluster", counts)


if __name__ == "__main__":
    main()
