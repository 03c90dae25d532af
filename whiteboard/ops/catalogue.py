"""The list of built-in ops: each family's file, and the names that it defines."""

from __future__ import annotations

CATALOGUE = {
    "elementwise": (
        "add subtract mul divide negative power square sqrt exp expm1 log log1p tanh sigmoid softplus relu "
        "sin cos abs maximum minimum where clip"
    ),
    "reductions": "sum mean var max logsumexp softmax norm cumsum prod",
    "linear": "vecdot matvec vecmat matmul outer linear matmul_gemm linear_gemm",
    "einsum": "einsum",
    "structure": "reshape transpose broadcast_to concat stack",
    "indexing": "take gather scatter",
    "fan_in": "sum_k mean_k prod_k",
    "geometry": "distance squared_distance",
}
"""Family (a module of `families`) to the names it defines. Adding an op is a function there and a word here."""

FAMILY = {name: family for family, names in CATALOGUE.items() for name in names.split()}
"""Name to family."""

ALIASES = {"multiply": "mul"}
"""Other names of an op: `get` gives the same spec."""
