"""The oracle of this directory: the method as the theory writes it, block by block, in float64, with no tricks.

Nothing here imports the code under test, but for the way down from a device. A test that asks for `rule` runs once for
each of the nine rules, one that asks for `form` once for each of the four forms, one that asks for `dtype` in float32
and in float64. Numbers of the `kit` are on the device of the test; the oracle is on the host.
"""

import contextlib
import functools
import math
import zlib
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minibng.backend import is_array, to_host

RULES = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AMSGrad", "NAdam")
FORMS = ("", "Clip", "NG", "NGAdaptive")
DTYPES = ("float32", "float64")
HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, values in {"rule": RULES, "form": FORMS, "dtype": DTYPES}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=[v or "raw" for v in values])


ROWS = 8
"""So many rows of each test's table are tried on each device but the CPU, unless its module has another number."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw the rows of each test that are tried on a device, by checksums of their names: the same ones in each run.

    test_devices.py has every rule in every form there.
    """

    def table(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return item.nodeid.partition("[")[0], str(params.get("device", "cpu"))

    here = [item for item in items if item.path.parent == HERE and table(item)[1] != "cpu"]
    left_out = set()
    for _, group in groupby(sorted(here, key=table), table):
        rows = sorted(group, key=lambda item: zlib.crc32(item.name.encode()))
        left_out.update(rows[getattr(rows[0].module, "ROWS", ROWS) :])
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


# --- the method, block by block --------------------------------------------------------------------------

# A rule is a function of the state s of one block, of one gradient g, and of its settings. s.t counts steps from 1;
# a, b, m, v start at 0.


def sgd(s, g):
    return g


def momentum(s, g, momentum=0.9):
    s.b = momentum * s.b + g
    return s.b


def nesterov(s, g, momentum=0.9):
    s.b = momentum * s.b + g
    return g + momentum * s.b


def adagrad(s, g, eps=1e-10):
    s.v = s.v + g**2
    return g / (np.sqrt(s.v) + eps)


def rmsprop(s, g, alpha=0.99, eps=1e-8, momentum=0.0, centered=False):
    s.v = alpha * s.v + (1 - alpha) * g**2
    s.a = alpha * s.a + (1 - alpha) * g
    s.b = momentum * s.b + g / (np.sqrt(s.v - s.a**2 if centered else s.v) + eps)
    return s.b


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


def amsgrad(s, g, beta1=0.9, beta2=0.999, eps=1e-8):
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    s.m = np.maximum(s.m, s.v)
    m_hat = s.b / (1 - beta1**s.t)
    v_hat = s.m / (1 - beta2**s.t)
    return m_hat / (np.sqrt(v_hat) + eps)


def nadam(s, g, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3):
    mu = [beta1 * (1 - 0.96 ** (t * momentum_decay) / 2) for t in range(1, s.t + 2)]  # μ_1, …, μ_{t+1}
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    v_hat = s.v / (1 - beta2**s.t)
    ahead = mu[-1] * s.b / (1 - math.prod(mu)) + (1 - mu[-2]) * g / (1 - math.prod(mu[:-1]))
    return ahead / (np.sqrt(v_hat) + eps)


TEXTBOOK = dict(zip(RULES, (sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, amsgrad, nadam), strict=True))


def norm(a, p=2):
    """‖a‖ in one of the four norms; 0 where nothing is in a."""
    a = np.abs(a).ravel()
    if a.size == 0:
        return 0.0
    return {
        2: lambda: np.sqrt(np.sum(a**2)),
        "rms": lambda: np.sqrt(np.mean(a**2)),
        1: lambda: np.sum(a),
        math.inf: lambda: np.max(a),
    }[p]()


def shaped(normalize, g, x, clip, floor, p=2):
    """The gradient of one whole block, as its normalizer changes it."""
    n = norm(g, p)
    if normalize is None or n == 0:
        return g
    if normalize == "clip":
        return g * min(1, clip / n)
    if normalize == "unit":
        return g / n
    return g / n * max(norm(x, p), floor * norm(np.ones_like(g), p))


NORMALIZE = {"": None, "Clip": "clip", "NG": "unit", "NGAdaptive": "adaptive"}


def layer_of(name):
    return name.rpartition(".")[0] or "."


def entries(shapes, blocks, names=None):
    """The blocks as lists of positions in the vector of all arrays, one behind another.

    `blocks` is the name of a partition, or lists of the indices of arrays. Plain arrays have no names: each is a
    layer of its own.
    """
    names = names or [f"{i}.array" for i in range(len(shapes))]
    groups, start = {}, 0
    for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        positions = start + np.arange(math.prod(shape))
        start += len(positions)
        if blocks == "unit":
            last = shape[-1] if shape else 1
            parts = {(layer_of(name), last, j): positions[j::last] for j in range(last)}
        elif blocks == "coordinate":
            parts = {j: [j] for j in positions}
        elif isinstance(blocks, str):
            parts = {{"layer": layer_of(name), "tensor": name, "global": "all"}[blocks]: positions}
        else:
            parts = {next(k for k, members in enumerate(blocks) if i in members): positions}
        for key, members in parts.items():
            groups.setdefault(key, []).append(members)
    return [np.concatenate(members).astype(int) for members in groups.values()]


class NaiveLoop:
    """x ← x − lr(t)·rule(N(g)), block by block, with weight decay in one of its three places.

    `blocks` lists the indices of each block's arrays, or each block's positions in the vector of all arrays, as
    `entries` gives them; `weight_decay` is a number, or one for each array.
    """

    def __init__(
        self,
        rule,
        form,
        arrays,
        blocks,
        lr,
        *,
        norm=2,
        clip=1.0,
        floor=1e-3,
        weight_decay=0.0,
        decay="decoupled",
        **settings,
    ):
        self.shapes = [np.shape(a) for a in arrays]
        self.x = self.flat(arrays)
        self.rule, self.settings = TEXTBOOK[rule], settings
        self.normalize = NORMALIZE.get(form, form)
        self.norm, self.clip, self.floor = norm, clip, floor
        by_array = not all(isinstance(b, np.ndarray) for b in blocks)
        self.blocks = entries(self.shapes, blocks) if by_array else blocks
        each = np.broadcast_to(weight_decay, len(arrays))
        self.weight_decay = self.flat([np.full(s, c) for s, c in zip(self.shapes, each, strict=True)])
        self.decay = decay
        self.lr = lr if callable(lr) else lambda t: lr
        self.t = 0
        self.states = [SimpleNamespace(a=0.0, b=0.0, m=0.0, v=0.0, t=0) for _ in self.blocks]
        self.path = np.abs(self.x)
        """How far each entry has come, step by step; what rounding errors are measured by."""

    def flat(self, arrays):
        return np.concatenate([np.array(to_host(a), np.float64).ravel() for a in arrays])

    @property
    def arrays(self):
        cuts = np.cumsum([math.prod(s) for s in self.shapes])[:-1]
        return [part.reshape(s) for part, s in zip(np.split(self.x, cuts), self.shapes, strict=True)]

    def normalized(self, g):
        """N(g), the vector of all arrays."""
        if self.normalize == "clip-global":
            return shaped("clip", g, self.x, self.clip, self.floor, self.norm)
        n = np.empty_like(g)
        for b in self.blocks:
            n[b] = shaped(self.normalize, g[b], self.x[b], self.clip, self.floor, self.norm)
        return n

    def direction(self, g):
        """u = rule(N(g)), the decay that belongs inside with it."""
        if self.decay == "before":
            g = g + self.weight_decay * self.x
        n = self.normalized(g)
        if self.decay == "after":
            n = n + self.weight_decay * self.x
        u = np.empty_like(n)
        for b, state in zip(self.blocks, self.states, strict=True):
            state.t += 1
            u[b] = self.rule(state, n[b], **self.settings)
        return u

    def change(self, g, lr):
        u = self.direction(g)
        if self.decay == "decoupled":
            u = u + self.weight_decay * self.x
        return lr * u

    def step(self, grads):
        change = self.change(self.flat(grads), self.lr(self.t))
        self.t += 1
        self.x = self.x - change
        self.path += np.abs(change)


# --- numbers to feed it ----------------------------------------------------------------------------------

SHAPES = {"0.W": (4, 3), "1.W": (3, 2), "0.b": (3,), "2.scale": (), "2.none": (0, 5), "3.none": (0,)}
ALL = tuple(SHAPES.values())
PARTITIONS = {
    "layer": [[0, 2], [1], [3, 4], [5]],  # layer 0 lies in two stretches of the vector; layer 3 is empty
    "tensor": [[i] for i in range(len(SHAPES))],
    "global": [list(range(len(SHAPES)))],
}


def numbers(seed, dtype="float64", shapes=ALL):
    """Random arrays of the shapes above, on the host."""
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
    for i, (a, b) in enumerate(zip(map(to_host, got), map(to_host, want), strict=True)):
        assert a.shape == b.shape
        error, size = np.abs(a - b).max(initial=0), np.abs(b).max(initial=0)
        assert error <= rtol * size, f"array {i}: off by {error:.3g} where the largest entry is {size:.3g}"


def assert_follows(got, naive, dtype, rounding=8):
    """Arrays of a dtype have followed the naive loop, with no more than its steps' rounding errors between them.

    Each step makes relative errors of `rounding`·υ in what it adds, and its normalizer another (4 + √d)·υ (theory I1).
    Moments carry errors on for as long as they remember: one step's error is seen in all later ones, hence T². They
    are relative to the sizes of what was added up, which may cancel: hence an array's longest path, not its end.
    """
    unit = np.finfo(dtype).eps / 2
    longest = max((len(b) for b in naive.blocks), default=1)
    relative = unit * naive.t * (rounding * naive.t + 4 + math.sqrt(min(longest, 16384)))
    cuts = np.cumsum([math.prod(s) for s in naive.shapes])[:-1]
    for i, (a, b, path) in enumerate(zip(got, naive.arrays, np.split(naive.path, cuts), strict=True)):
        assert a.shape == b.shape and a.dtype == np.dtype(dtype)
        error, size = np.abs(to_host(a).astype(float) - b).max(initial=0), path.max(initial=0)
        assert error <= relative * size, f"array {i}: off by {error:.3g} on a path of {size:.3g}"


def same_bits(a, b):
    """Whether two nests of lists, dicts, arrays and numbers agree bit for bit, dtypes and shapes included.

    Where the arrays are does not matter.
    """
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if is_array(a) and is_array(b):
        return (a.dtype, a.shape, to_host(a).tobytes()) == (b.dtype, b.shape, to_host(b).tobytes())
    return type(a) is type(b) and a == b


def kit_of(up, no_sync):
    """The kit of tests whose arrays are where ``up`` brings them, and whose steps wait for nothing."""

    def step(opt, g):
        with no_sync():
            opt.step(g)

    return SimpleNamespace(
        NaiveLoop=NaiveLoop,
        TEXTBOOK=TEXTBOOK,
        entries=entries,
        norm=norm,
        SHAPES=SHAPES,
        PARTITIONS=PARTITIONS,
        step=step,
        numbers=lambda *args, **settings: [up(a) for a in numbers(*args, **settings)],
        gradients=lambda *args, **settings: [[up(a) for a in g] for g in gradients(*args, **settings)],
        assert_close=assert_close,
        assert_follows=assert_follows,
        same_bits=same_bits,
    )


@pytest.fixture
def kit(device):
    """The oracle, and numbers on the device of the test: test modules cannot import one another."""
    return kit_of(device.array, device.no_sync)


@pytest.fixture(scope="session")
def host_kit():
    """The same with numbers of the host."""
    return kit_of(lambda a: a, contextlib.nullcontext)
