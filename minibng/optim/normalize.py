"""Block normalization: the one brick in front of every step rule.

N(g)^i = ℓ^i g^i / ‖g^i‖, with the length ℓ^i a normalizer's choice: 1 (NG), min(‖g^i‖, clip), or the size of the
parameters. No ε: a zero block has direction zero and every other exactly the length that was asked for, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from minibng.backend import Array, Backend, BlockNorms, Group, backend_of, is_array
from minibng.names import UnknownNameError


class NonFiniteError(ArithmeticError):
    """A gradient, or a parameter, is NaN or infinite; the message names block and step.

    ``step`` is the number of steps that were finished before, None where there are no steps.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class Norm:
    """A norm of blocks: 1, 2, ∞, or "rms", the root mean square ‖g‖₂/√d."""

    name: float | str

    def measure(self, backend: Backend, tensors: Sequence[Array], groups: Sequence[Group], sizes: Array) -> BlockNorms:
        """Return the norm of every block, (B,)."""
        if not isinstance(self.name, str):
            return backend.block_norms(tensors, groups, self.name)
        norms = backend.block_norms(tensors, groups, 2)
        return norms._replace(root=norms.root / np.sqrt(np.maximum(sizes, 1)))

    def of_ones(self, sizes: Array) -> Array:
        """Return the norm of blocks of d ones: √d, 1, d or 1."""
        if self.name == 2:
            return np.sqrt(sizes)
        return sizes if self.name == 1 else np.ones_like(sizes)

    def of_all(self, norms: BlockNorms, sizes: Array) -> tuple[Array, Array]:
        """Return the norm of all blocks together as (root, exponent)."""
        exponent = np.min(norms.exponent)
        roots = np.ldexp(norms.root, exponent - norms.exponent)
        largest = np.max(roots)
        shares = roots / np.where(largest > 0, largest, 1)  # their squares do not overflow
        if self.name == 2:
            return largest * np.sqrt(np.sum(shares**2)), exponent
        if self.name == "rms":
            return largest * np.sqrt(np.sum(sizes * shares**2) / np.maximum(np.sum(sizes), 1)), exponent
        return (largest * np.sum(shares) if self.name == 1 else largest), exponent


EUCLIDEAN = Norm(2)
_NORMS = {2: EUCLIDEAN, "rms": Norm("rms"), 1: Norm(1), math.inf: Norm(math.inf), "inf": Norm(math.inf)}


def norm_of(name: Any) -> Norm:
    """Return a norm by what the user calls it: 2, "rms", 1, math.inf or "inf"."""
    if isinstance(name, bool) or not isinstance(name, (int, float, str, np.number)) or name not in _NORMS:
        raise UnknownNameError(f"norm is 2, 'rms', 1 or inf, got {name!r}")
    return _NORMS[name]


def sizes_of(groups: Sequence[Group], backend: Backend) -> Array:
    """Return d_i, the number of entries of every block, (B,) float64."""
    return backend.asarray(np.repeat([float(g.size) for g in groups], [g.count for g in groups]), dtype="float64")


