"""What of the libraries is known to be pure: its results follow from its arguments alone. Everything else is not.

One table, dotted name to verdict; the longest name that begins a dotted name decides, and what no name begins is
unknown. A function that names anything but what is pure is computed and not cached.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """Why a library's name has no part in a fingerprint; the value completes "…, which"."""

    PURE = ""
    UNKNOWN = "is not known to be pure"
    FILES = "reads or writes files"
    RANDOM = "is random"
    CLOCK = "reads the clock"
    WORLD = "depends on the process or the machine it runs in"
    STATE = "depends on settings that may change"
    REACH = "reaches anything by a name made at run time"


REMEDY: Final = {
    Verdict.UNKNOWN: "if it is, pass trust=({top!r},) to wb.op",
    Verdict.FILES: "name the files in reads=(…) of wb.op, or read them outside and pass what they hold as a source",
    Verdict.RANDOM: "draw outside and pass what was drawn as a source, or pass ignore=({name!r},) to wb.op"
    " if the result does not depend on it",
    Verdict.CLOCK: "pass ignore=({name!r},) to wb.op if the result does not depend on it",
    Verdict.WORLD: "pass ignore=({name!r},) to wb.op if the result does not depend on it",
    Verdict.STATE: "pass ignore=({name!r},) to wb.op if the result does not depend on it",
    Verdict.REACH: "name what is meant outright, or pass identity='…' to wb.op and change it with every change",
}
"""What helps; ``top`` is the library's package, ``name`` the name as the function has it."""


def _named(verdict: Verdict, module: str, names: str) -> dict[str, Verdict]:
    return {f"{module}.{name}": verdict for name in names.split()}


