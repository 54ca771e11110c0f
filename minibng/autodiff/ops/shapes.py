"""Functions that move entries about: shapes, joining and splitting, repeating, diagonals."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff.ops.indexing import getitem, indices_for, scatter, take
from minibng.autodiff.ops.table import composed
from minibng.autodiff.tracer import broadcast_to, primitive, shape_of
from minibng.backend import Array

# Axes


@primitive(lambda g, y, x, shape: reshape(g, shape_of(x)), numpy=np.reshape)
def reshape(x: Array, shape: Any) -> Array:
    """Return x in another shape with the same entries in the same order."""
    return np.reshape(x, shape)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that put a transposed array back."""
    return tuple(int(i) for i in np.argsort([a % len(axes) for a in axes]))


@primitive(
    lambda g, y, x, axes=None: transpose(g, None if axes is None else _inverse(axes)),
    numpy=np.transpose,
)
def transpose(x: Array, axes: Any = None) -> Array:
    """Return x with its axes in another order (None: reversed)."""
    return np.transpose(x, axes)


@primitive(lambda g, y, x, axis1, axis2: swapaxes(g, axis1, axis2), numpy=np.swapaxes)
def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """Return x with two axes exchanged."""
    return np.swapaxes(x, axis1, axis2)


@composed(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Array) -> Array:
    """Return x with its last two axes exchanged."""
    return swapaxes(x, -1, -2)


@primitive(lambda g, y, x, source, destination: moveaxis(g, destination, source), numpy=np.moveaxis)
def moveaxis(x: Array, source: Any, destination: Any) -> Array:
    """Return x with one or several axes moved."""
    return np.moveaxis(x, source, destination)


@primitive(lambda g, y, x, axis: reshape(g, shape_of(x)), numpy=np.expand_dims)
def expand_dims(x: Array, axis: Any) -> Array:
    """Return x with axes of length 1 put in."""
    return np.expand_dims(x, axis)


@primitive(lambda g, y, x, axis=None: reshape(g, shape_of(x)), numpy=np.squeeze)
def squeeze(x: Array, axis: Any = None) -> Array:
    """Return x without (the named) axes of length 1."""
    return np.squeeze(x, axis)


@composed(np.ravel)
def ravel(x: Array) -> Array:
    """Return x as one axis."""
    return reshape(x, (-1,))


def _at_least(ndim: int, x: Array) -> Array:
    """Return x with axes of length 1 put in where it has fewer than ``ndim``: in front, only a third one behind."""
    shape = tuple(shape_of(x))
    if len(shape) >= ndim:
        return x
    shape = (1,) * (min(ndim, 2) - len(shape)) + shape
    return reshape(x, shape if ndim < 3 else (*shape, 1))


def _each(arrays: tuple[Array, ...], ndim: int) -> Any:
    made = tuple(_at_least(ndim, x) for x in arrays)
    return made[0] if len(made) == 1 else made


@composed(np.atleast_1d)
def atleast_1d(*arrays: Array) -> Any:
    """Return each array with at least one axis; several arrays give a tuple."""
    return _each(arrays, 1)


@composed(np.atleast_2d)
def atleast_2d(*arrays: Array) -> Any:
    """Return each array with at least two axes, new ones in front; several arrays give a tuple."""
    return _each(arrays, 2)


@composed(np.atleast_3d)
def atleast_3d(*arrays: Array) -> Any:
    """Return each array with at least three axes, (n) as (1, n, 1) and (m, n) as (m, n, 1)."""
    return _each(arrays, 3)


@composed(np.broadcast_arrays)
def broadcast_arrays(*arrays: Array) -> tuple[Array, ...]:
    """Return the arrays broadcast to their common shape."""
    shape = np.broadcast_shapes(*map(shape_of, arrays))
    return tuple(broadcast_to(x, shape) for x in arrays)


# Joining and splitting


def _split_like(g: Array, y: Array, argnums: Sequence[int], *arrays: Array, axis: int) -> list[Array]:
    """Cut the cotangent of a concatenation where its parts were joined."""
    ends = np.cumsum([shape_of(a)[axis] for a in arrays])
    lead = (slice(None),) * (axis % len(shape_of(g)))
    return [getitem(g, (*lead, slice(int(ends[i]) - shape_of(arrays[i])[axis], int(ends[i])))) for i in argnums]


@primitive(every=_split_like)
def _join(*arrays: Array, axis: int) -> Array:
    return np.concatenate(arrays, axis=axis)


