"""Batch normalization, with the addition and the ReLU that follow it in a residual network, as one operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops, raw
from minibng.backend import Array, backend_of
from minibng.backend.images import Margins, memory_of
from minibng.nn.init import ones, zeros
from minibng.nn.layer import BufferInit, Layer, ParamsLike, called, check_array, check_input, check_whole
from minibng.params import Spec

PIECE = 1 << 17
"""Entries of one array that are worked on at a time: with the others and scratch they stay in the cache."""

ROW = 5200
"""Entries of a row, where it can be chosen: NumPy's inner loop runs over one, and a few are not worth its start."""

IMAGE = 20_000
"""Entries of an image, with its margins, up to which it makes one row: no gaps between rows are better than short ones,
unless something is kept for every entry of a row."""


class _Rows:
    """How arrays (N, …, C) of one shape are gone through: cut into rows, (A, B, L), a cache-sized piece at a time.

    A row is a run of whole pixels that lie side by side in memory, so that numbers of the C channels are repeated to
    its length L once, by `spread`, and sums over rows are added up over its pixels at the end, by `gather`. Where all
    arrays are contiguous, or images with the same margins, a row is as long as suits; pixels of a margin are then gone
    through as well, and as `spread` gives zeros for them, they stay zeros and add none. Otherwise a row is one of an
    image, W·C entries. What is not even that is copied. A device takes everything at once.
    """

    def __init__(self, *arrays: Array, image: int = IMAGE) -> None:
        first = arrays[0]
        self.backend = backend = backend_of(first)
        self.xp, self.dtype, self.channels = backend.xp, first.dtype, first.shape[-1]
        self.pixels = first.size // self.channels
        memories = [memory_of(a) if a.ndim == 4 and not a.flags.c_contiguous else None for a in arrays]
        self.margins: Margins | None = None
        self.cell = self.inside = (1, 1)  # a row is made of cells of (lines, pixels), the first of which are no margin
        self.wide = None if backend.on_host else "float64"
        if not backend.on_host or first.ndim != 4 or all([a.flags.c_contiguous for a in arrays]):
            run = _run(self.pixels, ROW // self.channels)
            self.shape = (1, self.pixels // run, run * self.channels)
        elif len(every := {None if m is None else m.margins for m in memories}) > 1 or (common := every.pop()) is None:
            n, h, w, c = first.shape
            self.cell = self.inside = (1, w)
            self.shape = (n, h, w * c)
        else:
            self._with(common, image)
        self.pieces = _pieces(self.shape, PIECE if backend.on_host else max(first.size, 1))
        self.views = [self._of(a, m) for a, m in zip(arrays, memories, strict=True)]

    def _with(self, margins: Margins, most: int) -> None:
        """Make rows of whole images, or of lines where those have more than ``most`` entries."""
        (n, h, w), line = margins.images, margins.pitch * self.channels
        image = (h + margins.below) * line
        self.margins = margins
        if image <= most:
            run = _run(n, ROW // image)
            self.cell, self.inside, self.lines = (h + margins.below, margins.pitch), (h, w), h + margins.below
            self.shape = (1, n // run, run * image)
        else:
            run = _run(h, ROW // line)
            self.cell, self.inside, self.lines = (1, margins.pitch), (1, w), h
            self.shape = (n, h // run, run * line)

    def of(self, x: Array) -> Array:
        """Return another array of the same shape and margins as rows."""
        return self._of(x, None if self.margins is None else memory_of(x))

    def _of(self, x: Array, memory: Any) -> Array:
        """Return an array as rows: a view, or a copy where that cannot be."""
        if self.margins is None:
            return x.reshape(self.shape)
        n, h, _ = self.margins.images
        return memory[self.margins.body].reshape(n, h + self.margins.below, -1)[:, : self.lines].reshape(self.shape)

    def in_place(self) -> AbstractContextManager[None]:
        """Return the context in which rows are worked on where they lie."""
        return self.backend.short_rows(self.shape[2])

    def scratch(self, dtype: Any = None) -> Array:
        """Return memory for one piece."""
        a, b, length = self.shape
        first = self.pieces[0]
        return self.xp.empty((min(a, first[0].stop), min(b, first[1].stop), length), dtype=dtype or self.dtype)

    def spread(self, *vectors: Array | float) -> list[Array]:
        """Return each (C,) as a row (L,) of the arrays' dtype, with zeros in the margins."""
        made = self.xp.zeros((len(vectors), self.shape[2]), dtype=self.dtype)
        for row, v in zip(made.reshape(len(vectors), -1, *self.cell, self.channels), vectors, strict=True):
            row[:, : self.inside[0], : self.inside[1]] = v
        return list(made)

    def each(self, rows: Array) -> Array:
        """Return rows (…, L) as pixels (…, C), without those of the margin."""
        cells = rows.reshape(-1, *self.cell, self.channels)
        return cells[:, : self.inside[0], : self.inside[1]].reshape(-1, self.channels)

    def total(self, piece: Array) -> Array:
        """Add up the rows of a piece, (L,): on the host, where they are few, in their own dtype."""
        return np.sum(piece, axis=(0, 1), dtype=self.wide)

    def gather(self, row: Array) -> Array:
        """Add up rows (…, L), which have zeros in the margins, over all pixels: (C,)."""
        return np.sum(row.reshape(-1, self.channels), axis=0)


@lru_cache(1024)
def _run(count: int, most: int) -> int:
    """Return how many make a row: the largest divisor of their count that is at most ``most``."""
    return next(r for r in range(max(1, min(count, most)), 0, -1) if count % r == 0)


@lru_cache(1024)
def _pieces(shape: tuple[int, int, int], most: int) -> list[tuple[slice, slice]]:
    """Cut (A, B, L) into pieces of about ``most`` entries: several A, or a part of B."""
    a, b, length = shape
    if b * length <= most:
        n = most // max(b * length, 1)
        return [(slice(i, i + n), slice(0, b)) for i in range(0, a, n)]
    n = max(most // length, 1)
    return [(slice(i, i + 1), slice(j, j + n)) for i in range(a) for j in range(0, b, n)]


def moments(x: Array) -> tuple[Array, Array]:
    """Return mean and variance of each channel of a plain array (N, …, C), (C,) float64, reading it once.

    Each piece is centred, column by column, about the mean of the piece before it, and the first about its own. The
    sums of these differences and of their squares are merged at the end, in float64, as Chan, Golub, LeVeque (1979)
    do: exact for any centres. What float32 loses on the way goes with the squared distances of neighbouring means,
    which the variance contains; E[x²] − mean², which loses every digit where the mean is large, is never formed. The
    variance divides by the number of values.
    """
    rows = _Rows(x, image=ROW)
    (x,), shape = rows.views, (len(rows.pieces), rows.shape[2])
    centres, sums, squares = rows.xp.empty((3, *shape), dtype="float64")
    counts = [x[piece].size // shape[1] for piece in rows.pieces]
    scratch = rows.scratch()
    with rows.in_place():
        centre = (rows.total(x[rows.pieces[0]]) / counts[0]).astype(x.dtype, copy=False)
        for i, piece in enumerate(rows.pieces):
            part = x[piece]
            d = np.subtract(part, centre, scratch[: part.shape[0], : part.shape[1]])
            centres[i], sums[i] = centre, (total := rows.total(d))
            squares[i] = rows.total(np.multiply(d, d, d))
            centre = (centre + total / counts[i]).astype(x.dtype, copy=False)
    count = rows.xp.asarray(counts, dtype="float64").reshape(-1, 1)
    means = centres + sums / count
    mean = rows.gather(means * count) / rows.pixels
    between = rows.each(means) - mean
    weights = rows.each(rows.xp.broadcast_to(count, shape))
    m2 = rows.gather(squares - sums * sums / count) + np.sum(between * between * weights, axis=0)
    return mean, m2 / rows.pixels


def _forward(
    x: Array,
    gamma: Array,
    beta: Array,
    skip: Array | None,
    mean: Array,
    variance: Array,
    eps: float,
    relu: bool,
    train: bool,
) -> tuple[Array, Array]:
    y = backend_of(x).empty_images(x)
    rows = _Rows(x, y) if skip is None else _Rows(x, y, skip)
    inverse = 1 / np.sqrt(variance.astype("float64") + eps)
    slope, centre = inverse * gamma, mean.astype(x.dtype)
    offset = beta - (mean.astype("float64") - centre) * slope
    centre, scale, shift, zero = rows.spread(centre, slope, offset, 0.0)
    xs, ys, *added = rows.views
    with rows.in_place():
        for piece in rows.pieces:
            out = ys[piece]
            np.subtract(xs[piece], centre, out)
            np.multiply(out, scale, out)
            np.add(out, shift, out)
            if added:
                np.add(out, added[0][piece], out)
            if relu:
                np.maximum(out, zero, out=out)  # a row of zeros: with the number NumPy takes three times as long
    return y, inverse


def _backward(
    g: Array,
    y: Array,
    inverse: Array,
    argnums: Sequence[int],
    x: Array,
    gamma: Array,
    beta: Array,
    skip: Array | None,
    mean: Array,
    variance: Array,
    eps: float,
    relu: bool,
    train: bool,
) -> list[Any]:
    own = relu or g.strides != x.strides
    d = backend_of(x).empty_images(x) if own else g  # g may be somebody else's too
    if g.strides != x.strides:  # it has no margins, or others: with those of x all passes are over long rows
        d[...] = g
        g = d
    rows = _Rows(x, y, d, g)
    xs, ys, ds, gs = rows.views
    (centre,) = rows.spread(mean)
    total, product = _sums(rows, xs, centre, ds, gs if relu else None, ys)
    product += (mean.astype(x.dtype) - mean) * total  # the sum was about the rounded mean
    dx, dgamma, slope = None, product * inverse, inverse * gamma
    if 0 in argnums:
        dx = d if own and 3 not in argnums else backend_of(x).empty_images(x)
        _input_gradient(rows, xs, centre, ds, rows.of(dx), slope, (dgamma * inverse, total) if train else None)
    every = [dx, dgamma.astype(x.dtype), total.astype(x.dtype), d]
    return [c if i in argnums else None for i, c in enumerate(every)] + [None] * 5


def _sums(rows: _Rows, x: Array, centre: Array, d: Array, g: Array | None, y: Array) -> tuple[Array, Array]:
    """Return Σd and Σd·(x − m) of each channel in float64; a g is first written into d, where y > 0, else zeros."""
    scratch, above = rows.scratch(), rows.scratch(bool)
    total, product = rows.xp.zeros((2, len(centre)), dtype="float64")
    with rows.in_place():
        for piece in rows.pieces:
            part = d[piece]
            a, b, _ = part.shape
            if g is not None:
                np.multiply(g[piece], np.greater(y[piece], 0, above[:a, :b]), part)
            total += rows.total(part)
            centred = np.subtract(x[piece], centre, scratch[:a, :b])
            product += rows.total(np.multiply(centred, part, centred))
    return rows.gather(total), rows.gather(product)


def _input_gradient(
    rows: _Rows, x: Array, centre: Array, d: Array, dx: Array, slope: Array, through: tuple[Array, Array] | None
) -> None:
    """Write slope·d, less in training what goes through the batch's variance and mean, into dx, which may be d."""
    along, aside = (0.0, 0.0) if through is None else [-slope * t / rows.pixels for t in through]
    scale, along, aside = rows.spread(slope, along, aside)
    scratch = rows.scratch()
    with rows.in_place():
        for piece in rows.pieces:
            part = np.multiply(d[piece], scale, dx[piece])
            if through is None:
                continue
            t = np.subtract(x[piece], centre, scratch[: part.shape[0], : part.shape[1]])
            np.multiply(t, along, t)
            np.add(t, aside, t)
            np.add(part, t, part)


@fused(_forward, _backward)
def _batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    skip: Array | None,
    mean: Array,
    variance: Array,
    eps: float,
    relu: bool,
    train: bool,
) -> Array:
    """Return act(γ·(x − m)/√(v + ε) + β + skip); in training m and v are those of x, and depend on it."""
    if train:
        leading = tuple(range(x.ndim - 1))
        mean = ops.mean(x, axis=leading)
        variance = ops.mean(ops.square(x - mean), axis=leading)
    y = (x - mean) / ops.sqrt(variance + eps) * gamma + beta
    y = y if skip is None else y + skip
    return ops.relu(y) if relu else y


class BatchNorm(Layer):
    """y = act(γ·(x − m)/√(v + ε) + β [+ skip]) by channel, (N, …, C) → (N, …, C) (Ioffe, Szegedy, 2015).

    With train=True m and v are mean and variance of the batch, over all axes but the last; gradients pass through them.
    They also move the running statistics, kept among the buffers as plain arrays:

        running ← (1 − momentum)·running + momentum·batch,

    where the variance is the unbiased one, as in PyTorch. Without train m and v are the running ones, constants: a
    sample's output, and its gradient, then know nothing of the other samples. What is added and cut off behind a batch
    norm in a residual network (He et al., 2016) can be handed to it, which saves reading the images twice more.

    Parameters
    ----------
    channels
        C, the length of the last axis; γ (C,) starts at one and β (C,) at zero. They are a layer of their own, hence
        a block of their own. A layer right before this one needs no bias: m takes it out.
    eps
        ε > 0, added to the variance.
    momentum
        The weight of the newest batch in the running statistics, in [0, 1].
    activation
        None, or "relu", which comes last; its derivative at 0 is 0.

    Raises
    ------
    ValueError
        When called on an input whose last axis is not C, on a skip of another shape, and with train=True on one value
        per channel, whose variance would say nothing; the message names the layer and the shape.

    Examples
    --------
    >>> layer = BatchNorm(1)
    >>> params = layer.init(dtype="float64")
    >>> layer(params, np.array([[1.0], [3.0]]), train=True).round(3)
    array([[-1.],
           [ 1.]])
    >>> params.buffers  # mean 2, unbiased variance 2, each taken by a tenth
    {'mean': array([0.2]), 'var': array([1.1])}
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, activation: str | None = None) -> None:
        check_whole("BatchNorm", channels)
        if channels < 1:
            raise ValueError(f"BatchNorm needs at least one channel, got {channels}")
        if not (0 < eps < float("inf") and np.float32(eps) > 0):
            raise ValueError(f"BatchNorm's eps must be positive, in float32 too, got {eps}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm's momentum must lie in [0, 1], got {momentum}")
        if activation not in (None, "relu"):
            raise ValueError(f"BatchNorm's activation is None or 'relu', got {activation!r}: call others behind it")
        self.channels, self.eps, self.momentum, self.activation = channels, float(eps), float(momentum), activation

    def tensors(self) -> Mapping[str, Spec]:
        """Return gamma (C,) and beta (C,)."""
        return {"gamma": Spec((self.channels,), ones), "beta": Spec((self.channels,), zeros)}

    def buffers(self) -> Mapping[str, BufferInit]:
        """Return mean (C,), zero, and var (C,), one: the running statistics."""
        return {"mean": lambda rng: np.zeros(self.channels), "var": lambda rng: np.ones(self.channels)}

    def __call__(self, p: ParamsLike, x: Array, *, skip: Array | None = None, train: bool = False) -> Array:
        """Return the normalized channels, scaled and shifted, plus ``skip``, through the activation."""
        check_input(self, p, x, -1, self.channels, "(N, …, C)", like="gamma")
        self._check(p, x, skip, train)
        mean, variance = self._follow(p, raw(x)) if train else (p.buffers["mean"], p.buffers["var"])
        relu = self.activation == "relu"
        return _batch_norm(x, p["gamma"], p["beta"], skip, mean, variance, self.eps, relu, train)

    def _check(self, p: ParamsLike, x: Array, skip: Array | None, train: bool) -> None:
        """Refuse a single row, a skip that is not like x, and statistics of one value."""
        if x.ndim < 2:
            raise ValueError(f"{called(self, p)} takes a batch (N, …, C), got shape {tuple(x.shape)}")
        if skip is not None:
            check_array(self, p, skip, "of the shape of x", "skip")
            if skip.shape != x.shape:
                told = f"skip has shape {tuple(skip.shape)}, x {tuple(x.shape)}"
                raise ValueError(f"{called(self, p)}: {told}; they are added")
            if skip.dtype != x.dtype:
                told = f"skip is {skip.dtype}, x {x.dtype}"
                raise TypeError(f"{called(self, p)}: {told}: use skip.astype('{x.dtype}')")
        if train and x.size < 2 * self.channels:
            told = f"got {x.size // self.channels} of shape {tuple(x.shape)}"
            raise ValueError(
                f"{called(self, p)} needs at least 2 values per channel for a variance, {told}: "
                "use larger batches, drop_last=True for a last one that is small, or train=False"
            )

    def _follow(self, p: ParamsLike, x: Array) -> tuple[Array, Array]:
        """Return mean and variance of the batch, and let the running ones follow them."""
        mean, variance = moments(x)
        n, new = x.size // self.channels, self.momentum
        for name, batch in (("mean", mean), ("var", variance * (n / (n - 1)))):
            p.buffers[name] = ((1 - new) * p.buffers[name] + new * batch).astype(x.dtype)
        return mean, variance

    def __repr__(self) -> str:
        told = [str(self.channels)]
        told += [f"eps={self.eps:g}"] if self.eps != 1e-5 else []
        told += [f"momentum={self.momentum:g}"] if self.momentum != 0.1 else []
        told += [f"activation={self.activation!r}"] if self.activation else []
        return f"BatchNorm({', '.join(told)})"
