"""Kill ``whiteboard run`` or mixed.py with SIGKILL at random instants, go on, and compare with a run left alone.

After each kill `show` must stand at a commit that had been acknowledged (or at the one that was being
acknowledged), with the digest that the undisturbed run had there; every run must end with its digest.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MIXED = Path(__file__).with_name("mixed.py")
NOTHING_YET = ("has no system", "does not exist", "is empty", "making was interrupted")
"""What `show` says of a store that was killed before its first commit."""

WHITEBOARD = (sys.executable, "-m", "whiteboard")


class Life:
    """One system from its first start to its end, through any number of kills."""

    def __init__(self, experiment: str, store: Path, name: str, folder: Path) -> None:
        self.store, self.name, self.log = store, name, folder / f"{name}.jsonl"
        self.run: tuple[str, ...] = (*WHITEBOARD, "run", experiment, "--json", "--store", str(store))
        self.run += ("--name", name, "--log", str(self.log))
        if experiment == "mixed":
            self.run = (sys.executable, str(MIXED), str(store), name, str(self.log))

    def start(self) -> subprocess.Popen[bytes]:
        """Start or resume the experiment."""
        return subprocess.Popen(self.run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def acknowledged(self) -> int:
        """Return the last commit that the log holds, -1 for none."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return int(json.loads(lines[-1])["id"]) if lines else -1

    def shown(self) -> tuple[int, str]:
        """Return commit and digest as ``show`` gives them; commit -1 where there is no system or no store yet."""
        command = [*WHITEBOARD, "show", self.name, "--store", str(self.store), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            missing = any(why in done.stderr for why in NOTHING_YET)
            if not missing or self.acknowledged() >= 0:
                msg = f"show failed at acknowledged commit {self.acknowledged()}: {done.stderr}"
                raise SystemExit(msg)
            return -1, ""
        fields = json.loads(done.stdout)
        return int(fields["commit"]), str(fields["digest"])


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a run that is left alone and return what it says of itself."""
    out, err = process.communicate(timeout=600)
    if process.returncode:
        msg = f"a run ended with status {process.returncode}: {err.decode()}"
        raise SystemExit(msg)
    fields: dict[str, Any] = json.loads(out)
    return fields


def torture(experiment: str, kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill `kills` times and return counts; raise `SystemExit` at the first wrong state."""
    chance = random.Random(seed)
    alone = Life(experiment, folder / "alone.db", "alone", folder)
    began = time.monotonic()
    reference = finished(alone.start())
    span = time.monotonic() - began
    digests = [json.loads(line)["digest"] for line in alone.log.read_text().splitlines()]
    counts = {"kills": 0, "lives": 0, "commits": len(digests) - 1, "before_first_commit": 0, "between": 0}
    while counts["kills"] < kills:
        # Every third life has the undisturbed run's store, so a warm cache; the others begin with a cold one.
        number = counts["lives"]
        store = alone.store if number % 3 == 2 else folder / f"life{number}.db"
        life = Life(experiment, store, f"life{number}", folder)
        while counts["kills"] < kills:
            process = life.start()
            time.sleep(chance.uniform(0, span))
            if process.poll() is not None:
                break
            process.kill()
            process.communicate()
            counts["kills"] += 1
            commit, digest = life.shown()
            acknowledged = life.acknowledged()
            counts["before_first_commit"] += commit < 0
            counts["between"] += commit == acknowledged + 1
            if commit not in (acknowledged, acknowledged + 1):
                msg = f"{life.name}: acknowledged {acknowledged}, but show stands at {commit}"
                raise SystemExit(msg)
            if commit >= 0 and digest != digests[commit]:
                msg = f"{life.name}: commit {commit} has digest {digest}, not {digests[commit]}"
                raise SystemExit(msg)
            print(f"kill {counts['kills']}: acknowledged {acknowledged}, shown {commit}", flush=True)
        counts["lives"] += 1
        end = finished(life.start())
        if (end["commit"], end["digest"]) != (reference["commit"], reference["digest"]):
            msg = f"{life.name} ended at {end['commit']} {end['digest']}, not {reference['digest']}"
            raise SystemExit(msg)
    return counts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="europe", help="europe, diabetes, mixed, or what `run` takes")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = torture(options.experiment, options.kills, options.seed, Path(folder))
    print(json.dumps({"experiment": options.experiment, **counts, "wrong": 0}))


if __name__ == "__main__":
    main()