_TABLE: Final[dict[str, Verdict]] = {
    # -- Python's own
    **_named(
        Verdict.PURE,
        "builtins",
        "abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float"
        " format frozenset getattr hasattr hex int isinstance issubclass iter len list map max memoryview min next"
        " object oct ord pow print property range repr reversed round set slice sorted staticmethod str sum super tuple"
        " type zip Ellipsis NotImplemented __build_class__ __debug__",
    ),
    "builtins.setattr": Verdict.PURE,
    "builtins.delattr": Verdict.PURE,
    **_named(Verdict.FILES, "builtins", "open"),
    **_named(Verdict.WORLD, "builtins", "id hash input breakpoint help"),
    **_named(Verdict.REACH, "builtins", "eval exec compile globals locals vars dir __import__"),
    **dict.fromkeys(
        (
            "abc array base64 binascii bisect cmath collections colorsys contextlib copy copyreg "
            "dataclasses enum fractions functools graphlib heapq itertools json keyword math numbers "
            "operator re sre_compile sre_constants sre_parse statistics string struct textwrap types "
            "typing unicodedata warnings zlib"
        ).split(),
        Verdict.PURE,
    ),
    "contextlib.chdir": Verdict.WORLD,
    "typing.get_type_hints": Verdict.REACH,
    "hashlib": Verdict.PURE,
    "hashlib.file_digest": Verdict.FILES,
    "statistics.NormalDist.samples": Verdict.RANDOM,
    "types.FunctionType": Verdict.REACH,
    "types.CodeType": Verdict.REACH,
    **_named(
        Verdict.PURE, "sys", "float_info int_info byteorder maxsize maxunicode version_info hexversion float_repr_style"
    ),
    **dict.fromkeys(
        ("sys os posix platform sysconfig site signal resource socket ssl subprocess getpass pwd").split(),
        Verdict.WORLD,
    ),
    **dict.fromkeys(
        ("threading multiprocessing concurrent asyncio contextvars gc weakref ctypes atexit queue").split(),
        Verdict.WORLD,
    ),
    **dict.fromkeys(["argparse", "getopt", "optparse", "logging"], Verdict.WORLD),
    **dict.fromkeys(["time", "timeit", "datetime", "calendar", "sched", "zoneinfo", "_strptime"], Verdict.CLOCK),
    **dict.fromkeys(["random", "secrets", "uuid"], Verdict.RANDOM),
    **dict.fromkeys(["decimal", "locale"], Verdict.STATE),
    **dict.fromkeys(["importlib", "pkgutil", "runpy", "inspect", "imp", "zipimport"], Verdict.REACH),
    **dict.fromkeys(
        (
            "io pathlib tempfile shutil glob fileinput linecache codecs gzip bz2 lzma zipfile tarfile csv "
            "configparser xml html sqlite3 dbm shelve pickle marshal mmap urllib http ftplib netrc "
            "plistlib tomllib wave tokenize"
        ).split(),
        Verdict.FILES,
    ),
    "json.load": Verdict.FILES,
    "json.dump": Verdict.FILES,
    # -- NumPy
    "numpy": Verdict.PURE,
    "numpy.random": Verdict.RANDOM,
    **_named(
        Verdict.FILES,
        "numpy",
        "load loadtxt genfromtxt fromfile fromregex memmap save savez savez_compressed savetxt DataSource open_memmap",
    ),
    **_named(
        Verdict.STATE,
        "numpy",
        "geterr seterr geterrcall seterrcall getbufsize setbufsize get_printoptions set_printoptions printoptions"
        " array2string array_repr array_str",
    ),
    "numpy.datetime64": Verdict.CLOCK,  # "now" and "today"
    **_named(Verdict.WORLD, "numpy", "show_config show_runtime get_include info test"),
    **_named(Verdict.UNKNOWN, "numpy", "ctypeslib distutils f2py testing lib core _core compat rec matlib"),
    "numpy.frompyfunc": Verdict.PURE,
    "numpy.lib.stride_tricks": Verdict.PURE,
    "numpy.lib.scimath": Verdict.PURE,
    "numpy.lib.array_utils": Verdict.PURE,
    "numpy._core.fromnumeric": Verdict.PURE,
    "numpy._core.multiarray": Verdict.PURE,
    "numpy._core.umath": Verdict.PURE,
    "numpy._core.numeric": Verdict.PURE,
    "numpy._core._multiarray_umath": Verdict.PURE,
    # -- SciPy, where nothing draws random numbers of its own accord
    **dict.fromkeys(
        (
            "scipy.special scipy.linalg scipy.fft scipy.fftpack scipy.integrate scipy.interpolate "
            "scipy.ndimage scipy.signal scipy.spatial scipy.constants scipy.sparse scipy.optimize "
            "scipy.differentiate"
        ).split(),
        Verdict.PURE,
    ),
    **_named(Verdict.RANDOM, "scipy.optimize", "differential_evolution dual_annealing basinhopping shgo"),
    **_named(Verdict.RANDOM, "scipy.optimize._differentialevolution", "differential_evolution"),
    **_named(Verdict.RANDOM, "scipy.optimize._dual_annealing", "dual_annealing"),
    **_named(Verdict.RANDOM, "scipy.optimize._basinhopping", "basinhopping"),
    **_named(Verdict.RANDOM, "scipy.optimize._shgo", "shgo"),
    **_named(Verdict.RANDOM, "scipy.linalg", "interpolative clarkson_woodruff_transform _sketches"),
    **_named(Verdict.RANDOM, "scipy.sparse", "random rand random_array _construct.random _construct.rand"),
    **_named(Verdict.RANDOM, "scipy.sparse._construct", "random_array"),
    **_named(
        Verdict.RANDOM,
        "scipy.sparse.linalg",  # they start from a random vector where none is given
        "eigs eigsh svds lobpcg onenormest expm_multiply _eigen _onenormest _expm_multiply",
    ),
    **_named(Verdict.FILES, "scipy.sparse", "save_npz load_npz _matrix_io"),
    **_named(Verdict.RANDOM, "scipy.spatial.transform", "Rotation.random"),
    "scipy.stats": Verdict.UNKNOWN,
    **{
        f"scipy.stats{home}.{name}": Verdict.PURE
        for home in ("", "._stats_py", "._morestats", "._variation", "._entropy", "._distn_infrastructure")
        for name in (
            "zscore zmap gzscore skew kurtosis moment describe gmean hmean pmean rankdata pearsonr "
            "linregress iqr sem tmean tvar tstd tmin tmax variation entropy trim_mean trimboth sigmaclip "
            "boxcox_llf yeojohnson_llf"
        ).split()
    },
    # -- autograd: its arrays are NumPy's and SciPy's, and stand in the table under those names
    "autograd": Verdict.PURE,
    "autograd.numpy.random": Verdict.RANDOM,
    "autograd.test_util": Verdict.RANDOM,
    # -- torch, where what draws random numbers stands beside what does not
    "torch": Verdict.PURE,
    **_named(
        Verdict.RANDOM,
        "torch",
        "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial poisson binomial"
        " dropout dropout_ alpha_dropout alpha_dropout_ feature_dropout feature_dropout_ feature_alpha_dropout"
        " feature_alpha_dropout_ rrelu rrelu_ native_dropout manual_seed seed initial_seed get_rng_state set_rng_state"
        " default_generator Generator random nn.init svd_lowrank pca_lowrank lobpcg",
    ),
    **{
        f"torch.nn.functional.{name}": Verdict.RANDOM
        for name in (
            "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout rrelu rrelu_ gumbel_softmax "
            "fractional_max_pool2d fractional_max_pool3d fractional_max_pool2d_with_indices "
            "fractional_max_pool3d_with_indices scaled_dot_product_attention multi_head_attention_forward"
        ).split()
    },
    **_named(Verdict.FILES, "torch", "load save from_file hub package serialization"),
    **_named(
        Verdict.STATE,
        "torch",
        "get_default_dtype set_default_dtype set_default_device get_default_device set_default_tensor_type"
        " get_num_threads set_num_threads get_num_interop_threads set_num_interop_threads set_printoptions"
        " is_grad_enabled set_grad_enabled set_flush_denormal use_deterministic_algorithms"
        " are_deterministic_algorithms_enabled set_deterministic_debug_mode get_deterministic_debug_mode"
        " get_float32_matmul_precision set_float32_matmul_precision is_inference_mode_enabled set_warn_always backends",
    ),
    **_named(
        Verdict.WORLD,
        "torch",
        "cuda cpu mps xpu mtia accelerator distributed multiprocessing utils profiler version initial_seed",
    ),
    **_named(
        Verdict.UNKNOWN,
        "torch",
        "jit compile compiler export fx onnx library ops classes hpu"
        " overrides testing ao quantization monitor futures storage distributions optim _C _dynamo _inductor _ops"
        " _library _functorch",
    ),
    "torch._C._nn": Verdict.PURE,
    "torch._C._linalg": Verdict.PURE,
    "torch._C._special": Verdict.PURE,
    "torch._C._fft": Verdict.PURE,
    "torch._C._VariableFunctions": Verdict.PURE,
}

