"""Long random programs: up to thirty operations in any order, their gradient against PyTorch's and against differences.

A program is a list of steps; each takes arrays that are already there, in shapes that suit it, and adds its result. The
value is the sum of all means, so that every step takes part in the gradient.
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng import grad, hvp, ops
from minibng.autodiff import raw
from minibng.backend import backend_of

try:
    import torch
except ImportError:
    torch = None

MOST_ENTRIES, TOO_LARGE = 48, 8.0


class Kind(NamedTuple):
    """A kind of step: which shapes it takes, its settings for them, and how each library writes it."""

    suits: Any  # of the shapes
    draw: Any  # strategy for the settings, of the shapes
    ours: Any  # of arrays and settings
    theirs: Any = None  # of tensors and settings; None: as ours
    smooth: bool = True


def anything(s):
    return True


def has_axes(s):
    return len(s) > 0 and 0 not in s


def square(s):
    return len(s) >= 2 and s[-1] == s[-2] <= 4


def broadcasts(a, b):
    return all(m == n or 1 in (m, n) for m, n in zip(a[::-1], b[::-1], strict=False))


def axis_of(s):
    return st.integers(-len(s), len(s) - 1)


def nothing(*shapes):
    return st.none()


def unary(ours, theirs=None, smooth=True):
    return Kind(anything, nothing, lambda x, _: ours(x), lambda x, _: (theirs or ours)(x), smooth)


def binary(ours, theirs=None, smooth=True):
    return Kind(broadcasts, nothing, lambda a, b, _: ours(a, b), lambda a, b, _: (theirs or ours)(a, b), smooth)


def along(ours, theirs, smooth=True):
    return Kind(has_axes, axis_of, ours, theirs, smooth)


def t_eye(x):
    return torch.eye(x.shape[-1], dtype=x.dtype)


def matrices(a, b):
    """Tell PyTorch that b holds matrices: with one axis less than a it would take them for vectors, unlike NumPy."""
    return b.expand(*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])


def n_eye(x):
    return backend_of(raw(x)).xp.eye(x.shape[-1])


def permutations(s):
    return st.permutations(range(len(s)))


KINDS = {
    "sin": unary(np.sin, lambda x: torch.sin(x)),
    "tanh": unary(np.tanh, lambda x: torch.tanh(x)),
    "exp": unary(lambda x: np.exp(-x * x), lambda x: torch.exp(-x * x)),
    "expm1": unary(lambda x: np.expm1(np.cos(x)), lambda x: torch.expm1(torch.cos(x))),
    "log": unary(lambda x: np.log(x * x + 0.5), lambda x: torch.log(x * x + 0.5)),
    "log1p": unary(lambda x: np.log1p(x**2), lambda x: torch.log1p(x**2)),
    "sqrt": unary(lambda x: np.sqrt(x * x + 0.3), lambda x: torch.sqrt(x * x + 0.3)),
    "arctan": unary(np.arctan, lambda x: torch.arctan(x)),
    "arcsinh": unary(np.arcsinh, lambda x: torch.arcsinh(x)),
    "negative": unary(lambda x: 0.7 - x),
    "reciprocal": unary(lambda x: 1 / (1 + x * x)),
    "abs": unary(np.abs, lambda x: torch.abs(x), smooth=False),
    "clip": unary(lambda x: np.clip(x, -0.6, 0.9), lambda x: torch.clamp(x, -0.6, 0.9), smooth=False),
    "where": unary(lambda x: np.where(x > 0.2, x * x, -x), lambda x: torch.where(x > 0.2, x * x, -x), smooth=False),
    "add": binary(lambda a, b: a + b),
    "subtract": binary(lambda a, b: a - b),
    "multiply": binary(lambda a, b: a * b),
    "divide": binary(lambda a, b: a / (b * b + 0.5)),
    "power": binary(lambda a, b: (a * a + 0.5) ** np.tanh(b), lambda a, b: (a * a + 0.5) ** torch.tanh(b)),
    "hypot": binary(lambda a, b: np.hypot(a, b + 9), lambda a, b: torch.hypot(a, b + 9)),
    "arctan2": binary(lambda a, b: np.arctan2(a, b * b + 0.5), lambda a, b: torch.arctan2(a, b * b + 0.5)),
    "logaddexp": binary(np.logaddexp, lambda a, b: torch.logaddexp(a, b)),
    "maximum": binary(np.maximum, lambda a, b: torch.maximum(a, b), smooth=False),
    "sum": along(lambda x, i: np.sum(x, i), lambda x, i: torch.sum(x, i)),
    "mean": along(lambda x, i: x.mean(axis=i, keepdims=True), lambda x, i: x.mean(i, keepdim=True)),
    "var": along(lambda x, i: np.var(x, axis=i), lambda x, i: torch.var(x, i, correction=0)),
    "prod": along(lambda x, i: np.prod(np.sin(x), axis=i), lambda x, i: torch.prod(torch.sin(x), i)),
    "max": along(lambda x, i: np.max(x, axis=i), lambda x, i: torch.amax(x, i), smooth=False),
    "cumsum": along(lambda x, i: np.cumsum(x, axis=i), lambda x, i: torch.cumsum(x, i)),
    "cumprod": along(lambda x, i: np.cumprod(np.cos(x), axis=i), lambda x, i: torch.cumprod(torch.cos(x), i)),
    "sort": along(lambda x, i: np.sort(x, axis=i), lambda x, i: torch.sort(x, dim=i, stable=True)[0], smooth=False),
    "flip": along(lambda x, i: np.flip(x, i), lambda x, i: torch.flip(x, (i,))),
    "diff": Kind(
        lambda s: has_axes(s) and s[0] > 1, nothing, lambda x, _: np.diff(x, axis=0), lambda x, _: torch.diff(x, dim=0)
    ),
    "norm": along(lambda x, i: np.linalg.norm(x + 9, axis=i), lambda x, i: torch.linalg.vector_norm(x + 9, dim=i)),
    "reshape": Kind(anything, nothing, lambda x, _: x.reshape(-1), None),
    "transpose": Kind(anything, permutations, lambda x, p: np.transpose(x, p), lambda x, p: x.permute(p)),
    "expand_dims": Kind(lambda s: len(s) < 4, nothing, lambda x, _: np.expand_dims(x, 0), lambda x, _: x.unsqueeze(0)),
    "tile": Kind(has_axes, nothing, lambda x, _: np.tile(x, 2), lambda x, _: torch.tile(x, (2,))),
    "roll": Kind(has_axes, lambda s: st.integers(-3, 3), lambda x, k: np.roll(x, k), lambda x, k: torch.roll(x, k)),
    "getitem": Kind(has_axes, lambda s: st.integers(-s[0], s[0] - 1), lambda x, i: x[i], None),
    "slice": Kind(has_axes, lambda s: st.integers(0, s[0] - 1), lambda x, i: x[i:], None),
    "take": Kind(
        has_axes,
        lambda s: st.lists(st.integers(0, s[-1] - 1), min_size=1, max_size=4),
        lambda x, i: ops.take(x, i, axis=-1),
        lambda x, i: x[..., i],
    ),
    "concatenate": Kind(
        lambda a, b: has_axes(a) and has_axes(b) and a[1:] == b[1:],
        nothing,
        lambda a, b, _: np.concatenate([a, b]),
        lambda a, b, _: torch.cat([a, b]),
    ),
    "stack": Kind(
        lambda a, b: a == b and len(a) < 4,
        nothing,
        lambda a, b, _: np.stack([a, b], axis=-1),
        lambda a, b, _: torch.stack([a, b], dim=-1),
    ),
    "pad": Kind(
        has_axes,
        lambda s: st.tuples(st.integers(0, 2), st.integers(0, 2)),
        lambda x, w: np.pad(x, [(0, 0)] * (x.ndim - 1) + [w]),
        lambda x, w: torch.nn.functional.pad(x, w),
    ),
    "matmul": Kind(
        lambda a, b: len(a) >= 2 and len(b) >= 2 and a[-1] == b[-2] and broadcasts(a[:-2], b[:-2]),
        nothing,
        lambda a, b, _: a @ b,
        lambda a, b, _: a @ b,
    ),
    "outer": Kind(
        lambda a, b: len(a) == len(b) == 1,
        nothing,
        lambda a, b, _: np.einsum("i,j->ij", a, b),
        lambda a, b, _: torch.einsum("i,j->ij", a, b),
    ),
    "einsum": Kind(
        lambda a, b: len(a) >= 1 and len(b) >= 1 and a[-1] == b[-1],
        nothing,
        lambda a, b, _: np.einsum("...i,...i->...", a, np.sin(b.reshape(-1, b.shape[-1])[0])),
        lambda a, b, _: torch.einsum("...i,...i->...", a, torch.sin(b.reshape(-1, b.shape[-1])[0])),
    ),
    "diagonal": Kind(
        square, nothing, lambda x, _: np.einsum("...ii->...i", x), lambda x, _: torch.diagonal(x, dim1=-2, dim2=-1)
    ),
    "tril": Kind(lambda s: len(s) >= 2, nothing, lambda x, _: np.tril(x), lambda x, _: torch.tril(x)),
    "solve": Kind(
        lambda a, b: square(a) and len(b) >= 2 and a[-1] == b[-2] and broadcasts(a[:-2], b[:-2]),
        nothing,
        lambda a, b, _: np.linalg.solve(np.tanh(a) + 5 * n_eye(a), b),
        lambda a, b, _: torch.linalg.solve(torch.tanh(a) + 5 * t_eye(a), matrices(a, b)),
    ),
    "det": Kind(
        square,
        nothing,
        lambda x, _: np.linalg.det(np.sin(x) / 4 + n_eye(x)),
        lambda x, _: torch.linalg.det(torch.sin(x) / 4 + t_eye(x)),
    ),
    "cholesky": Kind(
        square,
        nothing,
        lambda x, _: np.linalg.cholesky(np.sin(x) @ np.sin(x).mT + n_eye(x)),
        lambda x, _: torch.linalg.cholesky(torch.sin(x) @ torch.sin(x).mT + t_eye(x)),
    ),
}


class Step(NamedTuple):
    kind: str
    operands: tuple[int, ...]
    setting: Any
    damped: bool  # the result is divided by a constant, so that no program grows without bound


PAIRS = {"add", "subtract", "multiply", "divide", "power", "hypot", "arctan2", "logaddexp", "maximum"}
PAIRS |= {"concatenate", "stack", "matmul", "outer", "einsum", "solve"}
ARITY = {name: 2 if name in PAIRS else 1 for name in KINDS}


@st.composite
def programs(draw, kinds, longest=30):
    """Shapes of the inputs, a seed for their entries, and steps that suit them."""
    side = st.integers(1, 3)
    shapes = draw(st.lists(st.lists(side, max_size=3).map(tuple), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**16))
    values, steps = inputs(shapes, seed), []
    for _ in range(draw(st.integers(1, longest))):
        first = draw(st.integers(0, len(values) - 1))
        ways = [(k, (first,)) for k in kinds if ARITY[k] == 1 and KINDS[k].suits(values[first].shape)]
        ways += [
            (k, (first, second)) for k in kinds if ARITY[k] == 2
            for second in range(len(values)) if KINDS[k].suits(values[first].shape, values[second].shape)
        ]  # fmt: skip
        kind, operands = draw(st.sampled_from(ways))
        setting = draw(KINDS[kind].draw(*[values[i].shape for i in operands]))
        value = KINDS[kind].ours(*[values[i] for i in operands], setting)
        if 0 < np.size(value) <= MOST_ENTRIES:
            damped = bool(np.max(np.abs(value)) > TOO_LARGE)
            steps.append(Step(kind, operands, setting, damped))
            values.append(np.asarray(value / TOO_LARGE if damped else value))
    return shapes, seed, steps


def inputs(shapes, seed):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1.5, 1.5, s) for s in shapes]


def run(steps, values, way):
    """Return the sum of the means of all values that the program makes."""
    values = list(values)
    for kind, operands, setting, damped in steps:
        f = getattr(KINDS[kind], way) or KINDS[kind].ours
        value = f(*[values[i] for i in operands], setting)
        values.append(value / TOO_LARGE if damped else value)
    return sum(v.mean() for v in values)


def close(ours, theirs, rtol):
    scale = max(1.0, *(float(np.max(np.abs(t), initial=0.0)) for t in theirs))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


@pytest.mark.peer
@settings(max_examples=250)
@given(programs(list(KINDS)))
def test_gradient_and_hessian_product_are_torch_s(program):
    shapes, seed, steps = program
    xs, vs = inputs(shapes, seed), inputs(shapes, seed + 1)
    tensors = [torch.tensor(x, requires_grad=True) for x in xs]
    value = run(steps, tensors, "theirs")
    first = torch.autograd.grad(value, tensors, create_graph=True)
    close(grad(lambda xs: run(steps, xs, "ours"))(xs), [g.numpy(force=True) for g in first], 1e-9)
    if len(steps) > 12:
        return
    slope = sum((g * torch.tensor(v)).sum() for g, v in zip(first, vs, strict=True))
    none = [None] * len(tensors)
    second = torch.autograd.grad(slope, tensors, allow_unused=True) if slope.requires_grad else none
    expected = [np.zeros(x.shape) if s is None else s.numpy(force=True) for x, s in zip(xs, second, strict=True)]
    close(hvp(lambda xs: run(steps, xs, "ours"))(xs, vs), expected, 1e-8)


@settings(max_examples=160)
@given(program=programs([k for k in KINDS if KINDS[k].smooth]))
def test_gradient_agrees_with_differences_along_a_direction(device, program):
    shapes, seed, steps = program
    xs, vs = inputs(shapes, seed), inputs(shapes, seed + 1)
    looks = any(step.kind == "det" for step in steps)  # whether a matrix is singular
    with contextlib.nullcontext() if looks else device.no_sync():
        gradient = grad(lambda xs: run(steps, xs, "ours"))(device.arrays(xs))
    gradient = device.host(gradient)
    if device.name == "strict":
        for got, want in zip(gradient, grad(lambda xs: run(steps, xs, "ours"))(xs), strict=True):
            np.testing.assert_array_equal(got, want)
    exact = sum(float(np.sum(g * v)) for g, v in zip(gradient, vs, strict=True))
    size = sum(float(np.sum(np.abs(g * v))) for g, v in zip(gradient, vs, strict=True))

    def along(h):
        return float(run(steps, [x + h * v for x, v in zip(xs, vs, strict=True)], "ours"))

    def slope(h):
        return (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)

    measured = min((slope(h) for h in (1e-3, 1e-4, 1e-5)), key=lambda m: abs(m - exact))
    np.testing.assert_allclose(exact, measured, rtol=1e-5, atol=1e-6 * max(1.0, size))


@pytest.mark.slow
def test_the_generator_reaches_every_kind_of_step():
    seen, lengths = set(), []

    @settings(max_examples=400, database=None)
    @given(programs(list(KINDS)))
    def collect(program):
        seen.update(step.kind for step in program[2])
        lengths.append(len(program[2]))

    collect()
    assert seen == set(KINDS)
    assert max(lengths) > 25 and np.mean(lengths) > 5
