"""NumPy on the host: block norms and in-place formulas in pieces that stay in the cache."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibng.backend.base import Array, Backend, BlockNorms, HostArray, Stepper
from minibng.backend.kernel import Formula, numpy_kernel
from minibng.backend.threads import shares, threads_for, together

NORM_PIECE = {"float16": 16_384, "float32": 16_384, "float64": 4_096}
"""Most entries that are squared and summed in one call, by dtype; the sums of pieces are added in double.

A block of equal entries makes every rounding of a running sum go the same way, so the error grows with the piece; BLAS
kernels with few lanes (SSE2) keep the bound of theory I1 in float64 only up to 4,096.
"""

STEP_PIECE = 1 << 18
"""Bytes of one array that a formula works on at a time: with state and scratch they stay in the second-level cache."""

THREAD_PIECE = 1 << 20
"""The same with several threads: each call gives the interpreter's lock away, which short calls do not pay for."""

_SAFE = {
    np.dtype("float16"): (2.0**-80, 2.0**120),  # squared in float32
    np.dtype("float32"): (2.0**-80, 2.0**120),
    np.dtype("float64"): (2.0**-900, 2.0**1000),
}
"""Σg²/d above the first and Σg² below the second: no entry that matters was lost to under- or overflow."""


class NumpyBackend(Backend):
    """NumPy arrays, device "cpu"."""

    device = "cpu"
    xp = np
    array_type = np.ndarray

    def asarray(self, x: Any, dtype: Any = None) -> HostArray:
        """Return x as a NumPy array."""
        return np.asarray(x, dtype=dtype)

    def to_host(self, x: Array) -> HostArray:
        """Return x itself."""
        return np.asarray(x)

    def scatter_add(self, target: HostArray, index: Any, values: Array) -> None:
        """Add values into target[index] in place, one after another."""
        np.add.at(target, index, values)

    def block_norms(self, tensors: Sequence[HostArray], blocks: Sequence[Sequence[int]]) -> BlockNorms:
        """Return the 2-norm of each block (design: no ε, no overflow, no underflow; theory I1, I2).

        Each piece of at most 16,384 entries (`NORM_PIECE`) is squared and summed in its own dtype (float16 in float32),
        the pieces are added in double. Where the sum leaves the range in which that is exact enough, the block is first
        multiplied by the power of two that brings its largest entry into [1/2, 1).
        """
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            pairs = [_root([tensors[i].reshape(-1) for i in block]) for block in blocks]
        root, exponent = zip(*pairs, strict=True) if pairs else ((), ())
        return BlockNorms(np.array(root, dtype=np.float64), np.array(exponent, dtype=np.int32))

    def all_finite(self, values: HostArray) -> bool:
        """Tell whether all entries are finite."""
        return bool(np.isfinite(values).all())

    def scale_blocks(
        self,
        tensors: Sequence[HostArray],
        blocks: Sequence[Sequence[int]],
        norms: BlockNorms,
        lengths: HostArray,
    ) -> list[HostArray]:
        """Return new arrays in which block i has the norm lengths[i] and the direction that it had."""
        out = [np.array(t, order="C") for t in tensors]
        with np.errstate(under="ignore"):
            for block, to in zip(blocks, _scales(norms, lengths), strict=True):
                single = sum(tensors[i].size for i in block) == 1
                if to is not None:
                    for i in block:
                        scale(tensors[i], *to, single, out[i])
        return out

    def stepper(self, formula: Formula, like: Sequence[HostArray], blocks: Sequence[Sequence[int]]) -> "PieceStepper":
        """Return the formula, rendered for NumPy, with its scratch memory."""
        return PieceStepper(formula, like, blocks)

    def check_indices(self, index: HostArray, size: int, what: str) -> None:
        """Raise IndexError where an entry is outside 0 … size−1."""
        if index.size and (index.min() < 0 or index.max() >= size):
            bad = index.reshape(-1)[np.argmax((index < 0) | (index >= size))]
            raise IndexError(f"{what} must lie in 0 … {size - 1}, got {bad}")


def _square_sum(views: Sequence[HostArray], exponent: int = 0) -> float:
    """Return Σ (g · 2^exponent)² over the views of one block."""
    total = 0.0
    for view in views:
        most = NORM_PIECE[view.dtype.name]
        for start in range(0, view.size, most):
            piece = view[start : start + most]
            if piece.dtype == np.float16:
                piece = piece.astype(np.float32)
            if exponent:
                piece = np.ldexp(piece, exponent)
            total += float(np.dot(piece, piece))
    return total


