"""Deliberately wrong optimizers, each one mistake away from a correct one that is written to be read.

A law that catches none of them tests nothing; a mistake that no law catches asks for a new law. Hand one out and let
the laws tell what is wrong: ``minibng verify mutant:missing-root``. `REFERENCES` are the correct ones, in extended
precision and with nothing of `minibng.optim`.
"""

# ruff: noqa: D102 (a method that overrides one is documented there)

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np

from minibng import optim
from minibng.backend import Array, HostArray, backend_of, to_host
from minibng.names import choose
from minibng.verify.laws import LAWS
from minibng.verify.search import search
from minibng.verify.target import Rate, Target, averaged

Grads: TypeAlias = Sequence[HostArray]
Vector: TypeAlias = Callable[[HostArray], Array]


@dataclass(frozen=True)
class Mutant:
    """A wrong optimizer: its name, the mistake in one line, and the target that laws are tried on.

    The target promises what the optimizer that it pretends to be promises.
    """

    name: str
    about: str
    target: Target


MUTANTS: dict[str, Mutant] = {}
"""Name → mutant."""

REFERENCES: dict[str, Target] = {}
"""Name of an optimizer → the correct implementation that mutants are made from."""


# Correct


def unit(g: HostArray) -> HostArray:
    """g/‖g‖ of a vector by way of extended precision, 0 for 0."""
    w = g.astype(np.longdouble)
    largest = np.abs(w).max(initial=0)
    if largest == 0:
        return g.copy()
    w = np.ldexp(w, -np.frexp(largest)[1])
    direction: HostArray = (w / np.sqrt(np.sum(w * w))).astype(g.dtype)
    return direction


def normalize_blocks(tensors: Grads) -> list[HostArray]:
    """N, each tensor a block."""
    return [unit(g.reshape(-1)).reshape(g.shape) for g in tensors]


def norm(v: HostArray) -> np.floating:
    """‖v‖ in extended precision."""
    length: np.floating = np.sqrt(np.sum(v.astype(np.longdouble) ** 2))
    return length


