"""Images in memory with zeros between them, so that a convolution can read over their edges without a copy.

A batch (N, H, W, C) is kept in one long row of pixels. Each row of an image is followed by ``right`` zero pixels, which
are the right margin of that row and the left margin of the next; each image by ``below`` rows of zeros; before the
first and after the last there are zeros too. The batch itself is an ordinary array, a view of that memory with its own
strides: every NumPy function takes it, and only who asks `memory_of` knows of the margins.

       x x x 0        N = 2 images of 2 × 3 pixels, below = right = 1: rows = 3, pitch = 4
       x x x 0
       0 0 0 0
       x x x 0
       x x x 0
       0 0 0 0

The margins of every such memory are zero, always: who writes over them clears them again (`clear_margins`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minibng.backend.base import HostArray
from minibng.backend.convolution import Pads, Shape


class _Padded(np.ndarray[Any, np.dtype[Any]]):
    """The memory of a padded batch, (pixels, C). A view of it holds it as its base, which is how it is known again."""

    margins: Margins


class Margins(NamedTuple):
    """Where the N images of H × W pixels lie in the memory: ``guard`` pixels, then rows of W + right pixels."""

    guard: int
    images: tuple[int, int, int]
    below: int
    right: int

    @property
    def rows(self) -> int:
        """Rows from one image to the next."""
        return self.images[1] + self.below

    @property
    def pitch(self) -> int:
        """Pixels from one row of an image to the next."""
        return self.images[2] + self.right

    @property
    def pixels(self) -> int:
        """Pixels of all images with their margins."""
        return self.images[0] * self.rows * self.pitch

    @property
    def body(self) -> slice:
        """Where in the memory they are."""
        return slice(self.guard, self.guard + self.pixels)


class Plane(NamedTuple):
    """Images as one row of pixels: pixel (p, q) of image n begins at ``flat[(start + (n·rows + p)·pitch + q)·C]``."""

    flat: HostArray
    start: int
    rows: int
    pitch: int


def padded(shape: Shape, dtype: Any, below: int, right: int) -> HostArray:
    """Return an array (N, H, W, C), its entries not yet set, with zeros below and to the right of every image."""
    memory = memory_with(shape, dtype, below, right)
    clear_margins(memory)
    return view_of(memory)


def memory_with(shape: Shape, dtype: Any, below: int, right: int) -> _Padded:
    """Return the memory of such an array, its margins not yet cleared."""
    n, h, w, c = shape
    guard = (below + 1) * (w + right) + right
    memory = _Padded((2 * guard + n * (h + below) * (w + right), c), dtype)
    memory.margins = Margins(guard, (n, h, w), below, right)
    return memory


def view_of(memory: _Padded) -> HostArray:
    """Return the images in the memory, (N, H, W, C)."""
    m = memory.margins
    row, step = memory.strides
    strides = (m.rows * m.pitch * row, m.pitch * row, row, step)
    return np.ndarray((*m.images, memory.shape[1]), memory.dtype, memory, m.guard * row, strides)


def clear_margins(memory: _Padded) -> None:
    """Set everything but the images to zero."""
    m = memory.margins
    clear_rows(memory, 0, m.images[0] * m.rows)
    memory[: m.guard] = 0
    memory[m.guard + m.pixels :] = 0


def clear_rows(memory: _Padded, first: int, end: int) -> None:
    """Set the margins to zero in some of the rows, counted through all images with their margins."""
    m = memory.margins
    _, h, w = m.images
    rows = memory[m.body].reshape(-1, m.pitch, memory.shape[1])[first:end]
    rows[:, w:] = 0
    for p in range(h, m.rows):
        rows[(p - first) % m.rows :: m.rows] = 0


def memory_of(x: Any) -> _Padded | None:
    """Return the memory of an array that `padded` made, None for any other, and for a part of one."""
    memory = x
    while type(memory) is np.ndarray:
        memory = memory.base
    if type(memory) is not _Padded or memory.base is not None or x.ndim != 4:
        return None
    whole = view_of(memory)
    if x.shape != whole.shape or x.dtype != whole.dtype or _address(x) != _address(whole):
        return None
    steps = zip(x.shape, x.strides, whole.strides, strict=True)
    return memory if all(a == b for n, a, b in steps if n > 1) else None


def _address(x: HostArray) -> int:
    address: int = x.__array_interface__["data"][0]
    return address


def like(x: HostArray) -> HostArray:
    """Return a new array of the shape, dtype and margins of x, its entries not yet set."""
    memory = memory_of(x)
    if memory is None:
        return np.empty(x.shape, x.dtype)
    return padded(x.shape, x.dtype, memory.margins.below, memory.margins.right)


def plane_of(x: HostArray, below: int, right: int) -> Plane:
    """Return images as a plane with margins of at least so many zeros: in place if they have them, else a copy."""
    memory = memory_of(x)
    if memory is not None and memory.margins.below >= below and memory.margins.right >= right:
        m = memory.margins
        return Plane(memory.reshape(-1).view(np.ndarray), m.guard, m.rows, m.pitch)
    if not below and not right and x.flags.c_contiguous:
        return Plane(x.reshape(-1), 0, *x.shape[1:3])
    copy = padded(x.shape, x.dtype, below, right)
    copy[...] = x
    return plane_of(copy, below, right)


def plane_on(x: HostArray, rows: int, pitch: int) -> Plane:
    """Return images as a plane with just so many rows an image and pixels a row: in place, or a copy."""
    below, right = rows - x.shape[1], pitch - x.shape[2]
    plane = plane_of(x, below, right)
    if (plane.rows, plane.pitch) == (rows, pitch):
        return plane
    copy = padded(x.shape, x.dtype, below, right)
    copy[...] = x
    return plane_of(copy, below, right)


def surrounded(x: HostArray, pads: Pads) -> HostArray | None:
    """Return images with so many zeros around each, not to be written: a view, or None where they have not as many."""
    (top, bottom), (left, right) = pads
    memory = memory_of(x)
    if memory is None or memory.margins.below < max(top, bottom) or memory.margins.right < max(left, right):
        return None
    n, h, w, c = x.shape
    image, row, pixel, step = view_of(memory).strides
    start = memory.margins.guard * pixel - top * row - left * pixel
    shape = (n, h + top + bottom, w + left + right, c)
    return np.ndarray(shape, x.dtype, memory, start, (image, row, pixel, step))