def _root(views: Sequence[HostArray]) -> tuple[float, int]:
    """Return (root, e) with ‖g‖ = root · 2^−e; root is nan or inf where an entry is."""
    size = sum(v.size for v in views)
    if size == 0:
        return 0.0, 0
    total = _square_sum(views)
    low, high = _SAFE[views[0].dtype]
    if size * low <= total <= high:
        return math.sqrt(total), 0
    largest = float(np.max([np.abs(v).max() for v in views if v.size]))  # Python's max would lose a NaN
    if largest == 0 or not math.isfinite(largest):
        return largest, 0
    exponent = -math.frexp(largest)[1]
    return math.sqrt(_square_sum(views, exponent)), exponent


def scale(g: HostArray, length: float, root: float, exponent: int, single: bool, out: HostArray) -> HostArray:
    """Return g at the given length: ``(g · 2^exponent) · (length / root)``, written to ``out``.

    The entry of a block of one is a sign; neither ‖g‖ nor 1/‖g‖ is formed in the dtype of g.
    """
    if single:
        np.multiply(np.sign(g), g.dtype.type(length), out=out)
        return out
    work = np.float32 if g.dtype == np.float16 else g.dtype.type
    factor = length / root if root else 0.0
    if factor > np.finfo(work).max:  # a long step in the direction of a tiny gradient: bring both near 1 first
        shift = math.frexp(factor)[1]
        factor, exponent = math.ldexp(factor, -shift), exponent + shift
    if exponent:
        g = np.ldexp(g, exponent, out=out)
    np.multiply(g, work(factor), out=out, casting="same_kind")
    return out


class PieceStepper(Stepper):
    """A formula run over one cache-sized piece of one tensor of one block at a time, large arrays in two threads."""

    def __init__(self, formula: Formula, like: Sequence[HostArray], blocks: Sequence[Sequence[int]]) -> None:
        self.kernel = numpy_kernel(formula)
        self.arrays = formula.arrays
        self.block_of = {i: b for b, block in enumerate(blocks) for i in block}
        self.single = [sum(like[i].size for i in block) == 1 for block in blocks]
        self.dtype = like[0].dtype
        sizes = [a.size for a in like]
        threads = threads_for(sum(sizes))
        most = (STEP_PIECE if threads == 1 else THREAD_PIECE) // self.dtype.itemsize
        pieces = [(i, a, min(a + most, n)) for i, n in enumerate(sizes) for a in range(0, n, most)]
        self.parts = shares(pieces, [stop - start for _, start, stop in pieces], threads)
        longest = min(most, max(sizes))
        rows = self.kernel.temporaries + 1  # the last one holds the scaled gradient
        self.scratch = [[np.empty(longest, self.dtype) for _ in range(rows)] for _ in self.parts]

    def __call__(
        self,
        columns: Mapping[str, Sequence[HostArray]],
        scalars: Mapping[str, float],
        norms: BlockNorms | None = None,
        lengths: HostArray | None = None,
    ) -> None:
        """Run the formula once over every tensor, in place."""
        bound = self.kernel.bind(self.dtype, **scalars)
        g_at = self.arrays.index("g")
        scales = [None] * len(self.single) if norms is None or lengths is None else _scales(norms, lengths)
        flats = [[a.reshape(-1) for a in columns[name]] for name in self.arrays]

        def run(k: int, part: list[tuple[int, int, int]]) -> None:
            *scratch, direction = self.scratch[k]
            with np.errstate(over="ignore", under="ignore"):
                for i, start, stop in part:
                    pieces = [column[i][start:stop] for column in flats]
                    b = self.block_of[i]
                    if (to := scales[b]) is not None:
                        pieces[g_at] = scale(pieces[g_at], *to, self.single[b], direction[: stop - start])
                    bound(scratch, *pieces)

        together(run, self.parts)


def _scales(norms: BlockNorms, lengths: HostArray) -> list[tuple[float, float, int] | None]:
    """Return (length, root, exponent) a block, None for a block that keeps the length it has."""
    triples = zip(lengths.tolist(), norms.root.tolist(), norms.exponent.tolist(), strict=True)
    kept = (lengths == norms.values()).tolist()
    return [None if keep else triple for keep, triple in zip(kept, triples, strict=True)]
