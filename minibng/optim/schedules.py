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
    if not isinstance(milestones, Sequence):
        raise TypeError(f"milestones are a list of numbers of steps, such as [100, 200], got {milestones!r}")
    ordered = [number(m, "a milestone") for m in milestones]
    if ordered != sorted(set(ordered)) or not all(0 <= m < math.inf for m in ordered):
        raise ValueError(f"milestones are increasing numbers of steps, got {list(milestones)}")
    if not 0 < number(factor, "factor") <= 1:
        raise ValueError(f"factor must lie in (0, 1], got {factor}")
    return lambda step: lr * factor ** sum(step >= m for m in ordered)


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine, lr(t) = final + (lr − final)·(1 + cos(πt/steps))/2, and ``final`` from ``steps`` on.

    Loshchilov, Hutter, 2017, eq. 5, without restarts; `sequence` makes them.

    Examples
    --------
    >>> rate = cosine(1.0, 100)
    >>> rate(0), rate(50), rate(100)
    (1.0, 0.5, 0.0)
    """
    lr, final = check_rate(lr), check_rate(final, "final")
    steps = _count(steps, "steps")

    def rate(step: int) -> float:
        return final + (lr - final) * (1 + math.cos(math.pi * step / steps)) / 2 if step < steps else final

    return rate


def inverse_sqrt(lr: float, offset: float = 1.0) -> Schedule:
    """Return lr(t) = lr·√(offset/(t + offset)): η ∝ 1/√t, with which theorem 2's bound falls as log T/√T.

    Parameters
    ----------
    lr
        The first rate.
    offset
        How many steps it takes to fall to lr/√2; positive.

    Examples
    --------
    >>> rate = inverse_sqrt(1.0)
    >>> rate(0), rate(3)
    (1.0, 0.5)
    """
    lr, offset = check_rate(lr), number(offset, "offset")
    if not 0 < offset < math.inf:
        raise ValueError(f"offset must be positive and finite, got {offset}")
    return lambda step: lr * math.sqrt(offset / (step + offset))


def warm_up(schedule: Schedule | float, steps: int) -> Schedule:
    """Return a schedule that first rises in a straight line: schedule(t)·min(1, (t + 1)/steps).

    Examples
    --------
    >>> rate = warm_up(1.0, 4)
    >>> [rate(t) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    after, steps = schedule if callable(schedule) else constant(schedule), _count(steps, "steps")
    return lambda step: after(step) * min(1.0, (step + 1) / steps)


def sequence(*stages: tuple[int, Schedule | float] | Schedule | float) -> Schedule:
    """Return one schedule after another, each of which counts its own steps from 0.

    Parameters
    ----------
    *stages
        ``(steps, schedule)`` pairs and, last, a schedule without end; numbers stand for constant rates.

    Examples
    --------
    >>> rate = sequence((2, 1.0), (100, cosine(0.5, 100)), 0.01)
    >>> rate(1), rate(2), rate(52), rate(102)
    (1.0, 0.5, 0.25, 0.01)
    """
    paired = all(isinstance(s, tuple) and len(s) == 2 for s in stages[:-1])
    if not stages or isinstance(stages[-1], tuple) or not paired:
        raise ValueError("a sequence is (steps, schedule) pairs and, last, a schedule without a number of steps")
    parts: list[tuple[float, Schedule]] = []
    for stage in stages:
        length, schedule = (_count(stage[0], "steps"), stage[1]) if isinstance(stage, tuple) else (math.inf, stage)
        parts.append((length, schedule if callable(schedule) else constant(schedule)))

    def rate(step: int) -> float:
        for length, schedule in parts:
            if step < length:
                return schedule(step)
            step -= int(length)
        raise AssertionError("the last stage has no end")

    return rate


def _count(value: Any, what: str) -> int:
    """Return a number of steps, refused where it is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what} must be a positive whole number, got {value!r}")
    return int(value)


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
