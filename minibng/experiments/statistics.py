"""What may be concluded from a few seeds: paired Student t intervals, and Holm's correction over several claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minibng.extras import require

LEVEL = 0.05
"""Probability of a wrong verdict, over all primary comparisons together."""

MIN_SEEDS = 5
"""Below this many pairs nothing is decided."""

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided at this scale"
EXPLORATORY = "exploratory"


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval; the ends are nan for fewer than two values."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the mean and its Student t interval, mean ± t(1 − level/2; n − 1)·s/√n.

    Examples
    --------
    >>> [round(v, 4) for v in t_interval([1.0, 2.0, 3.0])]
    [2.0, -0.4841, 4.4841]
    """
    x = np.asarray(values, dtype=float)
    n = x.size
    if n < 2:
        return Interval(float(x.mean()) if n else math.nan, math.nan, math.nan)
    t = require("scipy.stats", "experiments", "an interval over seeds").t.ppf(1 - level / 2, n - 1)
    half = float(t * x.std(ddof=1) / math.sqrt(n))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of mean difference 0 (Student t, n − 1 degrees of freedom); 1 below two pairs."""
    d = np.asarray(differences, dtype=float)
    if d.size < 2:
        return 1.0
    spread = d.std(ddof=1) / math.sqrt(d.size)
    if spread == 0:
        return 0.0 if d.mean() else 1.0
    return float(2 * require("scipy.stats", "experiments", "a p-value").t.sf(abs(d.mean()) / spread, d.size - 1))


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float | None]:
    """Return the level at which each comparison is significant under Holm's procedure (1979), None where it is not.

    The smallest p is held against level/m, the next against level/(m − 1), …, up to the first that fails.

    Examples
    --------
    >>> holm_levels([0.04, 0.001])
    [0.05, 0.025]
    >>> holm_levels([0.04, 0.03])
    [None, None]
    """
    found: list[float | None] = [None] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        bar = level / (len(p_values) - rank)
        if p_values[i] > bar:
            break
        found[i] = bar
    return found


class Finding(NamedTuple):
    """The outcome of one paired comparison: treatment minus baseline, lower is better."""

    verdict: str
    difference: Interval
    pairs: int
    finite: int
    """Pairs in which neither run diverged: those that the interval is of."""


def judge(differences: Sequence[Sequence[float]], level: float = LEVEL) -> list[Finding]:
    """Return the verdict on each primary comparison, from its paired differences over seeds.

    "supported" where the interval lies below 0, "contradicted" where it lies above, under Holm's correction over all of
    them; otherwise, below `MIN_SEEDS` pairs, and where a difference is not finite, "not decided at this scale".
    """
    usable = [len(d) >= MIN_SEEDS and bool(np.all(np.isfinite(d))) for d in differences]
    levels = holm_levels([p_value(d) if ok else 1.0 for d, ok in zip(differences, usable, strict=True)], level)
    findings = []
    for d, ok, significant in zip(differences, usable, levels, strict=True):
        finite = [v for v in d if math.isfinite(v)]
        interval = t_interval(finite, significant or level / len(differences))
        verdict = UNDECIDED
        if ok and significant is not None:
            verdict = SUPPORTED if interval.mean < 0 else CONTRADICTED
        findings.append(Finding(verdict, interval, len(d), len(finite)))
    return findings


def observe(differences: Sequence[float]) -> Finding:
    """Return the interval of paired differences without a verdict; pairs with a diverged run are left out."""
    finite = [v for v in differences if math.isfinite(v)]
    return Finding(EXPLORATORY, t_interval(finite), len(differences), len(finite))
