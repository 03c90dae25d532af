"""What a program says at other levels of arithmetic: with NumPy's newer instructions off, and on 1 or 2 BLAS threads.

A processor without these instructions takes the kernels that are taken then, so a level stands for a kind of machine.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from tests.blas_threads import NAMES
from tests.storage.samples import environment


@cache
def levels() -> dict[str, dict[str, str]]:
    """Return the variables of each level, as this machine is first; by name, such as ``"without X86_V4 X86_V3"``.

    At the lowest one the C library, where it is glibc, and OpenBLAS do without fused operations too.
    """
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    off = [" ".join(reversed(found[start:])) for start in (1, 0) if found[start:]]  # of the oldest first
    named = {f"without {names}": {"NPY_DISABLE_CPU_FEATURES": names} for names in off}
    if named and platform.machine() == "x86_64":
        [*named.values()][-1].update(GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4", OPENBLAS_CORETYPE="Prescott")
    here = {"NPY_DISABLE_CPU_FEATURES": ""}
    return {
        "1 thread": here | dict.fromkeys(NAMES, "1"),
        "2 threads": here | dict.fromkeys(NAMES, "2"),
        **{name: each | dict.fromkeys(NAMES, "1") for name, each in named.items()},
    }


def at(level: str, code: str, folder: Path | None = None) -> list[str]:
    """Run a program at a level, as a process of its own; the lines that it prints."""
    variables = environment() | levels()[level]
    asked = [sys.executable, "-W", "ignore::ImportWarning", "-c", code]
    ran = subprocess.run(asked, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{level}: {ran.stderr}"
    return ran.stdout.splitlines()
