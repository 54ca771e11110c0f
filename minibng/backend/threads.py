"""A second thread for work on large arrays: fixed shares, so that the result has the same bits with any number."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

WORTHWHILE = 1 << 20
"""Entries from which on a second thread gains more than it costs (handing work over costs about 0.1 ms)."""

MOST = 4
"""More threads than this only wait for the same memory."""


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(entries: int) -> int:
    """Return how many threads to use: one for small arrays, and never more than BLAS was told to use."""
    if entries < WORTHWHILE:
        return 1
    told = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    return max(1, min(cores(), MOST, int(told) if told.isdigit() else MOST))


def shares(items: Sequence[T], sizes: Sequence[int], parts: int) -> list[list[T]]:
    """Cut a list into at most ``parts`` runs of neighbours with about equal total size.

    Examples
    --------
    >>> shares(["a", "b", "c"], [4, 2, 2], 2)
    [['a'], ['b', 'c']]
    """
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    part_of = np.minimum(middles * parts // max(sum(sizes), 1), parts - 1)
    cut = [[item for item, p in zip(items, part_of, strict=True) if p == k] for k in range(parts)]
    return [part for part in cut if part]


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads; a forked child gets its own."""
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="minibng")


def together(function: Callable[[int, T], Any], parts: Sequence[T]) -> list[Any]:
    """Return ``function(k, part)`` of every part, the first in this thread and the others beside it."""
    if len(parts) == 1:
        return [function(0, parts[0])]
    others = [_pool(os.getpid()).submit(function, k, part) for k, part in enumerate(parts) if k]
    try:
        first = [function(0, part) for part in parts[:1]]
    finally:
        wait(others)  # nobody writes any more when the caller goes on, error or not
    return first + [future.result() for future in others]
