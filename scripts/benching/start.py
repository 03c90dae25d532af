"""What a fresh process waits for: imports, `open`, the first hit and the first durable miss, and the command line.

Each figure is of processes that do nothing else, in turns with NumPy alone and with diskcache; the least is what the
machine takes when nobody disturbs it. Packages are of 64 smooth float64 and two gradients, so that Blosc2 is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import diskcache
import numpy as np

import whiteboard as wb
from scripts.benching import measure

D = 64
RUNS = 11

_WHITEBOARD = f"""
import sys, time
from pathlib import Path
import numpy as np
import whiteboard as wb
x, seen = np.arange({D}) / {D}, float(sys.argv[2])
clock = time.perf_counter
"""
_ASK = """
start = clock(); board = wb.open(Path(sys.argv[1]) / "a.db"); opened = clock()
"""
_DISKCACHE = """
import sys, time
import numpy  # of which the values are
start = time.perf_counter()
import diskcache
imported = time.perf_counter()
cache = diskcache.Cache(sys.argv[1] + "/cache")
opened = time.perf_counter()
"""

# what: (the program, whether the whole process counts or the seconds that it says)
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "python": ("pass", "whole"),
    "python, numpy": ("import numpy", "whole"),
    "python, whiteboard": ("import whiteboard", "whole"),
    "python, diskcache": ("import diskcache", "whole"),
    "whiteboard --help": ("from whiteboard.cli import main; main(['--help'])", "whole"),
    "whiteboard ls": (
        "from whiteboard.cli import main; main(['ls', '--store', __import__('sys').argv[1] + '/a.db'])",
        "whole",
    ),
    "import numpy": (
        "import time; start = time.perf_counter(); import numpy; print(time.perf_counter() - start)",
        "said",
    ),
    "import whiteboard, over numpy": (
        "import time, numpy; start = time.perf_counter(); import whiteboard; print(time.perf_counter() - start)",
        "said",
    ),
    "import diskcache": (f"{_DISKCACHE}print(imported - start)", "said"),
    "open a store": (f"{_WHITEBOARD}{_ASK}print(opened - start)", "said"),
    "open diskcache": (f"{_DISKCACHE}print(opened - imported)", "said"),
    "make a store": (
        f"{_WHITEBOARD}start = clock(); wb.open(Path(sys.argv[1]) / f'{{sys.argv[2]}}.db'); print(clock() - start)",
        "said",
    ),
    "make a store in memory": (f"{_WHITEBOARD}start = clock(); wb.open(':memory:'); print(clock() - start)", "said"),
    "make a diskcache": (
        "import sys, time, diskcache\nstart = time.perf_counter()\n"
        "diskcache.Cache(f'{sys.argv[1]}/cache{sys.argv[2]}')\nprint(time.perf_counter() - start)",
        "said",
    ),
    "first hit after open": (
        f"{_WHITEBOARD}{_ASK}assert board.call('mul', x, x).hit == 'disk'; print(clock() - opened)",
        "said",
    ),
    "first miss after open, flushed": (
        f"{_WHITEBOARD}{_ASK}assert board.call('mul', x, x + seen).hit == 'miss'; board.flush(); "
        "print(clock() - opened)",
        "said",
    ),
    "first get of diskcache": (f"{_DISKCACHE}cache['key']; print(time.perf_counter() - opened)", "said"),
    "first set of diskcache": (
        f"{_DISKCACHE}cache[sys.argv[2]] = cache['key']; print(time.perf_counter() - opened)",
        "said",
    ),
}


def seconds(program: str, counts: str, folder: str, number: int) -> float:
    """Seconds of one run of a program in a process of its own, which finds byte code as an installed package has it."""
    cache = str(Path(sys.prefix) / "pycache")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, folder, str(number)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    whole = time.perf_counter() - start
    return float(done.stdout) if counts == "said" else whole


def main() -> None:
    """Measure and report."""
    options = measure.parser(__doc__ or "")
    options.set_defaults(runs=RUNS)
    options.add_argument("--what", default="", metavar="TEXT", help="only what has this in its name")
    given = options.parse_args()
    programs = {what: program for what, program in PROGRAMS.items() if given.what in what}
    taken: dict[str, list[float]] = {what: [] for what in programs}
    with tempfile.TemporaryDirectory(prefix="whiteboard-bench-") as folder:
        x = np.arange(D) / D
        with wb.open(Path(folder) / "a.db") as board, diskcache.Cache(f"{folder}/cache") as cache:
            made = board.call("mul", x, x)
            cache["key"] = made.y, made.grads
            board.system("pair").add_nodes([0, 1], theta=np.ones((2, D)))
            board.system("pair").commit()
        for number in range(given.runs + 1):  # the first one writes byte code
            for what, (program, counts) in programs.items():
                each = seconds(program, counts, folder, number + 1)
                if number:
                    taken[what].append(each)
    rows = [{"what": what, "median": 1e3 * median(each), "least": 1e3 * min(each)} for what, each in taken.items()]
    measure.report(measure.machine("blosc2", "diskcache"), {"Start (ms)": rows}, given.json)


if __name__ == "__main__":
    main()
