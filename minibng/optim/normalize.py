"""Block normalization: the one brick in front of every step rule.

N(g)^i = ℓ^i g^i / ‖g^i‖₂, with the length ℓ^i a normalizer's choice: 1 (NG), min(‖g^i‖, clip), or the size of the
parameters. No ε: a zero block has direction zero and every other exactly the length that was asked for, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minibng.backend import Array, Backend, BlockNorms, backend_of, is_array

Blocks = Sequence[Sequence[int]]


class NonFiniteError(ArithmeticError):
    """A gradient, or a parameter, is NaN or infinite; the message names block and step."""


class Normalizer(Protocol):
    """Chooses the length that each block of the gradient is given."""

    def lengths(self, norms: BlockNorms, root_sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ℓ, (B,) float64.

        Parameters
        ----------
        norms
            Of the gradient's blocks.
        root_sizes
            √d_i, (B,) float64.
        parameters
            Gives ‖x^i‖ before the step, (B,) float64; asked only by who needs it, since it is a pass over memory.
        """


class Unit:
    """NG: ℓ^i = 1 (the paper's section 2)."""

    def lengths(self, norms: BlockNorms, root_sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ones."""
        return np.ones_like(norms.root)


@dataclass(frozen=True)
class Clip:
    """Clipping per block: ℓ^i = min(‖g^i‖, clip); inside the ball the gradient is untouched, bit for bit."""

    clip: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"clip must be positive and finite, got {self.clip}")

    def lengths(self, norms: BlockNorms, root_sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return min(‖g^i‖, clip)."""
        return np.minimum(norms.values(), self.clip)


@dataclass(frozen=True)
class Adaptive:
    """Adaptive NG: ℓ^i = max(‖x^i‖, floor·√d_i), x before the step; the floor lets a block at zero leave it."""

    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not (math.isfinite(self.floor) and self.floor >= 0):
            raise ValueError(f"floor must be finite and not negative, got {self.floor}")

    def lengths(self, norms: BlockNorms, root_sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return max(‖x^i‖, floor·√d_i)."""
        return np.maximum(parameters(), self.floor * root_sizes)


def root_sizes(tensors: Sequence[Array], blocks: Blocks, backend: Backend) -> Array:
    """Return √d_i of every block, (B,) float64."""
    return backend.asarray([math.sqrt(sum(tensors[i].size for i in block)) for block in blocks], dtype="float64")


def normalize_blocks(arrays: Sequence[Array], norm: int | str = 2) -> list[Array]:
    """Return each array divided by its norm: N(g)^i = g^i / ‖g^i‖₂, or, for the root mean square, √d_i g^i / ‖g^i‖₂.

    Parameters
    ----------
    arrays
        The blocks g^1, …, g^B: floating-point arrays of any shape (float16 too) on one device; they are not changed.
    norm
        2, or "rms".

    Returns
    -------
    list of arrays
        Of the same shapes and dtypes. Zero blocks stay zero; nothing over- or underflows on the way (theory I1, I8).

    Raises
    ------
    TypeError
        For anything but floating-point arrays.
    ValueError
        For another norm.
    NonFiniteError
        For NaN or infinity, naming the block.

    Examples
    --------
    >>> normalize_blocks([np.array([3.0, 4.0]), np.array([1e-200, 0.0]), np.zeros(2)])
    [array([0.6, 0.8]), array([1., 0.]), array([0., 0.])]
    """
    if norm not in (2, "rms"):
        raise ValueError(f"norm is 2 or 'rms', got {norm!r}")
    for i, a in enumerate(arrays):
        if not is_array(a) or a.dtype not in (np.float16, np.float32, np.float64):
            kind = getattr(a, "dtype", type(a).__name__)
            raise TypeError(f"blocks are arrays of float16, float32 or float64; array {i} is {kind}")
    backend = backend_of(*arrays)
    blocks = [[i] for i in range(len(arrays))]
    norms = backend.block_norms(arrays, blocks)
    bad = np.flatnonzero(~np.isfinite(backend.to_host(norms.root)))
    if bad.size:
        raise NonFiniteError(f"array {bad[0]} has NaN or infinite entries: it has no direction")
    lengths = np.ones_like(norms.root) if norm == 2 else root_sizes(arrays, blocks, backend)
    return backend.scale_blocks(arrays, blocks, norms, lengths)