class Normalizer(Protocol):
    """Chooses the length that each block of the gradient is given, in the norm that the optimizer measures in."""

    safe: bool
    """Whether the lengths are finite wherever the norms are."""

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ℓ, (B,) float64.

        Parameters
        ----------
        norms
            Of the gradient's blocks.
        sizes
            d_i, (B,) float64.
        parameters
            Gives ‖x^i‖ before the step, (B,) float64; asked only by who needs it, since it is a pass over memory.
        """


class Unit:
    """NG: ℓ^i = 1 (the paper's section 2)."""

    safe = True

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ones."""
        return np.ones_like(norms.root)


@dataclass(frozen=True)
class Clip:
    """Clipping per block: ℓ^i = min(‖g^i‖, clip); inside the ball the gradient is untouched, bit for bit."""

    clip: float = 1.0
    safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"clip must be positive and finite, got {self.clip}")

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return min(‖g^i‖, clip)."""
        return np.minimum(norms.values(), self.clip)


@dataclass(frozen=True)
class ClipGlobal(Clip):
    """Clipping of the whole gradient: ℓ^i = ‖g^i‖ · min(1, clip/‖g‖), ‖g‖ over all blocks (Pascanu et al., 2013)."""

    norm: Norm = EUCLIDEAN

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ‖g^i‖ · min(1, clip/‖g‖)."""
        if not sizes.size:
            return norms.root
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            whole, exponent = self.norm.of_all(norms, sizes)
            shares = np.ldexp(norms.root, exponent - norms.exponent) / whole
            longest = np.ldexp(np.full_like(whole, self.clip), exponent)  # CuPy would take a number for a float16
            return np.where(whole > longest, shares * self.clip, norms.values())


@dataclass(frozen=True)
class Adaptive:
    """Adaptive NG: ℓ^i = max(‖x^i‖, floor·‖1‖), x before the step; the floor lets a block at zero leave it.

    ‖1‖ is the norm of a block of d ones, √d in norm 2: the floor is the size of a typical entry.
    """

    floor: float = 1e-3
    norm: Norm = EUCLIDEAN
    safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.floor) and self.floor >= 0):
            raise ValueError(f"floor must be finite and not negative, got {self.floor}")

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return max(‖x^i‖, floor·‖1‖)."""
        return np.maximum(parameters(), self.floor * self.norm.of_ones(sizes))


class Except:
    """Another normalizer, but for some blocks, which keep their length: ℓ^i = ‖g^i‖, untouched bit for bit.

    Parameters
    ----------
    inner
        The normalizer of all other blocks.
    kept
        Which blocks keep theirs, (B,) bool.
    """

    def __init__(self, inner: Normalizer, kept: Array) -> None:
        self.inner, self.kept, self.safe = inner, kept, inner.safe

    def lengths(self, norms: BlockNorms, sizes: Array, parameters: Callable[[], Array]) -> Array:
        """Return ‖g^i‖ where a block is kept, else what the inner normalizer chooses."""
        return np.where(self.kept, norms.values(), self.inner.lengths(norms, sizes, parameters))


NORMALIZERS: dict[str, type] = {"clip": Clip, "clip-global": ClipGlobal, "unit": Unit, "adaptive": Adaptive}
"""What `Optimizer` calls ``normalize``."""


def normalize_blocks(arrays: Sequence[Array], norm: float | str = 2) -> list[Array]:
    """Return each array divided by its norm: N(g)^i = g^i / ‖g^i‖.

    Parameters
    ----------
    arrays
        The blocks g^1, …, g^B: floating-point arrays of any shape (float16 too) on one device; they are not changed.
    norm
        2, "rms" (the root mean square, ‖g‖₂/√d), 1 or inf.

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
        For NaN or infinity, naming the block: on the host, and on a device under `bng.debug`. Elsewhere such a block
        has no finite direction.

    Examples
    --------
    >>> normalize_blocks([np.array([3.0, 4.0]), np.array([1e-200, 0.0]), np.zeros(2)])
    [array([0.6, 0.8]), array([1., 0.]), array([0., 0.])]
    """
    chosen = norm_of(norm)
    for i, a in enumerate(arrays):
        if not is_array(a) or a.dtype not in (np.float16, np.float32, np.float64):
            kind = getattr(a, "dtype", type(a).__name__)
            raise TypeError(f"blocks are arrays of float16, float32 or float64; array {i} is {kind}")
    backend = backend_of(*arrays)
    if len(devices := {backend_of(a).device for a in arrays}) > 1:
        raise TypeError(f"the blocks are on {' and '.join(sorted(devices))}: bring them to one by bng.asarray")
    shapes = [a.shape for a in arrays]
    groups = [Group.whole(f"array {i}", [i], shapes) for i in range(len(arrays))]
    norms = chosen.measure(backend, arrays, groups, sizes_of(groups, backend))
    if backend.reads_values:
        bad = np.flatnonzero(~np.isfinite(backend.to_host(norms.root)))
        if bad.size:
            raise NonFiniteError(f"array {bad[0]} has NaN or infinite entries: it has no direction")
    return backend.scale_blocks(arrays, groups, norms, np.ones_like(norms.root))
