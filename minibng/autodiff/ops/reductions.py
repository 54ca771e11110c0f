"""Reductions over axes, and the running sums, products and differences along one."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff.ops.elementwise import exp, finite, root
from minibng.autodiff.ops.indexing import getitem
from minibng.autodiff.ops.shapes import array_split, concatenate, flip, ravel, reshape, squeeze
from minibng.autodiff.ops.table import composed
from minibng.autodiff.tracer import broadcast_to, primitive, raw, shape_of
from minibng.backend import Array, backend_of


def _keep(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Give a reduced array its lost axes back, as axes of length 1."""
    if keepdims:
        return g
    shape = list(shape_of(x))
    for a in _axes(x, axis):
        shape[a] = 1
    return reshape(g, tuple(shape))


def _axes(x: Array, axis: Any) -> Sequence[int]:
    """Return the axes that are reduced over: None means all."""
    if axis is None:
        return range(len(shape_of(x)))
    return tuple(axis) if isinstance(axis, (tuple, list)) else (operator.index(axis),)


def _spread(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    return broadcast_to(_keep(g, x, axis, keepdims), shape_of(x))


def _to_extremes(g: Array, y: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Send the cotangent of a maximum or minimum to the entries that attain it, in equal shares."""
    value = raw(x)
    hit = np.equal(value, _keep(raw(y), value, axis, keepdims)).astype(np.result_type(value))
    return _keep(g, x, axis, keepdims) * (hit / np.sum(hit, axis=axis, keepdims=True))


@primitive(lambda g, y, x, axis=None, *, keepdims=False: _spread(g, x, axis, keepdims), numpy=np.sum)
def sum(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the sum over ``axis`` (None: all)."""
    return np.sum(x, axis=axis, keepdims=keepdims)


@primitive(lambda g, y, x, axis=None, *, keepdims=False: _to_extremes(g, y, x, axis, keepdims), numpy=np.max)
def max(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the largest entry over ``axis``; ties share the gradient equally."""
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(lambda g, y, x, axis=None, *, keepdims=False: _to_extremes(g, y, x, axis, keepdims), numpy=np.min)
def min(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the smallest entry over ``axis``; ties share the gradient equally."""
    return np.min(x, axis=axis, keepdims=keepdims)


composed(np.amax)(max)
composed(np.amin)(min)


@composed(np.ptp)
def ptp(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the largest less the smallest entry over ``axis``."""
    return max(x, axis, keepdims=keepdims) - min(x, axis, keepdims=keepdims)


def _count(x: Array, axis: Any) -> int:
    return math.prod(shape_of(x)[a] for a in _axes(x, axis))


@composed(np.mean)
def mean(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the mean over ``axis`` (None: all)."""
    return sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


@composed(np.average)
def average(x: Array, axis: Any = None, weights: Array | None = None, *, keepdims: bool = False) -> Array:
    """Return Σ w·x / Σ w over ``axis``; weights have the shape of x, or are a vector along one axis."""
    if weights is None:
        return mean(x, axis, keepdims=keepdims)
    if shape_of(weights) != shape_of(x):
        shape = [1] * len(shape_of(x))
        shape[operator.index(axis)] = -1
        weights = reshape(weights, tuple(shape))
    return sum(x * weights, axis, keepdims=keepdims) / sum(weights, axis, keepdims=keepdims)


@composed(np.var)
def var(x: Array, axis: Any = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False) -> Array:
    """Return the mean squared deviation over ``axis``, its sum divided by (count − ddof), or − correction."""
    centred = x - mean(x, axis=axis, keepdims=True)
    return sum(centred * centred, axis=axis, keepdims=keepdims) / (_count(x, axis) - (ddof or correction))


@composed(np.std)
def std(x: Array, axis: Any = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False) -> Array:
    """Return the root of the variance over ``axis``; where that is 0 the derivative is 0."""
    return root(var(x, axis, ddof=ddof, correction=correction, keepdims=keepdims))


def _to_softmax(g: Array, y: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    with np.errstate(over="ignore"):
        return _keep(g, x, axis, keepdims) * exp(x - _keep(finite(y), x, axis, keepdims))


@primitive(lambda g, y, x, axis=None, *, keepdims=False: _to_softmax(g, y, x, axis, keepdims))
def logsumexp(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return log Σ exp(x) over ``axis``, without overflow: the largest entry is taken out first."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", over="ignore"):
        total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axis)


@composed(np.prod)
def prod(x: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    """Return the product over ``axis``, as a tree of products of two: zeros are right at every order."""
    axes = tuple(_axes(x, axis))
    for a in axes:
        while (n := shape_of(x)[a]) > 1:
            first, second, rest = array_split(x, [n // 2, n // 2 * 2], a)
            x = concatenate([first * second, rest], a) if n % 2 else first * second
        if n == 0:
            shape = tuple(1 if i == a % len(shape_of(x)) else m for i, m in enumerate(shape_of(x)))
            x = backend_of(raw(x)).xp.ones(shape, dtype=np.result_type(raw(x)))
    return x if keepdims or not axes else squeeze(x, axes)


# Along one axis


@primitive(
    lambda g, y, x, axis=None: reshape(flip(cumsum(flip(g, axis), axis), axis), shape_of(x)),
    numpy=np.cumsum,
)
def cumsum(x: Array, axis: int | None = None) -> Array:
    """Return the sums of the entries up to each one along an axis (None: of x as one axis)."""
    return np.cumsum(x, axis=axis)


@composed(np.cumprod)
def cumprod(x: Array, axis: int | None = None) -> Array:
    """Return the products of the entries up to each one along an axis; zeros are right at every order.

    Products of 2, 4, 8, … neighbours are made of each other, so that nothing is ever divided by.
    """
    if axis is None:
        x, axis = ravel(x), 0
    n, reach = shape_of(x)[axis], 1
    while reach < n:
        head, tail = array_split(x, [reach], axis)
        x = concatenate([head, tail * array_split(x, [n - reach], axis)[0]], axis)
        reach *= 2
    return x


@composed(np.diff)
def diff(x: Array, n: int = 1, axis: int = -1, prepend: Array | None = None, append: Array | None = None) -> Array:
    """Return the n-th differences of neighbours along an axis, of x between ``prepend`` and ``append``."""
    if n < 0:
        raise ValueError(f"diff takes n ≥ 0, got {n}")
    axis %= len(shape_of(x))
    edge = tuple(1 if i == axis else m for i, m in enumerate(shape_of(x)))
    ends = [e if e is None or shape_of(e) else np.zeros_like(raw(x), shape=edge) + e for e in (prepend, append)]
    parts = [p for p in (ends[0], x, ends[1]) if p is not None]
    x = concatenate(parts, axis) if len(parts) > 1 else x
    lead = (slice(None),) * axis
    for _ in range(n):
        x = getitem(x, (*lead, slice(1, None))) - getitem(x, (*lead, slice(None, -1)))
    return x
