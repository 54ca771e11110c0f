"""A second implementation, written to be read, and two dozen wrong ones: each law catches one, each is caught."""

import numpy as np
import pytest

from minibng import optim
from minibng.verify import LAWS, Target, run, search


def unit(g):
    """g/‖g‖ by way of extended precision."""
    w = g.astype(np.longdouble)
    largest = np.abs(w).max(initial=0)
    if largest == 0:
        return g.copy()
    w = np.ldexp(w, -np.frexp(largest)[1])
    return (w / np.sqrt(np.sum(w * w))).astype(g.dtype)


def reference(blocks):
    return [unit(g) for g in blocks]


def missing_root(blocks):
    return [g / (np.sum(g * g) or 1) for g in blocks]


def epsilon_added(blocks):
    return [g / (np.sqrt(np.sum(g * g)) + g.dtype.type(1e-8)) for g in blocks]


def epsilon_inside(blocks):
    return [g / np.sqrt(np.sum(g * g) + g.dtype.type(1e-12)) for g in blocks]


def epsilon_on_entries(blocks):
    return [unit(g + g.dtype.type(1e-7)) for g in blocks]


def global_norm(blocks):
    flat = unit(np.concatenate([g.reshape(-1) for g in blocks]))
    parts = np.split(flat, np.cumsum([g.size for g in blocks])[:-1])
    return [p.reshape(g.shape) for p, g in zip(parts, blocks, strict=True)]


def boundary_off_by_one(blocks):
    flat = np.concatenate([g.reshape(-1) for g in blocks])
    ends = np.cumsum([g.size for g in blocks])[:-1]
    flat = np.concatenate([unit(p) for p in np.split(flat, np.maximum(ends - 1, 0))])
    return [p.reshape(g.shape) for p, g in zip(np.split(flat, ends), blocks, strict=True)]


def max_norm(blocks):
    return [g / (np.abs(g).max(initial=0) or g.dtype.type(1)) for g in blocks]


def root_mean_square(blocks):
    return [(unit(g) * np.sqrt(g.size)).astype(g.dtype) for g in blocks]


def nan_on_zero_block(blocks):
    return [unit(g) if g.any() else g / g.dtype.type(0) for g in blocks]


def plain_sum(blocks):
    """Over- and underflows: the norm is 0 or infinite where its square is."""
    return [g / np.sqrt(np.sum(g * g)) if g.any() else g.copy() for g in blocks]


def half_precision_norm(blocks):
    half = [g / (np.abs(g).max(initial=0) or g.dtype.type(1)) for g in blocks]
    return [(h / (np.sqrt(np.sum(h * h)).astype(np.float16) or 1)).astype(h.dtype) for h in half]


def sign_flipped(blocks):
    return [-unit(g) for g in blocks]


def sign_lost(blocks):
    return [np.abs(unit(g)) for g in blocks]


def centred(blocks):
    """g minus its mean over its standard deviation: Keras' "std" normalization, but for its ε."""
    return [unit(g - g.mean()) if g.size > 1 else unit(g) for g in blocks]


def last_entry_left_out(blocks):
    """The norm runs over all entries but the last."""
    return [
        g / (np.linalg.norm(g.reshape(-1)[:-1].astype(np.longdouble)) or 1).astype(g.dtype) if g.size > 1 else unit(g)
        for g in blocks
    ]


def subnormals_dropped(blocks):
    return [unit(np.where(np.abs(g) < np.finfo(g.dtype).smallest_normal, 0, g).astype(g.dtype)) for g in blocks]


def in_place(blocks):
    for g in blocks:
        g[...] = unit(g)
    return blocks


def in_double(blocks):
    return [unit(g.astype(np.float64)) for g in blocks]


def depends_on_place(blocks):
    """Blocks further back are shortened."""
    return [(unit(g) / (1 + k)).astype(g.dtype) for k, g in enumerate(blocks)]


