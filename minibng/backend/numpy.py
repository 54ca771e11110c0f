"""NumPy on the host: block norms and in-place formulas in pieces that stay in the cache."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from minibng.backend import convolution, images, polyphase
from minibng.backend.base import Array, Backend, BlockNorms, Group, HostArray, Stepper
from minibng.backend.blocks import Box, Scaler, boxes, norms_of, scalers
from minibng.backend.convolution import Geometry, Pads
from minibng.backend.guard import DeviceGuard
from minibng.backend.kernel import Formula, numpy_kernel
from minibng.backend.threads import shares, threads_for, together

STEP_PIECE = 1 << 18
"""Bytes of one array that a formula works on at a time: with state and scratch they stay in the second-level cache."""

THREAD_PIECE = 1 << 20
"""The same with several threads: each call gives the interpreter's lock away, which short calls do not pay for."""

UFUNC_BUFFER = 8192
"""Entries of the buffer that NumPy copies short rows through, its own default."""


LONG_ROW = 64
"""Entries of a row from which on adding row by row pays for the calls."""


# A training step frees some megabytes at the top of the heap. glibc would hand their pages back to the system and fetch
# them again at every step; but it keeps twice the size of the largest block that it has seen mapped and freed. So here
# is one of 16 MB, of which no page is touched.
np.empty(1 << 24, np.uint8)


