"""What the checks of the laws measure with: on the host, in extended precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minibng.backend import HostArray
from minibng.verify.bounds import Arithmetic
from minibng.verify.example import Gradient, Walk, at_most
from minibng.verify.target import Target


def arithmetic(target: Target, dtype: np.dtype[np.floating]) -> Arithmetic:
    """Return what directions of a target are computed in and read by."""
    return Arithmetic(dtype, target.rate)


def ends(target: Target, walk: Walk) -> list[list[HostArray]]:
    """Return where each step of a walk ends, or for a bare normalizer each direction; one vector a block."""
    return [target.directions(g) for g in walk.gradients] if target.make is None else target.path(walk)


def length(v: HostArray) -> np.longdouble:
    """Return ‖v‖₂ in extended precision, the largest entry first brought near 1, so that no square is lost."""
    w = v.astype(np.longdouble)
    largest = np.abs(w).max(initial=0)
    if largest == 0 or not np.isfinite(largest):
        return np.longdouble(largest)
    exponent = np.frexp(largest)[1]
    norm: np.longdouble = np.ldexp(np.sqrt(np.sum(np.ldexp(w, -exponent) ** 2)), exponent)
    return norm


def rescaled(v: HostArray) -> HostArray:
    """Return v times the power of two that brings its largest entry into [1/2, 1), in extended precision."""
    w = v.astype(np.longdouble)
    near_one: HostArray = np.ldexp(w, -np.frexp(np.abs(w).max(initial=0))[1])
    return near_one


def straight(v: HostArray) -> HostArray:
    """Return v/‖v‖ in extended precision; zero for zero."""
    w = rescaled(v)
    return w / (length(w) or 1)


def reflected(v: HostArray, normal: HostArray) -> HostArray:
    """Return v − 2n⟨n, v⟩/⟨n, n⟩ in extended precision."""
    n = normal.astype(np.longdouble)
    mirrored: HostArray = v - 2 * n * (np.dot(n, v) / (np.dot(n, n) or 1))
    return mirrored


def nonzero(gradient: Gradient, vectors: Sequence[HostArray]) -> Iterator[tuple[int, HostArray, HostArray]]:
    """Yield (i, g^i, vector) for every block with a gradient."""
    for i, (g, v) in enumerate(zip(gradient.vectors(), vectors, strict=True)):
        if g.any():
            yield i, g, v


def subnormal(v: HostArray, a: Arithmetic) -> bool:
    """Tell whether an entry is subnormal, or was when a rate had multiplied it."""
    smallest = float(np.finfo(a.dtype).smallest_normal) / min(1.0, a.rate or 1.0)
    return bool(((v != 0) & (np.abs(v) < smallest)).any())


def near(a: HostArray, b: HostArray, bound: float, what: str, *lines: str) -> None:
    """Require ‖a − b‖ ≤ bound."""
    at_most(length(a.astype(np.longdouble) - b), bound, f"the distance of {what}", *lines)


def close(a: HostArray, b: HostArray, bound: HostArray, what: str, *lines: str) -> None:
    """Require |a_j − b_j| ≤ bound_j for every entry."""
    error = np.abs(a.astype(np.longdouble) - b)
    wrong = np.flatnonzero(~(error <= bound))
    if wrong.size:
        j = wrong[0]
        at_most(error[j], float(bound[j]), f"the difference of {what}, entry {j},", *lines)
