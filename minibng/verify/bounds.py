"""How far rounding alone may carry a correct implementation from what the laws say, one function a law.

υ = eps/2 is the unit roundoff of a dtype and s its smallest subnormal number; a result x of one operation is off by at
most υ|x| + s/2. Errors that many terms contribute to are taken as √d, not d, times one of them, with the largest
factor that was seen in tens of thousands of examples, whatever the order of the sum.

Directions are read off x = 0 by a step at rate 1, which rounds nothing. A subject with a rate of its own moves to
−rate·u instead: the rate and the product are rounded, 2υ more, and of what is below s/rate nothing is left.
`Arithmetic` holds this, so that each bound is written once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Arithmetic:
    """What a direction is computed in, and how it is read.

    Parameters
    ----------
    dtype
        Of gradients and parameters.
    rate
        The rate of the steps that directions are read off, where the subject chooses it; None or 1: nothing is rounded.
    """

    dtype: DType
    rate: float | None = None

    @property
    def roundoff(self) -> float:
        """υ."""
        return roundoff(self.dtype)

    @property
    def extra(self) -> int:
        """Roundings of the rate and of its product with u: 0 or 2."""
        return 0 if self.rate in (None, 1) else 2

    @property
    def lost(self) -> float:
        """Most that is lost of an entry of u near zero: s, and s/rate where a rate has multiplied it."""
        s = subnormal(self.dtype)
        return s if self.rate is None or self.rate == 1 else s * (1 + 1 / self.rate)


def direction(a: Arithmetic, d: int) -> float:
    """δ = (4 + √min(d, 16384))·υ + √d·s: relative error, in norm, of a computed g/‖g‖.

    Four roundings (square, root, quotient, product); the sum of d squares errs by about √d·υ; an entry
    that becomes subnormal is off by at most s. A rate adds its own.
    """
    return (4 + a.extra + math.sqrt(min(d, PIECE))) * a.roundoff + math.sqrt(d) * a.lost


def unit(a: Arithmetic, d: int) -> float:
    """I1: | ‖N(g)^i‖ − 1 | ≤ δ, and 0 for d = 1: a block of one entry is exactly ±1 (a rate's roundings aside)."""
    return (a.extra * (a.roundoff + a.lost)) if d == 1 else direction(a, d)


def inner(a: Arithmetic, d: int) -> float:
    """I3: |⟨N(g), g⟩ − ‖g‖| ≤ δ‖g‖, since ⟨N(g) − g/‖g‖, g⟩ ≤ ‖N(g) − g/‖g‖‖·‖g‖."""
    return direction(a, d)


def chord(a: Arithmetic, d: int, length: float = 1.0) -> float:
    """I3: √(2 − 2 cos) = ‖u/‖u‖ − g/‖g‖‖ ≤ 2δ: making a vector a unit vector at most doubles its relative error.

    Of a direction with ‖u‖ < 1 what is lost near zero is a larger share: √d·s/‖u‖.
    """
    return 2 * direction(a, d) + 2 * math.sqrt(d) * a.lost / min(1.0, length or 1.0)


def twice(a: Arithmetic, d: int) -> float:
    """I5, I6: two directions, each within δ of the same true one, are within 2δ of each other."""
    return 2 * direction(a, d)


def scaled(a: Arithmetic, u: HostArray) -> HostArray:
    """I2: (6 + 2√min(d, 16384))·υ of the entry itself, and 2s·max(1, ‖u‖); a bound (d,), one an entry.

    4υ for quotient and product on both sides, 2υ since c·g is itself rounded (entry and norm), and the errors of the
    two norms. Equal entries bring these out, as all their squares are rounded alike (8υ for d = 60 in float64). What is
    lost near zero is lost before a unit vector is given its length.
    """
    w = u.astype(np.longdouble)
    return _entry(a, u.size) * np.abs(w) + 2 * a.lost * max(1.0, float(np.sqrt(np.sum(w * w))))


def _entry(a: Arithmetic, d: int) -> float:
    return (6 + 2 * a.extra + 2 * math.sqrt(min(d, PIECE))) * a.roundoff


def first_step(a: Arithmetic, u: HostArray) -> HostArray:
    """I10: (22 + 2√min(d, 16384))·υ of the largest entry, and 2s; a bound (d,).

    6υ and the root come from N (I2), which g ↦ g/(√g² + ε) does not increase, and 8 roundings of the rule itself
    from each of the two directions.
    """
    largest = float(np.abs(u).max(initial=0))
    return np.full(u.size, (_entry(a, u.size) + 16 * a.roundoff) * largest + 2 * a.lost, dtype=np.longdouble)


def ruled(a: Arithmetic, d: int) -> float:
    """I6, I7 for any rule: 2δ + 16υ of the direction's length: two directions, and 8 roundings of the rule in each."""
    return twice(a, d) + 16 * a.roundoff


def mirrored(a: Arithmetic, d: int, norm: float) -> float:
    """I7: 2δ + 2υ + √d·s/‖g‖: two directions, and Qg, rounded by υ‖g‖ + √d·s/2, at most doubled."""
    return twice(a, d) + 2 * a.roundoff + math.sqrt(d) * subnormal(a.dtype) / norm


def walked(a: Arithmetic, d: int, step: int, lr: float) -> float:
    """I9, heavy ball: δ + 3tυ relative (μ, product and sum, at each of t steps), and t·√d·s(1 + 1/lr) below normal."""
    return direction(a, d) + 3 * step * a.roundoff + step * math.sqrt(d) * subnormal(a.dtype) * (1 + 1 / lr)


def moved(a: Arithmetic, d: int, length: float, after: float, lr: float = 1.0) -> float:
    """I9, adaptive: δℓ + 2υℓ + (υ‖x⁺‖ + s)/lr: u is (x − x⁺)/lr, and x⁺ = x − lr·u was rounded to the spacing of x⁺."""
    return (direction(a, d) + 2 * a.roundoff) * length + (a.roundoff * after + subnormal(a.dtype)) / lr


def cancelled(a: Arithmetic, largest: float, x: float, lr: float = 1.0) -> float:
    """I9, a constant factor: 10⁻³ of the largest entry of u for the rule's ε, 4υ(|x|/lr + |u|) for reading u off x.

    The law gives the rule entries of at least 1/2; the largest ε is AdaDelta's, 10⁻⁶ beside (1 − ρ)g² ≥ 1/40, a
    relative 4·10⁻⁵.
    """
    return 1e-3 * largest + 4 * a.roundoff * (x / lr + largest)


def clipped(a: Arithmetic, d: int) -> float:
    """I9, clipping: δ + 2υ of the length: a norm is computed to δ, and clip/‖g‖ and its product are rounded."""
    return direction(a, d) + 2 * a.roundoff


def vanished(a: Arithmetic, d: int, length: float = 1.0) -> float:
    """√d·s·max(1, ‖u‖): what all entries of a direction may have lost near zero, before it was given its length."""
    return math.sqrt(d) * a.lost * max(1.0, length)


AGREEMENT = {"float16": 5e-2, "float32": 1e-5, "float64": 1e-12}
"""dtype → how far devices may drift apart in 50 steps, relative to the farthest x has been."""


def agreed(a: Arithmetic) -> float:
    """I12: 10⁻⁵ in float32, 10⁻¹² in float64, 1/20 in float16, of the largest ‖x^i‖ so far.

    Devices round alike and add in another order, so each step differs by about δ of its length, and a memory such as
    Adam's hands that on; 50 steps in float32 were seen to drift by up to 1.4·10⁻⁶.
    """
    return AGREEMENT[a.dtype.name]


SPREAD = 8
"""An entry of a part of a batch is at most this many times the entry of the mean."""


def averaged(a: Arithmetic, d: int, parts: int) -> float:
    """I12: 2δ + 16υ as for two directions of any rule, and 4·8·K·υ for K parts.

    The parts of the law's batches agree in signs and are at most 8 times their mean, entry by entry. A difference, its
    product with the weight, the weight and the sum are rounded for each part.
    """
    return ruled(a, d) + 4 * SPREAD * parts * a.roundoff
