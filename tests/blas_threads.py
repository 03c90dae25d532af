"""What a program says where BLAS has one thread, and where it has two."""

from __future__ import annotations

import os
import subprocess
import sys

NAMES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def on_blas_threads(code: str) -> tuple[list[str], list[str]]:
    """The lines that it prints with one thread and with two."""
    said = []
    for threads in ("1", "2"):
        environment = {**os.environ, **dict.fromkeys(NAMES, threads)}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        said.append(ran.stdout.splitlines())
    return said[0], said[1]
