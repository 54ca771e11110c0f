"""Every operation against three oracles that share no code with it: our checker's differences, plain differences of
this file, and PyTorch. The table of cases must name every registered operation. On a device every case must give the
CPU's numbers without waiting, so that the oracles need to be asked on the CPU only."""

import contextlib
import inspect
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from minibng.autodiff import check_grads, hvp, ops, raw, vjp
from minibng.autodiff.tracer import FUSED, PRIMITIVES
from minibng.backend import SyncError, backend_of
from minibng.backend.convolution import Geometry
from minibng.nn.batchnorm import moments
from minibng.nn.pooling import Windows

try:
    import torch
except ImportError:  # the tests marked `peer` then skip
    torch = None

RNG = np.random.default_rng(20240607)


class Case(NamedTuple):
    op: str
    label: str
    args: tuple[Any, ...]  # differentiated
    ours: Any  # of arrays, or of traced values
    theirs: Any  # the same of torch tensors


CASES: list[Case] = []
GOLDEN = itertools.count()


def case(op, label, args, ours, theirs):
    args = tuple(a if type(a) is float else np.asarray(a) for a in args)
    CASES.append(Case(op, label, args, ours, theirs))


def beside(constant, x):
    """A constant of a case where x is: its arrays, and the lists of an index, are brought to the device of x."""
    backend = backend_of(raw(x))
    if isinstance(constant, tuple):
        return tuple(beside(part, x) for part in constant)
    moved = isinstance(constant, (list, np.ndarray)) and not backend.on_host
    return backend.asarray(constant) if moved else constant


def normal(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.5, 2.0, shape)


def inside(*shape):
    return RNG.uniform(-0.8, 0.8, shape)


def off_zero(*shape):
    return RNG.uniform(0.3, 1.5, shape) * RNG.choice([-1.0, 1.0], shape)


def distinct(*shape):
    """Entries no two of which are close, in one draw or in draws that follow each other (golden ratio)."""
    n = int(np.prod(shape))
    return (np.array([next(GOLDEN) for _ in range(n)]) * 0.6180339887 % 1 * 6 - 3).reshape(shape)


def apart(*shape):
    """Entries no two of which are closer than 0.1, in random order."""
    n = int(np.prod(shape))
    return ((RNG.permutation(n) - n / 2) * 0.2 + RNG.uniform(0.0, 0.1, n) + 0.05).reshape(shape)


# Elementwise

SHAPES = [(), (3,), (2, 3), (1,), (3, 1), (0,), (2, 0, 3)]
PAIRS = [
    ((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((4, 1, 3), (2, 1)),
    ((2, 3), ()), ((), (2, 3)), ((0, 3), (3,)), ((1,), (2, 1)), ((2, 1), (2, 0)), ((1, 1), (1,)),
]  # fmt: skip


def unary(op, draw, theirs):
    for shape in SHAPES:
        case(op, f"{shape}", [draw(*shape)], getattr(ops, op), theirs)
    case(op, "python float", [float(draw())], getattr(ops, op), theirs)


unary("negative", normal, lambda x: -x)
unary("exp", normal, lambda x: torch.exp(x))
unary("log", positive, lambda x: torch.log(x))
unary("sqrt", positive, lambda x: torch.sqrt(x))
unary("square", normal, lambda x: torch.square(x))
unary("tanh", normal, lambda x: torch.tanh(x))
unary("abs", off_zero, lambda x: torch.abs(x))
unary("relu", off_zero, lambda x: torch.relu(x))
unary("sign", off_zero, lambda x: torch.sign(x))
for _op in ["sin", "cos", "sinh", "cosh", "arcsinh", "arctan", "exp2", "expm1", "deg2rad", "rad2deg", "positive"]:
    unary(_op, normal, lambda x, op=_op: getattr(torch, op)(x))
for _op in ("log2", "log10", "log1p", "reciprocal"):
    unary(_op, positive, lambda x, op=_op: getattr(torch, op)(x))
for _op in ("arcsin", "arccos", "arctanh", "tan"):
    unary(_op, inside, lambda x, op=_op: getattr(torch, op)(x))
unary("arccosh", lambda *shape: 1.0 + positive(*shape), lambda x: torch.arccosh(x))
unary("cbrt", off_zero, lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3))
unary("fabs", off_zero, lambda x: torch.abs(x))
unary("absolute", off_zero, lambda x: torch.abs(x))
for _shape in SHAPES:
    case("root", f"{_shape}", [positive(*_shape)], PRIMITIVES["root"], lambda x: torch.sqrt(x))


def binary(op, draw, theirs):
    f = getattr(ops, op)
    for a, b in PAIRS:
        case(op, f"{a} {b}", [draw(*a), draw(*b)], f, theirs)
    case(op, "number right", [draw(2, 3)], lambda x: f(x, 1.53), lambda x: theirs(x, torch.tensor(1.53, dtype=x.dtype)))
    case(op, "number left", [draw(2, 3)], lambda x: f(1.53, x), lambda x: theirs(torch.tensor(1.53, dtype=x.dtype), x))
    case(op, "int right", [draw(3)], lambda x: f(x, 2), lambda x: theirs(x, torch.tensor(2.0, dtype=x.dtype)))
    case(op, "itself", [draw(2, 3)], lambda x: f(x, x[:1] * 1.7), lambda x: theirs(x, x[:1] * 1.7))
    case(op, "python floats", [float(draw()), float(draw())], f, theirs)
    twice = [draw(2, 1, 1), draw(3, 1), draw(4)]
    case(op, "three ways", twice, lambda a, b, c: f(f(a, b), c), lambda a, b, c: theirs(theirs(a, b), c))


binary("add", normal, lambda a, b: a + b)
binary("subtract", normal, lambda a, b: a - b)
binary("multiply", normal, lambda a, b: a * b)
binary("divide", off_zero, lambda a, b: a / b)
binary("power", positive, lambda a, b: torch.pow(a, b))
binary("maximum", distinct, lambda a, b: torch.maximum(a, b))
binary("minimum", distinct, lambda a, b: torch.minimum(a, b))

binary("arctan2", off_zero, lambda a, b: torch.arctan2(a, b))
binary("hypot", off_zero, lambda a, b: torch.hypot(a, b))
binary("logaddexp", normal, lambda a, b: torch.logaddexp(a, b))
binary("logaddexp2", normal, lambda a, b: torch.logaddexp2(a, b))
binary("remainder", positive, lambda a, b: torch.remainder(a, b))
case("remainder", "negative", [np.array([-2.3, 2.3, -2.3, 2.3]), np.array([0.7, 0.7, -0.7, -0.7])], ops.remainder,
     lambda a, b: torch.remainder(a, b))  # fmt: skip

for _p in (3, 2, 1, 0, -1, 0.5, -1.5, 2.0):
    case("power", f"x**{_p!r}", [positive(2, 3)], lambda x, p=_p: ops.power(x, p), lambda x, p=_p: torch.pow(x, p))
for _p in (3, 2, 1, 0, -2):
    case("power", f"(-x)**{_p}", [-positive(3)], lambda x, p=_p: ops.power(x, p), lambda x, p=_p: torch.pow(x, p))
_exponents = np.array([0.0, 1.0, 2.0, -1.0, 0.5])
case(
    "power", "exponents plain", [positive(5)],
    lambda x: ops.power(x, beside(_exponents.astype(x.dtype), x)), lambda x: torch.pow(x, torch.tensor(_exponents)),
)  # fmt: skip
# torch.pow itself loses ∂²/∂x∂p at p = 0
case("power", "exponents traced", [positive(2, 5), _exponents], ops.power, lambda x, p: torch.exp(p * torch.log(x)))
case("power", "exponent zero", [positive(3), np.array(0.0)], ops.power, lambda x, p: torch.exp(p * torch.log(x)))

_c = np.array([[True, False, True], [False, False, True]])
for _a, _b in (((2, 3), (2, 3)), ((3,), (2, 1)), ((), (2, 3)), ((4, 2, 3), (3,))):
    case(
        "where", f"{_a} {_b}", [normal(*_a), normal(*_b)],
        lambda a, b: ops.where(beside(_c, a), a, b), lambda a, b: torch.where(torch.tensor(_c), a, b),
    )  # fmt: skip
_c3 = np.array([[[True]], [[False]]])
case(
    "where", "three shapes", [normal(3, 1), normal(4)],
    lambda a, b: ops.where(beside(_c3, a), a, b), lambda a, b: torch.where(torch.tensor(_c3), a, b),
)  # fmt: skip
case(
    "where", "number", [normal(2, 3)],
    lambda a: ops.where(beside(_c, a), a, 0), lambda a: torch.where(torch.tensor(_c), a, 0.0),
)  # fmt: skip
case(
    "where", "size 0", [normal(0, 3), normal(3)],
    lambda a, b: ops.where(beside(_c[:0], a), a, b), lambda a, b: a + 0 * b,
)  # fmt: skip

_grid = np.array([[-2.0, -0.7, 0.1], [0.4, 0.9, 3.0]])
case("clip", "both", [_grid], lambda x: ops.clip(x, -0.5, 0.5), lambda x: torch.clamp(x, -0.5, 0.5))
case("clip", "below", [_grid], lambda x: ops.clip(x, -0.5, None), lambda x: torch.clamp(x, min=-0.5))
case("clip", "above", [_grid], lambda x: ops.clip(x, None, 0.5), lambda x: torch.clamp(x, max=0.5))
case("clip", "new names", [_grid], lambda x: ops.clip(x, min=-0.5, max=0.5), lambda x: torch.clamp(x, -0.5, 0.5))
case("clip", "scalar", [np.array(0.3)], lambda x: ops.clip(x, -0.5, 0.5), lambda x: torch.clamp(x, -0.5, 0.5))
case(
    "clip", "traced limits", [_grid, np.array([-1.0, -0.5, 0.5]), np.array([[0.6], [2.0]])],
    ops.clip, lambda x, a, b: torch.minimum(torch.maximum(x, a), b),
)  # fmt: skip

case("cast", "(2, 3)", [normal(2, 3)], lambda x: ops.cast(x, x.dtype), lambda x: x * 1)
case("cast", "scalar", [normal()], lambda x: ops.cast(x, x.dtype), lambda x: x * 1)
case("cast", "size 0", [normal(0, 2)], lambda x: ops.cast(x, x.dtype), lambda x: x * 1)
case("cast", "python float", [1.5], lambda x: ops.cast(x, "float64"), lambda x: x * 1)


# Reductions


def torch_reduction(f):
    def reduce(x, axis, keepdims):
        if axis == ():
            return x * 1
        if x.ndim == 0:
            return f(x.reshape(1), (0,), False)
        return f(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)

    return reduce


def torch_prod(x, axes, keep):
    for a in sorted(i % x.ndim for i in ([axes] if isinstance(axes, int) else axes))[::-1]:
        x = torch.prod(x, a, keep)
    return x


def reduction(op, draw, theirs, empty=True):
    f, reduce = getattr(ops, op), torch_reduction(theirs)
    sets = [((), None), ((4,), None), ((4,), 0), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((2, 3), (0, 1))]
    sets += [((2, 3, 4), (0, -1)), ((2, 3, 4), 1), ((2, 3, 4), (-2,)), ((2, 1, 3), 1), ((1, 1), None), ((2, 3), (1, 0))]
    sets += [((2, 0), 0)] + ([((0, 3), 0), ((2, 0, 3), (1, 2)), ((0,), None)] if empty else [])
    for shape, axis in sets:
        for keep in (False, True):
            case(
                op, f"{shape} axis={axis}{' keepdims' * keep}", [draw(*shape)],
                lambda x, axis=axis, keep=keep: f(x, axis=axis, keepdims=keep),
                lambda x, axis=axis, keep=keep: reduce(x, axis, keep),
            )  # fmt: skip
    case(op, "numpy axis", [draw(2, 3)], lambda x: f(x, axis=np.int64(1)), lambda x: reduce(x, (1,), False))
    case(op, "positional", [draw(2, 3)], lambda x: f(x, 1), lambda x: reduce(x, (1,), False))
    case(op, "python float", [1.5], f, lambda x: reduce(x, None, False))


reduction("sum", normal, lambda x, a, k: torch.sum(x, a, k))
reduction("mean", normal, lambda x, a, k: torch.mean(x, a, k), empty=False)
reduction(
    "var", normal,
    lambda x, a, k: torch.var(x, a, correction=0, keepdim=k) if x.numel() else torch.sum(x, a, k), empty=False,
)  # fmt: skip
reduction(
    "std", apart,
    lambda x, a, k: torch.std(x, a, correction=0, keepdim=k) if x.numel() > 0 else torch.sum(x, a, k), empty=False,
)  # fmt: skip
reduction("ptp", apart, lambda x, a, k: torch.amax(x, a, k) - torch.amin(x, a, k), empty=False)
reduction("prod", off_zero, lambda x, a, k: torch_prod(x, a, k))
reduction("average", normal, lambda x, a, k: torch.mean(x, a, k), empty=False)
reduction("max", apart, lambda x, a, k: torch.amax(x, a, k), empty=False)
reduction("min", apart, lambda x, a, k: torch.amin(x, a, k), empty=False)
reduction("logsumexp", normal, lambda x, a, k: torch.logsumexp(x, a, k), empty=False)
for _op in ("sum", "mean", "max", "min", "var", "logsumexp", "prod", "average", "ptp"):
    _zero = 0.0 if _op in ("var", "ptp") else 1.0
    case(
        _op, "axis=()", [apart(2, 3)],
        lambda x, op=_op: getattr(ops, op)(x, axis=()), lambda x, z=_zero: x * z,
    )  # fmt: skip
for _axis in (None, 0, (0, 2)):
    case(
        "var", f"ddof=1 axis={_axis}", [normal(2, 3, 4)],
        lambda x, a=_axis: ops.var(x, axis=a, ddof=1),
        lambda x, a=_axis: torch.var(x, tuple(range(3)) if a is None else a, correction=1),
    )  # fmt: skip
    case(
        "std", f"correction=1 axis={_axis}", [normal(2, 3, 4)],
        lambda x, a=_axis: ops.std(x, axis=a, correction=1, keepdims=True),
        lambda x, a=_axis: torch.std(x, tuple(range(3)) if a is None else a, correction=1, keepdim=True),
    )  # fmt: skip
ZEROS = np.array([[2.0, 0.0, 3.0, -1.0, 0.5], [0.0, 2.0, 0.0, 1.5, 3.0], [0.0, 0.0, 0.0, 1.5, 3.0]])
for _axis in (0, 1, -1):
    case("prod", f"zeros axis={_axis}", [ZEROS], lambda x, a=_axis: ops.prod(x, a), lambda x, a=_axis: torch.prod(x, a))
    for _op in ("cumprod", "cumsum"):
        for _x in (ZEROS, off_zero(2, 3, 4), off_zero(3, 1), normal(0, 2), normal(2, 0)):
            case(
                _op, f"{_x.shape} zeros={not _x.all()} axis={_axis}", [_x],
                lambda x, op=_op, a=_axis: getattr(ops, op)(x, axis=a),
                lambda x, op=_op, a=_axis: getattr(torch, op)(x, a),
            )  # fmt: skip
case("prod", "one zero", [ZEROS[0]], ops.prod, lambda x: torch.prod(x))
for _op in ("cumprod", "cumsum"):
    for _shape in ((), (1,), (5,), (8,), (9,), (2, 3), (0,)):
        case(
            _op, f"{_shape}", [off_zero(*_shape)],
            getattr(ops, _op), lambda x, op=_op: getattr(torch, op)(x.reshape(-1), 0),
        )  # fmt: skip
for _n in (0, 1, 2, 3):
    for _shape, _axis in (((4,), -1), ((4, 3), 0), ((4, 3, 5), 1), ((2, 4), -1)):
        case(
            "diff", f"{_shape} n={_n} axis={_axis}", [normal(*_shape)],
            lambda x, n=_n, a=_axis: ops.diff(x, n, a), lambda x, n=_n, a=_axis: torch.diff(x, n, a),
        )  # fmt: skip
case(
    "diff", "between two arrays", [normal(2, 3), normal(2, 2), normal(2, 1)],
    lambda x, a, b: ops.diff(x, axis=1, prepend=a, append=b),
    lambda x, a, b: torch.diff(x, dim=1, prepend=a, append=b),
)  # fmt: skip
case(
    "diff", "between two numbers", [normal(2, 3), normal()], lambda x, a: ops.diff(x, axis=0, prepend=a, append=1.5),
    lambda x, a: torch.diff(torch.cat([a.expand(1, 3), x, torch.full((1, 3), 1.5)]), dim=0),
)  # fmt: skip
for _shape, _axis, _w in [((3,), None, (3,)), ((2, 3), None, (2, 3)), ((2, 3), 1, (3,)), ((2, 3), 0, (2,)),
                          ((2, 3, 4), -2, (3,)), ((2, 3), 1, (2, 3)), ((2, 3, 4), (0, 2), (2, 3, 4))]:  # fmt: skip
    for _keep in (False, True):
        _spread = [n if _axis is None or len(_w) > 1 or i == _axis % len(_shape) else 1 for i, n in enumerate(_shape)]
        case(
            "average", f"{_shape} axis={_axis} weights{_w}{' keepdims' * _keep}", [normal(*_shape), positive(*_w)],
            lambda x, w, a=_axis, k=_keep: ops.average(x, a, w, keepdims=k),
            lambda x, w, a=_axis, k=_keep, s=_spread: torch.sum(x * w.reshape(s), a, keepdim=k)
            / torch.sum(w.reshape(s), a, keepdim=k),
        )  # fmt: skip
case(
    "logsumexp", "large entries", [normal(2, 3) + np.array([[1000.0], [-1000.0]])],
    lambda x: ops.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1),
)  # fmt: skip


