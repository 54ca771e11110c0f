"""Reading entries and adding into them: the two are each other's adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from minibng.autodiff.ops.table import composed
from minibng.autodiff.tracer import primitive, raw, shape_of
from minibng.backend import Array, backend_of


@primitive(lambda g, y, x, index: scatter(g, index, shape_of(x)))
def getitem(x: Array, index: Any) -> Array:
    """Return x[index], for slices, integers, integer arrays and boolean masks."""
    return x[index]


@primitive(lambda g, y, x, index, shape: getitem(g, index))
def scatter(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Return zeros of ``shape`` with x added at ``index``: the adjoint of getitem."""
    backend = backend_of(x)
    out = backend.xp.zeros(shape, dtype=x.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) for p in parts):
        out[index] = x
    else:
        backend.scatter_add(out, index, x)
    return out


@primitive(lambda g, y, x, index, values: g, None, lambda g, y, x, index, values: getitem(g, index))
def scatter_add(x: Array, index: Any, values: Array) -> Array:
    """Return a copy of x with ``values`` added at ``index``; entries named twice receive both.

    Examples
    --------
    >>> scatter_add(np.zeros(3), np.array([0, 2, 2]), np.array([1.0, 10.0, 100.0]))
    array([  1.,   0., 110.])
    """
    backend = backend_of(x, values)
    out = backend.xp.array(x, dtype=np.result_type(x, values))
    backend.scatter_add(out, index, values)
    return out


def gather(x: Array, index: Any) -> Array:
    """Return x[index], the entries that `scatter_add` would add to; rows of x for an array of integers."""
    return getitem(x, index)


def indices_for(x: Array) -> Any:
    """Return the module that makes index arrays where x lives."""
    return backend_of(raw(x)).xp


@composed(np.take)
def take(x: Array, indices: Any, axis: int | None = None) -> Array:
    """Return the entries of x at ``indices`` along an axis (None: of x as one axis)."""
    indices = indices_for(x).asarray(indices) if isinstance(indices, (list, tuple)) else indices
    if axis is None:
        return getitem(np.ravel(x), indices)
    return getitem(x, (slice(None),) * (axis % len(shape_of(x))) + (indices,))


@composed(np.take_along_axis)
def take_along_axis(x: Array, indices: Array, axis: int | None = -1) -> Array:
    """Return x's entries at ``indices``, which has an entry for each entry of the result, along an axis."""
    if axis is None:
        return getitem(np.ravel(x), indices)
    shape, xp = shape_of(x), indices_for(x)
    index = [xp.arange(n).reshape([n if i == j else 1 for j in range(len(shape))]) for i, n in enumerate(shape)]
    index[axis] = indices
    return getitem(x, tuple(index))


@composed(np.sort)
def sort(x: Array, axis: int | None = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Array:
    """Return x in increasing order along an axis; the gradient follows each entry, equal ones in their order."""
    if axis is None:
        x, axis = np.ravel(x), 0
    return take_along_axis(x, np.argsort(raw(x), axis=axis, kind="stable"), axis)
