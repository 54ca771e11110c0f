"""Timing two functions against each other so that the ratio can be trusted on a shared machine."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

REST = 0.12
"""Seconds of rest before each side: after a call BLAS's worker spins for a while and would take the other's core."""


class Pair(NamedTuple):
    """Median milliseconds of both sides, and the quartiles of the pairwise ratios ours / theirs."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float


def compare(ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 16) -> Pair:
    """Time both in turn: rest, one step that is not counted, the median of three; median of the pairwise ratios."""
    sides = ([], [])
    for f in (ours, theirs) * 2:
        f()
    for _ in range(pairs):
        for f, times in zip((ours, theirs), sides, strict=True):
            time.sleep(REST)
            f()
            times.append(np.median([_seconds(f) for _ in range(3)]))
    a, b = (np.array(times) for times in sides)
    low, middle, high = np.percentile(a / b, [25, 50, 75])
    return Pair(1e3 * float(np.median(a)), 1e3 * float(np.median(b)), float(middle), float(low), float(high))


def _seconds(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start
