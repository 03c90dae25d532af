"""Contractions with Jacobians: right, and with the same bits in any bin."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from whiteboard.ops.kernels.jacobians import pull

YS = ((), (1,), (3,), (2, 5), (63,), (0,))
XS = ((), (4,), (2, 3), (0,), (129,))


@pytest.mark.parametrize(("y", "x"), list(product(YS, XS)))
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_a_contraction_has_the_bits_of_a_lone_job(y: tuple[int, ...], x: tuple[int, ...], dtype: str) -> None:
    """Jᵀ · c of n jobs is that of each alone, to the bit, and what einsum says."""
    rng = np.random.default_rng(0)
    jacobian, cotangent = (rng.standard_normal((7, *shape)).astype(dtype) for shape in ((*y, *x), y))
    whole = pull(cotangent, jacobian)
    assert (whole.shape, whole.dtype) == ((7, *x), np.dtype(dtype))
    for i in range(7):
        assert pull(cotangent[i : i + 1].copy(), jacobian[i : i + 1].copy())[0].tobytes() == whole[i].tobytes()
    axes = tuple(range(1, 1 + len(y)))
    expected = (cotangent.reshape(7, *y, *(1,) * len(x)).astype("f8") * jacobian).sum(axes)
    np.testing.assert_allclose(whole, expected, rtol=1e-4 if dtype == "f4" else 1e-12, atol=1e-5)


def test_large_jacobians_too() -> None:
    """Beyond einsum's buffer the bits are still those of a lone job."""
    rng = np.random.default_rng(0)
    for rows, width in ((9000, 2), (2, 9000), (100, 100)):
        jacobian, cotangent = rng.standard_normal((3, rows, width)), rng.standard_normal((3, rows))
        whole = pull(cotangent, jacobian)
        for i in range(3):
            assert pull(cotangent[i : i + 1], jacobian[i : i + 1])[0].tobytes() == whole[i].tobytes()


def test_of_a_scalar_the_jacobian_is_the_gradient() -> None:
    """To the sign of a zero."""
    jacobian = np.array([[-0.0, 1.0], [2.0, -0.0]])
    assert pull(np.broadcast_to(np.ones(()), (2,)), jacobian).tobytes() == jacobian.tobytes()
    assert pull(np.array([2.0, -1.0]), jacobian).tolist() == [[-0.0, 2.0], [-2.0, 0.0]]
