"""Products of matrices and tensors."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff.ops.elementwise import multiply
from minibng.autodiff.ops.reductions import sum
from minibng.autodiff.ops.shapes import diagonal, expand_dims, moveaxis, ravel, reshape, squeeze, swapaxes
from minibng.autodiff.ops.table import composed
from minibng.autodiff.tracer import broadcast_to, primitive, raw, shape_of
from minibng.backend import Array, backend_of


def _matmul_left(g: Array, y: Array, a: Array, b: Array) -> Array:
    if len(shape_of(b)) == 1:
        return g * b if len(shape_of(a)) == 1 else expand_dims(g, -1) * b
    if len(shape_of(a)) == 1:
        return squeeze(matmul(expand_dims(g, -2), swapaxes(b, -1, -2)), axis=-2)
    return matmul(g, swapaxes(b, -1, -2))


def _matmul_right(g: Array, y: Array, a: Array, b: Array) -> Array:
    if len(shape_of(a)) == 1:
        return g * a if len(shape_of(b)) == 1 else expand_dims(a, -1) * expand_dims(g, -2)
    if len(shape_of(b)) == 1:
        return squeeze(matmul(swapaxes(a, -1, -2), expand_dims(g, -1)), axis=-1)
    return matmul(swapaxes(a, -1, -2), g)


@primitive(_matmul_left, _matmul_right, numpy=(np.matmul, np.linalg.matmul))
def matmul(a: Array, b: Array) -> Array:
    """Return the matrix product a @ b; leading axes are a batch and broadcast, 1-D operands are vectors."""
    return np.matmul(a, b)


@composed(np.dot)
def dot(a: Array, b: Array) -> Array:
    """Return the sums of products over a's last and b's last but one axis; numbers multiply."""
    if not len(shape_of(a)) or not len(shape_of(b)):
        return multiply(a, b)
    if len(shape_of(a)) <= 2 and len(shape_of(b)) <= 2:
        return matmul(a, b)
    return tensordot(a, b, axes=(-1, -1 if len(shape_of(b)) == 1 else -2))


@composed(np.inner)
def inner(a: Array, b: Array) -> Array:
    """Return the sums of products over the last axes; numbers multiply."""
    return tensordot(a, b, axes=(-1, -1)) if len(shape_of(a)) and len(shape_of(b)) else multiply(a, b)


@composed(np.vdot)
def vdot(a: Array, b: Array) -> Array:
    """Return the inner product of two arrays, each as one axis."""
    return matmul(ravel(a), ravel(b))


@composed(np.vecdot, np.linalg.vecdot)
def vecdot(a: Array, b: Array, *, axis: int = -1) -> Array:
    """Return the inner products of vectors along an axis; the other axes broadcast."""
    return sum(moveaxis(a, axis, -1) * moveaxis(b, axis, -1), -1)


@composed(np.outer, np.linalg.outer)
def outer(a: Array, b: Array) -> Array:
    """Return the matrix of all products of an entry of a with one of b."""
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


@composed(np.kron)
def kron(a: Array, b: Array) -> Array:
    """Return the Kronecker product: b in the place of every entry of a, times that entry."""
    ndim = max(len(shape_of(a)), len(shape_of(b)))
    rows, columns = ((1,) * (ndim - len(shape_of(x))) + tuple(shape_of(x)) for x in (a, b))
    coarse = reshape(a, tuple(n for m in rows for n in (m, 1)))
    fine = reshape(b, tuple(n for m in columns for n in (1, m)))
    return reshape(coarse * fine, tuple(m * n for m, n in zip(rows, columns, strict=True)))


@composed(np.tensordot, np.linalg.tensordot)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    """Return the sums of products over some axes of a and b: so many of a's last and b's first, or as named."""
    if np.ndim(axes) == 0:
        axes = (range(-axes, 0), range(axes))
    last, first = ([i] if np.ndim(i) == 0 else list(i) for i in axes)
    if [shape_of(a)[i] for i in last] != [shape_of(b)[i] for i in first]:
        raise ValueError(f"axes {last} of {shape_of(a)} and {first} of {shape_of(b)} differ in length")
    a, b = moveaxis(a, last, range(-len(last), 0)), moveaxis(b, first, range(len(first)))
    rows, columns = shape_of(a)[: len(shape_of(a)) - len(last)], shape_of(b)[len(first) :]
    n = math.prod(shape_of(b)[: len(first)])
    product = matmul(reshape(a, (math.prod(rows), n)), reshape(b, (n, math.prod(columns))))
    return reshape(product, (*rows, *columns))


@composed(np.trace)
def trace(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return the sum of a diagonal of x in two of its axes."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


# Einstein sums


def _written_out(subscripts: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Return a signature with one letter an axis: its terms and output, with no ellipsis and nothing implied."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [n - len(t) + 3 if "..." in t else 0 for t, n in zip(terms, ndims, strict=True)]
    most = max(hidden)
    letters = "".join(_unused(left))[:most]
    terms = [t.replace("...", letters[most - h :]) for t, h in zip(terms, hidden, strict=True)]
    if not arrow:
        output = "..." + "".join(sorted(c for c in set(left) - set(".,") if left.count(c) == 1))
    return terms, output.replace("...", letters)


def _unused(*taken: str) -> list[str]:
    return [c for c in string.ascii_letters if not any(c in t for t in taken)]


def _einsum_cotangent(
    g: Array, k: int, terms: list[str], output: str, operands: Sequence[Array], **settings: Any
) -> Array:
    """Return the cotangent of operand k: the einsum of g and the other operands onto its axes.

    An axis that only this operand has was summed over, so g spreads along it; of a repeated axis only the diagonal was
    read, which a factor eye puts back.
    """
    x = operands[k]
    xp, dtype = backend_of(raw(x)).xp, np.result_type(raw(x))
    names, factors = [output, *terms[:k], *terms[k + 1 :]], [g, *operands[:k], *operands[k + 1 :]]
    fresh, target = iter(_unused(output, *terms)), ""
    for letter, n in zip(terms[k], shape_of(x), strict=True):
        if letter in target:
            new = next(fresh)
            names.append(letter + new)
            factors.append(xp.eye(n, dtype=dtype))
            letter = new
        target += letter
    for letter in target:
        if not any(letter in name for name in names):
            names.append(letter)
            factors.append(xp.ones(1, dtype=dtype))
    made = _einsum(f"{','.join(names)}->{target}", *factors, **settings)
    return broadcast_to(made, tuple(m if n == 1 else n for m, n in zip(shape_of(made), shape_of(x), strict=True)))


def _einsum_pull(
    g: Array, y: Array, argnums: Sequence[int], subscripts: str, *operands: Array, **settings: Any
) -> list[Array]:
    terms, output = _written_out(subscripts, [len(shape_of(x)) for x in operands])
    return [_einsum_cotangent(g, i - 1, terms, output, operands, **settings) for i in argnums]


@primitive(every=_einsum_pull)
def _einsum(subscripts: str, *operands: Array, optimize: Any = False) -> Array:
    return np.einsum(subscripts, *operands, optimize=optimize)


@composed(np.einsum)
def einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Array:
    """Return Einstein's sum: products of entries over the axes named alike, summed where the output lacks the name.

    Signatures are NumPy's: ``"ij,jk->ik"``, implied outputs, ellipses, repeated names (diagonals), and operands each
    followed by a list of axis numbers.

    Examples
    --------
    >>> einsum("ij,j->i", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 10.0]))
    array([21., 43.])
    """
    if not isinstance(subscripts, str):
        subscripts, *operands = _from_lists([subscripts, *operands])  # type: ignore[assignment]
    return _einsum(subscripts, *operands, optimize=optimize)


def _from_lists(args: list[Any]) -> list[Any]:
    """Return [signature, operand, operand, …] of operands that are each followed by their axes as numbers."""
    letters = sorted(string.ascii_letters)
    pairs = list(itertools.zip_longest(args[::2], args[1::2]))
    output = pairs.pop()[0] if len(args) % 2 else None

    def write(axes: Sequence[Any]) -> str:
        return "".join("..." if i is Ellipsis else letters[i] for i in axes)

    signature = ",".join(write(axes) for _, axes in pairs)
    return [signature if output is None else f"{signature}->{write(output)}", *[x for x, _ in pairs]]
