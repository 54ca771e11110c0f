"""The examples that laws are tried on, drawn by Hypothesis: the whole exponent range, and every kind of block.

Each strategy is a plain function of a `Dice`; its first sides are the simplest, so that a counterexample shrinks to one
that can be read. All choices are made by one primitive, `Dice.number`, on integers near 7²⁵: Hypothesis now and then
draws a constant that it has found in the source of whatever modules are loaded, and a grader must give the same mark
twice, whatever is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar

import numpy as np

from minibng.backend import HostArray
from minibng.extras import require
from minibng.verify.example import Batch, Gradient, Walk
from minibng.verify.target import Target

T = TypeVar("T")
Example: TypeAlias = tuple[Any, ...]

_FAR = 7**25
LARGE = (16_385, 16_384, 40_000)
"""Sizes about and above one piece of a sum of squares."""


class Dice:
    """What a strategy draws with."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def number(self, n: int) -> int:
        """Return a number in 0 … n−1; shrinks towards 0."""
        return int(self._draw(_numbers(n))) - _FAR

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; shrinks towards the first."""
        return options[self.number(len(options))]

    def rarely(self, n: int) -> bool:
        """Return True about once in n times; shrinks towards False."""
        return self.number(n) == n - 1

    def between(self, low: int, high: int) -> int:
        """Return a number in low … high; shrinks towards the one nearest to 0."""
        near = min(max(low, 0), high)
        k = self.number(high - low + 1)
        up, down = high - near, near - low
        if k <= 2 * min(up, down):
            return near + (k + 1) // 2 * (1 if k % 2 else -1)
        return near + k - down if up > down else near - k + up

    def entries(self, shape: tuple[int, ...], draws: int = 1) -> list[HostArray]:
        """Return arrays of entries in ±[1, 2) that are chosen all at once; shrinks towards ones, then few digits."""
        k = self.number(1000)
        rng = np.random.default_rng(k)
        steps = 1 << (0 if k == 0 else 2 if k < 20 else 52)
        one = [1.0] if k < 2 else [1.0, -1.0]
        return [rng.choice(one, shape) * (1 + rng.integers(0, steps, shape) / steps) for _ in range(draws)]


@cache
def _numbers(n: int) -> Any:
    return _hypothesis().integers(_FAR, _FAR + n - 1)


def _hypothesis() -> Any:
    return require("hypothesis.strategies", "verify", "running a law")


def strategy(function: Callable[[Dice, Target], Example], target: Target) -> Any:
    """Return a Hypothesis strategy for what ``function(dice, target)`` returns."""

    def example(draw: Callable[[Any], Any]) -> Example:
        return function(Dice(draw), target)

    return _hypothesis().composite(example)()


# Entries


@dataclass(frozen=True)
class Span:
    """Exponents of entries: the largest of a tensor in low … high, the others at most ``drop`` below it."""

    low: int
    high: int
    drop: int


def whole(dtype: Any) -> Span:
    """From the smallest subnormal to the largest finite number."""
    info = np.finfo(dtype)
    low, high = int(info.minexp) - int(info.nmant), int(info.maxexp) - 1
    return Span(low, high, high - low)


def _half(dtype: Any) -> bool:
    return bool(np.dtype(dtype).itemsize == 2)


def middle(dtype: Any) -> Span:
    """So far inside that no entry of 2^±``room(dtype)``·g is subnormal or overflows."""
    high = 2 if _half(dtype) else int(np.finfo(dtype).maxexp) // 2 - 4
    return Span(-high, high, 2 if _half(dtype) else 12)


def room(dtype: Any) -> int:
    """Largest power of two that a gradient of `middle` size may be multiplied or divided by."""
    return 9 if _half(dtype) else int(np.finfo(dtype).maxexp) // 2 - 24


def _scale(dice: Dice, span: Span) -> int:
    """Return an exponent of the span: near 0 if it can be, anywhere, or at an end."""
    low, high = max(span.low, -3), min(span.high, 3)
    where = dice.number(8)
    if where < 3 and low <= high:
        return dice.between(low, high)
    return dice.between(span.low, span.high) if where < 6 else dice.pick((span.high, span.low))


def _value(dice: Dice, dtype: np.dtype[Any], exponent: int) -> float:
    """Return ±mantissa · 2^exponent."""
    bits = int(np.finfo(dtype).nmant)
    steps = dice.pick((1, 8, 1 << bits, 1 << bits))
    mantissa = 1 + dice.number(steps) / steps
    return float(np.ldexp(mantissa if dice.number(2) == 0 else -mantissa, exponent))


def vector(dice: Dice, dtype: np.dtype[Any], d: int, span: Span) -> HostArray:
    """Return the entries of one tensor (d,): constant, spelled out, one alone, spread at random, or zero."""
    kind = dice.pick(("constant", *(["spelled"] * 3 if d <= 6 else []), "alone", "spread", "zero"))
    out = np.zeros(d)
    if kind == "zero" or d == 0:
        return out.astype(dtype)
    scale = _scale(dice, span)
    drop = dice.pick((0, min(6, span.drop), span.drop))
    if kind == "spelled":
        for j in range(d):
            out[j] = 0.0 if dice.rarely(6) else _value(dice, dtype, scale - dice.number(drop + 1))
    elif kind == "constant":
        out[:] = _value(dice, dtype, scale)
    elif kind == "alone":
        out[dice.number(d)] = _value(dice, dtype, scale)
    else:
        (entries,) = dice.entries((d,))
        mantissas = np.clip(entries, -_below_two(dtype), _below_two(dtype))
        out[:] = np.ldexp(mantissas, scale - np.random.default_rng(d).integers(0, drop + 1, d))
    return out.astype(dtype)


def _below_two(dtype: np.dtype[Any]) -> float:
    """Return the largest number below 2."""
    return 2 - float(np.finfo(dtype).eps)


def _size(dice: Dice, large: bool, empty: bool) -> int:
    if large and dice.rarely(25):
        return dice.pick(LARGE)
    return dice.pick((1, 2, 3, 4, 5, 6, 0 if empty else 8, 2, 3, 12, 60))


def _shape(dice: Dice, d: int) -> tuple[int, ...]:
    shapes: list[tuple[int, ...]] = [(d,), (1, d), (d, 1)]
    if d == 1:
        shapes.append(())
    if d % 2 == 0:
        shapes.append((2, d // 2))
    return dice.pick(shapes)


def _partition(dice: Dice, count: int) -> tuple[tuple[int, ...], ...]:
    """Put each tensor into a block of its own or into an earlier one."""
    blocks: list[list[int]] = []
    for i in range(count):
        k = dice.number(len(blocks) + 1)
        if k == 0:
            blocks.append([i])
        else:
            blocks[k - 1].append(i)
    return tuple(map(tuple, blocks))


def zeros(dice: Dice, target: Target, *, large: bool = False, empty: bool = False) -> Gradient:
    """Return one to four zero tensors in blocks of the kind that the target has.

    Tensors without entries are among them where they are asked for, or where they are among what is promised. To others
    they are given by one law only: a largest entry of none raises, and would hide what else there is to find.
    """
    dtype, empty = np.dtype(dice.pick(target.dtypes)), empty or target.promises is not None
    tensors = tuple(np.zeros(_shape(dice, _size(dice, large, empty)), dtype) for _ in range(1 + dice.number(4)))
    if target.partition == "global":
        return Gradient(tensors, (tuple(range(len(tensors))),))
    own = tuple((i,) for i in range(len(tensors)))
    alone = target.make is None or target.partition == "tensor"
    return Gradient(tensors, own if alone else _partition(dice, len(tensors)))


def gradient(dice: Dice, target: Target, *, empty: bool = False) -> Gradient:
    """Return one to four tensors in blocks, with entries of any size."""
    like = zeros(dice, target, large=True, empty=empty)
    span = whole(like.dtype)
    tensors = tuple(vector(dice, like.dtype, t.size, span).reshape(t.shape) for t in like.tensors)
    return Gradient(tensors, like.blocks)


def middle_gradient(dice: Dice, like: Gradient) -> Gradient:
    """Return a gradient of these shapes and of `middle` size; within a block entries span at most 2²⁰."""
    span, tensors = middle(like.dtype), list(like.tensors)
    for block in like.blocks:
        top = _scale(dice, span)
        for i in block:
            inner = Span(max(top - 8, span.low), top, span.drop)
            tensors[i] = vector(dice, like.dtype, like.tensors[i].size, inner).reshape(like.tensors[i].shape)
    return Gradient(tuple(tensors), like.blocks)


def _start(dice: Dice, like: Sequence[HostArray]) -> tuple[HostArray, ...]:
    """Return x_0: each tensor zero, or numbers of one scale."""
    far = 4 if any(_half(t.dtype) for t in like) else 10
    scales = [dice.pick((1.0, 0.0, 2.0**-far, 2.0**far)) for _ in like]
    return tuple(np.asarray(c * dice.entries(t.shape)[0] + 0.0, t.dtype) for c, t in zip(scales, like, strict=True))


def walk(dice: Dice, target: Target, steps: int) -> Walk:
    """Return a start and ``steps`` gradients of middle size."""
    like = zeros(dice, target)
    return Walk(_start(dice, like.tensors), tuple(middle_gradient(dice, like) for _ in range(steps)))


# Examples of one law each: the arguments of its check after the target


def gradients(dice: Dice, target: Target) -> Example:
    """Return (gradient,)."""
    return (gradient(dice, target),)


def gradients_or_none(dice: Dice, target: Target) -> Example:
    """Return (gradient,), tensors without entries among its own."""
    return (gradient(dice, target, empty=True),)


def powers_of_two(dice: Dice, target: Target) -> Example:
    """Return (gradient, exponents): one exponent a block, for which 2^k·g is exact."""
    g = gradient(dice, target)
    return g, tuple(dice.between(*_exact_shifts(v)) for v in g.vectors())


def _exact_shifts(g: HostArray) -> tuple[int, int]:
    """Return the range of k for which no entry of 2^k·g overflows or, unless k = 0, becomes subnormal."""
    if not g.any():
        return 0, 0
    info = np.finfo(g.dtype)
    exponents = np.frexp(g[g != 0])[1]
    return min(0, int(info.minexp) + 1 - int(exponents.min())), int(info.maxexp) - int(exponents.max())


def _factor(dice: Dice) -> float:
    """Return a number of [1, 2) with ten bits; shrinks towards few: 1, 1.5, 1.25, 1.75 …."""
    return 1 + int(f"{dice.number(1 << 10):010b}"[::-1], 2) / (1 << 10)


def factors(dice: Dice, target: Target) -> Example:
    """Return (gradient, factors): one c in [1, 2)·2^k a block, for which no entry of c·g overflows."""
    g = gradient(dice, target)
    found = []
    for v in g.vectors():
        low, high = _exact_shifts(v)
        high = min(high - 1, 1000)
        k = dice.between(max(min(low, high), -1000), high)
        found.append(np.ldexp(_factor(dice), k))
    return g, tuple(float(c) for c in found)


def middle_factors(dice: Dice, target: Target) -> Example:
    """Return (gradient, c): all blocks are multiplied by c, as by a loss multiplied by c."""
    g = middle_gradient(dice, zeros(dice, target))
    limit = room(g.dtype) - 1
    return g, float(np.ldexp(_factor(dice), dice.between(-limit, limit)))


def one_kept(dice: Dice, target: Target) -> Example:
    """Return (gradient, other, kept): two gradients that agree in one block."""
    g = gradient(dice, target)
    kept, vectors = dice.number(len(g.blocks)), g.vectors()
    for i, v in enumerate(vectors):
        if i != kept:
            vectors[i] = vector(dice, g.dtype, v.size, whole(g.dtype))
    return g, g.with_vectors(vectors), kept


def seeded(dice: Dice, target: Target) -> Example:
    """Return (gradient, seed)."""
    return gradient(dice, target), dice.number(1000)


def mirrors(dice: Dice, target: Target) -> Example:
    """Return (gradient, seed), the gradient of middle size and without large blocks."""
    return middle_gradient(dice, zeros(dice, target)), dice.number(1000)


def idle(dice: Dice, target: Target) -> Example:
    """Return (walk, block): the block's gradient is zero at every step."""
    w = walk(dice, target, 1 + dice.number(3))
    still = dice.number(len(w.blocks))
    zeroed = [g.with_vectors([v * (i != still) for i, v in enumerate(g.vectors())]) for g in w.gradients]
    return Walk(w.start, tuple(zeroed)), still