class Reference:
    """Heavy ball on the block-normalized gradient: m ← μm + N(g), x ← x − lr·m."""

    mu = 0.9

    def __init__(self, params, lr, blocks):
        self.params, self.blocks, self.steps = params, blocks, 0
        self.lr = lr if callable(lr) else lambda step: lr
        self.m = [np.zeros_like(p) for p in params]

    def length(self, i, block):
        return 1.0

    def normalized(self, grads):
        out = list(grads)
        for b, block in enumerate(self.blocks):
            u = unit(np.concatenate([grads[i].reshape(-1) for i in block]))
            parts = np.split(u, np.cumsum([grads[i].size for i in block])[:-1])
            for i, p in zip(block, parts, strict=True):
                out[i] = np.asarray(p * self.length(b, block), p.dtype).reshape(grads[i].shape)
        return out

    def direction(self, grads):
        self.m = [np.asarray(self.mu * m + g, g.dtype) for m, g in zip(self.m, self.normalized(grads), strict=True)]
        return self.m

    def step(self, grads):
        for p, u in zip(self.params, self.direction(grads), strict=True):
            p -= np.asarray(self.lr(self.steps) * u, p.dtype)
        self.steps += 1

    def state_dict(self):
        return {"m": [m.copy() for m in self.m], "steps": self.steps}

    def load_state_dict(self, saved):
        self.m, self.steps = [m.copy() for m in saved["m"]], saved["steps"]


class NormalizedAfterMomentum(Reference):
    def direction(self, grads):
        self.m = [np.asarray(self.mu * m + g, g.dtype) for m, g in zip(self.m, grads, strict=True)]
        return self.normalized(self.m)


class Dampened(Reference):
    """m is an average: the first steps are too short."""

    def direction(self, grads):
        pairs = zip(self.m, self.normalized(grads), strict=True)
        self.m = [np.asarray(self.mu * m + (1 - self.mu) * g, g.dtype) for m, g in pairs]
        return self.m


class StateNotSaved(Reference):
    def load_state_dict(self, saved):
        self.steps = saved["steps"]


class StateNotCopied(Reference):
    def direction(self, grads):
        for m, g in zip(self.m, self.normalized(grads), strict=True):
            m *= self.mu
            m += g
        return self.m

    def state_dict(self):
        return {"m": self.m, "steps": self.steps}


class StaleNorm(Reference):
    """Divides by the norms of the step before, the first time by its own."""

    norms = None

    def normalized(self, grads):
        fresh = super().normalized(grads)
        norms = [max((np.linalg.norm(grads[i]) for i in block), default=0) or 1 for block in self.blocks]
        before, self.norms = self.norms or norms, norms
        for b, block in enumerate(self.blocks):
            for i in block:
                fresh[i] = np.asarray(fresh[i] * (norms[b] / before[b]), fresh[i].dtype)
        return fresh


class DecayBefore(Reference):
    """Weight decay inside the norm: x moves although its gradient is zero."""

    def normalized(self, grads):
        return super().normalized([g + np.asarray(1e-3, g.dtype) * p for g, p in zip(grads, self.params, strict=True)])


class Clipped(Reference):
    """Shortens long gradients only."""

    def normalized(self, grads):
        return [np.asarray(g * min(1, 1 / (np.linalg.norm(g) or 1)), g.dtype) for g in grads]


class Adaptive(Reference):
    """SGD on the block-normalized gradient, as long as max(‖x‖, floor·√d)."""

    mu, floor = 0.0, 1e-3

    def sizes(self, block):
        x = np.concatenate([self.params[i].reshape(-1) for i in block]).astype(np.float64)
        return np.linalg.norm(x), x.size

    def length(self, i, block):
        norm, d = self.sizes(block)
        return max(norm, self.floor * d**0.5)


class FloorWithoutSize(Adaptive):
    def length(self, i, block):
        return max(self.sizes(block)[0], self.floor)


class FloorAdded(Adaptive):
    def length(self, i, block):
        norm, d = self.sizes(block)
        return norm + self.floor * d**0.5