@composed(np.concatenate)
def concatenate(arrays: Sequence[Array], axis: int | None = 0) -> Array:
    """Return the arrays joined along an existing axis (None: each is flattened first)."""
    if axis is None:
        return _join(*[ravel(a) for a in arrays], axis=0)
    return _join(*arrays, axis=axis)


@composed(np.stack)
def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Return the arrays joined along a new axis."""
    return _join(*[expand_dims(a, axis) for a in arrays], axis=axis)


@composed(np.hstack)
def hstack(arrays: Sequence[Array]) -> Array:
    """Return the arrays joined along their second axis, vectors along their only one."""
    parts = [_at_least(1, x) for x in arrays]
    return _join(*parts, axis=0 if parts and len(shape_of(parts[0])) == 1 else 1)


@composed(np.vstack)
def vstack(arrays: Sequence[Array]) -> Array:
    """Return the arrays joined along their first axis, vectors as rows."""
    return _join(*[_at_least(2, x) for x in arrays], axis=0)


@composed(np.dstack)
def dstack(arrays: Sequence[Array]) -> Array:
    """Return the arrays joined along their third axis."""
    return _join(*[_at_least(3, x) for x in arrays], axis=2)


@composed(np.column_stack)
def column_stack(arrays: Sequence[Array]) -> Array:
    """Return the arrays joined along their second axis, vectors as columns."""
    return _join(*[reshape(x, (-1, 1)) if len(shape_of(x)) < 2 else x for x in arrays], axis=1)


@primitive(lambda g, y, x, cuts, axis: concatenate(g, axis))
def _cut(x: Array, cuts: Sequence[int], axis: int) -> tuple[Array, ...]:
    return tuple(np.split(x, cuts, axis))


@composed(np.array_split)
def array_split(x: Array, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """Return the parts of x: so many of nearly equal length, or cut in front of the given positions."""
    n = shape_of(x)[axis]
    if np.ndim(indices_or_sections) == 0:
        parts = operator.index(indices_or_sections)
        if parts < 1:
            raise ValueError(f"cannot split into {parts} parts")
        cuts = [n // parts * i + min(i, n % parts) for i in range(1, parts)]
    else:
        cuts = [len(range(n)[:i]) for i in indices_or_sections]
        if sorted(cuts) != cuts:
            raise ValueError(f"positions to split at must not decrease, got {list(indices_or_sections)}")
    return list(_cut(x, cuts, axis))


@composed(np.split)
def split(x: Array, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    """Return the parts of x: so many of equal length, or cut in front of the given positions."""
    if np.ndim(indices_or_sections) == 0 and shape_of(x)[axis] % indices_or_sections:
        raise ValueError(
            f"axis {axis} of shape {shape_of(x)} has no {indices_or_sections} equal parts: use array_split"
        )
    return array_split(x, indices_or_sections, axis)


@composed(np.hsplit)
def hsplit(x: Array, indices_or_sections: Any) -> list[Array]:
    """Return the parts of x along its second axis, of a vector along its only one."""
    return split(x, indices_or_sections, 1 if len(shape_of(x)) > 1 else 0)


@composed(np.vsplit)
def vsplit(x: Array, indices_or_sections: Any) -> list[Array]:
    """Return the parts of x along its first axis."""
    return split(x, indices_or_sections, 0)


@composed(np.dsplit)
def dsplit(x: Array, indices_or_sections: Any) -> list[Array]:
    """Return the parts of x along its third axis."""
    return split(x, indices_or_sections, 2)


@composed(getattr(np, "unstack", None))
def unstack(x: Array, *, axis: int = 0) -> tuple[Array, ...]:
    """Return the slices of x along an axis."""
    n = shape_of(x)[axis]
    return tuple(squeeze(part, axis) for part in array_split(x, n, axis)) if n else ()


# Reversing, shifting, repeating


@primitive(lambda g, y, x, axis=None: flip(g, axis), numpy=np.flip)
def flip(x: Array, axis: Any = None) -> Array:
    """Return x with the order of its entries reversed along one or several axes (None: all)."""
    return np.flip(x, axis)


@composed(np.fliplr)
def fliplr(x: Array) -> Array:
    """Return x reversed along its second axis."""
    return flip(x, 1)


@composed(np.flipud)
def flipud(x: Array) -> Array:
    """Return x reversed along its first axis."""
    return flip(x, 0)


@composed(np.rot90)
def rot90(x: Array, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    """Return x turned k times by 90°, from the first of two axes towards the second."""
    first, second = axes
    if k % 4 == 1:
        return swapaxes(flip(x, second), first, second)
    if k % 4 == 3:
        return flip(swapaxes(x, first, second), second)
    return flip(x, axes) if k % 4 else x


def _back(shift: Any) -> Any:
    return tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift


@primitive(lambda g, y, x, shift, axis=None: roll(g, _back(shift), axis), numpy=np.roll)
def roll(x: Array, shift: Any, axis: Any = None) -> Array:
    """Return x shifted along one or several axes, what leaves at one end entering at the other."""
    return np.roll(x, shift, axis)


@composed(np.tile)
def tile(x: Array, reps: Any) -> Array:
    """Return copies of x side by side, ``reps`` of them along each axis."""
    counts, shape = list(reps) if np.ndim(reps) else [reps], list(shape_of(x))
    counts, shape = [1] * (len(shape) - len(counts)) + counts, [1] * (len(counts) - len(shape)) + shape
    apart = reshape(x, [n for size in shape for n in (1, size)])
    copies = broadcast_to(apart, tuple(n for pair in zip(counts, shape, strict=True) for n in pair))
    return reshape(copies, [c * n for c, n in zip(counts, shape, strict=True)])


@composed(np.repeat)
def repeat(x: Array, repeats: Any, axis: int | None = None) -> Array:
    """Return x with each entry along an axis repeated, all alike or as often as its entry of ``repeats`` says."""
    if axis is None:
        x, axis = ravel(x), 0
    shape = list(shape_of(x))
    axis %= len(shape)
    if np.ndim(repeats):
        source = np.repeat(indices_for(repeats).arange(shape[axis]), repeats)
        return take(x, indices_for(x).asarray(source), axis)
    copies = broadcast_to(expand_dims(x, axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    shape[axis] *= repeats
    return reshape(copies, shape)


# Padding


def _inside(g: Array, y: Array, x: Array, widths: Sequence[Sequence[int]], value: Any) -> Array:
    return getitem(g, tuple(slice(before, before + n) for (before, _), n in zip(widths, shape_of(x), strict=True)))


@primitive(_inside)
def _surround(x: Array, widths: Sequence[Sequence[int]], value: Any) -> Array:
    return np.pad(x, widths, constant_values=value)


@composed(np.pad)
def pad(x: Array, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Array:
    """Return x with entries put around it: modes constant, edge, reflect, symmetric and wrap of np.pad.

    Raises
    ------
    ValueError
        For another mode.

    Examples
    --------
    >>> pad(np.array([1.0, 2.0]), (1, 2), mode="edge")
    array([1., 1., 2., 2., 2.])
    """
    widths = np.broadcast_to(pad_width, (len(shape_of(x)), 2)).tolist()
    if mode == "constant":
        return _surround(x, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad knows the modes constant, edge, reflect, symmetric and wrap, got {mode!r}")
    for axis, width in enumerate(widths):
        if any(width):
            source: Any = np.pad(np.arange(shape_of(x)[axis]), width, mode=mode)  # type: ignore[call-overload]
            x = take(x, indices_for(x).asarray(source), axis)
    return x


# Diagonals and triangles


def _diagonal_indices(x: Array, shape: tuple[int, ...], offset: int) -> tuple[Array, Array]:
    """Return the row and the column of each entry on a diagonal of a matrix of this shape."""
    rows, columns = shape
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    along = indices_for(x).arange(length)
    return along + max(-offset, 0), along + max(offset, 0)


@composed(np.diagonal)
def diagonal(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return a diagonal of x in two of its axes, as the last axis of the result."""
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    return getitem(x, (..., *_diagonal_indices(x, shape_of(x)[-2:], offset)))


@composed(np.diag)
def diag(x: Array, k: int = 0) -> Array:
    """Return the matrix with a vector on its k-th diagonal, or the k-th diagonal of a matrix."""
    if len(shape_of(x)) != 1:
        return diagonal(x, k)
    n = shape_of(x)[0] + abs(k)
    return scatter(x, _diagonal_indices(x, (n, n), k), (n, n))


@primitive(lambda g, y, x, k=0: tril(g, k), numpy=np.tril)
def tril(x: Array, k: int = 0) -> Array:
    """Return matrices with zeros above the k-th diagonal."""
    return np.tril(x, k)


@primitive(lambda g, y, x, k=0: triu(g, k), numpy=np.triu)
def triu(x: Array, k: int = 0) -> Array:
    """Return matrices with zeros below the k-th diagonal."""
    return np.triu(x, k)
