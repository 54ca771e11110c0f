"""Pooling: each window of an image, or of a sequence, gives its largest entry or its mean, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minibng.autodiff import ops, primitive, raw
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array, backend_of
from minibng.nn.layer import Layer, ParamsLike, called, check_array, check_whole


class Windows(NamedTuple):
    """Windows over images (N, H, W, C): their size, their stride, and the margin at both ends, each (rows, columns)."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what comes out, one entry a window."""
        n, h, w, c = shape
        tall, wide = (
            (extent + 2 * p - k) // s + 1
            for extent, k, s, p in zip((h, w), self.size, self.stride, self.padding, strict=True)
        )
        return n, tall, wide, c

    def taps(self, shape: tuple[int, ...]) -> Iterator[tuple[Any, Any]]:
        """Yield, for each place in a window in the order of rows, (windows, pixels): those at which it is no margin.

        The pixels that the windows have at that place are a strided slice of the image, so nothing is ever gathered.
        """
        made = self.outputs(shape)
        for i in range(self.size[0]):
            for j in range(self.size[1]):
                both = [self._tap(axis, place, shape, made) for axis, place in ((0, i), (1, j))]
                yield (slice(None), both[0][0], both[1][0]), (slice(None), both[0][1], both[1][1])

    def _tap(self, axis: int, place: int, shape: tuple[int, ...], made: tuple[int, ...]) -> tuple[slice, slice]:
        """Return along one axis the windows whose ``place`` lies on the image, and its pixels there."""
        s, shift, extent = self.stride[axis], place - self.padding[axis], shape[axis + 1]
        first = max(0, -(shift // s))
        last = min(made[axis + 1], (extent - 1 - shift) // s + 1)
        last = max(first, last)
        return slice(first, last), slice(first * s + shift, max(0, (last - 1) * s + shift + 1), s)


@primitive(lambda g, y, x, windows: _to_largest(g, raw(x), raw(y), windows))
def max_pool(x: Array, windows: Windows) -> Array:
    """Return the largest entry of each window; of equal ones the first, by rows, is it, and gets the gradient."""
    y = backend_of(x).xp.full(windows.outputs(x.shape), -np.inf, dtype=x.dtype)
    for there, here in windows.taps(x.shape):
        part = y[there]
        np.maximum(part, x[here], out=part)
    return y


def _first_largest(x: Array, y: Array, windows: Windows) -> Iterator[tuple[Any, Any, Array]]:
    """Yield the taps, each with a mask of the windows whose first largest entry it is."""
    free = backend_of(x).xp.ones(y.shape, dtype=bool)
    for there, here in windows.taps(x.shape):
        hit = np.equal(x[here], y[there])
        hit &= free[there]
        free[there] ^= hit
        yield there, here, hit


@primitive(lambda h, d, g, x, y, windows: _of_largest(h, x, y, windows))
def _to_largest(g: Array, x: Array, y: Array, windows: Windows) -> Array:
    """Return zeros like x with each window's g added where its largest entry is."""
    d = backend_of(x).empty_images(x)
    d[...] = 0
    for there, here, hit in _first_largest(x, y, windows):
        d[here] += g[there] * hit
    return d


@primitive(lambda g, v, h, x, y, windows: _to_largest(g, x, y, windows))
def _of_largest(h: Array, x: Array, y: Array, windows: Windows) -> Array:
    """Return the entry of h where each window's largest entry of x is: the adjoint of `_to_largest`."""
    v = backend_of(y).xp.zeros(y.shape, dtype=h.dtype)
    for there, here, hit in _first_largest(x, y, windows):
        v[there] += h[here] * hit
    return v


@primitive(lambda g, y, x, windows: _average_adjoint(g, shape_of(x), windows))
def average_pool(x: Array, windows: Windows) -> Array:
    """Return the mean of each window; entries of the margin are zeros and count."""
    y = backend_of(x).xp.zeros(windows.outputs(x.shape), dtype=x.dtype)
    for there, here in windows.taps(x.shape):
        y[there] += x[here]
    y *= 1 / (windows.size[0] * windows.size[1])
    return y


@primitive(lambda h, d, g, shape, windows: average_pool(h, windows))
def _average_adjoint(g: Array, shape: tuple[int, ...], windows: Windows) -> Array:
    """Return each window's g, divided by its size, added to all its pixels."""
    d = backend_of(g).xp.zeros(shape, dtype=g.dtype)
    g = g * (1 / (windows.size[0] * windows.size[1]))
    for there, here in windows.taps(shape):
        d[here] += g[there]
    return d


def _check_floats(layer: Layer, p: ParamsLike, x: Array, axes: str) -> tuple[int, ...]:
    """Return the shape of an input, and refuse what is no array of floating-point numbers."""
    check_array(layer, p, x, axes)
    if x.dtype.kind != "f":
        raise TypeError(f"{called(layer, p)} takes floating-point numbers, got {x.dtype}: use x.astype('float32')")
    return tuple(x.shape)


class _Pool(Layer):
    """A window that slides over the axes between batch and channels."""

    axes = 2
    pool: Any

    def __init__(self, window: Any, stride: Any = None, padding: Any = 0) -> None:
        self.window = self._each("window", window, 1)
        self.stride = self.window if stride is None else self._each("stride", stride, 1)
        self.padding = self._each("padding", padding, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.window, strict=True)):
            told = f"got padding {self._told(self.padding)} for a window of {self._told(self.window)}"
            raise ValueError(f"{type(self).__name__} pads at most half a window, so that none lies outside, {told}")

    def _each(self, what: str, value: Any, least: int) -> tuple[int, ...]:
        """Return one whole number an axis."""
        name = type(self).__name__
        each = tuple(value) if isinstance(value, (tuple, list)) else (value,) * self.axes
        check_whole(name, *each)
        if len(each) != self.axes or min(each) < least:
            expected = f"a number from {least} on" + ", or a pair of them" * (self.axes == 2)
            raise ValueError(f"{name}'s {what} is {expected}, got {value!r}")
        return tuple(int(n) for n in each)

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return an entry of each window, (N, …, C)."""
        names = "(N, H, W, C)" if self.axes == 2 else "(N, T, C)"
        shape = _check_floats(self, p, x, names)
        if len(shape) != self.axes + 2:
            raise ValueError(f"{called(self, p)} takes {names}, got shape {shape}")
        if any(k > n + 2 * m for k, n, m in zip(self.window, shape[1:], self.padding, strict=False)):
            told = f"the window {self._told(self.window)} with padding {self._told(self.padding)}"
            raise ValueError(f"{called(self, p)}: {told} is larger than the input of shape {shape}")
        if self.axes == 2:
            return type(self).pool(x, Windows(self.window, self.stride, self.padding))
        n, t, c = shape
        windows = Windows((1, *self.window), (1, *self.stride), (0, *self.padding))
        return type(self).pool(x.reshape(n, 1, t, c), windows)[:, 0]

    def _told(self, each: tuple[int, ...]) -> str:
        return " × ".join(map(str, each))

    def __repr__(self) -> str:
        def short(each: tuple[int, ...]) -> str:
            return str(each[0] if len(set(each)) == 1 else each)

        told = [short(self.window)]
        told += [f"stride={short(self.stride)}"] if self.stride != self.window else []
        told += [f"padding={short(self.padding)}"] if any(self.padding) else []
        return f"{type(self).__name__}({', '.join(told)})"


class MaxPool2d(_Pool):
    """The largest entry of each window of an image, (N, H, W, C) → (N, H′, W′, C).

    H′ = ⌊(H + 2·padding − window)/stride⌋ + 1, and likewise W′: what is left over at the end is not looked at. Of equal
    entries the first, by rows, is the largest and gets the gradient, as in PyTorch.

    Parameters
    ----------
    window
        Its size, a number or (rows, columns).
    stride
        From one window to the next, a number or a pair; None: the window, so that windows lie side by side.
    padding
        Margin of −∞ at both ends, a number or a pair; at most half the window.

    Raises
    ------
    ValueError
        When called on anything but images, or on some that are smaller than the window.

    Examples
    --------
    >>> pool = MaxPool2d(2)
    >>> pool(pool.init(), np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    pool = staticmethod(max_pool)


class MaxPool1d(MaxPool2d):
    """The largest entry of each window of a sequence, (N, T, C) → (N, T′, C); see `MaxPool2d`."""

    axes = 1


class AvgPool2d(_Pool):
    """The mean of each window of an image, (N, H, W, C) → (N, H′, W′, C), with H′ and W′ as `MaxPool2d`'s.

    Entries of the margin are zeros and are counted, as PyTorch does unless told otherwise.

    Parameters
    ----------
    window, stride, padding
        As those of `MaxPool2d`; the margin is zero.

    Raises
    ------
    ValueError
        When called on anything but images, or on some that are smaller than the window.
    """

    pool = staticmethod(average_pool)


class AvgPool1d(AvgPool2d):
    """The mean of each window of a sequence, (N, T, C) → (N, T′, C); see `AvgPool2d`."""

    axes = 1


@primitive(lambda g, y, x: np.expand_dims(g, 1) * _first(raw(x)))
def _largest(x: Array) -> Array:
    """Return the largest entry over axis 1 of (N, P, C); the first of equal ones gets the gradient."""
    return np.max(x, axis=1)


def _first(x: Array) -> Array:
    """Return ones where an entry is the first largest over axis 1, zeros elsewhere."""
    places = backend_of(x).xp.arange(x.shape[1]).reshape(1, -1, 1)
    return np.equal(places, np.expand_dims(np.argmax(x, axis=1), 1)).astype(x.dtype)


class _GlobalPool(Layer):
    """One entry a channel, (N, …, C) → (N, C)."""

    def _check(self, p: ParamsLike, x: Array) -> tuple[int, ...]:
        """Return the shape of an input, and refuse one that is not (N, …, C)."""
        shape = _check_floats(self, p, x, "(N, …, C)")
        if len(shape) < 3 or 0 in shape[1:-1]:
            raise ValueError(f"{called(self, p)} takes (N, …, C) with something between the two, got shape {shape}")
        return shape


class GlobalAvgPool(_GlobalPool):
    """The mean over all axes between batch and channels, (N, …, C) → (N, C)."""

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the mean of each channel."""
        return ops.mean(x, axis=tuple(range(1, len(self._check(p, x)) - 1)))


class GlobalMaxPool(_GlobalPool):
    """The largest entry over all axes between batch and channels, (N, …, C) → (N, C): of a sequence, over time.

    Of equal entries the first gets the gradient, as in `MaxPool2d`.
    """

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the largest entry of each channel."""
        n, *between, c = self._check(p, x)
        return _largest(x.reshape(n, math.prod(between), c))