# Products

for _a, _b in [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 1), (1, 3)), ((1, 1), (1, 1)), ((0, 2, 3), (3, 4)), ((1,), (1, 2)),
    ((6, 5, 2, 3), (5, 3, 4)), ((6, 5, 2, 3), (3,)),
]:  # fmt: skip
    case("matmul", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.matmul, lambda a, b: torch.matmul(a, b))
case("matmul", "itself", [normal(3, 3)], lambda a: ops.matmul(a, a), lambda a: a @ a)
DOTS = [((), (3,)), ((3,), ()), ((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4))]
for _a, _b in [*DOTS, ((4, 2, 3), (5, 3, 2)), ((4, 2, 3), (3,)), ((3,), (5, 3, 2)), ((2, 3), (5, 3, 2))]:
    _f = (lambda a, b: a * b) if () in (_a, _b) else (lambda a, b: torch_dot(a, b))
    case("dot", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.dot, _f)


def torch_dot(a, b):
    return torch.tensordot(a, b, dims=([-1], [-2 if b.ndim > 1 else -1]))


for _a, _b in [((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((2, 3), (4, 3)), ((4, 2, 3), (5, 3)), ((2, 0), (4, 0))]:
    _f = (lambda a, b: a * b) if () in (_a, _b) else (lambda a, b: torch.inner(a, b))
    case("inner", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.inner, _f)
for _a, _b in [((), ()), ((3,), (4,)), ((2, 3), (4,)), ((2, 2), (3, 2)), ((0,), (3,))]:
    case(
        "outer", f"{_a} {_b}", [normal(*_a), normal(*_b)],
        ops.outer, lambda a, b: torch.outer(a.reshape(-1), b.reshape(-1)),
    )  # fmt: skip
for _a, _b in [((), ()), ((3,), (3,)), ((2, 3), (6,)), ((2, 3), (2, 3)), ((0,), (0,))]:
    case("vdot", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.vdot, lambda a, b: a.reshape(-1) @ b.reshape(-1))
for _a, _b, _axis in [((3,), (3,), -1), ((2, 3), (3,), -1), ((2, 1, 3), (4, 3), -1), ((3, 2), (3, 2), 0)]:
    case(
        "vecdot", f"{_a} {_b}", [normal(*_a), normal(*_b)],
        lambda a, b, i=_axis: ops.vecdot(a, b, axis=i), lambda a, b, i=_axis: torch.sum(a * b, i),
    )  # fmt: skip
for _a, _b in [((), ()), ((2,), (3,)), ((2, 3), (4, 5)), ((2, 3), (4,)), ((4,), (2, 3)), ((2, 3, 1), (2, 1, 3))]:
    case("kron", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.kron, lambda a, b: torch.kron(a, b))
for _a, _b, _axes in [
    ((2, 3), (3, 4), 1), ((2, 3, 4), (3, 4, 5), 2), ((2, 3), (4,), 0), ((2, 3), (2, 3), 2),
    ((2, 3), (3, 2), ([1], [0])),
    ((2, 3, 4), (4, 5, 2), ([0, 2], [2, 0])), ((2, 3, 4), (4, 5, 3), ([-1, 1], [0, -1])), ((2, 0), (0, 3), 1),
]:  # fmt: skip
    case(
        "tensordot", f"{_a} {_b} {_axes}", [normal(*_a), normal(*_b)],
        lambda a, b, i=_axes: ops.tensordot(a, b, axes=i), lambda a, b, i=_axes: torch.tensordot(a, b, dims=i),
    )  # fmt: skip
for _offset in (0, 1, -1, 5):
    case(
        "trace", f"offset={_offset}", [normal(3, 4)],
        lambda x, k=_offset: ops.trace(x, k), lambda x, k=_offset: torch_diagonal(x, k).sum(-1) + 0 * x.sum(),
    )  # fmt: skip
case(
    "trace", "axes", [normal(2, 3, 4)], lambda x: ops.trace(x, 1, -1, 0), lambda x: torch.diagonal(x, 1, -1, 0).sum(-1)
)


def torch_diagonal(x, k):
    return torch.diagonal(x, k) if -x.shape[0] <= k <= x.shape[1] else x.new_zeros(0)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ba,bc", (2, 3), (2, 4)), ("ij->ji", (2, 3)),
    ("ij", (2, 3)),
    ("ji", (2, 3)), ("ij->", (2, 3)), ("ij->j", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->j", (3, 3, 2)),
    ("iii->i", (3, 3, 3)), ("ijij->ij", (2, 3, 2, 3)), ("ii,i->i", (3, 3), (3,)), ("ii,jj->ij", (2, 2), (3, 3)),
    ("ij,kl->", (2, 3), (4, 5)), ("ij,kl->il", (2, 3), (4, 5)), ("i,i->", (3,), (3,)), (",i->i", (), (3,)),
    (",", (), ()),
    ("i,j,k->kij", (2,), (3,), (4,)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)), ("...ij,...jk", (6, 1, 2, 3), (5, 3, 4)), ("...->...", (2, 3)),
    ("...i->...", (2, 4, 3)), ("i...->i...", (2, 3)), ("...ii->...i", (2, 3, 3)), ("i...,i->...", (3, 2), (3,)),
    ("ij,ij->ij", (1, 3), (2, 3)), ("ij,ij->i", (2, 3), (2, 1)), ("ij,ij->", (2, 1), (1, 3)), ("i,ij", (1,), (3, 4)),
    ("ij,jk->ik", (0, 3), (3, 4)), ("ij,jk->ik", (2, 0), (0, 4)), (" i j , j k -> i k ", (2, 3), (3, 4)),
    ("aB,Bc->ca", (2, 3), (3, 4)), ("ij,ij,ij->ij", (2, 3), (2, 3), (2, 3)),
]  # fmt: skip
for _n, (_s, *_shapes) in enumerate(EINSUMS):
    case(
        "einsum", f"{_s} {_shapes}", [normal(*n) for n in _shapes],
        lambda *xs, s=_s: ops.einsum(s, *xs), lambda *xs, s=_s: torch.einsum(s, *xs),
    )  # fmt: skip
    if _n % 8 == 0:
        _f = PRIMITIVES["_einsum"]
        case("_einsum", _s, CASES[-1].args, lambda *xs, s=_s, f=_f: f(s, *xs), CASES[-1].theirs)
case(
    "einsum", "optimized", [normal(2, 3), normal(3, 4), normal(4, 5)],
    lambda *xs: ops.einsum("ij,jk,kl->il", *xs, optimize=True), lambda a, b, c: a @ b @ c,
)  # fmt: skip
case("einsum", "itself", [normal(3, 3)], lambda x: ops.einsum("ij,jk->ik", x, x), lambda x: x @ x)
case("einsum", "lists", [normal(2, 3), normal(3, 4)], lambda a, b: ops.einsum(a, [0, 2], b, [2, 1]), lambda a, b: a @ b)
case(
    "einsum", "lists with output", [normal(2, 3, 3), normal(3, 4)],
    lambda a, b: ops.einsum(a, [..., 1, 1], b, [1, 7], [7, ...]),
    lambda a, b: torch.einsum("niI,ij->jn", a * torch.eye(3, dtype=a.dtype), b),
)  # fmt: skip


# Shapes


def shaped(op, shape, ours, theirs, label):
    case(op, f"{shape} {label}", [normal(*shape)], ours, theirs)


for _shape, _to in [
    ((2, 3), (3, 2)), ((2, 3), (6,)), ((2, 3), -1), ((2, 3), (1, -1, 1)), ((), (1,)), ((), (1, 1)), ((1, 1), ()),
    ((0, 3), (3, 0)), ((2, 3, 4), (4, 6)),
]:  # fmt: skip
    shaped(
        "reshape", _shape, lambda x, to=_to: ops.reshape(x, to),
        lambda x, to=_to: torch.reshape(x, (to,) if isinstance(to, int) else to), f"-> {_to}",
    )  # fmt: skip
shaped("reshape", (2, 3), lambda x: ops.reshape(x, shape=(3, 2)), lambda x: x.reshape(3, 2), "keyword")
for _shape in ((), (3,), (2, 3), (2, 3, 4), (0, 2), (1, 3)):
    shaped("transpose", _shape, ops.transpose, lambda x: x.permute(tuple(reversed(range(x.ndim)))), "reversed")
    shaped("ravel", _shape, ops.ravel, lambda x: x.reshape(-1), "")
for _axes in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1), (-1, 0, 1), (1, -1, 0), (-2, -1, 0), (2, -3, -2)]:
    shaped(
        "transpose", (2, 3, 4), lambda x, a=_axes: ops.transpose(x, a),
        lambda x, a=_axes: x.permute([i % 3 for i in a]), f"{_axes}",
    )  # fmt: skip
    shaped(
        "transpose", (3, 3, 3), lambda x, a=_axes: ops.transpose(x, axes=a),
        lambda x, a=_axes: x.permute([i % 3 for i in a]), f"{_axes} keyword",
    )  # fmt: skip
