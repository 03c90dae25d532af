"""The arithmetic class: what changes the bits of results changes the keys of the ops whose bits it changes."""

from __future__ import annotations

import ctypes
import functools
import mmap
import operator
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
import scipy.linalg
import threadpoolctl

import whiteboard as wb
from tests.arithmetic_levels import at, levels
from tests.storage.samples import environment
from whiteboard.evaluation import single
from whiteboard.identity import arithmetic
from whiteboard.identity.arithmetic import arithmetic_class, float_mode
from whiteboard.ops.fingerprint import blas
from whiteboard.types import Blas

FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, DOWNWARD, UPWARD, TOWARDS_ZERO = 0x8000, 0x0040, 0x2000, 0x4000, 0x6000
DEFAULT = 0x1F80


def cpu_flags() -> set[str]:
    """Return what Linux says that the processor has."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


needs_mxcsr = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="sets the control register of x86-64"
)
needs_openblas = pytest.mark.skipif(
    not arithmetic.blas_settings(Blas.NUMPY), reason="NumPy has a BLAS whose threads nobody can set"
)


@contextmanager
def control(bits: int) -> Iterator[None]:
    """Set bits of the floating-point unit's control register, as libraries that were built with -ffast-math do."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x0f\xae\x17\xc3")  # ldmxcsr [rdi]; ret
    load = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    new, old = ctypes.c_uint32(DEFAULT | bits), ctypes.c_uint32(DEFAULT)
    load(ctypes.byref(new))
    try:
        yield
    finally:
        load(ctypes.byref(old))


@needs_mxcsr
def test_each_mode_of_the_floating_point_unit_is_a_class() -> None:
    """Flushed denormals and directed rounding; the usual mode says nothing."""
    modes = {float_mode()}
    for bits in (FLUSH_TO_ZERO, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO, DOWNWARD, UPWARD, TOWARDS_ZERO):
        with control(bits):
            modes.add(float_mode())
            classes = {arithmetic_class(), arithmetic_class(blas=Blas.NUMPY), arithmetic_class(portable=True)}
        assert not {arithmetic_class(), arithmetic_class(portable=True)} & classes
    assert len(modes) == 6
    assert float_mode() == b""


@needs_mxcsr
def test_a_package_made_with_flush_to_zero_answers_nobody_else(tmp_path: Path) -> None:
    """The product of 1e-200 and 1e-110 is a denormal, and not 0."""
    a, b = np.array([1e-200]), np.array([1e-110])
    with wb.open(tmp_path / "a.db") as board:
        with control(FLUSH_TO_ZERO):
            assert board.call("mul", a, b).y[0] == 0
        kept = board.call("mul", a, b)
        assert (kept.hit, kept.y[0]) == ("miss", 1e-310)
        with control(FLUSH_TO_ZERO):
            assert board.call("mul", a, b).hit == "memory"


@needs_openblas
def test_a_change_of_threads_is_another_class_of_what_reaches_blas(tmp_path: Path) -> None:
    """Within one process, and back; ops that do not reach BLAS share packages whatever the threads."""

    @wb.op(name="reaches", replace=True)
    def reaches(x: Any) -> Any:
        return anp.sum(anp.dot(x, x))

    @wb.op(name="stays", replace=True)
    def stays(x: Any) -> Any:
        return anp.sum(anp.exp(x))

    x = np.random.default_rng(0).standard_normal((700, 700)) / 100
    with wb.open(tmp_path / "a.db") as board:
        found = []
        for threads in (1, 2, 1, 2):
            with threadpoolctl.threadpool_limits(threads, user_api="blas"):
                found.append((board.call("reaches", x).hit, board.call("stays", x).hit))
    assert found == [("miss", "miss"), ("miss", "memory"), ("memory", "memory"), ("memory", "memory")]


