"""Blocks on the host: their norms, and a gradient brought to other lengths, in pieces that stay in the cache."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minibng.backend.base import Array, BlockNorms, Group, HostArray

NORM_PIECE = {np.dtype("float16"): 16_384, np.dtype("float32"): 16_384, np.dtype("float64"): 4_096}
"""Most entries that are squared and summed in one call, by dtype; the sums of pieces are added in double.

A block of equal entries makes every rounding of a running sum go the same way, so the error grows with the piece; BLAS
kernels with few lanes (SSE2) keep the bound of theory I1 in float64 only up to 4,096.
"""

_SAFE = {
    np.dtype("float16"): (2.0**-80, 2.0**120),  # squared in float32
    np.dtype("float32"): (2.0**-80, 2.0**120),
    np.dtype("float64"): (2.0**-900, 2.0**1000),
}
"""Σg²/d above the first and Σg² below the second: no entry that matters was lost to under- or overflow."""


class Box(NamedTuple):
    """A stretch [start, stop) of a tensor's memory, seen as ``shape``, whose middle index is block first … last−1."""

    start: int
    stop: int
    shape: tuple[int, int, int]
    first: int
    last: int


def boxes(cut: tuple[int, int, int], most: int) -> Iterator[Box]:
    """Cut a tensor, seen as (before, n, after), into boxes of at most ``most`` entries, or of one entry.

    Examples
    --------
    >>> [box[:3] for box in boxes((4, 3, 1), 6)]
    [(0, 6, (2, 3, 1)), (6, 12, (2, 3, 1))]
    """
    before, n, after = cut
    if before * n * after == 0:
        return
    if n * after <= most:
        rows = most // (n * after)
        for a in range(0, before, rows):
            b = min(a + rows, before)
            yield Box(a * n * after, b * n * after, (b - a, n, after), 0, n)
        return
    columns, deep = (most // after, after) if after <= most else (1, most)
    for a in range(before):
        for j in range(0, n, columns):
            k = min(j + columns, n)
            for c in range(0, after, deep):
                d = min(c + deep, after)
                start = (a * n + j) * after + c
                yield Box(start, start + (k - j) * (d - c), (1, k - j, d - c), j, k)


# Norms -----------------------------------------------------------------------------------------------------


def norms_of(tensors: Sequence[HostArray], groups: Sequence[Group], norm: float) -> BlockNorms:
    """Return the 1-, 2- or ∞-norm of each block (design: no ε, no overflow, no underflow; theory I1, I2).

    Each piece of at most 16,384 entries of a block (`NORM_PIECE`) is summed in its own dtype (float16 in float32), the
    pieces are added in double. Where the sum leaves the range in which that is exact enough, the block is first
    multiplied by the power of two that brings its largest entry into [1/2, 1).
    """
    count = sum(group.count for group in groups)
    norms = BlockNorms(np.empty(count, np.float64), np.empty(count, np.int32))
    first = 0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for group in groups:
            flats = [tensors[i].reshape(-1) for i in group.tensors]
            if group.count == 1:
                norms.root[first], norms.exponent[first] = _root(flats, norm)
            else:
                last = first + group.count
                norms.root[first:last], norms.exponent[first:last] = _roots(flats, group, norm)
            first += group.count
    return norms


def _safe(dtype: Any, norm: float) -> tuple[float, float]:
    """Return the range of total/d and of the total in which plain sums are exact enough."""
    low, high = _SAFE[dtype]
    return (low, high) if norm == 2 else (math.sqrt(low), math.sqrt(high))


def _ready(piece: HostArray, exponent: Any) -> HostArray:
    """Return a piece as it is summed: float16 in float32, multiplied by 2^exponent where one is given."""
    if piece.itemsize == 2:
        piece = piece.astype(np.float32)
    return piece if exponent is None else np.ldexp(piece, exponent)


def _root(flats: Sequence[HostArray], norm: float) -> tuple[float, int]:
    """Return (root, e) of one block with ‖g‖ = root · 2^−e; root is nan or inf where an entry is."""
    size = sum(v.size for v in flats)
    if size == 0:
        return 0.0, 0
    low, high = _safe(flats[0].dtype, norm)
    total, exponent = _total(flats, norm), 0
    if not size * low <= total <= high:
        largest = _total(flats, math.inf)
        if largest == 0 or not math.isfinite(largest):
            return largest, 0
        exponent = -math.frexp(largest)[1]
        total = _total(flats, norm, exponent)
    return (math.sqrt(total) if norm == 2 else total), exponent


def _total(flats: Sequence[HostArray], norm: float, exponent: int | None = None) -> float:
    """Return Σg², Σ|g| or max|g| over the parts of one block, after multiplication by 2^exponent."""
    totals = [0.0]
    for flat in flats:
        most = NORM_PIECE[flat.dtype]
        pieces = [flat] if flat.size <= most else [flat[i : i + most] for i in range(0, flat.size, most)]
        for piece in pieces if flat.size else ():
            part = _ready(piece, exponent)
            if norm == 2:
                totals.append(float(np.dot(part, part)))
            else:
                totals.append(float(np.max(np.abs(part)) if norm == math.inf else np.sum(np.abs(part))))
    return float(np.max(totals)) if norm == math.inf else sum(totals)


def _roots(flats: Sequence[HostArray], group: Group, norm: float) -> tuple[HostArray, HostArray]:
    """Return `_root` of all blocks of a group, (n,) each, in a few calls."""
    exponent = np.zeros(group.count, np.int32)
    if group.size == 1:
        return np.abs(np.concatenate(flats, dtype=np.float64)), exponent
    low, high = _safe(flats[0].dtype, norm)
    total = _totals(flats, group, norm)
    safe = (group.size * low <= total) & (total <= high)
    lost = np.zeros_like(safe)
    if not safe.all():
        largest = _totals(flats, group, math.inf)
        lost = ~safe & ((largest == 0) | ~np.isfinite(largest))
        exponent[~safe & ~lost] = -np.frexp(largest[~safe & ~lost])[1]
        total = np.where(lost, largest, _totals(flats, group, norm, exponent))
    return np.where(lost, total, np.sqrt(total)) if norm == 2 else total, exponent


def _totals(flats: Sequence[HostArray], group: Group, norm: float, exponent: HostArray | None = None) -> HostArray:
    """Return Σg², Σ|g| or max|g| of each block of a group, (n,) float64, after multiplication by 2^exponent[j]."""
    totals = np.zeros(group.count)
    for flat, cut in zip(flats, group.cuts, strict=True):
        for box in boxes(cut, 2 * NORM_PIECE[flat.dtype]):  # at most half of it in one of two or more blocks
            powers = None if exponent is None else exponent[box.first : box.last, None]
            piece = _ready(flat[box.start : box.stop].reshape(box.shape), powers)
            part = totals[box.first : box.last]
            if norm == math.inf:
                np.maximum(part, np.max(np.abs(piece), axis=(0, 2)), out=part)
            else:
                terms = np.square(piece) if norm == 2 else np.abs(piece)
                part += _fold(terms[:, :, 0] if box.shape[2] == 1 else np.sum(terms, axis=2))
    return totals


def _fold(rows: HostArray) -> HostArray:
    """Sum over the first axis, pair by pair: the error grows with the logarithm of the number of rows."""
    while len(rows) > 1:
        half = len(rows) // 2
        folded = rows[:half] + rows[half : 2 * half]
        if len(rows) % 2:
            folded[0] += rows[-1]
        rows = folded
    first: HostArray = rows[0]
    return first


# Lengths ---------------------------------------------------------------------------------------------------

Scaler: TypeAlias = Callable[[HostArray, Box, HostArray], HostArray]
"""``scaler(g, box, out)`` writes a piece of the gradient, at its new length, to ``out`` and returns it."""


def scalers(groups: Sequence[Group], norms: BlockNorms, lengths: Array, dtypes: Sequence[Any]) -> list[Scaler | None]:
    """Return what brings each group's blocks to their lengths, ``(g · 2^exponent) · (length / root)``.

    None for a group whose blocks all keep the length that they have; they stay as they are, bit for bit. Neither ‖g‖
    nor 1/‖g‖ is formed in the dtype of g, and the entry of a block of one is a sign.
    """
    made: list[Scaler | None] = []
    kept = lengths == (norms.values() if norms.exponent.any() else norms.root)
    first = 0
    for group, dtype in zip(groups, dtypes, strict=True):
        work = np.float32 if dtype == np.float16 else dtype.type
        if group.count == 1:
            one = lengths[first].item(), norms.root[first].item(), norms.exponent[first].item()
            made.append(None if kept[first] else _sign_scaler(work(one[0])) if group.size == 1 else _scaler(*one, work))
        else:
            own = slice(first, first + group.count)
            made.append(None if kept[own].all() else _column_scaler(group, norms, lengths, kept, own, work))
        first += group.count
    return made


_FACTORS = {
    work: (float(np.finfo(work).tiny / np.finfo(work).eps), float(np.finfo(work).max) / 2)
    for work in (np.float32, np.float64)
}
"""The range of factors that a dtype holds without loss."""


def _sign_scaler(length: Any) -> Scaler:
    """Return the scaler of a block of one entry: exactly ± the length."""
    return lambda g, box, out: np.multiply(np.sign(g), length, out=out, casting="same_kind")


def _scaler(length: float, root: float, exponent: int, work: Any) -> Scaler:
    """Return the scaler of one block."""
    factor = length / root if root else 0.0
    least, most = _FACTORS[work]
    if factor and not least < factor < most:  # a long step along a tiny gradient, or the reverse: bring both near 1
        shift = math.frexp(factor)[1]
        factor, exponent = math.ldexp(factor, -shift), exponent + shift
    rounded = work(factor)
    if not exponent:
        return lambda g, box, out: np.multiply(g, rounded, out=out, casting="same_kind")
    return lambda g, box, out: np.multiply(np.ldexp(g, exponent, out=out), rounded, out=out, casting="same_kind")


def _column_scaler(group: Group, norms: BlockNorms, lengths: Array, kept: HostArray, own: slice, work: Any) -> Scaler:
    """Return the scaler of a group of several blocks: `_scaler` or `_sign_scaler` of each, in a few calls."""
    length, root, keep = lengths[own], norms.root[own], kept[own]
    if group.size == 1:  # an entry that keeps its length is sign · |entry|, the same bits
        signed = length.astype(work)

        def sign_scaler(g: HostArray, box: Box, out: HostArray) -> HostArray:
            np.sign(g, out=out)
            np.multiply(out, signed[box.first : box.last], out=out, casting="same_kind")
            return out

        return sign_scaler
    factors = np.divide(length, root, out=np.zeros_like(root), where=root > 0)
    factors, powers = np.where(keep, 1, factors), np.where(keep, 0, norms.exponent[own])
    least, most = _FACTORS[work]
    if (outside := (factors > 0) & ~((least < factors) & (factors < most))).any():
        shift = np.where(outside, np.frexp(factors)[1], 0)
        factors, powers = np.ldexp(factors, -shift), powers + shift
    rounded, shifted = factors.astype(work), bool(powers.any())

    def scaler(g: HostArray, box: Box, out: HostArray) -> HostArray:
        piece, view, columns = g.reshape(box.shape), out.reshape(box.shape), slice(box.first, box.last)
        if shifted:
            piece = np.ldexp(piece, powers[columns, None], out=view)
        np.multiply(piece, rounded[columns, None], out=view, casting="same_kind")
        return out

    return scaler