class SGDNG:
    """x ← x − lr·N(g), block by block."""

    like: ClassVar[str] = "SGDNG"
    mu: ClassVar[float] = 0.0
    floor: ClassVar[float] = 0.0
    accumulate = staticmethod(averaged)
    workers = staticmethod(averaged)

    def __init__(self, params: list[HostArray], lr: Rate, blocks: Sequence[Sequence[int]]) -> None:
        self.params, self.blocks, self.steps = params, blocks, 0
        self.lr: Callable[[int], float] = lr if callable(lr) else lambda step: lr
        self.m = [np.zeros_like(p) for p in params]

    def vector(self, g: HostArray, x: HostArray) -> Array:
        """Return the direction (d,) of a block with gradient g (d,), which stands at x (d,)."""
        return unit(g)

    def normalized(self, grads: Grads) -> list[HostArray]:
        """Return N(g), a tensor for each tensor: those of a block are normalized as one vector."""
        out = list(grads)
        for block in self.blocks:
            g, x = (np.concatenate([tensors[i].reshape(-1) for i in block]) for tensors in (grads, self.params))
            ends = np.cumsum([grads[i].size for i in block])[:-1]
            for i, part in zip(block, np.split(self.vector(g, x), ends), strict=True):
                out[i] = part.astype(grads[i].dtype).reshape(grads[i].shape)
        return out

    def direction(self, grads: Grads) -> list[HostArray]:
        """Return u: with μ = 0, N(g)."""
        self.m = [(self.mu * m + u).astype(u.dtype) for m, u in zip(self.m, self.normalized(grads), strict=True)]
        return self.m

    def step(self, grads: Grads) -> None:
        """Take one step."""
        for p, u in zip(self.params, self.direction(grads), strict=True):
            p -= np.asarray(self.lr(self.steps) * u, p.dtype)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return copies."""
        return {"m": [m.copy() for m in self.m], "steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.m, self.steps = [m.copy() for m in saved["m"]], saved["steps"]


class MomentumNG(SGDNG):
    """Heavy ball on the block-normalized gradient: m ← μm + N(g), x ← x − lr·m."""

    like = "MomentumNG"
    mu = 0.9


class SGDNGAdaptive(SGDNG):
    """x^i ← x^i − lr·max(‖x^i‖, floor·√d)·N(g)^i."""

    like = "SGDNGAdaptive"
    floor = 1e-3

    def size(self, x: HostArray) -> Any:
        """Return the length of a step at x (d,)."""
        return max(norm(x), self.floor * math.sqrt(x.size))

    def vector(self, g: HostArray, x: HostArray) -> Array:
        """Return the direction of a block."""
        return unit(g) * self.size(x)


class AdaGradNGAdaptive(SGDNGAdaptive):
    """AdaGrad on what adaptive NG makes of the gradient."""

    like = "AdaGradNGAdaptive"

    def direction(self, grads: Grads) -> list[HostArray]:
        """Return u = h/√Σh²."""
        scaled = self.normalized(grads)
        self.m = [m + h * h for m, h in zip(self.m, scaled, strict=True)]
        return [(h / (np.sqrt(m) + 1e-10)).astype(h.dtype) for h, m in zip(scaled, self.m, strict=True)]


class SGDClip(SGDNG):
    """x ← x − lr·g^i·min(1, 1/‖g^i‖)."""

    like = "SGDClip"

    def vector(self, g: HostArray, x: HostArray) -> Array:
        """Return the direction of a block."""
        return g if norm(g) <= 1.0 else unit(g)


def _target(cls: type[SGDNG], name: str) -> Target:
    """Return the target of a class: it promises what the minibng optimizer promises that it is like."""
    return replace(
        Target.of(getattr(optim, cls.like), name),
        make=cls,
        accumulate=cls.accumulate,
        workers=cls.workers,
        devices=("cpu",),
    )


for _reference in (SGDNG, MomentumNG, SGDNGAdaptive, AdaGradNGAdaptive, SGDClip):
    REFERENCES[_reference.like] = _target(_reference, _reference.like)
REFERENCES["normalize_blocks"] = Target.of(normalize_blocks)


# What makes a mutant


def _enter(subject: Callable[..., Any], make: Callable[[str], Target]) -> None:
    """Enter a mutant under the name of its class or function; what is wrong is the first line of its docstring."""
    name = re.sub(r"(?<!^)(?=[A-Z])|_", "-", subject.__name__).lower()
    MUTANTS[name] = Mutant(name, (inspect.getdoc(subject) or "").partition("\n")[0], make(name))


def mutant(cls: type[SGDNG]) -> type[SGDNG]:
    """Enter a wrong optimizer."""
    _enter(cls, lambda name: _target(cls, name))
    return cls


def normalizer(function: Vector) -> Vector:
    """Enter SGD-NG with this in place of g ↦ g/‖g‖, for the gradient (d,) of one block."""
    wrong = type(function.__name__, (SGDNG,), {"vector": lambda self, g, x: function(g)})
    _enter(function, lambda name: _target(wrong, name))
    return function


# Wrong norms of one block


@normalizer
def missing_root(g: HostArray) -> Array:
    """Divide by ‖g‖²: the root is missing."""
    return g / (np.sum(g * g) or 1)


@normalizer
def epsilon_added(g: HostArray) -> Array:
    """Divide by ‖g‖ + ε."""
    return g / (np.sqrt(np.sum(g * g)) + g.dtype.type(1e-8))


@normalizer
def epsilon_inside(g: HostArray) -> Array:
    """Divide by √(Σg² + ε)."""
    return g / np.sqrt(np.sum(g * g) + g.dtype.type(1e-12))


@normalizer
def epsilon_on_entries(g: HostArray) -> Array:
    """Add ε to every entry, so that nothing is divided by zero."""
    return unit(g + g.dtype.type(1e-7))


@normalizer
def max_norm(g: HostArray) -> Array:
    """Divide by the largest entry."""
    return g / (np.abs(g).max(initial=0) or g.dtype.type(1))


@normalizer
def root_mean_square(g: HostArray) -> Array:
    """Divide by the root of the mean square, not of the sum."""
    return unit(g) * np.sqrt(g.size)


@normalizer
def sign_of_entries(g: HostArray) -> Array:
    """Take the sign of each entry, over √d: each coordinate is normalized, not the block."""
    return np.sign(g) / np.sqrt(max(int(np.count_nonzero(g)), 1))


@normalizer
def last_entry_left_out(g: HostArray) -> Array:
    """Measure all entries but the last."""
    return g / (np.linalg.norm(g[:-1].astype(np.longdouble)) or 1) if g.size > 1 else unit(g)


@normalizer
def centred(g: HostArray) -> Array:
    """Subtract the mean first, as a standard deviation does."""
    return unit(g - g.mean()) if g.size > 1 else unit(g)


@normalizer
def sign_flipped(g: HostArray) -> Array:
    """Go uphill."""
    return -unit(g)


@normalizer
def sign_lost(g: HostArray) -> Array:
    """Forget the signs of the entries."""
    return np.abs(unit(g))


# Wrong arithmetic


@normalizer
def plain_squares(g: HostArray) -> Array:
    """Square entries as they are: the norm is 0 or infinite where its square is."""
    return g / np.sqrt(np.sum(g * g)) if g.any() else g


@normalizer
def nan_swallowed(g: HostArray) -> Array:
    """Divide first and then replace NaN by 0, whatever it came from."""
    return np.nan_to_num(g / np.sqrt(np.sum(g * g)), nan=0.0, posinf=0.0, neginf=0.0)


@normalizer
def nan_on_zero_block(g: HostArray) -> Array:
    """Divide zero by zero."""
    return unit(g) if g.any() else g / g.dtype.type(0)


@normalizer
def half_precision_norm(g: HostArray) -> Array:
    """Round the norm to float16."""
    h = g / (np.abs(g).max(initial=0) or g.dtype.type(1))
    return h / (np.sqrt(np.sum(h * h)).astype(np.float16) or 1)


@normalizer
def small_gradient_skipped(g: HostArray) -> Array:
    """Take a norm below 10⁻¹² for zero."""
    return unit(g) if norm(g) > 1e-12 else np.zeros_like(g)


@normalizer
def subnormals_dropped(g: HostArray) -> Array:
    """Flush subnormal entries to zero."""
    return unit(np.where(np.abs(g) < np.finfo(g.dtype).smallest_normal, 0, g).astype(g.dtype))


def in_double(tensors: Grads) -> list[HostArray]:
    """Return float64 for float32."""
    return normalize_blocks([g.astype(np.float64) for g in tensors])


_enter(in_double, lambda name: Target.of(in_double, name, dtypes=("float32", "float64")))


# Wrong blocks


@mutant
class GlobalInsteadOfBlock(SGDNG):
    """Divide all blocks by the norm of the whole gradient."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        flat = unit(np.concatenate([g.reshape(-1) for g in grads]))
        parts = np.split(flat, np.cumsum([g.size for g in grads])[:-1])
        return [u.reshape(g.shape) for u, g in zip(parts, grads, strict=True)]