DISTRIBUTION_METHODS: Final = frozenset(
    (
        "pdf logpdf pmf logpmf cdf logcdf sf logsf ppf isf mean var std stats entropy moment median interval support"
    ).split()
)
"""Methods of SciPy's univariate distributions that are pure."""

IMPURE_ATTRIBUTES: Final = {
    **dict.fromkeys(("rvs", "random_state", "bit_generator"), Verdict.RANDOM),
    **dict.fromkeys(
        "normal_ uniform_ random_ bernoulli_ exponential_ cauchy_ log_normal_ geometric_".split(), Verdict.RANDOM
    ),
    **dict.fromkeys(("tofile", "fromfile", "read_text", "read_bytes", "write_text", "write_bytes"), Verdict.FILES),
    **dict.fromkeys(("now", "today", "utcnow"), Verdict.CLOCK),
    **dict.fromkeys(("f_globals", "f_locals", "f_back", "f_builtins"), Verdict.REACH),
    **dict.fromkeys(("__globals__", "__builtins__", "__subclasses__", "__closure__", "__code__"), Verdict.REACH),
    **dict.fromkeys(("__defaults__", "__kwdefaults__", "__loader__", "__spec__", "__mro__"), Verdict.REACH),
    **dict.fromkeys(("__doc__", "__annotations__"), Verdict.REACH),  # neither is in a fingerprint
}
"""Attributes whose name alone says so, of whatever object they are."""


def verdict(dotted: str, trust: tuple[str, ...] = ()) -> Verdict:
    """Return what is known of a dotted name; names that begin with one of `trust` are pure.

    A module that begins with an underscore is known by the name without it where it is not in the table itself, as
    ``_operator.mul`` by ``operator.mul``.
    """
    if any(_begins(dotted, name) for name in trust):
        return Verdict.PURE
    found = [_longest(name) for name in _readings(dotted)]
    return next((each for each in found if each not in (Verdict.PURE, None)), None) or (
        Verdict.PURE if Verdict.PURE in found else Verdict.UNKNOWN
    )


def _readings(dotted: str) -> list[str]:
    """The names under which a dotted name may stand in the table."""
    for wrapper, wrapped in (("autograd.numpy", "numpy"), ("autograd.scipy", "scipy")):
        if _begins(dotted, wrapper):
            inner = dotted[len(wrapper) :]
            return [dotted, wrapped + inner] if inner else [dotted]
    if dotted.startswith("_") and not dotted.startswith("__"):
        return [dotted[1:]]
    if dotted.startswith("builtins.") and _is_exception(dotted.removeprefix("builtins.")):
        return ["builtins.Ellipsis"]
    return [dotted]


def _is_exception(name: str) -> bool:
    import builtins

    value = getattr(builtins, name, None)
    return isinstance(value, type) and issubclass(value, BaseException)


def _longest(dotted: str) -> Verdict | None:
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        if (found := _TABLE.get(".".join(parts[:n]))) is not None:
            return found
    return None


def _begins(dotted: str, name: str) -> bool:
    return dotted == name or dotted.startswith(f"{name}.")
