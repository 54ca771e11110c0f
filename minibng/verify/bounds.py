"""How far rounding alone may carry a correct implementation: one documented function a law, no magic numbers.

υ = eps/2 is the unit roundoff of the dtype, s its smallest subnormal number, d the number of entries of the block. An
operation whose result is a normal number has relative error ≤ υ, any other absolute error ≤ s/2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibng.backend import HostArray

PIECE = 16_384
"""Most entries whose squares are added in the dtype itself; sums of pieces are added in double, which costs nothing."""

DType = np.dtype[Any]


def roundoff(dtype: DType) -> float:
    """υ = eps/2: half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def subnormal(dtype: DType) -> float:
    """s: the smallest positive number."""
    return float(np.finfo(dtype).smallest_subnormal)


def direction(dtype: DType, d: int) -> float:
    """δ = (4 + √min(d, 16384))·υ + √d·s: relative error, in norm, of a computed g/‖g‖.

    Four roundings (square, root, quotient, product); the sum of d squares errs by about √d·υ; an entry
    that becomes subnormal is off by at most s.
    """
    return (4 + math.sqrt(min(d, PIECE))) * roundoff(dtype) + math.sqrt(d) * subnormal(dtype)


def unit(dtype: DType, d: int) -> float:
    """I1: | ‖N(g)^i‖ − 1 | ≤ δ, and 0 for d = 1: a block of one entry is exactly ±1."""
    return 0.0 if d == 1 else direction(dtype, d)


def inner(dtype: DType, d: int) -> float:
    """I3: |⟨N(g), g⟩ − ‖g‖| ≤ δ‖g‖, since ⟨N(g) − g/‖g‖, g⟩ ≤ ‖N(g) − g/‖g‖‖·‖g‖."""
    return direction(dtype, d)


def chord(dtype: DType, d: int) -> float:
    """I3: √(2 − 2 cos) = ‖u/‖u‖ − g/‖g‖‖ ≤ 2δ: making a vector a unit vector at most doubles its relative error."""
    return 2 * direction(dtype, d)


def twice(dtype: DType, d: int) -> float:
    """I5, I6: two directions, each within δ of the same true one, are within 2δ of each other."""
    return 2 * direction(dtype, d)


def scaled(dtype: DType, u: HostArray) -> HostArray:
    """I2: (6 + 2√min(d, 16384))·υ of the entry itself, and 2s; a bound (d,), one an entry.

    4υ for quotient and product on both sides, 2υ since c·g is itself rounded (entry and norm), and the errors of the
    two norms. Equal entries bring these out, as all their squares are rounded alike (8υ for d = 60 in float64).
    """
    return _entry(dtype, u.size) * np.abs(u.astype(np.longdouble)) + 2 * subnormal(dtype)


def _entry(dtype: DType, d: int) -> float:
    return (6 + 2 * math.sqrt(min(d, PIECE))) * roundoff(dtype)


def first_step(dtype: DType, u: HostArray) -> HostArray:
    """I10: (22 + 2√min(d, 16384))·υ of the largest entry, and 2s; a bound (d,).

    6υ and the root come from N (I2), which g ↦ g/(√g² + ε) does not increase, and 8 roundings of the rule itself
    from each of the two directions.
    """
    largest = float(np.abs(u).max(initial=0))
    return np.full(
        u.size, (_entry(dtype, u.size) + 16 * roundoff(dtype)) * largest + 2 * subnormal(dtype), dtype=np.longdouble
    )


def ruled(dtype: DType, d: int) -> float:
    """I7 for any rule: 2δ + 16υ of the direction's length: two directions, and 8 roundings of the rule in each."""
    return twice(dtype, d) + 16 * roundoff(dtype)


def mirrored(dtype: DType, d: int, norm: float) -> float:
    """I7: 2δ + 2υ + √d·s/‖g‖: two directions, and Qg, rounded by υ‖g‖ + √d·s/2, at most doubled."""
    return twice(dtype, d) + 2 * roundoff(dtype) + math.sqrt(d) * subnormal(dtype) / norm


def walked(dtype: DType, d: int, step: int, lr: float) -> float:
    """I9, heavy ball: δ + 3tυ relative (μ, product and sum, at each of t steps), and t·√d·s(1 + 1/lr) below normal."""
    return direction(dtype, d) + 3 * step * roundoff(dtype) + step * math.sqrt(d) * subnormal(dtype) * (1 + 1 / lr)


def moved(dtype: DType, d: int, length: float, after: float) -> float:
    """I9, adaptive: δ·ℓ + 2υ·ℓ + υ‖x⁺‖: u is read from x − x⁺, and x⁺ = x − u was rounded to the spacing of x⁺."""
    return (direction(dtype, d) + 2 * roundoff(dtype)) * length + roundoff(dtype) * after + subnormal(dtype)


def cancelled(dtype: DType, largest: float, x: float) -> float:
    """I9, a constant factor: 10⁻³ of the largest entry of u for the rule's ε, and 4υ(|x| + |u|) for reading u off x.

    The law gives the rule entries of at least 1/2; the largest ε is AdaDelta's, 10⁻⁶ beside (1 − ρ)g² ≥ 1/40, a
    relative 4·10⁻⁵.
    """
    return 1e-3 * largest + 4 * roundoff(dtype) * (x + largest)