def schedules(dice: Dice, target: Target) -> Example:
    """Return (walk, repeated, rates): at every step the same direction or not; the learning rates as exponents of 2."""
    steps = 1 + dice.number(4)
    repeated = dice.number(2) == 0
    w = walk(dice, target, 1 if repeated else steps)
    limit = room(w.gradients[0].dtype)
    if repeated:
        first = w.gradients[0]
        shifts = [[dice.between(-limit, limit) for _ in first.blocks] for _ in range(steps - 1)]
        w = Walk(w.start, (first, *(first.shifted(k) for k in shifts)))
    return (
        w.at([np.zeros_like(x) for x in w.start]),
        repeated,
        tuple(dice.between(-3, 3) for _ in range(steps)),
    )


def one_step(dice: Dice, target: Target) -> Example:
    """Return (walk,) of one step."""
    return (walk(dice, target, 1),)


def grown(dice: Dice, target: Target) -> Example:
    """Return (walk, exponents): one step, and a power of two ≥ 1 a block for the start."""
    w = walk(dice, target, 1)
    return w, tuple(1 + dice.number(4 if _half(w.start[0].dtype) else 10) for _ in w.blocks)


def even(dice: Dice, target: Target) -> Example:
    """Return (walk, exponents): entries of start and gradients in ±[1, 2), and a power of two > 1 a block."""
    first = zeros(dice, target)
    w = _strides(dice, first, 1 + dice.number(3))
    return w, tuple(1 + dice.number(4) for _ in first.blocks)