class NumpyBackend(Backend):
    """NumPy arrays, device "cpu"."""

    device = "cpu"
    xp = np
    array_type = np.ndarray
    on_host = True

    def asarray(self, x: Any, dtype: Any = None) -> HostArray:
        """Return x as a NumPy array."""
        return np.asarray(x, dtype=dtype)

    def to_host(self, x: Array) -> HostArray:
        """Return x itself."""
        return np.asarray(x)

    def address(self, x: Array) -> int:
        """Return where the memory of x begins, in bytes."""
        start: int = x.__array_interface__["data"][0]
        return start

    def scatter_add(self, target: HostArray, index: Any, values: Array) -> None:
        """Add values into target[index] in place, one after another."""
        rows = isinstance(index, np.ndarray) and index.dtype.kind in "iu" and target.ndim > 1
        if rows and math.prod(target.shape[1:]) >= LONG_ROW and getattr(values, "dtype", None) == target.dtype:
            values = np.broadcast_to(values, index.shape + target.shape[1:])
            _add_rows(target, index.reshape(-1), values.reshape(-1, *target.shape[1:]))
        else:
            np.add.at(target, index, values)

    def convolve(self, x: HostArray, w: HostArray, b: HostArray | None, geometry: Geometry) -> HostArray:
        """Return the convolution of images x (N, H, W, C) with w (kh, kw, C/groups, K), plus b (K,): (N, oh, ow, K).

        Its rows lie in one piece. What goes through `polyphase` lies on the grid of x; after a stride there is one
        pixel of margin, so that the next window of 3 × 3 finds it.
        """
        y = None
        if polyphase.takes(x, w, w.shape, geometry):
            y = polyphase.convolve(x, w, geometry)
        elif geometry.pointwise(w.shape):
            y = polyphase.pointwise(x, w.reshape(w.shape[2:]))
        else:
            shape = geometry.outputs(x.shape, w.shape)
            y = images.padded(shape, np.result_type(x, w), 1, 1) if geometry.stride != (1, 1) else None
            y = convolution.convolve(self, x, w, geometry, y)
        if b is not None:
            n, h, width, k = y.shape
            rows = y.reshape(n, h, width * k)
            rows += np.tile(b, width)
        return y

    def convolve_input(self, g: HostArray, w: HostArray, geometry: Geometry, shape: tuple[int, ...]) -> HostArray:
        """Return the adjoint of `convolve` in x: g (N, oh, ow, K) → (N, H, W, C), the given shape."""
        if geometry.pointwise(w.shape):
            return polyphase.pointwise(g, w.reshape(w.shape[2:]).T)
        dx: HostArray = super().convolve_input(g, w, geometry, shape)
        return dx

    def convolve_weight(self, x: HostArray, g: HostArray, geometry: Geometry, shape: tuple[int, ...]) -> HostArray:
        """Return the adjoint of `convolve` in w: g (N, oh, ow, K) → (kh, kw, C/groups, K), the given shape."""
        if polyphase.takes(x, g, shape, geometry):
            return polyphase.convolve_weight(x, g, geometry, shape)
        if geometry.pointwise(shape):
            return polyphase.pointwise_weight(x, g).reshape(shape)
        dw: HostArray = super().convolve_weight(x, g, geometry, shape)
        return dw

    def surrounded(self, x: HostArray, pads: Pads) -> HostArray:
        """Return images with zeros around each, to be read only: in place, where there are as many."""
        there = images.surrounded(x, pads)
        return super().surrounded(x, pads) if there is None else there

    def empty_images(self, like: HostArray) -> HostArray:
        """Return a new array of the shape, dtype and margins of images (N, H, W, C)."""
        return images.like(like)

    @contextmanager
    def short_rows(self, length: int) -> Iterator[None]:
        """Keep NumPy from copying rows that are shorter than its buffer through it, which takes twice as long."""
        with np.errstate():  # which also puts the size of the buffer back
            np.setbufsize(min(UFUNC_BUFFER, max(16, length // 16 * 16)))
            yield

    def block_norms(self, tensors: Sequence[HostArray], groups: Sequence[Group], norm: float = 2) -> BlockNorms:
        """Return the 1-, 2- or ∞-norm of each block, (B,) in the order of the groups."""
        return norms_of(tensors, groups, norm)

    def scale_blocks(
        self, tensors: Sequence[HostArray], groups: Sequence[Group], norms: BlockNorms, lengths: HostArray
    ) -> list[HostArray]:
        """Return new arrays in which block i has the norm lengths[i] and the direction that it had."""
        out = [np.array(t, order="C") for t in tensors]
        dtypes = [tensors[group.tensors[0]].dtype for group in groups]
        with np.errstate(under="ignore"):
            for group, scaler in zip(groups, scalers(groups, norms, lengths, dtypes), strict=True):
                for i, cut in zip(group.tensors, group.cuts, strict=True):
                    if scaler is not None and out[i].size:
                        flat = out[i].reshape(-1)
                        scaler(flat, Box(0, flat.size, cut, 0, group.count), flat)
        return out

    def stepper(self, formula: Formula, like: Sequence[HostArray], groups: Sequence[Group]) -> "PieceStepper":
        """Return the formula, rendered for NumPy, with its scratch memory."""
        return PieceStepper(formula, like, groups)

    def map(
        self, formula: Formula, arrays: Mapping[str, HostArray], scalars: Mapping[str, float]
    ) -> tuple[HostArray, ...]:
        """Return what a formula writes, in new arrays, worked out piece by piece."""
        given = [arrays[name] for name in formula.arrays if name in arrays]  # the outputs come behind them
        like = given[0]
        made = tuple([np.empty(like.shape, like.dtype) for _ in formula.written])
        flats = [a.reshape(-1) for a in (*given, *made)]
        run = _bound(formula, like.dtype, tuple(scalars.items()))
        most = STEP_PIECE // like.itemsize
        scratch = numpy_kernel(formula).scratch(min(like.size, most), like.dtype)
        if like.size <= most:
            run(scratch, *flats)
        else:
            for start in range(0, like.size, most):
                run(scratch, *[flat[start : start + most] for flat in flats])
        return made


def _add_rows(target: HostArray, index: HostArray, rows: HostArray) -> None:
    """Add each row to the one that it is for, in their order: all that are their target's first at once, then the rest.

    Where three rows in four are for targets that occur again, that no longer pays, and they are added one by one.
    """
    place, first = np.arange(len(index)), np.empty(len(target), np.intp)
    while len(index):
        first[index[::-1]] = place[: len(index)][::-1]
        new = first[index] == place[: len(index)]
        if 4 * np.count_nonzero(new) < len(index):
            break
        target[index[new]] += rows[new]
        index, rows = index[~new], rows[~new]
    add = np.add
    for i, row in zip(index.tolist(), rows, strict=True):
        into = target[i]
        add(into, row, into)


@lru_cache(1024)
def _bound(formula: Formula, dtype: np.dtype[Any], scalars: tuple[tuple[str, float], ...]) -> Callable[..., None]:
    """Return a formula's kernel with its scalars; chains are called again and again with the same ones."""
    return numpy_kernel(formula).bind(dtype, **dict(scalars))


class PieceStepper(Stepper):
    """A formula run over one cache-sized piece of one tensor of one group at a time, large arrays in two threads."""

    def __init__(self, formula: Formula, like: Sequence[HostArray], groups: Sequence[Group]) -> None:
        self.kernel = numpy_kernel(formula)
        self.arrays, self.written = formula.arrays, formula.written
        self.kept: dict[str, tuple[Sequence[HostArray], Sequence[HostArray]]] = {}
        self.groups = groups
        self.dtype = like[0].dtype
        sizes = [a.size for a in like]
        threads = threads_for(sum(sizes))
        most = (STEP_PIECE if threads == 1 else THREAD_PIECE) // self.dtype.itemsize
        cuts = {i: (k, cut) for k, group in enumerate(groups) for i, cut in zip(group.tensors, group.cuts, strict=True)}
        pieces = [(i, cuts[i][0], box) for i in range(len(like)) for box in boxes(cuts[i][1], most)]
        self.parts = shares(pieces, [box.stop - box.start for _, _, box in pieces], threads)
        longest = min(most, max(sizes))
        rows = self.kernel.temporaries + 1  # the last one holds the scaled gradient
        self.scratch = [[np.empty(longest, self.dtype) for _ in range(rows)] for _ in self.parts]

    def __call__(
        self,
        columns: Mapping[str, Sequence[HostArray]],
        scalars: Mapping[str, float | Sequence[float]],
        norms: BlockNorms | None = None,
        lengths: HostArray | None = None,
        guard: DeviceGuard | None = None,
    ) -> None:
        """Run the formula once over every tensor, in place; on the host there is no guard."""
        flats = [self._flat(name, columns[name]) for name in self.arrays]
        bound = self._bound(scalars, len(flats[0]))
        g_at = self.arrays.index("g") if "g" in self.arrays else 0
        scaled: Sequence[Scaler | None] = [None] * len(self.groups)
        if norms is not None and lengths is not None:
            scaled = scalers(self.groups, norms, lengths, [self.dtype] * len(self.groups))

        def run(k: int, part: list[tuple[int, int, Box]]) -> None:
            *scratch, direction = self.scratch[k]
            with np.errstate(over="ignore", under="ignore"):
                for i, group, box in part:
                    start, stop = box.start, box.stop
                    pieces = [column[i][start:stop] for column in flats]
                    if (scaler := scaled[group]) is not None:
                        pieces[g_at] = scaler(pieces[g_at], box, direction[: stop - start])
                    bound[i](scratch, *pieces)

        together(run, self.parts)

    def _flat(self, name: str, arrays: Sequence[HostArray]) -> Sequence[HostArray]:
        """Return a column's arrays as vectors; those that are written are the same at every step, and so are kept."""
        kept, flat = self.kept.get(name, ((), ()))
        if len(kept) != len(arrays) or any(a is not b for a, b in zip(kept, arrays, strict=True)):
            flat = [a.reshape(-1) for a in arrays]
            if name in self.written:
                self.kept[name] = arrays, flat
        return flat

    def _bound(self, scalars: Mapping[str, float | Sequence[float]], tensors: int) -> list[Callable[..., None]]:
        """Return the kernel with its scalars, one a tensor; tensors with equal scalars share it."""
        own = {name: value for name, value in scalars.items() if isinstance(value, Sequence)}
        if not own:
            return [self.kernel.bind(self.dtype, **scalars)] * tensors  # type: ignore[arg-type]
        made: dict[tuple[float, ...], Callable[..., None]] = {}
        rows = list(zip(*own.values(), strict=True))
        for row in rows:
            if row not in made:
                made[row] = self.kernel.bind(self.dtype, **{**scalars, **dict(zip(own, row, strict=True))})
        return [made[row] for row in rows]