@mutant
class TensorInsteadOfBlock(SGDNG):
    """Normalize each tensor of a block for itself."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        return normalize_blocks(grads)


@mutant
class BoundaryOffByOne(SGDNG):
    """Cut the blocks one entry too early."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        order = [i for block in self.blocks for i in block]
        flat = np.concatenate([grads[i].reshape(-1) for i in order])
        ends = np.cumsum([sum(grads[i].size for i in block) for block in self.blocks])[:-1]
        flat = np.concatenate([unit(part) for part in np.split(flat, np.maximum(ends - 1, 0))])
        parts = np.split(flat, np.cumsum([grads[i].size for i in order])[:-1])
        out = list(grads)
        for i, u in zip(order, parts, strict=True):
            out[i] = u.reshape(grads[i].shape)
        return out


@mutant
class BiasLeftOut(SGDNG):
    """Leave the gradients of vectors, such as biases, as they are."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        kept = [g if g.ndim > 1 else np.zeros_like(g) for g in grads]
        return [u if g.ndim > 1 else g for u, g in zip(super().normalized(kept), grads, strict=True)]


@mutant
class ShorterFurtherBack(SGDNG):
    """Divide the direction of block k by k + 1."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        place = {i: k for k, block in enumerate(self.blocks) for i in block}
        return [(u / (1 + place[i])).astype(u.dtype) for i, u in enumerate(super().normalized(grads))]


# Wrong memory