def _strides(dice: Dice, like: Gradient, steps: int) -> Walk:
    """Return a walk whose start and gradients have entries in ±[1, 2)."""
    many = [dice.entries(t.shape, steps + 1) for t in like.tensors]
    start, *grads = [tuple(np.asarray(t, like.dtype) for t in tensors) for tensors in zip(*many, strict=True)]
    return Walk(start, tuple(Gradient(tensors, like.blocks) for tensors in grads))


def shifts(dice: Dice, target: Target) -> Example:
    """Return (walk, exponents): a power of two for every step and block."""
    w = walk(dice, target, 1 + dice.number(4))
    limit = room(w.gradients[0].dtype)
    return w, tuple(tuple(dice.between(-limit, limit) for _ in w.blocks) for _ in w.gradients)


def cuts(dice: Dice, target: Target) -> Example:
    """Return (walk, cut): the run is stopped after ``cut`` of its steps."""
    steps = 1 + dice.number(4)
    return walk(dice, target, steps), dice.number(steps)


def coordinates(dice: Dice, target: Target) -> Example:
    """Return (gradient,): tensors of one entry, each a block."""
    dtype = np.dtype(dice.pick(target.dtypes))
    count = 1 if target.partition == "global" else 1 + dice.number(4)
    tensors = tuple(vector(dice, dtype, 1, whole(dtype)) for _ in range(count))
    return (Gradient(tensors, tuple((i,) for i in range(count))),)


