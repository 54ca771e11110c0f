"""Random numbers from a counter: the same on every device, and no state but the counter itself.

Entry i of draw c is a hash of (c, i), two rounds of the 32-bit finalizer of MurmurHash3 (Appleby, 2011) keyed by the
two halves of c. The arithmetic is exact in uint32, so NumPy and CuPy agree bit for bit.
"""

import math
from types import ModuleType

from minibng.backend import Array
from minibng.backend.chain import Chain

_MASK = 0xFFFFFFFF


@Chain
def _hashed(i, *, low, key):  # type: ignore[no-untyped-def]
    """Hash (counter, i): the finalizer twice, a bijection in which every input bit changes half the output's."""
    a = i ^ low
    b = (a ^ (a >> 16)) * 0x85EBCA6B
    c = (b ^ (b >> 13)) * 0xC2B2AE35
    d = (c ^ (c >> 16)) + key
    e = (d ^ (d >> 16)) * 0x85EBCA6B
    f = (e ^ (e >> 13)) * 0xC2B2AE35
    bits = f ^ (f >> 16)
    return bits


def random_bits(xp: ModuleType, counter: int, size: int) -> Array:
    """Return ``size`` random 32-bit numbers, (size,) uint32, for one value of a 64-bit counter.

    Examples
    --------
    >>> import numpy as np
    >>> random_bits(np, 7, 3).tolist() == random_bits(np, 7, 5).tolist()[:3]
    True
    """
    low, high = counter & _MASK, counter >> 32 & _MASK
    return _hashed(xp.arange(size, dtype=xp.uint32), low=low, key=_mixed_key(low, high))


def _mixed_key(low: int, high: int) -> int:
    """Return a 32-bit key that depends on both halves of the counter."""
    return (low * 0x9E3779B1 + (high ^ 0x7F4A7C15) * 0x85EBCA77 + (high >> 15)) & _MASK


def bernoulli(xp: ModuleType, counter: int, shape: tuple[int, ...], probability: float) -> Array:
    """Return a boolean array that is True with the given probability (to 2⁻³²), for one value of the counter."""
    threshold = min(int(probability * 2.0**32), _MASK)
    return (random_bits(xp, counter, math.prod(shape)) < xp.uint32(threshold)).reshape(shape)
