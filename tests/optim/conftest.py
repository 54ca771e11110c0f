"""The oracle of this directory: the method as the theory writes it, block by block, in float64, with no tricks.

Nothing here imports the code under test. A test that asks for `rule` runs once for each of the six rules, one
that asks for `form` once for each of the four forms, one that asks for `dtype` in float32 and in float64.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

RULES = ("SGD", "Momentum", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
FORMS = ("", "Clip", "NG", "NGAdaptive")
DTYPES = ("float32", "float64")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, values in {"rule": RULES, "form": FORMS, "dtype": DTYPES}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=[v or "raw" for v in values])


# --- the method, block by block --------------------------------------------------------------------------


def sgd(s, g):
    return g


def momentum(s, g, momentum=0.9):
    s.b = momentum * s.b + g
    return s.b


def adagrad(s, g, eps=1e-10):
    s.v = s.v + g**2
    return g / (np.sqrt(s.v) + eps)


def rmsprop(s, g, alpha=0.99, eps=1e-8):
    s.v = alpha * s.v + (1 - alpha) * g**2
    return g / (np.sqrt(s.v) + eps)


def adadelta(s, g, rho=0.9, eps=1e-6):
    s.v = rho * s.v + (1 - rho) * g**2
    u = np.sqrt(s.b + eps) / np.sqrt(s.v + eps) * g
    s.b = rho * s.b + (1 - rho) * u**2
    return u


def adam(s, g, beta1=0.9, beta2=0.999, eps=1e-8):
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    m_hat = s.b / (1 - beta1**s.t)
    v_hat = s.v / (1 - beta2**s.t)
    return m_hat / (np.sqrt(v_hat) + eps)


TEXTBOOK = dict(zip(RULES, (sgd, momentum, adagrad, rmsprop, adadelta, adam), strict=True))


def shaped(form, g, x, clip, floor):
    """The gradient of one whole block, as its form changes it."""
    n = np.linalg.norm(g)
    if form == "" or n == 0:
        return g
    if form == "Clip":
        return g * min(1, clip / n)
    if form == "NG":
        return g / n
    return g / n * max(np.linalg.norm(x), floor * np.sqrt(g.size))


class NaiveLoop:
    """x ← x − lr(t)·rule(shape(g)), block by block; ``blocks`` lists the indices of each block's arrays."""

    def __init__(self, rule, form, arrays, blocks, lr, *, clip=1.0, floor=1e-3, **settings):
        self.arrays = [np.array(a, np.float64) for a in arrays]
        self.rule, self.form, self.blocks = TEXTBOOK[rule], form, blocks
        self.lr = lr if callable(lr) else lambda t: lr
        self.clip, self.floor, self.settings = clip, floor, settings
        self.states = [SimpleNamespace(b=0.0, v=0.0, t=0) for _ in blocks]

    def step(self, grads):
        for block, state in zip(self.blocks, self.states, strict=True):
            g = np.concatenate([np.array(grads[i], np.float64).ravel() for i in block])
            x = np.concatenate([self.arrays[i].ravel() for i in block])
            lr, state.t = self.lr(state.t), state.t + 1
            x = x - lr * self.rule(state, shaped(self.form, g, x, self.clip, self.floor), **self.settings)
            for i in block:
                size = self.arrays[i].size
                self.arrays[i] = x[:size].reshape(self.arrays[i].shape)
                x = x[size:]


# --- numbers to feed it ----------------------------------------------------------------------------------

SHAPES = {"0.W": (4, 3), "1.W": (3, 2), "0.b": (3,), "2.scale": (), "2.none": (0, 5), "3.none": (0,)}
ALL = tuple(SHAPES.values())
PARTITIONS = {
    "layer": [[0, 2], [1], [3, 4], [5]],  # layer 0 lies in two stretches of the vector; layer 3 is empty
    "tensor": [[i] for i in range(len(SHAPES))],
    "global": [list(range(len(SHAPES)))],
}


def numbers(seed, dtype="float64", shapes=ALL):
    """Random arrays of the shapes above."""
    rng = np.random.default_rng(seed)
    return [np.array(rng.standard_normal(s), dtype) for s in shapes]


def gradients(steps, dtype="float64", seed=1, shapes=ALL):
    """A list of gradients, one list of arrays a step: scales over six decades, and zeros at some steps."""
    return [list(arrays) for arrays in _gradients(steps, dtype, seed, tuple(shapes))]


@functools.cache
def _gradients(steps, dtype, seed, shapes):
    """Make them once; read-only, since many tests share them and no step may write into one."""
    rng = np.random.default_rng(seed)
    made = []
    for t in range(steps):
        scales = 10.0 ** rng.uniform(-3, 3, len(shapes))
        scales[rng.random(len(shapes)) < 0.1] = 0
        if t % 17 == 5:
            scales[:] = 0
        made.append([np.array(c * rng.standard_normal(s), dtype) for c, s in zip(scales, shapes, strict=True)])
        for a in made[-1]:
            a.setflags(write=False)
    return made


def assert_close(got, want, rtol):
    """Every array agrees to rtol of its own largest entry."""
    assert len(got) == len(want)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape
        error, size = np.abs(a - b).max(initial=0), np.abs(b).max(initial=0)
        assert error <= rtol * size, f"array {i}: off by {error:.3g} where the largest entry is {size:.3g}"


def same_bits(a, b):
    """Whether two nests of lists, dicts, arrays and numbers agree bit for bit, dtypes and shapes included."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return type(a) is type(b) and a == b


@pytest.fixture(scope="session")
def kit():
    """The oracle and its numbers: test modules cannot import one another."""
    return SimpleNamespace(
        NaiveLoop=NaiveLoop,
        SHAPES=SHAPES,
        PARTITIONS=PARTITIONS,
        numbers=numbers,
        gradients=gradients,
        assert_close=assert_close,
        same_bits=same_bits,
    )
