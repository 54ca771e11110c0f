"""Convolutions of stride 1 on the host, without a copy of the windows.

On a plane (see `images`) w neighbouring pixels of a row are one run of w·C numbers, and so the plane, read from pixel s
on, is a matrix of such runs. Times the weights of one filter row (w·C, K) it gives every w-th pixel of the output; the
other pixels follow from s+1 … s+w−1, the other filter rows from one pitch further::

    y[r::w] += flat[(s + i·pitch + r)·C :].reshape(m, w·C) @ W[i]        for every filter row i and phase r = 0 … w−1

The output lies on the grid of the input. Where a window crossed the edge of the grid it holds nonsense: these pixels
are margins of the output, and are cleared. The adjoint in the input is the same routine on other weights; the adjoint
in the weights multiplies the same runs, transposed, by g[r::w]. The pixels are gone through in pieces that stay in the
cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minibng.backend.base import HostArray
from minibng.backend.convolution import Geometry, Shape
from minibng.backend.images import (
    Plane,
    clear_margins,
    clear_rows,
    memory_of,
    memory_with,
    plane_of,
    plane_on,
    view_of,
)

PIECE = 600_000
"""Bytes of input or output that are worked on at a time: with scratch both stay in the second-level cache."""


def takes(a: HostArray, b: HostArray, w: Shape, geometry: Geometry) -> bool:
    """Tell whether this module does a convolution, or an adjoint, of two such arrays, with weights of shape ``w``."""
    fits = all(max(pad) < k for pad, k in zip(geometry.pads, w[:2], strict=True))
    plain = geometry.stride == (1, 1) and geometry.groups == 1 and w[:2] != (1, 1)
    return fits and plain and a.size > 0 and a.dtype == b.dtype and a.dtype.char in "fd"


def convolve(x: HostArray, w: HostArray, geometry: Geometry) -> HostArray:
    """Return y (N, oh, ow, K), on the grid of x."""
    kh, kw, c, k = w.shape
    shape = geometry.outputs(x.shape, w.shape)
    plane = plane_of(x, *_margins(geometry))
    memory = memory_with(shape, x.dtype, plane.rows - shape[1], plane.pitch - shape[2])
    body = memory[memory.margins.body].view(np.ndarray)
    weights = np.ascontiguousarray(w).reshape(kh, kw * c, k)
    scratch = None
    for a, e in _pieces(plane, shape, max(c, k) * x.itemsize):
        out = body[a:e]
        scratch = np.empty(out.shape, x.dtype) if scratch is None else scratch
        part = scratch[: e - a]
        for i in range(kh):
            into = part if i else out
            for r, runs in _runs(plane, geometry, i, a, e, kw, c):
                np.matmul(runs, weights[i], out=into[r::kw])
            if i:
                np.add(out, part, out)
        clear_rows(memory, a // plane.pitch, -(-e // plane.pitch))  # now, while they are in the cache
    memory[: memory.margins.guard] = 0
    memory[memory.margins.guard + e :] = 0
    return view_of(memory)


def convolve_weight(x: HostArray, g: HostArray, geometry: Geometry, shape: Shape) -> HostArray:
    """Return the adjoint in w, of that ``shape``."""
    kh, kw, c, k = shape
    below, right = _margins(geometry)
    memory = memory_of(g)
    if memory is not None and memory.margins.rows >= x.shape[1] + below and memory.margins.pitch >= x.shape[2] + right:
        plane = plane_on(x, memory.margins.rows, memory.margins.pitch)
    else:
        plane = plane_of(x, below, right)
    other = plane_on(g, plane.rows, plane.pitch)
    pixels = other.flat.reshape(-1, k)[other.start :]
    total = np.zeros((kh, kw * c, k), g.dtype)
    for a, e in _pieces(plane, g.shape, max(c, k) * x.itemsize):
        piece = pixels[a:e]
        for i in range(kh):
            for r, runs in _runs(plane, geometry, i, a, e, kw, c):
                total[i] += np.matmul(runs.T, piece[r::kw])
    return total.reshape(shape)


def pointwise(x: HostArray, matrix: HostArray) -> HostArray:
    """Return each pixel times a matrix (C, K): images on the grid of x, whose margins are multiplied with the rest."""
    memory = memory_of(x)
    shape = (*x.shape[:3], matrix.shape[1])
    if memory is None:
        made: HostArray = np.matmul(x.reshape(-1, x.shape[3]), matrix)
        return made.reshape(shape)
    y = memory_with(shape, np.result_type(x, matrix), memory.margins.below, memory.margins.right)
    np.matmul(memory[memory.margins.body], matrix, out=y[y.margins.body])
    clear_margins(y)  # which NaN weights have written to
    return view_of(y)


def pointwise_weight(x: HostArray, g: HostArray) -> HostArray:
    """Return the sum over all pixels of x (C,) ⊗ g (K,): (C, K)."""
    a, b = memory_of(x), memory_of(g)
    if a is not None and b is not None and a.margins == b.margins:
        x, g = (memory[memory.margins.body].view(np.ndarray) for memory in (a, b))
    made: HostArray = np.matmul(x.reshape(-1, x.shape[-1]).T, g.reshape(-1, g.shape[-1]))
    return made


def _margins(geometry: Geometry) -> tuple[int, int]:
    """Return the zeros that a plane needs below and to the right of its images."""
    rows, columns = geometry.pads
    return max(rows), max(columns)


def _pieces(plane: Plane, y: Shape, pixel: int) -> Iterator[tuple[int, int]]:
    """Cut the pixels, from the first to the last of an output of shape ``y``, into pieces of whole rows.

    ``pixel`` is the size of one in bytes.
    """
    end = ((y[0] - 1) * plane.rows + y[1] - 1) * plane.pitch + y[2]
    step = max(PIECE // (plane.pitch * pixel), 1) * plane.pitch
    for a in range(0, end, step):
        yield a, min(a + step, end)


def _runs(
    plane: Plane, geometry: Geometry, i: int, a: int, e: int, kw: int, channels: int
) -> Iterator[tuple[int, HostArray]]:
    """Yield each phase r, and what filter row i sees at output pixels a+r, a+r+kw, … < e: (m, kw·C)."""
    (top, _), (left, _) = geometry.pads
    first = plane.start + a + (i - top) * plane.pitch - left
    for r in range(min(kw, e - a)):
        m = -(-(e - a - r) // kw)
        yield r, plane.flat[(first + r) * channels : (first + r + m * kw) * channels].reshape(m, kw * channels)
