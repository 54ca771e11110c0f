"""What laws are tried on, and what they say when one is broken: gradients in blocks, walks, violations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minibng.backend import HostArray

SHOWN = 8
"""Entries of an array that a counterexample spells out."""


@dataclass(frozen=True)
class Gradient:
    """A gradient g = (g^1, …, g^B): tensors of one dtype, and the block that each belongs to.

    Laws speak of blocks, optimizers are given tensors. A block is told as one vector (d,): the entries of its tensors
    one after another.

    Examples
    --------
    >>> g = Gradient((np.ones((2, 1)), np.zeros(1), np.full(1, 7.0)), ((0, 1), (2,)))
    >>> g.vectors()
    [array([1., 1., 0.]), array([7.])]
    >>> g.with_vectors([np.array([1.0, 2.0, 3.0]), np.array([4.0])]).tensors[0].tolist()
    [[1.0], [2.0]]
    """

    tensors: tuple[HostArray, ...]
    blocks: tuple[tuple[int, ...], ...]

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Data type of every tensor."""
        return self.tensors[0].dtype

    def vectors(self) -> list[HostArray]:
        """Return one vector a block, copied."""
        return join(self.tensors, self.blocks)

    def with_vectors(self, vectors: Sequence[HostArray]) -> Gradient:
        """Return a gradient of the same shapes and blocks with these entries, rounded to the dtype."""
        tensors = list(self.tensors)
        for block, vector in zip(self.blocks, vectors, strict=True):
            start = 0
            for i in block:
                t = tensors[i]
                tensors[i] = vector[start : start + t.size].astype(t.dtype).reshape(t.shape)
                start += t.size
        return Gradient(tuple(tensors), self.blocks)

    def shifted(self, exponents: Sequence[int]) -> Gradient:
        """Return the gradient with block i multiplied by 2^exponents[i]."""
        return self.with_vectors([np.ldexp(g, k) for g, k in zip(self.vectors(), exponents, strict=True)])

    def copy(self) -> Gradient:
        """Return a gradient that may be written to."""
        return Gradient(tuple(t.copy() for t in self.tensors), self.blocks)

    def lines(self, name: str = "g") -> Iterator[str]:
        """Tell the gradient in words, one line a block."""
        for i, g in enumerate(self.vectors()):
            shapes = " and ".join(str(self.tensors[t].shape) for t in self.blocks[i])
            yield f"block {i}, of shape {shapes}: {name} = {told(g)}"


@dataclass(frozen=True)
class Walk:
    """A start x_0, tensors like those of the gradients, and the gradients that an optimizer is then given in turn."""

    start: tuple[HostArray, ...]
    gradients: tuple[Gradient, ...]

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The partition, the same at every step."""
        return self.gradients[0].blocks

    def at(self, start: Sequence[HostArray]) -> Walk:
        """Return the walk from another start."""
        return Walk(tuple(start), self.gradients)

    def lines(self) -> Iterator[str]:
        """Tell the walk in words, one line a block and step."""
        yield from Gradient(self.start, self.blocks).lines("x_0")
        for t, gradient in enumerate(self.gradients, 1):
            yield from gradient.lines(f"g_{t}")


def join(tensors: Sequence[HostArray], blocks: Sequence[Sequence[int]]) -> list[HostArray]:
    """Return one vector a block, copied."""
    return [np.concatenate([tensors[i].reshape(-1) for i in block]) for block in blocks]


class Violation(AssertionError):
    """A law that does not hold: what was measured, what the law allows, and the arrays concerned."""


def told(a: HostArray) -> str:
    """Tell an array in words: its first entries, digit for digit, and its size and dtype.

    Examples
    --------
    >>> told(np.array([1, 0.1], dtype=np.float32)), told(np.zeros(0))
    ('[1.0, 0.1] (float32, 2 entries)', '[] (float64, no entries)')
    """
    entries = [str(v) for v in a.reshape(-1)[:SHOWN]]
    count = {0: "no entries", 1: "1 entry"}.get(a.size, f"{a.size:,} entries")
    rest = ""
    if a.size > SHOWN:
        size = np.abs(a[a != 0])
        entries.append("…")
        rest = f", {size.size:,} of them not zero" + (f", |·| from {size.min()} to {size.max()}" if size.size else "")
    return f"[{', '.join(entries)}] ({a.dtype}, {count}{rest})"


def at_most(measured: float | np.floating, bound: float, what: str, **arrays: HostArray) -> None:
    """Raise a `Violation` unless measured ≤ bound; NaN is not."""
    if not measured <= bound:
        raise Violation(_message(f"{what} is {float(measured):.6g}, allowed {bound:.6g}", arrays))


def identical(a: HostArray, b: HostArray, what: str, **arrays: HostArray) -> None:
    """Raise a `Violation` unless a and b agree bit for bit (but for the sign of a zero); NaN agrees with nothing."""
    differ = np.flatnonzero(~(a == b))
    if differ.size:
        j = differ[0]
        first = f"{what}, bit for bit: entry {j} is {a[j]!s} here and {b[j]!s} there"
        raise Violation(_message(first, {**arrays, "here": a, "there": b}))


def _message(first: str, arrays: dict[str, HostArray]) -> str:
    return "\n    ".join([first, *(f"{name} = {told(a)}" for name, a in arrays.items())])
