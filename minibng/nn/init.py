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


def he_uniform(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Draw from [−a, a), a = √(6/fan_in): the variance of `he`."""
    return Uniform(math.sqrt(6 / max(_fans(shape)[0], 1)))(rng, shape)


def xavier_uniform(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Draw from [−a, a), a = √(6/(fan_in + fan_out)): the variance of `xavier` (Glorot, Bengio, 2010, eq. 16)."""
    return Uniform(math.sqrt(6 / max(sum(_fans(shape)), 1)))(rng, shape)


def zeros(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Return zeros."""
    return np.zeros(shape)


def ones(rng: Rng, shape: tuple[int, ...]) -> HostArray:
    """Return ones."""
    return np.ones(shape)


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


class Orthogonal:
    """Draw W, as a matrix M (fan-in, K), uniformly from those with MᵀM = gain²·I, or MMᵀ where K > fan-in.

    A deep linear network of such layers keeps the length of every signal and gradient (Saxe, McClelland, Ganguli,
    2014). M is the Q of a normal matrix's QR decomposition; its columns take the signs of R's diagonal, without which
    it would not be uniform (Mezzadri, 2007).

    Parameters
    ----------
    gain
        The length of each column of M (row, where K > fan-in); √2 for relu layers.

    Examples
    --------
    >>> w = Orthogonal()(np.random.default_rng(0), (3, 2))
    >>> np.allclose(w.T @ w, np.eye(2))
    True
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, rng: Rng, shape: tuple[int, ...]) -> HostArray:
        """Draw one tensor."""
        rows, columns = _fans(shape)[0], shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0, -self.gain, self.gain)
        return (q if rows >= columns else q.T).reshape(shape)


INITIALIZERS: dict[str, Any] = {
    "he": he,
    "he_uniform": he_uniform,
    "xavier": xavier,
    "xavier_uniform": xavier_uniform,
    "orthogonal": Orthogonal(),
    "zeros": zeros,
}
"""Those that need no setting, by name."""
