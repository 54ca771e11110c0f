"""NumPy's linalg: ``bng.ops.linalg.solve`` and the others. Leading axes of matrices are a batch.

Norms have derivative 0 at 0. The functions that factorize a matrix raise numpy.linalg.LinAlgError where NumPy's do; on
a GPU nobody looks, and a matrix that has no factors gives numbers that mean nothing (see ``cupyx.errstate``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff.ops.elementwise import abs, power, root, square, where
from minibng.autodiff.ops.indexing import getitem, indices_for
from minibng.autodiff.ops.products import matmul, trace
from minibng.autodiff.ops.reductions import max, min, sum
from minibng.autodiff.ops.shapes import diagonal, expand_dims, matrix_transpose, squeeze, tril
from minibng.autodiff.ops.table import composed
from minibng.autodiff.tracer import NUMPY_NAMES, primitive, raw, shape_of
from minibng.backend import Array

__all__ = ["cholesky", "det", "inv", "matrix_norm", "norm", "slogdet", "solve", "vector_norm"]

NUMPY_NAMES[np.linalg.diagonal] = lambda x, *, offset=0: diagonal(x, offset, -2, -1)
NUMPY_NAMES[np.linalg.trace] = lambda x, *, offset=0: trace(x, offset, -2, -1)

# Systems of equations


def _solve_pull(g: Array, y: Array, argnums: Sequence[int], a: Array, b: Array) -> list[Array]:
    """Return the cotangents of a and b: b's is h = a⁻ᵀ g, a's is −h yᵀ."""
    if len(shape_of(b)) == 1:
        g, y = expand_dims(g, -1), expand_dims(y, -1)
    h = solve(matrix_transpose(a), g)
    of_b = squeeze(h, -1) if len(shape_of(b)) == 1 else h
    return [of_b if i else -matmul(h, matrix_transpose(y)) for i in argnums]


@primitive(every=_solve_pull, numpy=np.linalg.solve)
def solve(a: Array, b: Array) -> Array:
    """Return x with a x = b, a (…, n, n), for one vector b (n,) or matrices b (…, n, k); the batches broadcast."""
    if len(shape_of(b)) > 1 and shape_of(a)[:-2] != shape_of(b)[:-2]:  # CuPy does not broadcast them
        batch = np.broadcast_shapes(shape_of(a)[:-2], shape_of(b)[:-2])
        a, b = (np.broadcast_to(x, batch + shape_of(x)[-2:]) for x in (a, b))
    return np.linalg.solve(a, b)


@primitive(lambda g, y, a: -matmul(matrix_transpose(y), matmul(g, matrix_transpose(y))), numpy=np.linalg.inv)
def inv(a: Array) -> Array:
    """Return the inverse of each matrix."""
    return np.linalg.inv(a)


# Determinants


_MINORS = 16
"""Largest matrix whose minors are formed: they are n⁴ numbers."""


def _cofactors(a: Array, y: Array) -> Array:
    """Return the derivative of det: y·a⁻ᵀ, or by minors where a matrix is singular or nearly so.

    Its determinant is then small beside the product of the lengths of its rows, which bounds it (Hadamard).
    """
    n, value = shape_of(a)[-1], raw(a)
    least = math.sqrt(np.finfo(np.result_type(value)).eps) * np.prod(np.linalg.norm(value, axis=-1), axis=-1)
    if n > _MINORS or bool(np.all(np.abs(raw(y)) > least)):
        return _as_matrices(y) * matrix_transpose(inv(a))
    along = indices_for(a).arange(n)
    others = along[: n - 1] + (along[: n - 1] >= along[:, None])  # others[i]: every row but i
    minors = getitem(a, (..., others[:, None, :, None], others[None, :, None, :]))
    return det(minors) * (1 - 2 * ((along[:, None] + along) % 2)).astype(np.result_type(raw(a)))


def _as_matrices(x: Array) -> Array:
    """Return an array of numbers (…) as one of 1×1 matrices (…, 1, 1)."""
    return expand_dims(expand_dims(x, -1), -1)


@primitive(lambda g, y, a: _as_matrices(g) * _cofactors(a, y), numpy=np.linalg.det)
def det(a: Array) -> Array:
    """Return the determinant of each matrix; up to 16×16 all derivatives of a singular one are right too.

    The derivative looks whether a matrix is singular; on a device it waits for that.
    """
    return np.linalg.det(a)


@primitive(lambda g, y, a: _as_matrices(g[0]) * matrix_transpose(inv(a)), aux=1)
def _logabsdet(a: Array) -> tuple[Array, Array]:
    sign, logabsdet = np.linalg.slogdet(a)
    return logabsdet, sign


_SlogdetResult: Any = type(np.linalg.slogdet(np.ones((1, 1))))


@composed(np.linalg.slogdet)
def slogdet(a: Array) -> Any:
    """Return (sign, logabsdet) of each determinant; the sign, whose derivative is 0, is plain."""
    logabsdet, sign = _logabsdet(a)
    return _SlogdetResult(sign, logabsdet)


# Factors


def _cholesky_pull(g: Array, y: Array) -> Array:
    """Return ½(s + sᵀ) with s = y⁻ᵀ Φ(yᵀ g) y⁻¹, where Φ takes the lower triangle with half its diagonal.

    Iain Murray, Differentiation of the Cholesky decomposition (2016), equation 9.
    """
    p = matmul(matrix_transpose(y), tril(g))
    half = (tril(p) + tril(p, -1)) * 0.5
    s = solve(matrix_transpose(y), matrix_transpose(solve(matrix_transpose(y), matrix_transpose(half))))
    return (s + matrix_transpose(s)) * 0.5


@primitive(lambda g, y, a: _cholesky_pull(g, y))
def _cholesky(a: Array) -> Array:
    return np.linalg.cholesky(a)


@composed(np.linalg.cholesky)
def cholesky(a: Array, *, upper: bool = False) -> Array:
    """Return the lower triangular l with l lᵀ = a, or its transpose; a counts as symmetric, and so is its gradient."""
    return matrix_transpose(_cholesky(matrix_transpose(a))) if upper else _cholesky(a)


# Norms


def _power_or_zero(x: Array, p: float) -> Array:
    """Return x^p, and 0 with derivative 0 where x is 0."""
    zero = np.equal(raw(x), 0)
    return where(zero, 0, power(where(zero, 1, x), p))


@composed(np.linalg.vector_norm)
def vector_norm(x: Array, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Array:
    """Return (Σ|x|^p)^(1/p) over ``axis`` (None: all) for p = ord, the largest |x| for inf, the smallest for −inf."""
    if ord == 2:
        return root(sum(square(x), axis, keepdims=keepdims))
    if ord == 1:
        return sum(abs(x), axis, keepdims=keepdims)
    if ord in (np.inf, -np.inf):
        return (max if ord > 0 else min)(abs(x), axis, keepdims=keepdims)
    if ord == 0:
        return sum(np.not_equal(raw(x), 0).astype(np.result_type(raw(x))), axis, keepdims=keepdims)
    return _power_or_zero(sum(_power_or_zero(abs(x), ord), axis, keepdims=keepdims), 1.0 / ord)


@composed(np.linalg.matrix_norm)
def matrix_norm(x: Array, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Return the norm of each matrix: "fro", 1 and −1 (column sums of |x|), inf and −inf (row sums)."""
    return norm(x, ord, (-2, -1), keepdims)


@composed(np.linalg.norm)
def norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the norm of vectors (one axis, or all with ord None) or matrices (two axes); its derivative at 0 is 0.

    Raises
    ------
    ValueError
        For the norms that need singular values: 2, −2 and "nuc" of matrices.
    """
    axes = tuple(range(len(shape_of(x)))) if axis is None else axis
    axes = tuple(axes) if np.ndim(axes) else (axes,)
    if ord is None or (len(axes) == 2 and ord in ("fro", "f")):
        return vector_norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 1:
        return vector_norm(x, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2 or ord not in (1, -1, np.inf, -np.inf):
        raise ValueError(
            f"norm over the axes {axes} of an array of shape {shape_of(x)} has no ord={ord!r} here: one axis takes a "
            "number, two axes take 'fro', 1, -1, inf or -inf (2 and 'nuc' need singular values)"
        )
    summed, rest = axes if ord in (1, -1) else axes[::-1]
    sums = sum(abs(x), summed, keepdims=True)
    best = (max if ord > 0 else min)(sums, rest, keepdims=True)
    return best if keepdims else squeeze(best, axes)
