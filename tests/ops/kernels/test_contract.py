"""Contractions: every bin has the bits of job-by-job calls, in small shapes and in such as are taken in blocks."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest

from whiteboard.ops.kernels.contract import BLOCK, contract

SIGNATURES = (
    "d,d->",
    "ij,j->i",
    "i,ij->j",
    "j,ij->i",
    "j,i->ij",
    "i,j->ij",
    "ij,i->j",
    "ik,kj->ij",
    "ij,kj->ik",
    "ij,ik->kj",
    "ri,oi->ro",
    "ro,oi->ri",
    "ro,ri->oi",
    "ij->j",
    "ii->",
    "iij->ji",
    "ij,kl->il",
    ",i->i",
    "i,ij,j->",
    "i,ij,j->j",
)


def operands(rng: np.random.Generator, signature: str, sizes: dict[str, int], n: int, dtype: str) -> list[np.ndarray]:
    """Return random operands of n jobs."""
    terms = signature.partition("->")[0].split(",")
    return [rng.standard_normal((n, *(sizes[key] for key in term))).astype(dtype) for term in terms]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_bins_have_the_bits_of_single_jobs(signature: str) -> None:
    """For every combination of small and odd sizes: alone and in bins; and they are what einsum says."""
    rng = np.random.default_rng(0)
    letters = sorted(set(signature) - set(",->"))
    scale = {
        1: (*range(1, 40), 63, 64, 65, 1000, 4095, 4096, 4097),
        2: (1, 2, 3, 5, 8, 17, 33, 63),
        3: (1, 2, 3, 8, 17),
        4: (1, 2, 9),
    }
    inputs, _, result = signature.partition("->")
    batched = ",".join(f"n{term}" for term in inputs.split(",")) + f"->n{result}"
    for number, combination in enumerate(product(scale[len(letters)], repeat=len(letters))):
        sizes = dict(zip(letters, combination, strict=True))
        if any(prod(sizes[letter] for letter in term) > 2**20 for term in inputs.split(",")):
            continue
        xs = operands(rng, signature, sizes, 2 + number % 9, ("f8", "f4")[number % 2])
        whole = contract(signature, *xs)
        np.testing.assert_allclose(whole, np.einsum(batched, *xs), rtol=1e-3, atol=(1e-12, 1e-3)[number % 2])
        for i in (0, len(whole) - 1):
            assert contract(signature, *(x[i : i + 1].copy() for x in xs)).tobytes() == whole[i].tobytes(), sizes


@pytest.mark.parametrize(
    ("signature", "sizes"),
    [
        ("d,d->", {"d": BLOCK + 7}),
        ("i,ij->j", {"i": 90, "j": BLOCK // 40}),
        ("ij,j->i", {"i": 90, "j": BLOCK // 40}),
        ("ik,kj->ij", {"i": 3, "k": 257, "j": 401}),
        ("ij,kj->ik", {"i": 3, "k": 257, "j": 401}),
        ("ij,kj->", {"i": 3, "k": 257, "j": 401}),
    ],
)
def test_a_job_of_many_blocks_has_the_bits_it_has_alone(signature: str, sizes: dict[str, int]) -> None:
    """Where jobs are cut into blocks, and a bin of them into jobs."""
    xs = operands(np.random.default_rng(0), signature, sizes, 3, "f8")
    whole = contract(signature, *xs)
    for i in range(3):
        alone = contract(signature, *(x[i : i + 1] for x in xs))
        assert alone.tobytes() == whole[i].tobytes()
        np.testing.assert_allclose(whole[i], np.einsum(signature, *(x[i] for x in xs)), rtol=1e-9, atol=1e-9)


def test_results_go_into_the_array_that_is_given() -> None:
    """`out` is filled and returned, also for no elements."""
    a, b = np.ones((2, 3, 0)), np.ones((2, 0, 4))
    out = np.full((2, 3, 4), np.nan)
    assert contract("ik,kj->ij", a, b, out=out) is out
    assert not out.any()


@pytest.mark.parametrize("signature", SIGNATURES)
def test_an_empty_sum_is_zero(signature: str) -> None:
    """Whatever lies behind the operands, and whatever strides NumPy gave an array of no elements."""
    terms = signature.partition("->")[0].split(",")
    for empty in set(signature) - set(",->"):
        for strides in product((0, 8), repeat=len(terms)):
            xs = [
                np.ndarray((3, *shape), buffer=np.full(8, np.nan), strides=(stride,) * (1 + len(shape)))
                if 0 in shape
                else np.ones((3, *shape))
                for term, stride in zip(terms, strides, strict=True)
                for shape in [tuple(2 * (key != empty) for key in term)]
            ]
            assert not np.any(contract(signature, *xs) != 0), (empty, strides)
