"""Learning rates over time: a schedule is any function of the number of finished steps, 0 first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Schedule: TypeAlias = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Return the schedule lr(t) = lr.

    Examples
    --------
    >>> constant(0.1)(1000)
    0.1
    """
    lr = check_rate(lr)
    return lambda step: lr


def step_decay(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """Return a constant rate with occasional decay: lr(t) = lr · factor^(number of milestones ≤ t) (claim C2).

    Parameters
    ----------
    lr
        The first rate.
    milestones
        Numbers of finished steps after which the rate is multiplied by the factor; increasing.
    factor
        In (0, 1].

    Raises
    ------
    ValueError
        For milestones that do not increase, or a factor outside (0, 1].

    Examples
    --------
    >>> rate = step_decay(1.0, [100, 200], factor=0.5)
    >>> rate(99), rate(100), rate(200)
    (1.0, 0.5, 0.25)
    """
    lr = check_rate(lr)
    ordered = list(milestones)
    if ordered != sorted(set(ordered)) or any(m < 0 for m in ordered):
        raise ValueError(f"milestones are increasing numbers of steps, got {ordered}")
    if not 0 < factor <= 1:
        raise ValueError(f"factor must lie in (0, 1], got {factor}")
    return lambda step: lr * factor ** sum(step >= m for m in ordered)


def check_rate(lr: float, where: str = "lr") -> float:
    """Return a learning rate as a float, refused where it is negative, infinite or not a number."""
    rate = number(lr, where)
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"{where} must be finite and not negative, got {rate}")
    return rate


def number(value: Any, what: str) -> float:
    """Return a setting as a float; strings, truth values and arrays are refused, naming the setting."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{what} must be a number, got {value!r}")
    return float(value)
