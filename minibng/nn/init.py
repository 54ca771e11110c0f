"""First values: ``init(rng, shape)`` → host array. Weights end in the output axis; the others make the fan-in."""

import math
from typing import Any

import numpy as np

from minibng.backend import HostArray

Rng = np.random.Generator


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan-in, fan-out) of a weight (*window, in, out)."""
    if len(shape) < 2:
        raise ValueError(f"fan-in needs a weight of at least two axes (in, out), got shape {shape}")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def he(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Draw N(0, 2/fan_in), which keeps the variance of activations through relu layers (He et al., 2015, eq. 10)."""
    return rng.standard_normal(shape) * math.sqrt(2 / max(_fans(shape)[0], 1))


def xavier(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Draw N(0, 2/(fan_in + fan_out)), for tanh and sigmoid (Glorot, Bengio, 2010, eq. 12)."""
    return rng.standard_normal(shape) * math.sqrt(2 / max(sum(_fans(shape)), 1))


def zeros(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Return zeros."""
    return np.zeros(shape)


class Normal:
    """Draw N(0, std²)."""

    def __init__(self, std: float = 0.01) -> None:
        self.std = std

    def __call__(self, rng: Rng, shape: tuple[int, ...]) -> HostArray:
        """Draw one tensor."""
        return rng.standard_normal(shape) * self.std


class Uniform:
    """Draw uniformly from [−limit, limit)."""

    def __init__(self, limit: float = 0.05) -> None:
        self.limit = limit

    def __call__(self, rng: Rng, shape: tuple[int, ...]) -> HostArray:
        """Draw one tensor."""
        return rng.uniform(-self.limit, self.limit, shape)


INITIALIZERS: dict[str, Any] = {"he": he, "xavier": xavier, "zeros": zeros}
"""Those that need no setting, by name."""