@mutant
class InPlace(SGDNG):
    """Write the normalized gradient over the caller's."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        for g, u in zip(grads, super().normalized(grads), strict=True):
            g[...] = u
        return list(grads)


@mutant
class NormalizedAfterMomentum(MomentumNG):
    """Normalize what the rule returns, not what it gets."""

    def direction(self, grads: Grads) -> list[HostArray]:
        self.m = [(self.mu * m + g).astype(g.dtype) for m, g in zip(self.m, grads, strict=True)]
        return self.normalized(self.m)


@mutant
class Dampened(MomentumNG):
    """Average, m ← μm + (1 − μ)N(g): the first steps are too short."""

    def direction(self, grads: Grads) -> list[HostArray]:
        pairs = zip(self.m, self.normalized(grads), strict=True)
        self.m = [(self.mu * m + (1 - self.mu) * u).astype(u.dtype) for m, u in pairs]
        return self.m


@mutant
class RateInside(MomentumNG):
    """Keep lr·N(g) in the memory, so that steps are too long after the rate has fallen."""

    def direction(self, grads: Grads) -> list[HostArray]:
        lr = self.lr(self.steps)
        pairs = zip(self.m, self.normalized(grads), strict=True)
        self.m = [(self.mu * m + lr * u).astype(u.dtype) for m, u in pairs]
        return [(m / lr).astype(m.dtype) for m in self.m]


@mutant
class MemoryShared(MomentumNG):
    """Look the memory up by the tensor's shape, which two blocks may share."""

    def direction(self, grads: Grads) -> list[HostArray]:
        first = {g.shape: i for i, g in reversed(list(enumerate(grads)))}
        out = []
        for u in self.normalized(grads):
            i = first[u.shape]
            self.m[i] = (self.mu * self.m[i] + u).astype(u.dtype)
            out.append(self.m[i])
        return out


@mutant
class StateNotSaved(MomentumNG):
    """Load a state without its memory."""

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.steps = saved["steps"]


@mutant
class StateNotCopied(MomentumNG):
    """Save the memory itself, not a copy, and go on writing to it."""

    def direction(self, grads: Grads) -> list[HostArray]:
        for m, u in zip(self.m, self.normalized(grads), strict=True):
            m *= self.mu
            m += u
        return self.m

    def state_dict(self) -> dict[str, Any]:
        return {"m": self.m, "steps": self.steps}


@mutant
class StaleNorm(MomentumNG):
    """Divide by the norms of the step before, the first time by the step's own."""

    norms: list[Any] | None = None

    def normalized(self, grads: Grads) -> list[HostArray]:
        norms = [norm(np.concatenate([grads[i].reshape(-1) for i in block])) or 1.0 for block in self.blocks]
        before, self.norms = self.norms or norms, norms
        out = super().normalized(grads)
        for b, block in enumerate(self.blocks):
            for i in block:
                out[i] = (out[i] * (norms[b] / before[b])).astype(out[i].dtype)
        return out


@mutant
class DecayBefore(MomentumNG):
    """Add weight decay before normalizing: a block without a gradient moves by the whole step."""

    def normalized(self, grads: Grads) -> list[HostArray]:
        return super().normalized([g + np.asarray(1e-3, g.dtype) * x for g, x in zip(grads, self.params, strict=True)])


@mutant
class OnlyLongGradients(MomentumNG):
    """Clip: short gradients stay short."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return g if norm(g) <= 1.0 else unit(g)


# Wrong sizes of adaptive NG


@mutant
class FloorWithoutSize(SGDNGAdaptive):
    """Take the same floor for blocks of every size."""

    def size(self, x: HostArray) -> Any:
        return max(norm(x), self.floor)


@mutant
class FloorAdded(SGDNGAdaptive):
    """Add the floor to ‖x‖."""

    def size(self, x: HostArray) -> Any:
        return norm(x) + self.floor * math.sqrt(x.size)


@mutant
class SizeAfterRule(AdaGradNGAdaptive):
    """Multiply by ‖x‖ after the rule, as LAMB does: there it does not cancel."""

    def direction(self, grads: Grads) -> list[HostArray]:
        self.m = [m + g * g for m, g in zip(self.m, grads, strict=True)]
        size = {b: self.size(np.concatenate([self.params[i].reshape(-1) for i in b])) for b in map(tuple, self.blocks)}
        of = {i: s for block, s in size.items() for i in block}
        pairs = enumerate(zip(grads, self.m, strict=True))
        return [(of[i] * g / (np.sqrt(m) + 1e-10)).astype(g.dtype) for i, (g, m) in pairs]


# Wrong clipping


@mutant
class ClipInverted(SGDClip):
    """Multiply by the inverse of the factor that clips."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return g * max(1.0, norm(g))