for _shape, _i, _j in [((2, 3), 0, 1), ((2, 3, 4), -1, 0), ((2, 3, 4), 1, -1), ((2, 3), 1, 1), ((0, 2), 0, -1)]:
    shaped(
        "swapaxes", _shape, lambda x, i=_i, j=_j: ops.swapaxes(x, i, j),
        lambda x, i=_i, j=_j: torch.swapaxes(x, i, j), f"{_i} {_j}",
    )  # fmt: skip
shaped("swapaxes", (2, 3), lambda x: ops.swapaxes(x, axis1=0, axis2=1), lambda x: x.T, "keywords")
for _s, _d in [(0, 2), (-1, 0), (1, -1), ((0, 1), (2, 0)), ((2, 0), (0, -1))]:
    shaped(
        "moveaxis", (2, 3, 4), lambda x, s=_s, d=_d: ops.moveaxis(x, s, d),
        lambda x, s=_s, d=_d: torch.movedim(x, s, d), f"{_s} {_d}",
    )  # fmt: skip
shaped(
    "moveaxis", (2, 3, 4), lambda x: ops.moveaxis(x, source=0, destination=2), lambda x: torch.movedim(x, 0, 2), "keyw."
)
for _shape, _axis, _to in [
    ((), 0, (1,)), ((3,), 0, (1, 3)), ((3,), -1, (3, 1)), ((2, 3), 1, (2, 1, 3)), ((2, 3), (0, 2), (1, 2, 1, 3)),
    ((2, 3), (-1, 0), (1, 2, 3, 1)), ((0,), 0, (1, 0)),
]:  # fmt: skip
    shaped("expand_dims", _shape, lambda x, a=_axis: ops.expand_dims(x, a), lambda x, to=_to: x.reshape(to), f"{_axis}")
shaped("expand_dims", (3,), lambda x: ops.expand_dims(x, axis=0), lambda x: x.reshape(1, 3), "keyword")
for _shape, _axis, _to in [
    ((1,), None, ()), ((1, 3, 1), None, (3,)), ((1, 3, 1), 0, (3, 1)), ((1, 3, 1), -1, (1, 3)), ((2, 3), None, (2, 3)),
    ((1, 3, 1), (0, 2), (3,)), ((1, 1), (0, -1), ()), ((1, 0), 0, (0,)),
]:  # fmt: skip
    shaped("squeeze", _shape, lambda x, a=_axis: ops.squeeze(x, a), lambda x, to=_to: x.reshape(to), f"{_axis}")
shaped("squeeze", (1, 3), lambda x: ops.squeeze(x, axis=0), lambda x: x.reshape(3), "keyword")
for _shape, _to in [
    ((3,), (2, 3)),
    ((2, 1), (2, 3)),
    ((), (2, 2)),
    ((1,), (0,)),
    ((3,), (3,)),
    ((2, 1, 1), (4, 2, 3, 1)),
]:
    shaped(
        "broadcast_to", _shape, lambda x, to=_to: ops.broadcast_to(x, to),
        lambda x, to=_to: torch.broadcast_to(x, to), f"-> {_to}",
    )  # fmt: skip
    shaped(
        "sum_to", _to, lambda x, to=_shape: ops.sum_to(x, to), lambda x, to=_shape: x.sum_to_size(to), f"-> {_shape}"
    )
shaped("broadcast_to", (3,), lambda x: ops.broadcast_to(x, shape=(2, 3)), lambda x: x.expand(2, 3), "keyword")

for _shapes, _axis in [
    (((2,), (3,)), 0), (((2, 3), (4, 3)), 0), (((2, 3), (2, 1), (2, 2)), 1), (((2, 3), (2, 1)), -1),
    (((2, 3), (0, 3), (1, 3)), 0), (((2, 3),), 0), (((2, 1, 3), (2, 4, 3)), -2), (((0,), (0,)), 0),
]:  # fmt: skip
    _arrays = [normal(*s) for s in _shapes]
    case(
        "concatenate", f"{_shapes} axis={_axis}", _arrays,
        lambda *xs, a=_axis: ops.concatenate(xs, axis=a), lambda *xs, a=_axis: torch.cat(xs, dim=a),
    )  # fmt: skip
    case(
        "_join", f"{_shapes} axis={_axis}", _arrays,
        lambda *xs, a=_axis: PRIMITIVES["_join"](*xs, axis=a), lambda *xs, a=_axis: torch.cat(xs, dim=a),
    )  # fmt: skip
case(
    "concatenate", "axis=None", [normal(2, 3), normal(2), normal()],
    lambda *xs: ops.concatenate(xs, axis=None), lambda *xs: torch.cat([x.reshape(-1) for x in xs]),
)  # fmt: skip
case("concatenate", "same twice", [normal(3)], lambda x: ops.concatenate([x, x]), lambda x: torch.cat([x, x]))
_two = np.array([7.0, 8.0])
case(
    "concatenate", "one plain", [normal(3)],
    lambda x: ops.concatenate([beside(_two.astype(x.dtype), x), x]), lambda x: torch.cat([torch.tensor(_two), x]),
)  # fmt: skip
for _shape, _axis in [((), 0), ((3,), 0), ((3,), 1), ((3,), -1), ((2, 3), 1), ((2, 3), -2), ((0,), 0)]:
    case(
        "stack", f"{_shape} axis={_axis}", [normal(*_shape) for _ in range(3)],
        lambda *xs, a=_axis: ops.stack(xs, axis=a), lambda *xs, a=_axis: torch.stack(xs, dim=a),
    )  # fmt: skip


def joined(library, out):
    """Several results as one array, so that a case has one."""
    return library.concatenate([library.ravel(o) for o in out]) if isinstance(out, (list, tuple)) else out


def moves(op, call, *shapes):
    """A case of an operation that moves entries about, or puts zeros in: NumPy tells where each of them goes."""

    def theirs(*xs):
        ends = np.cumsum([0, *[x.numel() for x in xs]]) + 1
        places = [np.arange(a, b).reshape(x.shape) for a, b, x in zip(ends, ends[1:], xs, strict=False)]
        found = np.array(joined(np, call(np, *places)))
        source = torch.cat([torch.zeros(1, dtype=xs[0].dtype), *[x.reshape(-1) for x in xs]])
        return source[torch.tensor(found.reshape(-1), dtype=torch.long)].reshape(found.shape)

    number = sum(c.op == op for c in CASES)
    case(op, f"{number}: {shapes}", [normal(*s) for s in shapes], lambda *xs: joined(ops, call(ops, *xs)), theirs)


for _shape in ((3,), (2, 3), (2, 3, 4), (0, 3)):
    moves("flip", lambda m, x: m.flip(x), _shape)
    moves("flip", lambda m, x: m.flip(x, -1), _shape)
    moves("flipud", lambda m, x: m.flipud(x), _shape)
    moves("roll", lambda m, x: m.roll(x, 2), _shape)
    moves("roll", lambda m, x: m.roll(x, -1, axis=0), _shape)
    moves("tile", lambda m, x: m.tile(x, 2), _shape)
    moves("tile", lambda m, x: m.tile(x, (2, 1, 3, 2)), _shape)
    moves("repeat", lambda m, x: m.repeat(x, 3), _shape)
    moves("repeat", lambda m, x: m.repeat(x, 2, axis=-1), _shape)
    moves("atleast_1d", lambda m, x: m.atleast_1d(x), _shape)
    moves("pad", lambda m, x: m.pad(x, 2), _shape)
