"""Convolution of images and its two adjoints, for any array library.

A convolution is linear in the images x and in the weights w, and so are the two sums that its derivatives need::

    y[n, p, q, k]   = Σ x[n, p·sh + i − top, q·sw + j − left, c] · w[i, j, c, k]      (x is zero outside the image)
    ⟨convolve(x, w), g⟩ = ⟨x, convolve_input(g, w)⟩ = ⟨w, convolve_weight(x, g)⟩

Shapes: x (N, H, W, C), w (kh, kw, C/groups, K), y and g (N, oh, ow, K). With groups, the channels of x and of y are cut
into that many runs, and run number r of y sees run number r of x alone. As everywhere in neural networks the window is
not flipped: mathematicians call this the cross-correlation.

The windows are copied side by side (im2col), some images at a time, into a workspace that every batch of them reuses,
and multiplied by the weights as a matrix. Nothing of it is kept for the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from minibng.backend.base import Array, Backend

Pads = tuple[tuple[int, int], tuple[int, int]]
Shape = tuple[int, ...]

HOST_COLUMNS, DEVICE_COLUMNS = 1 << 20, 1 << 28
"""Bytes of columns made at a time: on the host they are to stay in the cache, on a device they are to keep it busy."""


@dataclass(frozen=True)
class Geometry:
    """The windows of a convolution: ``stride`` (sh, sw), ``pads`` ((top, bottom), (left, right)), and ``groups``."""

    stride: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    groups: int = 1

    def outputs(self, x: Shape, w: Shape) -> Shape:
        """Return the shape (N, oh, ow, K) of the convolution of images and weights of such shapes."""
        sizes = zip(x[1:3], self.pads, w[:2], self.stride, strict=True)
        return (x[0], *[(n + sum(pad) - k) // s + 1 for n, pad, k, s in sizes], w[3])

    def pointwise(self, w: Shape) -> bool:
        """Tell whether each output pixel depends on the one pixel in its place: a product of matrices."""
        return w[:2] == (1, 1) and self == Geometry()


def convolve(backend: Backend, x: Array, w: Array, geometry: Geometry, y: Array | None = None) -> Array:
    """Return y (N, oh, ow, K), written into ``y`` if that is given."""
    xp, groups = backend.xp, geometry.groups
    shape = geometry.outputs(x.shape, w.shape)
    if geometry.pointwise(w.shape):
        return xp.matmul(x.reshape(-1, x.shape[3]), w.reshape(w.shape[2:])).reshape(shape)
    y = xp.empty(shape, dtype=np.result_type(x.dtype, w.dtype)) if y is None else y
    matrix, whole = _matrix(w, groups), groups == 1 and y.flags.c_contiguous
    for a, e, columns in _columns(backend, x, w.shape, geometry):
        products = xp.matmul(columns, matrix, out=_grouped(y[a:e], groups) if whole else None)
        if not whole:
            parts = products.reshape(groups, e - a, *shape[1:3], -1).transpose(1, 2, 3, 0, 4)
            y[a:e].reshape(parts.shape)[...] = parts
    return y


def convolve_input(backend: Backend, g: Array, w: Array, geometry: Geometry, shape: Shape) -> Array:
    """Return the adjoint in x, of that ``shape``.

    Only every sh-th row and sw-th column of x meets the same entries of the window. So the rows and columns of each
    remainder are a convolution of g by one pixel at a time, with those entries of the window, turned around.
    """
    (sh, sw), turned = geometry.stride, flipped(w, geometry.groups)
    rows, columns = (
        [_remainder(i, s, pad[0], k, n, m) for i in range(s)]
        for s, pad, k, n, m in zip(geometry.stride, geometry.pads, w.shape, shape[1:3], g.shape[1:3], strict=False)
    )
    if (sh, sw) == (1, 1):
        return _cropped(backend, g, turned, rows[0].pads, columns[0].pads, geometry.groups)
    dx = backend.xp.zeros(shape, dtype=np.result_type(g.dtype, w.dtype))
    for row in rows:
        for column in columns:
            part = turned[row.entries, column.entries]
            if part.size and dx[:, row.first :: sh, column.first :: sw].size:
                made = _cropped(backend, g, part, row.pads, column.pads, geometry.groups)
                dx[:, row.first :: sh, column.first :: sw] = made
    return dx


class _Remainder(NamedTuple):
    """Pixels ``first``, first + s, … of x along one axis: the entries of the turned window, and zeros around g."""

    first: int
    entries: slice
    pads: tuple[int, int]


def _remainder(i: int, s: int, before: int, k: int, n: int, m: int) -> _Remainder:
    """Return what pixels u of x, of n, with (u + before) mod s = i get from m pixels of g.

    With u + before = s·v + i they met entry i + s·j of the window in place v − j of the output, for every j.
    """
    first = (i - before) % s
    v, count, entries = (first + before) // s, len(range(first, n, s)), len(range(i, k, s))
    ahead = entries - 1 - v
    last = k - 1 - i  # where entry i is in the window turned around
    which = slice(last % s, last + 1, s) if entries else slice(0)
    return _Remainder(first, which, (ahead, count - m - ahead + entries - 1))


def _cropped(
    backend: Backend, g: Array, w: Array, rows: tuple[int, int], columns: tuple[int, int], groups: int
) -> Array:
    """Return a convolution of stride 1 with zeros around g, of which a negative number is taken away instead."""
    cuts = [slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip((rows, columns), g.shape[1:3], strict=True)]
    if min(*rows, *columns) < 0:
        g = g[:, cuts[0], cuts[1]]
    pads = ((max(0, rows[0]), max(0, rows[1])), (max(0, columns[0]), max(0, columns[1])))
    return backend.convolve(g, w, None, Geometry((1, 1), pads, groups))


def convolve_weight(backend: Backend, x: Array, g: Array, geometry: Geometry, shape: Shape) -> Array:
    """Return the adjoint in w, of that ``shape``."""
    xp, groups = backend.xp, geometry.groups
    kh, kw, c, k = shape
    if geometry.pointwise(shape):
        return xp.matmul(x.reshape(-1, c).T, g.reshape(-1, k)).reshape(shape)
    total = xp.zeros((groups, kh * kw * c, k // groups), dtype=np.result_type(x.dtype, g.dtype))
    for a, e, columns in _columns(backend, x, shape, geometry):
        total += xp.matmul(columns.swapaxes(1, 2), _grouped(xp.ascontiguousarray(g[a:e]), groups))
    return xp.ascontiguousarray(total.transpose(1, 0, 2)).reshape(shape)


def flipped(w: Array, groups: int = 1) -> Array:
    """Return the weights (kh, kw, K/groups, C) of the adjoint: turned by 180°, inputs and outputs exchanged."""
    kh, kw, c, k = w.shape
    parts = w.reshape(kh, kw, c, groups, k // groups)[::-1, ::-1].transpose(0, 1, 4, 3, 2)
    return parts.reshape(kh, kw, k // groups, groups * c)


def _matrix(w: Array, groups: int) -> Array:
    """Return the weights as matrices (groups, kh·kw·C/groups, K/groups)."""
    return w.reshape(-1, groups, w.shape[3] // groups).transpose(1, 0, 2)


def _grouped(y: Array, groups: int) -> Array:
    """Return images (n, oh, ow, K), contiguous, as a view (groups, pixels, K/groups)."""
    return y.reshape(math.prod(y.shape[:3]), groups, y.shape[3] // groups).transpose(1, 0, 2)


def _batches(backend: Backend, n: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut n images into batches whose workspace, ``size`` bytes an image, is of a good size."""
    most = HOST_COLUMNS if backend.on_host else DEVICE_COLUMNS
    step = max(1, most // max(size, 1))
    for a in range(0, n, step):
        yield a, min(a + step, n)


def _columns(backend: Backend, x: Array, w: Shape, geometry: Geometry) -> Iterator[tuple[int, int, Array]]:
    """Yield (first, end, columns) of one batch of images after another: (groups, pixels, kh·kw·C/groups)."""
    xp = backend.xp
    windows = _windows(xp, backend.surrounded(x, geometry.pads), w, geometry)
    groups, n, *rest = windows.shape
    image = groups * math.prod(rest)
    workspace: Any = None
    for a, e in _batches(backend, n, image * x.itemsize):
        if workspace is None:
            workspace = xp.empty((e - a) * image, dtype=x.dtype)
        columns = workspace[: (e - a) * image].reshape(groups, e - a, *rest)
        columns[...] = windows[:, a:e]
        yield a, e, columns.reshape(groups, (e - a) * math.prod(rest[:2]), math.prod(rest[2:]))


def _windows(xp: Any, x: Array, w: Shape, geometry: Geometry) -> Array:
    """Return the windows of images that need no more padding: a view (groups, N, oh, ow, kh, kw, C/groups)."""
    n, oh, ow, _ = Geometry(geometry.stride).outputs(x.shape, w)
    (image, row, pixel, channel), (sh, sw) = x.strides, geometry.stride
    return xp.lib.stride_tricks.as_strided(
        x,
        (geometry.groups, n, oh, ow, *w[:3]),
        (w[2] * channel, image, sh * row, sw * pixel, row, pixel, channel),
    )


def surrounded(xp: Any, x: Array, pads: Pads) -> Array:
    """Return x with zeros around each image."""
    (top, bottom), (left, right) = pads
    n, h, w, c = x.shape
    if not (top or bottom or left or right):
        return x
    out = xp.zeros((n, h + top + bottom, w + left + right, c), dtype=x.dtype)
    out[:, top : top + h, left : left + w] = x
    return out