def gathered(dice: Dice, target: Target) -> Example:
    """Return (gradient,): all tensors, in turn, are one block."""
    tensors = gradient(dice, target).tensors
    return (Gradient(tensors, (tuple(range(len(tensors))),)),)


def _lengthened(g: Gradient, exponents: Sequence[int]) -> Gradient:
    """Return a gradient with the largest entry of block i in [1/2, 1) times 2^exponents[i]."""
    largest = [np.frexp(np.abs(v).max(initial=0))[1] for v in g.vectors()]
    with np.errstate(under="ignore"):
        return g.shifted([k - int(e) for k, e in zip(exponents, largest, strict=True)])


def within(dice: Dice, target: Target) -> Example:
    """Return (gradient,) with blocks of norms up to the threshold of clipping, many right below it."""
    clip = target.clip or 1.0
    g, threshold = gradient(dice, target), int(np.frexp(clip)[1])
    low, bits = int(np.finfo(g.dtype).minexp) + 1, int(np.finfo(g.dtype).nmant) - 3
    sizes = [int(np.ceil(np.log2(max(v.size, 1)) / 2)) for v in g.vectors()]
    near = [threshold - 1 - d - (0 if dice.number(4) else dice.number(20)) for d in sizes]
    g = _lengthened(g, [max(low, k) for k in near])
    vectors = g.vectors()
    for i, v in enumerate(vectors):
        if v.any() and dice.number(2) == 0:
            w = v.astype(np.longdouble)
            vectors[i] = w / np.sqrt(np.sum(w * w)) * (clip * (1 - 0.5 ** (1 + dice.number(bits))))
    return (g.with_vectors(vectors),)


def around(dice: Dice, target: Target) -> Example:
    """Return (gradient,) of any size, or with entries about the threshold of clipping."""
    g = gradient(dice, target)
    if dice.number(2) == 0:
        return (g,)
    threshold = int(np.frexp(target.clip or 1.0)[1])
    return (_lengthened(g, [threshold + dice.between(-3, 4) for _ in g.blocks]),)


FAR = 50
"""Steps that devices must agree over."""


def journey(dice: Dice, target: Target) -> Example:
    """Return (walk,) of up to 50 steps, the gradients of each block of one scale."""
    like = zeros(dice, target)
    w = _strides(dice, like, dice.pick((1, 2, 5, FAR)))
    scales = [dice.between(-3, 3) for _ in like.blocks]
    return (Walk(w.start, tuple(g.shifted(scales) for g in w.gradients)),)


def batches(dice: Dice, target: Target) -> Example:
    """Return (batch,): two to four parts that agree in the signs of their entries, none much above their mean."""
    like = zeros(dice, target)
    count = 2 + dice.number(3)
    many = [dice.entries(t.shape, count) for t in like.tensors]
    signs = [np.sign(draws[0]) for draws in many]
    parts = []
    for k in range(count):
        tensors = [np.abs(draws[k]) * sign for draws, sign in zip(many, signs, strict=True)]
        part = Gradient(tuple(np.asarray(t, like.dtype) for t in tensors), like.blocks)
        parts.append(part.shifted([dice.number(3) for _ in like.blocks]))
    return (Batch(tuple(parts), tuple(1 + dice.number(9) for _ in range(count))),)
