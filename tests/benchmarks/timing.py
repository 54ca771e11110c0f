"""Timing two functions against each other so that the ratio can be trusted on a shared machine, or on a device."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

REST = 0.12
"""Seconds of rest before each side: after a call BLAS's worker spins for a while and would take the other's core."""

QUEUED = 0.05
"""Least seconds between two synchronizations, so that they themselves (some microseconds) do not count."""

Call = Callable[[], object]


class Pair(NamedTuple):
    """Median milliseconds of both sides, and the quartiles of the pairwise ratios ours / theirs; None with one side."""

    ours: float
    theirs: float | None
    ratio: float | None
    low: float | None
    high: float | None


def compare(ours: Call, theirs: Call, pairs: int = 16) -> Pair:
    """Time both in turn: rest, one step that is not counted, the median of three; median of the pairwise ratios."""
    sides = ([], [])
    for f in (ours, theirs) * 2:
        f()
    for _ in range(pairs):
        for f, times in zip((ours, theirs), sides, strict=True):
            time.sleep(REST)
            f()
            times.append(np.median([_seconds(f) for _ in range(3)]))
    return _pair(*sides)


def compare_queued(ours: Call, theirs: Call | None, synchronize: Call, pairs: int = 16) -> Pair:
    """Time functions that only queue work, by many calls between two synchronizations, the sides in turn.

    That is the time of a training loop: the device's, or the host's where the device waits for it.
    """
    sides = [f for f in (ours, theirs) if f is not None]
    counts = [repetitions(f, synchronize) for f in sides]
    times = [[] for _ in sides]
    for _ in range(pairs):
        for f, count, seconds in zip(sides, counts, times, strict=True):
            seconds.append(queued_seconds(f, count, synchronize))
    return _pair(*times)


def repetitions(f: Call, synchronize: Call) -> int:
    """Warm up (kernels are compiled, memory is pooled), and return how many calls take `QUEUED` seconds."""
    for _ in range(3):
        f()
    count = 1
    while (took := count * queued_seconds(f, count, synchronize)) < QUEUED:
        count = max(2 * count, min(100 * count, math.ceil(count * QUEUED / took)))
    return count


def queued_seconds(f: Call, count: int, synchronize: Call) -> float:
    """Return the seconds a call takes, from an idle device until the last of ``count`` calls is done."""
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        f()
    synchronize()
    return (time.perf_counter() - start) / count


def _pair(ours: list[float], theirs: list[float] | None = None) -> Pair:
    """Summarize the seconds of two sides, measured in turn."""
    mine = 1e3 * float(np.median(ours))
    if theirs is None:
        return Pair(mine, None, None, None, None)
    low, middle, high = np.percentile(np.array(ours) / theirs, [25, 50, 75])
    return Pair(mine, 1e3 * float(np.median(theirs)), float(middle), float(low), float(high))


def _seconds(f: Call) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start