@needs_openblas
def test_another_process_with_other_threads_misses(tmp_path: Path) -> None:
    """The number of threads that a process begins with counts as well."""
    code = (
        "import numpy as np, whiteboard as wb\n"
        "with wb.open('a.db') as board:\n"
        "    print(*(board.call(op, np.ones((3, 3)), np.ones((3, 3))).hit for op in ('matmul_gemm', 'matmul')))"
    )
    said = []
    for threads in ("1", "2", "1"):
        variables = environment() | {"OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        asked = [sys.executable, "-c", code]
        done = subprocess.run(asked, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
        said.append(done.stdout.split())
    assert said == [["miss", "miss"], ["miss", "disk"], ["disk", "disk"]]


class Loaded:
    """A BLAS that some package has brought, as threadpoolctl tells of it."""

    user_api, internal_api = "blas", "openblas"

    def __init__(self, filepath: str, architecture: str) -> None:
        self.filepath, self.architecture = filepath, architecture

    def get_num_threads(self) -> int:
        """Return how many it has."""
        return 2


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/venv/lib/python3.11/site-packages/numpy.libs/libscipy_openblas64_.so", True),
        ("/venv/lib/python3.11/site-packages/numpy/.dylibs/libscipy_openblas64_.dylib", True),
        ("/usr/lib/x86_64-linux-gnu/openblas-pthread/libblas.so.3", True),
        ("/opt/conda/lib/libmkl_rt.so", True),
        ("/venv/lib/python3.11/site-packages/scipy.libs/libscipy_openblas.so", False),
        ("/usr/lib/python3/dist-packages/torch/lib/libopenblas.so", False),
    ],
)
def test_whose_blas_it_is(path: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another package brings, of another make, counts for what may reach that, and not for NumPy's functions."""
    monkeypatch.setattr(arithmetic, "_libraries", lambda: [Loaded(path, "Zen")])
    assert arithmetic._Blas().settings(Blas.ANY) == (("openblas", "Zen", 2),)
    assert arithmetic._Blas().settings(Blas.NUMPY) == ((("openblas", "Zen", 2),) if counts else ())


@needs_openblas
def test_what_others_import_is_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that brings a BLAS of its own is imported: a function of NumPy's, and one of an identity, still hit."""

    @wb.op(replace=True, vjp=lambda g, _y, x: g * x)
    def multiplied(x: Any) -> Any:
        return np.dot(x, x)

    @wb.op(identity="dear 1", replace=True, vjp=lambda g, _y, x: g * x)
    def dear(x: Any) -> Any:
        return np.dot(x, x)

    @wb.op(replace=True, vjp=lambda g, _y, x: g * x)
    def factored(x: Any) -> Any:
        return scipy.linalg.cholesky(np.eye(3))[0] * x

    names, loaded = ("multiplied", "dear", "factored"), arithmetic._libraries()
    with wb.open(tmp_path / "a.db") as board:
        assert [board.call(name, np.arange(3.0)).hit for name in names] == ["miss"] * 3
        monkeypatch.setattr(arithmetic, "_libraries", lambda: [*loaded, Loaded("/site-packages/a.libs/b.so", "Other")])
        monkeypatch.setattr(arithmetic, "_blas", arithmetic._Blas())
        assert [board.call(name, np.arange(3.0)).hit for name in names] == ["memory", "memory", "miss"]


CLASSES = """
from whiteboard.identity.arithmetic import arithmetic_class
from whiteboard.types import Blas
print(arithmetic_class(portable=True).hex(), arithmetic_class().hex(), arithmetic_class(blas=Blas.NUMPY).hex())
"""


def test_classes_of_levels_of_arithmetic() -> None:
    """What is portable has one class everywhere; kernels are of the processor; BLAS has its threads beside."""
    said = {level: at(level, CLASSES)[0].split() for level in levels()}
    assert len({portable for portable, _, _ in said.values()}) == 1
    assert said["1 thread"][1] == said["2 threads"][1]
    lower = [classes for level, classes in said.items() if level.startswith("without")]
    assert len({exact for _, exact, _ in (said["1 thread"], *lower)}) == 1 + len(lower)
    assert len({blas for _, _, blas in said.values()}) == len(said)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not {"fma", "avx2"} <= cpu_flags(),
    reason="turns fused operations of glibc off",
)
def test_another_c_library_is_another_class() -> None:
    """One result of a thousand of sin and the like is another where the C library has no fused operations."""
    variables = environment() | {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4"}
    asked = [sys.executable, "-c", CLASSES]
    done = subprocess.run(asked, env=variables, capture_output=True, text=True, check=True)
    portable, exact, _ = done.stdout.split()
    assert portable == arithmetic_class(portable=True).hex()
    assert exact != arithmetic_class().hex()


def test_a_portable_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's portable op is a hit where kernels are others, but where it may reach BLAS; an identity is trusted."""

    @wb.op(exactness="portable", vjp=lambda g, _y, x: g * x, replace=True)
    def promised(x: Any) -> Any:
        return np.add.reduce(x * x)

    @wb.op(exactness="portable", vjp=lambda g, _y, x: g * x, replace=True)
    def reaching(x: Any) -> Any:
        return np.dot(x, x)

    @wb.op("spoken", exactness="portable", identity="spoken 1", vjp=lambda g, _y, x: g * x, replace=True)
    def spoken(x: Any) -> Any:
        return np.dot(x, x)

    @wb.op(vjp=lambda g, _y, x: g * x, replace=True)
    def usual(x: Any) -> Any:
        return np.add.reduce(x * x)

    x = np.arange(3.0)
    names = ("promised", "reaching", "spoken", "usual")
    with wb.open(tmp_path / "a.db") as board:
        assert [board.call(name, x).hit for name in names] == ["miss"] * 4
        monkeypatch.setattr(arithmetic, "_kernels", lambda: b"another machine!")
        monkeypatch.setattr(single, "_kept", {})  # a machine is another in another process only
        assert [board.call(name, x).hit for name in names] == ["memory", "miss", "memory", "miss"]
    assert [wb.ops.get(name).exactness for name in names] == ["portable", "portable", "portable", "exact"]


def plain(x: Any) -> Any:
    """Elements, reductions and shapes."""
    return np.add.reduce(np.exp(x) * anp.where(x > 0, x, 1.0)) + anp.sum(anp.reshape(x, (-1,))) + np.pi


FIXED = np.eye(3)
FIXED.setflags(write=False)
UNBOUND, MATMUL, BOUND = np.ndarray.dot, np.ndarray.__matmul__, FIXED.dot
CHOICES: frozenset[Any] = frozenset({np.dot, np.add})
CALLER, PARTIAL = operator.methodcaller("dot", 2.0), functools.partial(np.dot, 2.0)

REACHING: dict[str, Callable[[Any], Any]] = {
    "@": lambda x: x @ x,
    "dot": lambda x: anp.dot(x, x),
    "method": lambda x: x.dot(x),
    "getattr": lambda x: getattr(x, "dot")(x),  # noqa: B009
    "norm": lambda x: np.linalg.norm(x),
    "operator": lambda x: operator.matmul(x, x),
    "einsum": lambda x: anp.einsum("ij,jk", x, x),
    "ufunc": lambda x: np.vecdot(x, x),
    "unbound": lambda x: UNBOUND(x, x),
    "operator of a class": lambda x: MATMUL(x, x),
    "bound": lambda x: BOUND(x),
    "methodcaller": lambda x: CALLER(x),
    "partial": lambda x: PARTIAL(x),
    "one of a set": lambda x: [each(x, x) for each in CHOICES][0],  # noqa: RUF015
}


@pytest.mark.parametrize("way", REACHING)
def test_what_may_reach_blas(way: str) -> None:
    """By whichever way, also in a function that the op calls."""
    inner = REACHING[way]

    @wb.op(name="reaching", replace=True, vjp=lambda g, _y, x: g * x)
    def reaching(x: Any) -> Any:
        return inner(x)

    spec = wb.ops.get("reaching")
    assert (spec.blas, spec.opaque) == (Blas.NUMPY, "")


def test_what_stays_off_blas() -> None:
    """Ufuncs, reductions and shapes; the built-in ops but those of GEMM; what nobody looks into may reach NumPy's."""
    wb.op(name="plain", replace=True, vjp=lambda g, _y, x: g * x)(plain)
    assert not wb.ops.get("plain").blas
    wb.op(name="plain", replace=True, identity="plain 1", vjp=lambda g, _y, x: g * x)(plain)
    assert wb.ops.get("plain").blas is Blas.NUMPY
    builtin = [name for name in wb.ops.names() if not wb.ops.get(name).user]
    assert [name for name in builtin if wb.ops.get(name).blas] == ["linear_gemm", "matmul_gemm"]


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        *((name, Blas.NONE) for name in ("math.sqrt", "numpy.add.reduce", "scipy.special.erf", "autograd.numpy.sum")),
        *((name, Blas.NUMPY) for name in ("numpy", "numpy.linalg.solve", "autograd.numpy.dot", "autograd.grad")),
        *((name, Blas.ANY) for name in ("scipy.linalg.solve", "autograd.scipy.linalg.sqrtm", "sklearn.svm.SVC")),
    ],
)
def test_whose_blas_a_name_leads_to(name: str, whose: Blas) -> None:
    """NumPy's for what is NumPy's, and that of all that are loaded for what others have made."""
    assert blas.named(name) is whose