class SizeAfterRule(Adaptive):
    """AdaGrad with ‖x‖ put in after the rule, as LAMB does after Adam: a constant factor does not cancel."""

    def direction(self, grads):
        self.m = [np.asarray(m + g * g, g.dtype) for m, g in zip(self.m, grads, strict=True)]
        size = {i: self.length(b, block) for b, block in enumerate(self.blocks) for i in block}
        pairs = enumerate(zip(self.m, grads, strict=True))
        return [np.asarray(size[i] * g / (np.sqrt(m) + 1e-10), g.dtype) for i, (m, g) in pairs]


CAUGHT = {
    missing_root: "unit-norm scale-invariance power-of-two-invariance inner-product idempotence",
    epsilon_added: "unit-norm scale-invariance power-of-two-invariance idempotence loss-scale-first-step",
    epsilon_inside: "unit-norm scale-invariance power-of-two-invariance loss-scale-first-step",
    epsilon_on_entries: "sign-symmetry same-direction zero-block signed-permutation",
    global_norm: "unit-norm block-independence",
    boundary_off_by_one: "unit-norm same-direction block-independence block-permutation",
    max_norm: "unit-norm inner-product orthogonal-equivariance",
    root_mean_square: "unit-norm inner-product",
    nan_on_zero_block: "finite zero-block",
    plain_sum: "unit-norm scale-invariance finite",
    half_precision_norm: "unit-norm inner-product",
    sign_flipped: "same-direction inner-product idempotence",
    sign_lost: "same-direction sign-symmetry signed-permutation orthogonal-equivariance",
    centred: "same-direction orthogonal-equivariance signed-permutation",
    last_entry_left_out: "unit-norm signed-permutation orthogonal-equivariance",
    subnormals_dropped: "unit-norm same-direction",
    in_place: "inputs-preserved",
    in_double: "inputs-preserved",
    depends_on_place: "unit-norm block-permutation",
    NormalizedAfterMomentum: "step-length loss-scale",
    Dampened: "step-length",
    StateNotSaved: "resume",
    StateNotCopied: "resume",
    StaleNorm: "loss-scale step-length",
    DecayBefore: "idle-block",
    Clipped: "loss-scale loss-scale-first-step unit-norm",
    FloorWithoutSize: "adaptive-length",
    FloorAdded: "adaptive-length adaptive-scaling",
    SizeAfterRule: "constant-factor",
}
PAIRS = [(fault, name) for fault, names in CAUGHT.items() for name in names.split()]


def target(subject):
    if not isinstance(subject, type):
        return Target.of(subject, dtypes=("float32", "float64"))
    floor = subject.floor if issubclass(subject, Adaptive) else None
    return Target(subject.__name__, make=subject, momentum=subject.mu, floor=floor)


@pytest.mark.parametrize(("fault", "name"), PAIRS, ids=lambda v: getattr(v, "__name__", v))
def test_law_catches_fault(fault, name):
    assert search(LAWS[name], target(fault), examples=300, shrink=False) is not None


def test_every_law_catches_a_fault():
    assert {name for _, name in PAIRS} == set(LAWS)


@pytest.mark.parametrize("name", Target.of(optim.normalize_blocks).promises)
def test_reference_normalizer_keeps(name):
    run(LAWS[name], Target.of(reference), examples=20)


@pytest.mark.parametrize("name", Target.of(optim.MomentumNG).promises)
def test_reference_optimizer_keeps(name):
    run(LAWS[name], target(Reference), examples=10)


@pytest.mark.parametrize("name", Target.of(optim.SGDNGAdaptive).promises)
def test_reference_adaptive_keeps(name):
    run(LAWS[name], target(Adaptive), examples=10)


@pytest.mark.parametrize("fault", [epsilon_added, global_norm, plain_sum], ids=lambda f: f.__name__)
def test_fault_is_told_in_words(fault):
    with pytest.raises(AssertionError) as caught:
        run(LAWS["unit-norm"], target(fault))
    text = str(caught.value)
    assert text.startswith(LAWS["unit-norm"].statement)
    assert fault.__name__ in text and "allowed" in text and "block 0, of shape" in text