for _shape in ((2, 3), (2, 3, 4), (3, 3)):
    moves("flip", lambda m, x: m.flip(x, (0, 1)), _shape)
    moves("fliplr", lambda m, x: m.fliplr(x), _shape)
    moves("roll", lambda m, x: m.roll(x, (1, -2), axis=(0, 1)), _shape)
    moves("tile", lambda m, x: m.tile(x, (2, 3)), _shape)
    moves("repeat", lambda m, x: m.repeat(x, [2] + [0] * (x.shape[0] - 2) + [3], axis=0), _shape)
    moves("matrix_transpose", lambda m, x: m.matrix_transpose(x), _shape)
    for _k in (-2, -1, 0, 1, 3):
        moves("tril", lambda m, x, k=_k: m.tril(x, k), _shape)
        moves("triu", lambda m, x, k=_k: m.triu(x, k), _shape)
        moves("rot90", lambda m, x, k=_k: m.rot90(x, k), _shape)
        moves("rot90", lambda m, x, k=_k: m.rot90(x, k, axes=(-1, 0)), _shape)
        moves("diagonal", lambda m, x, k=_k: m.diagonal(x, k), _shape)
        moves("diagonal", lambda m, x, k=_k: m.diagonal(x, k, -1, 0), _shape)
for _k in (-2, 0, 1):
    moves("diag", lambda m, x, k=_k: m.diag(x, k), (3,))
    moves("diag", lambda m, x, k=_k: m.diag(x, k), (3, 4))
moves("diagonal", lambda m, x: m.diagonal(x, 9), (2, 3))
for _mode in ("constant", "edge", "reflect", "symmetric", "wrap"):
    for _width in (0, 1, 3, (1, 2), ((1, 0), (0, 2)), ((5, 7), (1, 1))):
        moves("pad", lambda m, x, w=_width, mode=_mode: m.pad(x, w, mode=mode), (2, 3))
    moves("pad", lambda m, x, mode=_mode: m.pad(x, ((0, 1),), mode), (2, 3, 4))
case(
    "pad", "with ones", [normal(2)],
    lambda x: ops.pad(x, (1, 2), constant_values=1.0), lambda x: torch.nn.functional.pad(x, (1, 2), value=1.0),
)  # fmt: skip
case(
    "_surround", "(2, 3)", [normal(2, 3)], lambda x: PRIMITIVES["_surround"](x, [[1, 0], [2, 3]], 0),
    lambda x: torch.nn.functional.pad(x, (2, 3, 1, 0)),
)  # fmt: skip
for _shape in ((), (3,), (2, 3), (2, 3, 4), (0,)):
    for _op in ("atleast_1d", "atleast_2d", "atleast_3d", "dstack", "vstack", "hstack"):
        moves(_op, lambda m, a, b, op=_op: getattr(m, op)(*([(a, b)] if "stack" in op else [a, b])), _shape, _shape)
for _shapes in [((2, 3), (2, 1)), ((3,), (3, 2)), ((3,), (3,)), ((2, 3), (2, 0), (2,))]:
    moves("column_stack", lambda m, *xs: m.column_stack(xs), *_shapes)
moves("hstack", lambda m, *xs: m.hstack(xs), (2,), (), (0,), (3,))
moves("hstack", lambda m, *xs: m.hstack(xs), (2, 3), (2, 1))
moves("vstack", lambda m, *xs: m.vstack(xs), (3,), (2, 3))
moves("dstack", lambda m, *xs: m.dstack(xs), (2, 3), (2, 3, 4))
for _shapes in [((2, 1), (3,)), ((), (2, 3)), ((3,),), ((4, 1, 3), (2, 1), (1,)), ((0, 3), (3,))]:
    moves("broadcast_arrays", lambda m, *xs: m.broadcast_arrays(*xs), *_shapes)
for _cuts in (1, 3, [2], [1, 4], [0, 3, 3], [2, 9], [-2], np.array([1, 5]), []):
    moves("split", lambda m, x, c=_cuts: m.split(x, c), (6,))
    moves("split", lambda m, x, c=_cuts: m.split(x, c, axis=-1)[::-1], (2, 6))
    moves("array_split", lambda m, x, c=_cuts: m.array_split(x, c, 1), (2, 6, 3))
    moves("hsplit", lambda m, x, c=_cuts: m.hsplit(x, c), (6,))
    moves("hsplit", lambda m, x, c=_cuts: m.hsplit(x, c), (2, 6))
    moves("vsplit", lambda m, x, c=_cuts: m.vsplit(x, c), (6, 2))
    moves("dsplit", lambda m, x, c=_cuts: m.dsplit(x, c), (2, 1, 6))
for _n in (2, 4, 5, 9):
    moves("array_split", lambda m, x, n=_n: m.array_split(x, n), (7, 2))
moves("split", lambda m, x: m.split(x, 3)[1], (6, 2))
moves("_cut", lambda m, x: PRIMITIVES["_cut"](x, [1, 4], -1) if m is ops else np.split(x, [1, 4], -1), (2, 6))
for _shape, _axis in (((3,), 0), ((2, 3), 0), ((2, 3), -1), ((2, 3, 4), 1), ((0, 3), 0)):
    moves(
        "unstack", lambda m, x, a=_axis: m.unstack(x, axis=a) if m is ops else tuple(np.moveaxis(x, a, 0)), _shape
    ) if 0 not in _shape else None
case("stack", "python floats", [1.5, -2.0], lambda *xs: ops.stack(xs), lambda *xs: torch.stack(xs))


# Indexing: the oracle gathers, or adds up, by position in the flattened array


def positions(shape, index):
    found = np.arange(int(np.prod(shape))).reshape(shape)[index]
    return torch.tensor(np.array(found, order="C").reshape(-1), dtype=torch.long), np.shape(found)


def torch_gather(x, index):
    at, shape = positions(tuple(x.shape), index)
    return x.reshape(-1)[at].reshape(shape)


def torch_scatter(x, index, shape):
    at, _ = positions(shape, index)
    return torch.zeros(int(np.prod(shape)), dtype=x.dtype).index_add(0, at, x.reshape(-1)).reshape(shape)


_mask = np.array([[True, False, True], [False, True, True]])
INDICES = [
    ((4,), 1), ((4,), -1), ((4,), np.int64(2)), ((4,), slice(1, 3)), ((4,), slice(None, None, -1)),
    ((5,), slice(None, None, 2)), ((4,), slice(2, 2)), ((4,), np.array([3, 0, 3, 3])), ((4,), [0, 0, 1]),
    ((4,), np.array([], dtype=int)), ((4,), np.array([[0, 1], [1, -1]])), ((4,), np.array([True, False, True, True])),
    ((4,), np.zeros(4, dtype=bool)), ((4,), (None, slice(None))), ((4,), Ellipsis), ((4,), ()), ((), ()), ((), None),
    ((2, 3), 0), ((2, 3), (1, 2)), ((2, 3), (slice(None), 1)), ((2, 3), (Ellipsis, -1)), ((2, 3), (0, slice(0, 2))),
    ((2, 3), _mask), ((2, 3), (slice(None), [2, 2, 0])), ((2, 3), ([0, 1, 0], [2, 2, 2])), ((2, 3), (1, [0, 0])),
    ((2, 3), (slice(None), None, slice(1, None))), ((2, 3), (np.array([True, False]), slice(None))), ((2, 3), [1]),
    ((2, 3, 4), ([0, 1], slice(None), [3, 3])), ((2, 3, 4), (slice(None), np.array([[0], [2]]), [0, 1])),
    ((2, 3, 4), (Ellipsis, [1, 1])), ((0, 3), slice(None)), ((1, 3), (0,)), ((2, 3), np.array([1, 1, 0], np.uint8)),
]  # fmt: skip
for _n, (_shape, _index) in enumerate(INDICES):
    case(
        "getitem", f"{_n}: {_shape} {_index!r}", [normal(*_shape)],
        lambda x, i=_index: ops.getitem(x, beside(i, x)), lambda x, i=_index: torch_gather(x, i),
    )  # fmt: skip
    case(
        "scatter", f"{_n}: {_shape} {_index!r}", [normal(*np.empty(_shape)[_index].shape)],
        lambda x, i=_index, s=_shape: PRIMITIVES["scatter"](x, beside(i, x), s),
        lambda x, i=_index, s=_shape: torch_scatter(x, i, s),
    )  # fmt: skip


for _shape, _index, _axis in [
    ((4,), [3, 0, 0], None), ((2, 3), [[5, 0], [0, 1]], None), ((2, 3), np.array([2, 0]), 1), ((2, 3), 1, 0),
    ((), [0], None),
    ((2, 3, 4), [[0, 2], [1, 1]], 1), ((2, 3, 4), np.array([], dtype=int), -1), ((2, 3), -1, -1),
    ((2, 3), [True - 1], 0),
]:  # fmt: skip
    moves("take", lambda m, x, i=_index, a=_axis: m.take(x, beside(i, x), axis=a), _shape)
_ranks = RNG.integers(0, 3, (2, 5))
moves("take_along_axis", lambda m, x: m.take_along_axis(x, beside(_ranks, x), axis=1), (2, 3))
moves("take_along_axis", lambda m, x: m.take_along_axis(x, beside(_ranks[:, :3], x), 0), (4, 3))
moves("take_along_axis", lambda m, x: m.take_along_axis(x, beside(_ranks[:1, :, None] - 3, x), -2), (2, 3, 4))
moves("take_along_axis", lambda m, x: m.take_along_axis(x, beside(_ranks[0], x), None), (2, 3))
moves("gather", lambda m, x: m.gather(x, beside([1, 1, 0], x)) if m is ops else x[[1, 1, 0]], (2, 3))
for _shape, _index, _v in [
    ((4,), [3, 0, 3], (3,)), ((2, 3), ([0, 0], [1, 1]), (2,)), ((2, 3), [1, 1], (2, 3)), ((2, 3), [1, 1, 0], (3,)),
    ((2, 3), _mask, (4,)), ((2, 3), (slice(None), 1), (2,)), ((4,), [0, 0], ()),
    ((2, 3), (slice(None), [0, 0]), (2, 1)),
]:  # fmt: skip
    case(
        "scatter_add", f"{_shape} {_index!r} {_v}", [normal(*_shape), normal(*_v)],
        lambda x, v, i=_index: ops.scatter_add(x, beside(i, x), v),
        lambda x, v, i=_index: x
        + torch_scatter(v.expand(np.empty(tuple(x.shape))[i].shape).contiguous(), i, tuple(x.shape)),
    )  # fmt: skip
for _shape, _axis in [((5,), -1), ((4, 3), 0), ((4, 3), 1), ((2, 5, 3), -2), ((2, 3), None), ((0,), -1), ((1,), 0)]:
    case(
        "sort", f"{_shape} axis={_axis}", [apart(*_shape)], lambda x, a=_axis: ops.sort(x, axis=a),
        lambda x, a=_axis: torch.sort(x.reshape(-1) if a is None else x, 0 if a is None else a)[0],
    )  # fmt: skip


# Linear algebra


def regular(*shape):
    """Matrices that are far from singular."""
    return normal(*shape) * 0.4 + 2.0 * np.eye(shape[-1])


def gram(x):
    """A positive definite matrix for any x: cholesky's argument must stay symmetric when it is moved."""
    return x @ x.swapaxes(-1, -2) + 0.5 * beside(np.eye(x.shape[-2], dtype=x.dtype), x)