@mutant
class ClipAlways(SGDClip):
    """Bring every gradient to the threshold, short ones too."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return unit(g)


@mutant
class ClipEntries(SGDClip):
    """Clip each entry for itself."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return np.clip(g, -1, 1)


@mutant
class ClipSquared(SGDClip):
    """Divide by the square of the norm outside the ball."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return g if norm(g) <= 1.0 else unit(g) / norm(g)


@mutant
class ClipEpsilon(SGDClip):
    """Multiply by min(1, c/(‖g‖ + ε)) with an ε of 10⁻³, which shortens gradients inside the ball."""

    def vector(self, g: HostArray, x: HostArray) -> Array:
        return g * min(1.0, 1.0 / (norm(g) + 1e-3))


# Wrong sums over micro-batches and workers


def _unweighted(grads: list[list[Array]], weights: list[float]) -> list[Array]:
    return averaged(grads, [1.0] * len(weights))


def _normalized_first(grads: list[list[Array]], weights: list[float]) -> list[Array]:
    return averaged([list(normalize_blocks(part)) for part in grads], weights)


@mutant
class MicroBatchesNormalizedFirst(SGDNG):
    """Average the normalized gradients of micro-batches."""

    accumulate = staticmethod(_normalized_first)


@mutant
class MicroBatchesUnweighted(SGDNG):
    """Count a small micro-batch as much as a large one."""

    accumulate = staticmethod(_unweighted)


@mutant
class WorkersNormalizedFirst(SGDNG):
    """Average the normalized gradients of workers."""

    workers = staticmethod(_normalized_first)


@mutant
class WorkersUnweighted(SGDNG):
    """Count a worker with few samples as much as one with many."""

    workers = staticmethod(_unweighted)


# Wrong on a device


class OneDeviceInHalf:
    """Round gradients to float16 wherever they are not on the host."""

    def __init__(self, params: list[Array], lr: Rate, blocks: Any) -> None:
        self.params, self.optimizer = params, optim.get("momentum-ng")(params, lr=lr, blocks=blocks)
        self.state_dict, self.load_state_dict = self.optimizer.state_dict, self.optimizer.load_state_dict

    def step(self, grads: list[Array]) -> None:
        """Take one step."""
        away = not backend_of(*grads).on_host
        self.optimizer.step([_halved(g) for g in grads] if away else grads)


def _halved(g: Array) -> Array:
    return backend_of(g).asarray(to_host(g).astype(np.float16).astype(g.dtype))


_enter(OneDeviceInHalf, lambda name: replace(Target.of(optim.MomentumNG, name), make=OneDeviceInHalf))


# Laws × mutants


def expected(target: Target) -> tuple[str, ...]:
    """Return the laws that a target promises and that can be posed for it, by name."""
    names = LAWS if target.promises is None else target.promises
    return tuple(name for name in LAWS if name in names and not LAWS[name].posed(target))


def matrix(
    names: Iterable[str] | None = None, laws: Iterable[str] | None = None, examples: int = 100, seed: int = 0
) -> dict[str, tuple[str, ...]]:
    """Return which laws each mutant breaks, among those that the optimizer it pretends to be keeps.

    Parameters
    ----------
    names
        Of mutants; by default all.
    laws
        Which to try; by default all.
    examples, seed
        As of `verify.search`.

    Examples
    --------
    >>> matrix(["nan-on-zero-block"], ["unit-norm", "finite", "zero-block"], examples=50)
    {'nan-on-zero-block': ('finite', 'zero-block')}
    """
    broken, kept = {}, {choose(LAWS, law, "law").name for law in (LAWS if laws is None else laws)}
    for name in MUTANTS if names is None else names:
        target = choose(MUTANTS, name, "mutant").target
        tried = (law for law in expected(target) if law in kept)
        broken[name] = tuple(law for law in tried if search(LAWS[law], target, examples, seed, shrink=False))
    return broken


def to_markdown(broken: Mapping[str, Sequence[str]]) -> str:
    """Return what `matrix` found as a table in Markdown: a row a mutant."""
    rows = [f"| {name} | {MUTANTS[name].about} | {', '.join(laws) or 'none'} |" for name, laws in broken.items()]
    return "\n".join(["| mutant | mistake | laws that it breaks |", "|---|---|---|", *rows])
