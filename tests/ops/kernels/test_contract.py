"""Contractions: the signatures that are taken in one call have the bits of job-by-job calls, in every small shape."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from whiteboard.ops.kernels.contract import WHOLE, contract, contract_each

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
)


def operands(rng: np.random.Generator, signature: str, sizes: dict[str, int], n: int, dtype: str) -> list[np.ndarray]:
    """Return random operands of n jobs."""
    terms = signature.partition("->")[0].split(",")
    return [rng.standard_normal((n, *(sizes[key] for key in term))).astype(dtype) for term in terms]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_bins_have_the_bits_of_single_jobs(signature: str) -> None:
    """For every combination of small and odd sizes: alone, in bins, and by `contract_each`."""
    rng = np.random.default_rng(0)
    letters = sorted(set(signature) - set(",->"))
    scale = {
        1: (*range(1, 40), 63, 64, 65, 1000, 4095, 4096, 4097),
        2: (1, 2, 3, 5, 8, 17, 33, 63),
        3: (1, 2, 3, 8, 17),
    }
    for number, combination in enumerate(product(scale[len(letters)], repeat=len(letters))):
        sizes = dict(zip(letters, combination, strict=True))
        xs = operands(rng, signature, sizes, 2 + number % 9, ("f8", "f4")[number % 2])
        whole = contract(signature, *xs)
        for i in (0, len(whole) - 1):
            assert contract(signature, *(x[i : i + 1].copy() for x in xs)).tobytes() == whole[i].tobytes(), sizes


def test_a_long_row_is_not_cut_by_its_bin() -> None:
    """Above the limit jobs are taken one by one: einsum's buffer would cut rows of 9,000 elements by the bin."""
    assert np.getbufsize() // 2 >= WHOLE
    xs = np.random.default_rng(0).standard_normal((2, 5, 9000))
    whole = contract("d,d->", *xs)
    assert [contract("d,d->", *(x[i : i + 1] for x in xs)).tobytes() for i in range(5)] == [v.tobytes() for v in whole]


def test_results_go_into_the_array_that_is_given() -> None:
    """`out` is filled and returned, also for no elements."""
    a, b = np.ones((2, 3, 0)), np.ones((2, 0, 4))
    for function in (contract, contract_each):
        out = np.full((2, 3, 4), np.nan)
        assert function("ik,kj->ij", a, b, out=out) is out
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
            for by in (contract, contract_each):
                assert not np.any(by(signature, *xs) != 0), (empty, strides)