def torch_gram(x):
    return x @ x.mT + 0.5 * torch.eye(x.shape[-2], dtype=x.dtype)


for _a, _b in [
    ((3, 3), (3,)), ((3, 3), (3, 2)), ((5, 3, 3), (3,)), ((5, 3, 3), (5, 3, 2)), ((5, 3, 3), (3, 2)),
    ((3, 3), (5, 3, 2)),
    ((4, 1, 3, 3), (5, 3, 2)), ((1, 1), (1,)), ((0, 3, 3), (0, 3, 1)), ((3, 3), (3, 0)),
]:  # fmt: skip
    case(
        "solve", f"{_a} {_b}", [regular(*_a), normal(*_b)], ops.linalg.solve,
        lambda a, b: (torch.linalg.inv(a) @ (b[:, None] if b.ndim == 1 else b)).reshape(
            (*a.shape[:-1],) if b.ndim == 1 else torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + b.shape[-2:]
        ),
    )  # fmt: skip
for _shape in [(3, 3), (1, 1), (5, 2, 2), (4, 5, 3, 3), (0, 2, 2)]:
    case("inv", f"{_shape}", [regular(*_shape)], ops.linalg.inv, lambda a: torch.linalg.inv(a))
    case("det", f"{_shape}", [regular(*_shape)], ops.linalg.det, lambda a: torch.linalg.det(a))
    case(
        "slogdet",
        f"{_shape}",
        [regular(*_shape)],
        lambda a: ops.linalg.slogdet(a)[1],
        lambda a: torch.linalg.slogdet(a)[1],
    )
    case(
        "_logabsdet", f"{_shape}", [-regular(*_shape)],
        lambda a: PRIMITIVES["_logabsdet"](a)[0], lambda a: torch.linalg.slogdet(a)[1],
    )  # fmt: skip
    case(
        "cholesky", f"{_shape}", [normal(*_shape)],
        lambda x: ops.linalg.cholesky(gram(x)), lambda x: torch.linalg.cholesky(torch_gram(x)),
    )  # fmt: skip
    case(
        "cholesky", f"upper {_shape}", [normal(*_shape)],
        lambda x: ops.linalg.cholesky(gram(x), upper=True), lambda x: torch.linalg.cholesky(torch_gram(x)).mT,
    )  # fmt: skip
    case(
        "_cholesky", f"{_shape}", [normal(*_shape)],
        lambda x: PRIMITIVES["_cholesky"](gram(x)), lambda x: torch.linalg.cholesky(torch_gram(x)),
    )  # fmt: skip
case("slogdet", "sign", [regular(2, 3, 3)], lambda a: ops.linalg.slogdet(-a)[0] * a[:, 0, 0], lambda a: -a[:, 0, 0])
case(
    "det",
    "product",
    [normal(3, 2), normal(2, 3)],
    lambda a, b: ops.linalg.det(b @ a),
    lambda a, b: torch.linalg.det(b @ a),
)


def torch_minors(a):
    """The determinant of 3×3 matrices by Sarrus' rule, which divides by nothing."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in a.unbind(-2))
    return a * e * i + b * f * g + c * d * h - c * e * g - b * d * i - a * f * h


for _label, _a in {
    "rank 2": np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 1.0, 3.0]]),
    "rank 1": np.ones((3, 3)),
    "rank 0": np.zeros((3, 3)),
    "some": np.stack([np.ones((3, 3)), 2 * np.eye(3) + 0.1]),
}.items():
    case("det", f"singular: {_label}", [_a], ops.linalg.det, torch_minors)


def torch_norm(x, p, axis, keep):
    if p == 0:  # of which torch gives no derivative
        return torch.sum((x != 0) + 0 * x, axis, keepdim=keep)
    return torch.linalg.vector_norm(x, 2 if p is None else p, axis, keep)


for _ord in (None, 2, 1, 3, 1.5, -1, np.inf, -np.inf, 0):
    for _shape, _axis in [((4,), None), ((2, 3), 0), ((2, 3), -1), ((2, 3, 4), 1), ((1, 3), 0)]:
        for _keep in (False, True):
            case(
                "norm", f"{_shape} ord={_ord} axis={_axis}{' keepdims' * _keep}", [apart(*_shape)],
                lambda x, o=_ord, a=_axis, k=_keep: ops.linalg.norm(x, o, a, k),
                lambda x, o=_ord, a=_axis, k=_keep: torch_norm(x, o, a, k),
            )  # fmt: skip
    case(
        "vector_norm", f"ord={_ord}", [apart(2, 3)],
        lambda x, o=_ord or 2: ops.linalg.vector_norm(x, ord=o), lambda x, o=_ord or 2: torch.linalg.vector_norm(x, o),
    )  # fmt: skip
for _shape in ((2, 3), (2, 3, 4), ()):
    case("norm", f"{_shape} all", [off_zero(*_shape)], ops.linalg.norm, lambda x: torch.linalg.vector_norm(x))
for _ord in ("fro", 1, -1, np.inf, -np.inf):
    for _keep in (False, True):
        case(
            "matrix_norm", f"ord={_ord}{' keepdims' * _keep}", [apart(2, 3, 4)],
            lambda x, o=_ord, k=_keep: ops.linalg.matrix_norm(x, ord=o, keepdims=k),
            lambda x, o=_ord, k=_keep: torch.linalg.matrix_norm(x, o, keepdim=k),
        )  # fmt: skip
        case(
            "norm", f"matrix ord={_ord}{' keepdims' * _keep}", [apart(2, 3, 4)],
            lambda x, o=_ord, k=_keep: ops.linalg.norm(x, o, axis=(2, 0), keepdims=k),
            lambda x, o=_ord, k=_keep: torch.linalg.matrix_norm(x, o, dim=(2, 0), keepdim=k),
        )  # fmt: skip
    case(
        "norm",
        f"2-D ord={_ord}",
        [apart(3, 4)],
        lambda x, o=_ord: ops.linalg.norm(x, o),
        lambda x, o=_ord: torch.linalg.norm(x, o),
    )


# Fused

unary_sigmoid = [(s, normal(*s) * 3) for s in SHAPES]
for _shape, _x in unary_sigmoid:
    case("sigmoid", f"{_shape}", [_x], FUSED["sigmoid"], lambda x: torch.sigmoid(x))
for _shape in [(4, 3), (3,), (1, 3), (0, 3), (2, 4, 3), (2, 1, 4, 3)]:
    case(
        "affine", f"{_shape}", [normal(*_shape), normal(3, 2), normal(2)], FUSED["affine"],
        lambda x, w, b: x @ w + b,
    )  # fmt: skip
_affine_x, _affine_w, _affine_b = normal(4, 3), normal(3, 2), normal(2)
case("affine", "one input", [normal(4, 1), normal(1, 1), normal(1)], FUSED["affine"], lambda x, w, b: x @ w + b)
case(
    "affine", "weights only", [normal(3, 2)],
    lambda w: FUSED["affine"](beside(_affine_x.astype(w.dtype), w), w, beside(_affine_b.astype(w.dtype), w)),
    lambda w: torch.tensor(_affine_x) @ w + torch.tensor(_affine_b),
)  # fmt: skip
case(
    "affine", "bias only", [normal(2)],
    lambda b: FUSED["affine"](beside(_affine_x.astype(b.dtype), b), beside(_affine_w.astype(b.dtype), b), b),
    lambda b: torch.tensor(_affine_x @ _affine_w) + b,
)  # fmt: skip
case("affine", "same twice", [normal(3, 3), normal(3)], lambda w, b: FUSED["affine"](w, w, b), lambda w, b: w @ w + b)

GEOMETRIES = [
    Geometry(),
    Geometry((1, 1), ((1, 1), (1, 1))),
    Geometry((1, 1), ((0, 2), (1, 0))),
    Geometry((2, 3), ((1, 1), (0, 2))),
    Geometry((2, 1), ((1, 0), (1, 1)), 2),
]


def torch_conv2d(x, w, b, geometry):
    pads = [n for pair in reversed(geometry.pads) for n in pair]
    x, w = torch.nn.functional.pad(x.movedim(3, 1), pads), w.permute(3, 2, 0, 1).contiguous()
    return torch.nn.functional.conv2d(x, w, b, geometry.stride, groups=geometry.groups).movedim(1, 3)


def torch_slope(linear, shape, g):
    """The adjoint of a linear function, differentiable in what stands inside it and in g."""
    at = torch.zeros(shape, dtype=g.dtype, requires_grad=True)
    return torch.autograd.grad(linear(at), at, g, create_graph=True)[0]


for _geometry in GEOMETRIES:
    _images, _filters = normal(2, 4, 5, 2), normal(3, 2, 2 // _geometry.groups, 2)
    _maps = normal(*_geometry.outputs(_images.shape, _filters.shape))
    case(
        "conv2d", f"{_geometry}", [_images, _filters, normal(2)],
        lambda x, w, b, geo=_geometry: PRIMITIVES["conv2d"](x, w, b, geo),
        lambda x, w, b, geo=_geometry: torch_conv2d(x, w, b, geo),
    )  # fmt: skip
    case(
        "conv2d", f"{_geometry}, no bias", [_images, _filters],
        lambda x, w, geo=_geometry: PRIMITIVES["conv2d"](x, w, None, geo),
        lambda x, w, geo=_geometry: torch_conv2d(x, w, None, geo),
    )  # fmt: skip
    case(
        "conv2d_input", f"{_geometry}", [_maps, _filters],
        lambda g, w, geo=_geometry, s=_images.shape: PRIMITIVES["conv2d_input"](g, w, geo, s),
        lambda g, w, geo=_geometry, s=_images.shape: torch_slope(lambda x: torch_conv2d(x, w, None, geo), s, g),
    )  # fmt: skip
    case(
        "conv2d_weight", f"{_geometry}", [_images, _maps],
        lambda x, g, geo=_geometry, s=_filters.shape: PRIMITIVES["conv2d_weight"](x, g, geo, s),
        lambda x, g, geo=_geometry, s=_filters.shape: torch_slope(lambda w: torch_conv2d(x, w, None, geo), s, g),
    )  # fmt: skip
for _shape in [(4, 3), (1, 3), (3,), (4, 1), (2, 4, 3), (2, 1, 2, 3)]:
    _labels = RNG.integers(0, _shape[-1], _shape[:-1])
    case(
        "_softmax_cross_entropy", f"{_shape}", [normal(*_shape) * 3],
        lambda z, t=_labels: FUSED["_softmax_cross_entropy"](z, beside(np.asarray(t), z)),
        lambda z, t=_labels: torch.nn.functional.cross_entropy(
            z.reshape(-1, z.shape[-1]), torch.tensor(np.reshape(t, -1), dtype=torch.long)
        ),
    )  # fmt: skip
for _shape in SHAPES:
    case(
        "_leaky_relu", f"{_shape}", [off_zero(*_shape)],
        lambda x: FUSED["_leaky_relu"](x, 0.01), lambda x: torch.nn.functional.leaky_relu(x),
    )  # fmt: skip
    case(
        "gelu", f"{_shape}", [normal(*_shape) * 2], FUSED["gelu"],
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    )  # fmt: skip
case(
    "_leaky_relu", "slope", [off_zero(2, 3)],
    lambda x: FUSED["_leaky_relu"](x, 0.3), lambda x: torch.nn.functional.leaky_relu(x, 0.3),
)  # fmt: skip
for _shape, _axis in [((3,), -1), ((2, 3), 0), ((2, 3, 4), 1), ((0, 3), -1), ((2, 1), 1), ((1, 3), -2)]:
    case(
        "_softmax", f"{_shape} axis={_axis}", [normal(*_shape) * 3],
        lambda x, a=_axis: FUSED["_softmax"](x, a), lambda x, a=_axis: torch.softmax(x, a),
    )  # fmt: skip
for _shape in [(3,), (4, 3), (2, 4, 3), (0, 3), (4, 1), (2, 1, 3)]:
    case(
        "_layer_norm", f"{_shape}", [normal(*_shape) * 2 + 1, normal(_shape[-1]), normal(_shape[-1])],
        lambda x, w, b: FUSED["_layer_norm"](x, w, b, 1e-3),
        lambda x, w, b: torch.nn.functional.layer_norm(x, x.shape[-1:], w, b, 1e-3),
    )  # fmt: skip
for _shape, _stride, _channels in [
    ((2, 4, 6, 3), 2, 5),
    ((1, 3, 5, 2), 2, 2),
    ((2, 5, 4, 1), 3, 2),
    ((0, 4, 4, 1), 2, 2),
]:
    _half = (_shape[0], -(-_shape[1] // _stride), -(-_shape[2] // _stride), _channels)
    _rows, _columns = np.arange(0, _shape[1], _stride), np.arange(0, _shape[2], _stride)
    case(
        "_subsample", f"{_shape} stride={_stride}", [normal(*_shape)],
        lambda x, s=_stride, k=_channels: PRIMITIVES["_subsample"](x, s, k),
        lambda x, s=_stride, k=_channels: torch.nn.functional.pad(x[:, ::s, ::s], (0, k - x.shape[3])),
    )  # fmt: skip
    case(
        "_spread", f"{_shape} stride={_stride}", [normal(*_half)],
        lambda g, s=_stride, t=_shape: PRIMITIVES["_spread"](g, s, t),
        lambda g, i=_rows, j=_columns, t=_shape: torch.zeros(t, dtype=g.dtype).index_put(
            (torch.arange(t[0])[:, None, None], torch.tensor(i)[:, None], torch.tensor(j)), g[..., : t[3]]
        ),
    )  # fmt: skip


def torch_recurrence(name, state, mask, x, w, u, b, *more):
    """The recurrences, written for PyTorch one step after another: outputs, then the last state."""
    size, outputs = len(u), []
    for t in range(x.shape[1]):
        real = torch.tensor(mask[:, t, None])
        z, r = x[:, t] @ w + b, state[0] @ u
        if name == "lstm":
            i, f, o, g = *[torch.sigmoid((z + r)[:, k * size :][:, :size]) for k in (0, 1, 3)], (z + r)[:, 2 * size :]
            c = f * state[1] + i * torch.tanh(g[:, :size])
            new = o * torch.tanh(c), c
        elif name == "gru":
            reset, update = torch.sigmoid((z + r)[:, : 2 * size]).split(size, 1)
            n = torch.tanh(z[:, 2 * size :] + reset * (r[:, 2 * size :] + more[0]))
            new = ((1 - update) * n + update * state[0],)
        else:
            new = (torch.tanh(z + r),)
        outputs.append(torch.where(real, new[0], 0.0))
        state = [torch.where(real, a, b) for a, b in zip(new, state, strict=True)]
    return torch.cat([torch.stack(outputs, 1), *[s[:, None] for s in state]], 1)


def recurrence(name, x, *args):
    """The operation; its outputs and the last state are joined along the steps."""
    y, *last = FUSED[name](x, *args)
    return ops.concatenate([y, *[ops.expand_dims(s, 1) for s in last]], axis=1)


RECURRENCES = {"lstm": (4, 0, 2), "gru": (3, 1, 1), "rnn": (1, 0, 1)}
"""The number of gates, of biases besides b, and of parts of the state."""
_masks = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0]], bool)
for _name, (_gates, _biases, _states) in RECURRENCES.items():
    for _n, _t, _d, _h in [(2, 5, 3, 2), (1, 1, 1, 1), (0, 2, 2, 3)]:
        _wide = _gates * _h
        _weights = [normal(_n, _t, _d), normal(_d, _wide), normal(_h, _wide), normal(_wide), *[normal(_h)] * _biases]
        _first, _mask = [normal(_n, _h) for _ in range(_states)], _masks if _t == 5 else None
        _real, _k = np.ones((_n, _t), bool) if _mask is None else _mask, len(_weights)
        case(
            _name, f"{_n, _t, _d, _h} mask={_mask is not None}", [*_weights, *_first],
            lambda *a, name=_name, m=_mask: recurrence(name, *a, beside(m, a[0])),
            lambda *a, name=_name, m=_real, k=_k: torch_recurrence(name, a[k:], m, *a[:k]),
        )  # fmt: skip
        if _mask is not None:
            _zero, _real = [np.zeros((_n, _h))] * _states, np.ones((_n, _t), bool)
            case(
                _name, f"{_n, _t, _d, _h} from zeros", _weights,
                lambda *a, name=_name, s=_states: recurrence(name, *a, *[None] * s, None),
                lambda *a, name=_name, s=_zero, m=_real: torch_recurrence(name, [torch.tensor(v) for v in s], m, *a),
            )  # fmt: skip


def batch_norm(x, w, b, s, relu, train):
    """The operation with the statistics that the layer hands it: the batch's, or some that were kept."""
    if train:
        mean, variance = moments(raw(x))
    else:
        mean, variance = (beside(np.linspace(a, 2, x.shape[-1]), x).astype(x.dtype) for a in (-1, 1))
    return FUSED["_batch_norm"](x, w, b, s, mean, variance, 1e-3, relu, train)


