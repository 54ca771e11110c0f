"""Random numbers from a counter: the same on every device, and no state but the counter itself.

Entry i of draw c is a hash of (c, i), two rounds of the 32-bit finalizer of MurmurHash3 (Appleby, 2011) keyed by the
two halves of c. The arithmetic is exact in uint32, so NumPy and CuPy agree bit for bit.
"""

from types import ModuleType

from minibng.backend.base import Array

_MASK = 0xFFFFFFFF


def _mixed(xp: ModuleType, bits: Array) -> Array:
    """Return the 32-bit finalizer of MurmurHash3, a bijection in which every input bit changes half the output's."""
    bits = (bits ^ (bits >> 16)) * xp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * xp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def random_bits(xp: ModuleType, counter: int, size: int) -> Array:
    """Return ``size`` random 32-bit numbers, (size,) uint32, for one value of a 64-bit counter.

    Examples
    --------
    >>> import numpy as np
    >>> random_bits(np, 7, 3).tolist() == random_bits(np, 7, 5).tolist()[:3]
    True
    """
    low, high = counter & _MASK, counter >> 32 & _MASK
    bits = _mixed(xp, xp.arange(size, dtype=xp.uint32) ^ xp.uint32(low))
    return _mixed(xp, bits + xp.uint32(_mixed_key(low, high)))


def _mixed_key(low: int, high: int) -> int:
    """Return a 32-bit key that depends on both halves of the counter."""
    return (low * 0x9E3779B1 + (high ^ 0x7F4A7C15) * 0x85EBCA77 + (high >> 15)) & _MASK


def bernoulli(xp: ModuleType, counter: int, shape: tuple[int, ...], probability: float) -> Array:
    """Return a boolean array that is True with the given probability (to 2⁻³²), for one value of the counter."""
    size = 1
    for n in shape:
        size *= n
    threshold = min(int(probability * 2.0**32), _MASK)
    return (random_bits(xp, counter, size) < xp.uint32(threshold)).reshape(shape)
