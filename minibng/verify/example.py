"""What laws are tried on, and what they say when one is broken: gradients in blocks, walks, violations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minibng.backend import HostArray

SHOWN = 8
"""Entries of an array that a counterexample spells out."""

WIDE = 100
"""Characters of a line that tells before and after; longer ones become two."""


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


@dataclass(frozen=True)
class Batch:
    """A batch in parts: the mean gradient of each, and of how many samples it is the mean."""

    parts: tuple[Gradient, ...]
    weights: tuple[int, ...]

    def mean(self) -> Gradient:
        """Return Σ n_k g_k / Σ n_k, the gradient of the whole batch, in extended precision and then rounded."""
        vectors = zip(*(g.vectors() for g in self.parts), strict=True)
        total = np.longdouble(sum(self.weights))
        sums = (sum(n * g.astype(np.longdouble) for n, g in zip(self.weights, v, strict=True)) for v in vectors)
        return self.parts[0].with_vectors([np.asarray(v / total) for v in sums])

    def lines(self) -> Iterator[str]:
        """Tell the parts in words, one line a block and part."""
        for k, (gradient, n) in enumerate(zip(self.parts, self.weights, strict=True), 1):
            for line in gradient.lines(f"g_{k}"):
                yield f"part {k}, of {n} sample{'s' * (n > 1)}, {line}"


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
    count = {0: "no entries", 1: "1 entry"}.get(a.size, f"{a.size:,} entries")
    rest = ""
    if a.size > SHOWN:
        size = np.abs(a[a != 0])
        rest = f", {size.size:,} of them not zero" + (f", |·| from {size.min()} to {size.max()}" if size.size else "")
    return f"{_entries(a)} ({a.dtype}, {count}{rest})"


def _entries(a: HostArray) -> str:
    shown = [str(v) for v in a.reshape(-1)[:SHOWN]]
    return f"[{', '.join([*shown, '…'] if a.size > SHOWN else shown)}]"


def arrow(name: str, before: HostArray, result: str, after: HostArray) -> str:
    """Tell what became of an array, before and after; what was read in extended precision is told in the dtype.

    Examples
    --------
    >>> arrow("g", np.array([3.0, 4.0]), "u", np.array([0.6, 0.8]))
    'g = [3.0, 4.0] → u = [0.6, 0.8] (float64, 2 entries)'
    """
    with np.errstate(all="ignore"):
        after = after.astype(before.dtype)
    first, then = f"{name} = {_entries(before)}", f"→ {result} = {told(after)}"
    return f"{first} {then}" if len(first) + len(then) < WIDE else f"{first}\n    {then}"


def violation(what: str, *lines: str, **arrays: HostArray) -> Violation:
    """Return a `Violation` that tells what is wrong, further lines, and arrays by name."""
    return Violation("\n    ".join([what, *lines, *(f"{name} = {told(a)}" for name, a in arrays.items())]))


def at_most(measured: float | np.floating, bound: float, what: str, *lines: str, **arrays: HostArray) -> None:
    """Raise a `Violation` unless measured ≤ bound; NaN is not."""
    if not measured <= bound:
        raise violation("{} is {}, allowed {}".format(what, *_apart(measured, bound)), *lines, **arrays)


def at_least(measured: float | np.floating, bound: float, what: str, *lines: str, **arrays: HostArray) -> None:
    """Raise a `Violation` unless measured ≥ bound; NaN is not."""
    if not measured >= bound:
        raise violation("{} is {}, at least {} is asked for".format(what, *_apart(measured, bound)), *lines, **arrays)


def _apart(measured: float | np.floating, bound: float | np.floating) -> tuple[str, str]:
    """Tell two numbers to six digits, or as many as tell them apart."""
    pairs = [(f"{float(measured):.{digits}g}", f"{float(bound):.{digits}g}") for digits in (6, 9, 12, 17)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])


def identical(a: HostArray, b: HostArray, what: str, *lines: str, **arrays: HostArray) -> None:
    """Raise a `Violation` unless a and b agree bit for bit (but for the sign of a zero); NaN agrees with nothing."""
    differ = np.flatnonzero(~(a == b))
    if differ.size:
        j = differ[0]
        first = f"{what}, bit for bit: entry {j} is {a[j]!s} here and {b[j]!s} there"
        raise violation(first, *lines, **arrays)