def batch_norm_of_torch(x, w, b, s, relu, train):
    """PyTorch's, on (N, …, C)."""
    mean, variance = (torch.linspace(a, 2, x.shape[-1], dtype=x.dtype) for a in (-1, 1))
    flat = x.reshape(-1, x.shape[-1])
    y = torch.nn.functional.batch_norm(flat, mean, variance, w, b, train, 0.0, 1e-3).reshape(x.shape)
    y = y if s is None else y + s
    return torch.relu(y) if relu else y


def away_from_the_kink(shape, train):
    """x, γ, β and a skip such that no result, with the skip or without, is so near zero that differences cross it."""
    while True:
        x, w, b, s = args = [normal(*shape) * 2 + 1, positive(shape[-1]), normal(shape[-1]), normal(*shape)]
        y = batch_norm(x, w, b, None, False, train)
        if min(np.abs(y).min(initial=1.0), np.abs(y + s).min(initial=1.0)) > 0.03:
            return args


for _shape, _relu, _train in [
    ((4, 3), False, True),
    ((2, 3, 2), True, True),
    ((2, 2, 3, 2), True, True),
    ((2, 2, 3, 1), False, False),
    ((3, 2), True, False),
    ((0, 3), False, False),
]:
    _args = away_from_the_kink(_shape, _train)
    case(
        "_batch_norm", f"{_shape} relu={_relu} train={_train}", _args[:3],
        lambda x, w, b, r=_relu, t=_train: batch_norm(x, w, b, None, r, t),
        lambda x, w, b, r=_relu, t=_train: batch_norm_of_torch(x, w, b, None, r, t),
    )  # fmt: skip
    case(
        "_batch_norm", f"{_shape} relu={_relu} train={_train} skip", _args,
        lambda x, w, b, s, r=_relu, t=_train: batch_norm(x, w, b, s, r, t),
        lambda x, w, b, s, r=_relu, t=_train: batch_norm_of_torch(x, w, b, s, r, t),
    )  # fmt: skip


def nchw(f, *args, **kwargs):
    """A function of torch's images for ours."""
    return lambda x: f(x.permute(0, 3, 1, 2), *args, **kwargs).permute(0, 2, 3, 1)


def average_adjoint_of_torch(g, windows, shape):
    """The pullback of PyTorch's average pooling."""
    x = torch.zeros(shape, dtype=g.dtype, requires_grad=True)
    y = nchw(torch.nn.functional.avg_pool2d, *windows)(x)
    return torch.autograd.grad(y, x, g, create_graph=True)[0]


def pooled_places(x, windows):
    """Where in an image, as a row of pixels, each window has its largest entry, by PyTorch: (N, P, C)."""
    images = torch.tensor(x).permute(0, 3, 1, 2)
    places = torch.nn.functional.max_pool2d(images, *windows, return_indices=True)[1]
    return places.flatten(2).transpose(1, 2)


for _shape, _windows in [
    ((2, 4, 6, 2), Windows((2, 2), (2, 2), (0, 0))),
    ((1, 5, 4, 2), Windows((3, 2), (2, 1), (1, 1))),
    ((2, 1, 5, 1), Windows((1, 3), (1, 1), (0, 1))),
    ((1, 5, 6, 1), Windows((2, 2), (3, 2), (0, 1))),
    ((0, 4, 4, 1), Windows((2, 2), (2, 2), (0, 0))),
]:
    _x, _y = apart(*_shape), _windows.outputs(_shape)
    _told = " ".join(str(part) for part in (_shape, *_windows))
    case(
        "max_pool", _told, [_x], lambda x, w=_windows: PRIMITIVES["max_pool"](x, w),
        nchw(torch.nn.functional.max_pool2d, *_windows) if torch else None,
    )  # fmt: skip
    case(
        "average_pool", _told, [normal(*_shape)], lambda x, w=_windows: PRIMITIVES["average_pool"](x, w),
        nchw(torch.nn.functional.avg_pool2d, *_windows) if torch else None,
    )  # fmt: skip
    case(
        "_average_adjoint", _told, [normal(*_y)],
        lambda g, w=_windows, s=_shape: PRIMITIVES["_average_adjoint"](g, s, w),
        lambda g, w=_windows, s=_shape: average_adjoint_of_torch(g, w, s),
    )  # fmt: skip
    case(
        "_to_largest", _told, [normal(*_y)],
        lambda g, x=_x, w=_windows: PRIMITIVES["_to_largest"](
            g, beside(x.astype(g.dtype), g), beside(PRIMITIVES["max_pool"](x.astype(g.dtype), w), g), w
        ),
        lambda g, x=_x, w=_windows: torch.zeros(x.shape, dtype=g.dtype).flatten(1, 2)
        .scatter_add(1, pooled_places(x, w), g.flatten(1, 2)).reshape(x.shape),
    )  # fmt: skip
    case(
        "_of_largest", _told, [normal(*_shape)],
        lambda h, x=_x, w=_windows: PRIMITIVES["_of_largest"](
            h, beside(x.astype(h.dtype), h), beside(PRIMITIVES["max_pool"](x.astype(h.dtype), w), h), w
        ),
        lambda h, x=_x, w=_windows, y=_y: h.flatten(1, 2).gather(1, pooled_places(x, w)).reshape(y),
    )  # fmt: skip
for _shape in [(2, 4, 3), (1, 1, 2), (0, 3, 2)]:
    case(
        "_largest", f"{_shape}", [apart(*_shape)], PRIMITIVES["_largest"],
        lambda x: x.max(dim=1).values,
    )  # fmt: skip
for _shape in [(), (5,), (2, 3), (1, 1)]:
    case(
        "_sigmoid_cross_entropy", f"{_shape}", [normal(*_shape) * 3, RNG.uniform(0, 1, _shape)],
        FUSED["_sigmoid_cross_entropy"], lambda z, y: (torch.nn.functional.softplus(z) - y * z).mean(),
    )  # fmt: skip
for _smoothing, _ignore in [(0.1, None), (1.0, None), (0.0, 1), (0.3, -7)]:
    _labels = np.array([1, 0, 2, 2, 1]) if _ignore == 1 else np.array([1, 0, -7, 2, -7])
    _labels = np.abs(_labels) % 3 if _ignore is None else _labels
    case(
        "_softmax_cross_entropy", f"smoothing {_smoothing}, ignore {_ignore}", [normal(5, 3) * 3],
        lambda z, t=_labels, s=_smoothing, i=_ignore: FUSED["_softmax_cross_entropy"](
            z, beside(t, z), smoothing=s, ignore=i
        ),
        lambda z, t=_labels, s=_smoothing, i=_ignore: torch.nn.functional.cross_entropy(
            z, torch.tensor(t), label_smoothing=s, ignore_index=-100 if i is None else i
        ),
    )  # fmt: skip


def torch_embedding(table, tokens, padding):
    """The rows of a table, zeros for the padding."""
    tokens = torch.tensor(tokens)
    return torch.where((tokens == (-1 if padding is None else padding))[..., None], 0, table[tokens])


for _size, _tokens, _padding in [
    ((4, 3), [[1, 1, 3], [0, 1, 2]], None),
    ((4, 3), [[1, 1, 3], [0, 1, 2]], 1),
    ((3, 70), [2, 0, 2, 2, 2, 2, 2, 2], 0),  # rows long enough to be added one by one on the host
    ((2, 1), [], 1),
    ((2, 3), 1, None),
]:
    _tokens = np.array(_tokens, dtype="int64")
    case(
        "embed", f"{_size} {_tokens.shape} padding {_padding}", [normal(*_size)],
        lambda w, t=_tokens, p=_padding: PRIMITIVES["embed"](w, beside(t, w), p),
        lambda w, t=_tokens, p=_padding: torch_embedding(w, t, p),
    )  # fmt: skip
    case(
        "add_rows", f"{_size} {_tokens.shape} padding {_padding}", [normal(*_tokens.shape, _size[1])],
        lambda g, t=_tokens, p=_padding, s=_size: PRIMITIVES["add_rows"](g, beside(t, g), p, s),
        lambda g, t=_tokens, p=_padding, s=_size: torch_slope(lambda w: torch_embedding(w, t, p), s, g),
    )  # fmt: skip


# The tests over the table


def over_cases(operations):
    """Run a test on all cases of one operation at a time; the error lists every case that fails."""

    def decorate(test):
        def of_operation(op, **fixtures):
            errors = []
            for c in CASES:
                if c.op == op:
                    try:
                        test(c, **fixtures)
                    except Exception as error:
                        error.add_note(f"case {c.label}")
                        errors.append(error)
            if errors:
                raise ExceptionGroup(f"{op}: {len(errors)} of its cases", errors)

        _, *fixtures = inspect.signature(test).parameters.values()
        op = inspect.Parameter("op", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        of_operation.__signature__ = inspect.Signature([op, *fixtures])  # what pytest goes by
        of_operation.__name__, of_operation.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("op", sorted(operations))(of_operation)

    return decorate


OPERATIONS = (set(PRIMITIVES) | set(FUSED) | set(ops.__all__) | set(ops.linalg.__all__)) - {"linalg"}
every_case = over_cases(OPERATIONS)
fused_case = over_cases(FUSED)


def half_squares(f, weights):
    """A scalar whose cotangent at f's result depends on f's arguments: its Hessian has both terms."""
    return lambda xs: ops.sum(weights * ops.square(f(*xs))) * 0.5


def directions(args, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(np.shape(a)).astype(np.result_type(a)) for a in args]


def weights_for(y, seed=2):
    return np.random.default_rng(seed).uniform(0.5, 1.5, np.shape(y)).astype(np.result_type(y))


def same(actual, desired, rtol):
    scale = float(np.max(np.abs(desired), initial=1.0))
    assert np.shape(actual) == np.shape(desired)
    np.testing.assert_allclose(np.asarray(actual), desired, rtol=rtol, atol=rtol * scale)


def jacobian_rows(f, args):
    """One flattened gradient for each entry of the result, by the pullback."""
    y, pull = vjp(f, *args)
    rows = []
    for i in range(np.size(y)):
        unit = np.zeros(np.size(y))
        unit[i] = 1.0
        rows.append(np.concatenate([np.reshape(g, -1) for g in pull(unit.reshape(np.shape(y)))]))
    return np.reshape(y, -1), np.array(rows).reshape(np.size(y), sum(np.size(a) for a in args))


def test_every_operation_has_a_case_and_every_case_an_operation():
    assert {c.op for c in CASES} == OPERATIONS


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_is_documented(name):
    f = getattr(ops, name, None) or getattr(ops.linalg, name, None) or PRIMITIVES.get(name) or FUSED[name]
    assert f.__name__ == {"absolute": "abs"}.get(name, name)
    assert f.__doc__ or name.startswith("_")


@every_case
def test_our_checker_accepts_two_orders(c):
    check_grads(c.ours, *c.args, order=2)


@every_case
def test_jacobian_agrees_with_plain_differences(c):
    y, jacobian = jacobian_rows(c.ours, c.args)
    steps = directions(c.args)

    def shifted(h):  # nothing is traced here
        return np.reshape(c.ours(*[a + h * v for a, v in zip(c.args, steps, strict=True)]), -1)

    h = 1e-3
    measured = (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h)
    exact = jacobian @ np.concatenate([np.reshape(v, -1) for v in steps])
    scale = max(1.0, float(np.max(np.abs(exact), initial=0.0)), float(np.max(np.abs(y), initial=0.0)))
    np.testing.assert_allclose(exact, measured, rtol=1e-6, atol=1e-9 * scale)


@every_case
def test_pullback_can_be_differentiated_in_its_cotangent(c):
    """½‖Jᵀg‖² has the gradient J Jᵀ g: the linear half of a second derivative."""
    y, pull = vjp(c.ours, *c.args)
    _, jacobian = jacobian_rows(c.ours, c.args)
    g = weights_for(y)

    def half_square(g):
        return [ops.sum(ops.square(p)) * 0.5 for p in pull(g)]

    parts, pull_again = vjp(half_square, g)
    (got,) = pull_again([1.0] * len(parts))
    same(np.reshape(got, -1), jacobian @ (jacobian.T @ np.reshape(g, -1)), 1e-10)


@pytest.mark.peer
@every_case
def test_value_and_two_derivatives_agree_with_torch(c):
    xs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in c.args]
    y, pull = vjp(c.ours, *c.args)
    expected = c.theirs(*xs)
    same(y, expected.detach().numpy(), 1e-12)

    g = np.random.default_rng(3).standard_normal(np.shape(y))
    first = torch.autograd.grad(expected, xs, torch.tensor(g), create_graph=True, allow_unused=True)
    for ours, theirs, a in zip(pull(g), first, c.args, strict=True):
        same(ours, np.zeros(np.shape(a)) if theirs is None else theirs.detach().numpy(), 1e-10)

    w, vs = weights_for(y), directions(c.args)
    loss = (torch.tensor(w) * c.theirs(*xs) ** 2).sum() / 2
    slopes = torch.autograd.grad(loss, xs, create_graph=True)
    inner = sum((s * torch.tensor(v)).sum() for s, v in zip(slopes, vs, strict=True))
    none = [None] * len(xs)
    second = torch.autograd.grad(inner, xs, allow_unused=True) if inner.requires_grad else none
    for ours, theirs, a in zip(hvp(half_squares(c.ours, w))(list(c.args), vs), second, c.args, strict=True):
        same(ours, np.zeros(np.shape(a)) if theirs is None else theirs.numpy(), 1e-10)


@every_case
def test_dtype_of_the_input_is_kept_to_second_order(c, device):
    if any(type(a) is float for a in c.args):  # a number has no dtype to keep
        return
    for dtype in ("float32", "float64") if device.name == "cpu" else ("float32",):
        args = [a.astype(dtype) for a in c.args]
        g, vs = weights_for(c.ours(*args)), directions(args)
        found = two_orders(c, device.arrays(args), device.array(g), device.arrays(vs))
        assert [x.dtype for x in found] == [dtype] * len(found)


@every_case
def test_devices_agree_nobody_waits_and_nothing_is_written_to(c, device):
    args = [np.array(a) for a in c.args]
    g, vs = weights_for(c.ours(*args)), directions(args)
    for a in (*args, g):
        a.setflags(write=False)
    expected = two_orders(c, args, g, vs)
    moved = device.arrays(args), device.array(g), device.arrays(vs)
    waits = looks(c) and device.name == "strict"
    with device.no_sync(), pytest.raises(SyncError, match="waits") if waits else contextlib.nullcontext():
        found = two_orders(c, *moved)
    found = two_orders(c, *moved) if waits else found
    own_way = c.op.startswith("conv2d")  # the CPU's convolution, whose last bits are its own
    tolerance = 1e-9 if device.name == "cuda" else 1e-12 if own_way else 0.0
    for got, want in zip(device.host(found), expected, strict=True):
        assert np.shape(got) == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    for now, before in zip(device.host(moved[0]), c.args, strict=True):
        np.testing.assert_array_equal(now, before)


def two_orders(c, args, g, vs):
    """The value of a case, its pullback of g, and a Hessian's product with vs, in one list."""
    y, pull = vjp(c.ours, *args)
    return [y, *pull(g), *hvp(half_squares(c.ours, g))(args, vs)]


def looks(c):
    """Whether a case looks at values: a mask decides upon a shape, det upon its rule."""
    return c.op == "det" or (c.op in ("getitem", "scatter", "scatter_add") and "False" in c.label)


@fused_case
def test_fused_equals_its_reference_to_second_order(c):
    fused = FUSED[c.op]
    calls = []

    def reference(*args, **kwargs):
        calls.append(c.op)
        return fused.reference(*args, **kwargs)

    y, pull = vjp(c.ours, *c.args)
    w, vs = weights_for(y), directions(c.args)
    second = hvp(half_squares(c.ours, w))(list(c.args), vs)

    plain = by_reference(c, reference)
    y_ref, pull_ref = vjp(plain, *c.args)
    assert calls
    same(y, y_ref, 1e-14)
    same(c.ours(*c.args), y_ref, 1e-14)
    for ours, theirs in zip(pull(w), pull_ref(w), strict=True):
        same(ours, theirs, 1e-12)
    for ours, theirs in zip(second, hvp(half_squares(plain, w))(list(c.args), vs), strict=True):
        same(ours, theirs, 1e-12)


def by_reference(c, reference):
    """The case with the reference in the place of the fused operation."""
    if c.ours is FUSED[c.op]:
        return reference

    def f(*args):
        original = FUSED[c.op]
        FUSED[c.op] = reference
        try:
            return c.ours(*args)
        finally:
            FUSED[c.op] = original

    return f


POINT = np.array([[0.4, 1.3, -0.7], [0.9, -0.2, 0.6]])
THIRD = {
    "elementary": lambda x: np.sin(x) * np.arctan(x) + np.log1p(x * x) / np.cosh(x) + np.cbrt(x + 3),
    "two operands": lambda x: np.arctan2(x, x[0]) + np.hypot(x, 1.5) + np.logaddexp(x, x[:, :1]) + (x * x + 1) ** x,
    "prod": lambda x: np.prod(x * x - 0.3, axis=1) + np.prod(np.sin(x)),
    "cumprod": lambda x: np.cumprod(np.sin(x), axis=1),
    "std": lambda x: np.std(x, axis=1) * np.linalg.norm(x, 3, axis=1),
    "einsum": lambda x: np.einsum("ij,kj,ij->k", x, np.sin(x), x),
    "solve": lambda x: np.linalg.solve(x @ x.T + beside(np.eye(2), x), x),
    "det": lambda x: np.linalg.det(x @ x.T) + np.linalg.slogdet(x @ x.T).logabsdet,
    "det, singular there": lambda x: np.linalg.det(
        np.vstack([x, x[0] + x[1] + (x[0] - beside(POINT[0], x)) * beside(np.arange(3.0), x)])
    ),
    "inv": lambda x: np.linalg.inv(x @ x.T + beside(np.eye(2), x)),
    "cholesky": lambda x: np.linalg.cholesky(x @ x.T + beside(np.eye(2), x)),
    "moved": lambda x: np.sort(np.roll(np.pad(x, 1, mode="reflect"), 1) ** 3, axis=0)[1:3] * np.tile(x, (1, 2))[:, :5],
}


@pytest.mark.parametrize("name", THIRD)
def test_third_derivatives(name, device):
    check_grads(THIRD[name], device.array(POINT), order=3)


def test_cast_gives_the_gradient_back_in_the_dtype_of_the_input(device):
    y, pull = vjp(lambda x: ops.cast(x, "float32"), device.array([1.0, 2.0]))
    assert y.dtype == np.float32
    (g,) = pull(device.array([3.0, 4.0], "float32"))
    assert g.dtype == np.float64
    np.testing.assert_array_equal(device.host(g), [3.0, 4.0])


def test_mixed_dtypes_promote_as_numpy_and_each_gradient_keeps_its_own(device):
    a, b = device.array(np.ones(3, dtype="float32")), device.array(np.ones(3))
    y, pull = vjp(lambda a, b: a * b, a, b)
    assert y.dtype == np.float64
    assert [g.dtype for g in pull(b)] == [np.float32, np.float64]


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "maximum", "power"])
def test_python_numbers_do_not_promote_float32(op, device):
    f, x = getattr(ops, op), device.array([0.5, 1.5], "float32")
    for number in (2, 2.0):
        for g in (lambda x, n=number: f(x, n), lambda x, n=number: f(n, x)):
            y, pull = vjp(g, x)
            assert (y.dtype, pull(np.ones_like(y))[0].dtype) == (np.float32, np.float32)


BINARY = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum"]


@pytest.mark.parametrize("op", BINARY)
def test_a_plain_list_may_be_an_operand(op):
    f, x, row = getattr(ops, op), np.array([[0.5, 1.5, 2.5], [1.0, 2.0, 3.0]]), [1.2, 2.3, 1.7]
    for ours in (lambda x: f(x, row), lambda x: f(row, x)):
        check_grads(ours, x)
    np.testing.assert_array_equal(f(x, row), f(x, np.array(row)))


@pytest.mark.parametrize("op", BINARY)
def test_a_device_takes_no_lists_and_no_arrays_of_the_host(op, device):
    if device.name == "cpu":
        return
    f, x = getattr(ops, op), device.array([0.5, 1.5])
    for other in ([1.2, 2.3], np.array([1.2, 2.3])):
        for call in (lambda x, y=other: f(x, y), lambda x, y=other: f(y, x)):
            with pytest.raises(TypeError):
                vjp(call, x)
    with pytest.raises(TypeError, match=rf"arrays on cpu and {device.backend.device} met: .* bng.asarray\(x, device="):
        f(x, np.array([1.2, 2.3]))


def test_operations_take_plain_lists_as_numpy_does():
    np.testing.assert_array_equal(ops.add([1.0, 2.0], [3.0, 4.0]), [4.0, 6.0])
    np.testing.assert_array_equal(ops.matmul([[1.0, 2.0]], [[3.0], [4.0]]), [[11.0]])


# Planted faults: the table must find a wrong rule in every operation that has one


def closure(function, name):
    """The cell in which a function holds a variable of the function around it."""
    return function.__closure__[function.__code__.co_freevars.index(name)]


@contextlib.contextmanager
def planted(op, i, change):
    """Run with rule i of an operation replaced by ``change(rule)``; i is None for the one rule of all arguments."""
    pull = closure(PRIMITIVES[op], "pull").cell_contents
    cell = closure(pull, "every") if i is None else closure(closure(pull, "_rule_of").cell_contents, "rules")
    right = cell.cell_contents
    cell.cell_contents = change(right) if i is None else (*right[:i], change(right[i]), *right[i + 1 :])
    try:
        yield
    finally:
        cell.cell_contents = right


def rules_of(op):
    """The positions of an operation's rules: [None] for one rule of all arguments."""
    pull = closure(PRIMITIVES[op], "pull").cell_contents
    if closure(pull, "every").cell_contents is not None:
        return [None]
    rules = closure(closure(pull, "_rule_of").cell_contents, "rules").cell_contents
    return [i for i, rule in enumerate(rules) if rule is not None and rule.__name__ != "_condition"]  # it refuses


def found(op):
    """Whether some case of the operation fails under our checker."""
    for c in CASES:
        if c.op == op:
            try:
                check_grads(c.ours, *c.args, order=2)
            except (AssertionError, ValueError):  # differences disagree, or the shapes
                return True
    return False


def each(change):
    """Apply a change to one cotangent, or to each of several."""
    return lambda g: [change(x) for x in g] if isinstance(g, (list, tuple)) else change(g)


FAULTS = {
    "factor": lambda rule: lambda *a, **k: each(lambda x: x * 1.001)(rule(*a, **k)),
    "sign": lambda rule: lambda *a, **k: each(lambda x: -x)(rule(*a, **k)),
    "lost": lambda rule: lambda *a, **k: each(lambda x: x * 0.0)(rule(*a, **k)),
    "second derivative lost": lambda rule: lambda g, y, *a, **k: rule(plain(g), y, *a, **k),
}
LINEAR_LOOP = {"add", "sum_to", "broadcast_to", "cast"}
"""What the backward pass itself calls: a fault there is in every derivative, and may loop."""


def plain(g):
    """A cotangent without its history, as a rule that calls NumPy past the tracer would see it."""
    return tuple(map(plain, g)) if isinstance(g, tuple) else raw(g)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("op", sorted(set(PRIMITIVES) - LINEAR_LOOP - {"sign"}))
def test_a_fault_in_a_rule_is_found(op, fault):
    for i in rules_of(op):
        with planted(op, i, FAULTS[fault]):
            assert found(op), f"argument {i}"


def swapped(rule):
    return lambda g, y, a, b: rule(g, y, b, a)


SUBTLE = {
    "matmul: left operand not transposed": ("matmul", 1, lambda r: lambda g, y, a, b: ops.matmul(a, g)),
    "solve: a's cotangent transposed": ("solve", None, lambda r: lambda g, y, n, a, b: [
        ops.matrix_transpose(x) if i == 0 else x for i, x in zip(n, r(g, y, n, a, b), strict=True)]),
    "inv: one transposition missing": ("inv", 0, lambda r: lambda g, y, a: -y @ g @ ops.matrix_transpose(y)),
    "det: cofactors transposed": ("det", 0, lambda r: lambda g, y, a: ops.matrix_transpose(r(g, y, a))),
    "cholesky: not symmetric": ("_cholesky", 0, lambda r: lambda g, y, a: ops.tril(r(g, y, a)) * 1.5),
    "cholesky: upper half of g not masked": ("_cholesky", 0, lambda r: lambda g, y, a: r(g + ops.triu(g, 1).mT, y, a)),
    "einsum: one operand's cotangent halved": ("_einsum", None, lambda r: lambda g, y, n, s, *xs, **k: [
        x * (0.5 if i == 2 else 1.0) for i, x in zip(n, r(g, y, n, s, *xs, **k), strict=True)]),
    "cumsum: not reversed": ("cumsum", 0, lambda r: lambda g, y, x, axis=None: ops.reshape(
        ops.cumsum(g, axis=axis), np.shape(x))),
    "cumsum: wrong axis": ("cumsum", 0, lambda r: lambda g, y, x, axis=None: r(g, y, x, axis=axis and axis - 1)),
    "roll: forward instead of back": ("roll", 0, lambda r: lambda g, y, x, shift, axis=None: ops.roll(g, shift, axis)),
    "flip: always all axes": ("flip", 0, lambda r: lambda g, y, x, axis=None: ops.flip(g)),
    "tril: diagonal cut off": ("tril", 0, lambda r: lambda g, y, x, k=0: ops.tril(g, k - 1)),
    "pad: from the wrong end": ("_surround", 0, lambda r: lambda g, y, x, w, v: ops.flip(r(ops.flip(g), y, x, w, v))),
    "cut: parts in the wrong order": ("_cut", 0, lambda r: lambda g, y, x, cuts, axis: ops.concatenate(g[::-1], axis)),
    "transpose: axes not inverted": ("transpose", 0, lambda r: lambda g, y, x, axes=None: ops.transpose(g, axes)),
    "moveaxis: not back": ("moveaxis", 0, lambda r: lambda g, y, x, source, destination: ops.moveaxis(
        g, source, destination)),
    "scatter_add: values doubled": ("scatter_add", 2, lambda r: lambda g, y, x, i, v: 2 * g[i]),
    "divide: second term's y forgotten": ("divide", 1, lambda r: lambda g, y, a, b: -g / b),
    "power: p not lowered": ("power", 0, lambda r: lambda g, y, x, p: g * p * y),
    "power: derivative in the exponent": ("power", 1, lambda r: lambda g, y, x, p: g * y),
    "hypot: y not divided by": ("hypot", 0, lambda r: lambda g, y, a, b: g * a),
    "arctan2: arguments swapped": ("arctan2", 0, swapped),
    "logaddexp: arguments swapped": ("logaddexp", 0, swapped),
    "remainder: truncated": ("remainder", 1, lambda r: lambda g, y, a, b: -g * np.trunc(raw(a) / raw(b))),
    "expm1: exp without its 1": ("expm1", 0, lambda r: lambda g, y, x: g * y),
    "arccos: sign": ("arccos", 0, lambda r: lambda g, y, x: -r(g, y, x)),
    "logsumexp: no softmax": ("logsumexp", 0, lambda r: lambda g, y, x, axis=None, keepdims=False: r(
        g, y, x, axis=axis, keepdims=keepdims) * 0 + np.mean(raw(g))),
    "max: not linear in g": ("max", 0, lambda r: lambda g, y, x, axis=None, keepdims=False: r(
        g, y, x, axis=axis, keepdims=keepdims) ** 2),
    "root: not halved": ("root", 0, lambda r: lambda g, y, x: g / y),
    "where: branches swapped": ("where", 1, lambda r: lambda g, y, c, a, b: ops.where(c, 0, g)),
}  # fmt: skip


@pytest.mark.parametrize("name", SUBTLE)
def test_a_subtle_fault_is_found(name):
    op, i, change = SUBTLE[name]
    with planted(op, i, change):
        assert found(op)


def test_a_planted_fault_is_taken_out_again():
    with planted("exp", 0, FAULTS["sign"]):
        assert found("exp")
    assert not found("exp")
