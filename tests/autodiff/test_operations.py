"""Every operation against three oracles that share no code with it: our checker's differences, plain differences of
this file, and PyTorch. The table of cases must name every registered operation."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from minibng.autodiff import check_grads, hvp, ops, vjp
from minibng.autodiff.tracer import FUSED, PRIMITIVES

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


def case(op, label, args, ours, theirs):
    args = tuple(a if type(a) is float else np.asarray(a) for a in args)
    CASES.append(Case(op, label, args, ours, theirs))


def normal(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.uniform(0.5, 2.0, shape)


def off_zero(*shape):
    return RNG.uniform(0.3, 1.5, shape) * RNG.choice([-1.0, 1.0], shape)


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
binary("maximum", normal, lambda a, b: torch.maximum(a, b))
binary("minimum", normal, lambda a, b: torch.minimum(a, b))

for _p in (3, 2, 1, 0, -1, 0.5, -1.5, 2.0):
    case("power", f"x**{_p!r}", [positive(2, 3)], lambda x, p=_p: ops.power(x, p), lambda x, p=_p: torch.pow(x, p))
for _p in (3, 2, 1, 0, -2):
    case("power", f"(-x)**{_p}", [-positive(3)], lambda x, p=_p: ops.power(x, p), lambda x, p=_p: torch.pow(x, p))
_exponents = np.array([0.0, 1.0, 2.0, -1.0, 0.5])
case(
    "power", "exponents plain", [positive(5)],
    lambda x: ops.power(x, _exponents.astype(x.dtype)), lambda x: torch.pow(x, torch.tensor(_exponents)),
)  # fmt: skip
# torch.pow itself loses ∂²/∂x∂p at p = 0
case("power", "exponents traced", [positive(2, 5), _exponents], ops.power, lambda x, p: torch.exp(p * torch.log(x)))
case("power", "exponent zero", [positive(3), np.array(0.0)], ops.power, lambda x, p: torch.exp(p * torch.log(x)))

_c = np.array([[True, False, True], [False, False, True]])
for _a, _b in (((2, 3), (2, 3)), ((3,), (2, 1)), ((), (2, 3)), ((4, 2, 3), (3,))):
    case(
        "where", f"{_a} {_b}", [normal(*_a), normal(*_b)],
        lambda a, b: ops.where(_c, a, b), lambda a, b: torch.where(torch.tensor(_c), a, b),
    )  # fmt: skip
_c3 = np.array([[[True]], [[False]]])
case(
    "where", "three shapes", [normal(3, 1), normal(4)],
    lambda a, b: ops.where(_c3, a, b), lambda a, b: torch.where(torch.tensor(_c3), a, b),
)  # fmt: skip
case("where", "number", [normal(2, 3)], lambda a: ops.where(_c, a, 0), lambda a: torch.where(torch.tensor(_c), a, 0.0))
case("where", "size 0", [normal(0, 3), normal(3)], lambda a, b: ops.where(_c[:0], a, b), lambda a, b: a + 0 * b)

_grid = np.array([[-2.0, -0.7, 0.1], [0.4, 0.9, 3.0]])
case("clip", "both", [_grid], lambda x: ops.clip(x, -0.5, 0.5), lambda x: torch.clamp(x, -0.5, 0.5))
case("clip", "below", [_grid], lambda x: ops.clip(x, -0.5, None), lambda x: torch.clamp(x, min=-0.5))
case("clip", "above", [_grid], lambda x: ops.clip(x, None, 0.5), lambda x: torch.clamp(x, max=0.5))
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
reduction("max", apart, lambda x, a, k: torch.amax(x, a, k), empty=False)
reduction("min", apart, lambda x, a, k: torch.amin(x, a, k), empty=False)
reduction("logsumexp", normal, lambda x, a, k: torch.logsumexp(x, a, k), empty=False)
for _op in ("sum", "mean", "max", "min", "var", "logsumexp"):
    _zero = 0.0 if _op == "var" else 1.0
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
for _a, _b in [((), (3,)), ((3,), ()), ((), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4))]:
    _f = (lambda a, b: a * b) if () in (_a, _b) else (lambda a, b: torch.matmul(a, b))
    case("dot", f"{_a} {_b}", [normal(*_a), normal(*_b)], ops.dot, _f)


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
    lambda x: ops.concatenate([_two.astype(x.dtype), x]), lambda x: torch.cat([torch.tensor(_two), x]),
)  # fmt: skip
for _shape, _axis in [((), 0), ((3,), 0), ((3,), 1), ((3,), -1), ((2, 3), 1), ((2, 3), -2), ((0,), 0)]:
    case(
        "stack", f"{_shape} axis={_axis}", [normal(*_shape) for _ in range(3)],
        lambda *xs, a=_axis: ops.stack(xs, axis=a), lambda *xs, a=_axis: torch.stack(xs, dim=a),
    )  # fmt: skip
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
        lambda x, i=_index: ops.getitem(x, i), lambda x, i=_index: torch_gather(x, i),
    )  # fmt: skip
    case(
        "scatter", f"{_n}: {_shape} {_index!r}", [normal(*np.empty(_shape)[_index].shape)],
        lambda x, i=_index, s=_shape: PRIMITIVES["scatter"](x, i, s),
        lambda x, i=_index, s=_shape: torch_scatter(x, i, s),
    )  # fmt: skip


# Fused

unary_sigmoid = [(s, normal(*s) * 3) for s in SHAPES]
for _shape, _x in unary_sigmoid:
    case("sigmoid", f"{_shape}", [_x], FUSED["sigmoid"], lambda x: torch.sigmoid(x))
for _shape in [(4, 3), (3,), (1, 3), (0, 3), (2, 4, 3), (2, 1, 4, 3)]:
    case(
        "affine", f"{_shape}", [normal(*_shape), normal(3, 2), normal(2)], FUSED["affine"],
        lambda x, w, b: x @ w + b,
    )  # fmt: skip
_x, _w, _b = normal(4, 3), normal(3, 2), normal(2)
case("affine", "one input", [normal(4, 1), normal(1, 1), normal(1)], FUSED["affine"], lambda x, w, b: x @ w + b)
case(
    "affine", "weights only", [normal(3, 2)],
    lambda w: FUSED["affine"](_x.astype(w.dtype), w, _b.astype(w.dtype)),
    lambda w: torch.tensor(_x) @ w + torch.tensor(_b),
)  # fmt: skip
case(
    "affine", "bias only", [normal(2)],
    lambda b: FUSED["affine"](_x.astype(b.dtype), _w.astype(b.dtype), b), lambda b: torch.tensor(_x @ _w) + b,
)  # fmt: skip
case("affine", "same twice", [normal(3, 3), normal(3)], lambda w, b: FUSED["affine"](w, w, b), lambda w, b: w @ w + b)
for _shape in [(4, 3), (1, 3), (3,), (4, 1), (2, 4, 3), (2, 1, 2, 3)]:
    _labels = RNG.integers(0, _shape[-1], _shape[:-1])
    case(
        "_softmax_cross_entropy", f"{_shape}", [normal(*_shape) * 3],
        lambda z, t=_labels: FUSED["_softmax_cross_entropy"](z, np.asarray(t)),
        lambda z, t=_labels: torch.nn.functional.cross_entropy(
            z.reshape(-1, z.shape[-1]), torch.tensor(np.reshape(t, -1), dtype=torch.long)
        ),
    )  # fmt: skip
for _shape in SHAPES:
    case(
        "leaky_relu", f"{_shape}", [off_zero(*_shape)],
        PRIMITIVES["leaky_relu"], lambda x: torch.nn.functional.leaky_relu(x),
    )  # fmt: skip
    case(
        "gelu", f"{_shape}", [normal(*_shape) * 2], FUSED["gelu"],
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    )  # fmt: skip
case(
    "leaky_relu", "slope", [off_zero(2, 3)],
    lambda x: PRIMITIVES["leaky_relu"](x, 0.3), lambda x: torch.nn.functional.leaky_relu(x, 0.3),
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
        lambda z, t=_labels, s=_smoothing, i=_ignore: FUSED["_softmax_cross_entropy"](z, t, smoothing=s, ignore=i),
        lambda z, t=_labels, s=_smoothing, i=_ignore: torch.nn.functional.cross_entropy(
            z, torch.tensor(t), label_smoothing=s, ignore_index=-100 if i is None else i
        ),
    )  # fmt: skip


# The tests over the table


def over_cases(operations):
    """Run a test on all cases of one operation at a time; the error lists every case that fails."""

    def decorate(test):
        def of_operation(op):
            errors = []
            for c in CASES:
                if c.op == op:
                    try:
                        test(c)
                    except Exception as error:
                        error.add_note(f"case {c.label}")
                        errors.append(error)
            if errors:
                raise ExceptionGroup(f"{op}: {len(errors)} of its cases", errors)

        of_operation.__name__, of_operation.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("op", sorted(operations))(of_operation)

    return decorate


OPERATIONS = set(PRIMITIVES) | set(FUSED) | set(ops.__all__)
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
    f = getattr(ops, name, None) or PRIMITIVES.get(name) or FUSED[name]
    assert f.__name__ == name
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
def test_dtype_of_the_input_is_kept_to_second_order(c):
    if any(type(a) is float for a in c.args):  # a number has no dtype to keep
        return
    for dtype in ("float32", "float64"):
        args = [a.astype(dtype) for a in c.args]
        y, pull = vjp(c.ours, *args)
        assert y.dtype == dtype
        assert [g.dtype for g in pull(weights_for(y))] == [dtype] * len(args)
        second = hvp(half_squares(c.ours, weights_for(y)))(args, directions(args))
        assert [g.dtype for g in second] == [dtype] * len(args)


@every_case
def test_inputs_and_cotangents_are_not_written_to(c):
    args = [np.array(a) for a in c.args]
    for a in args:
        a.setflags(write=False)
    y, pull = vjp(c.ours, *args)
    g = weights_for(y)
    g.setflags(write=False)
    pull(g)
    hvp(half_squares(c.ours, g))(args, directions(args))
    for a, original in zip(args, c.args, strict=True):
        np.testing.assert_array_equal(a, original)


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


def test_cast_gives_the_gradient_back_in_the_dtype_of_the_input():
    y, pull = vjp(lambda x: ops.cast(x, "float32"), np.array([1.0, 2.0]))
    assert y.dtype == np.float32
    (g,) = pull(np.array([3.0, 4.0], dtype="float32"))
    assert g.dtype == np.float64
    np.testing.assert_array_equal(g, [3.0, 4.0])


def test_mixed_dtypes_promote_as_numpy_and_each_gradient_keeps_its_own():
    a, b = np.ones(3, dtype="float32"), np.ones(3)
    y, pull = vjp(lambda a, b: a * b, a, b)
    assert y.dtype == np.float64
    assert [g.dtype for g in pull(np.ones(3))] == [np.float32, np.float64]


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "maximum", "power"])
def test_python_numbers_do_not_promote_float32(op):
    f, x = getattr(ops, op), np.array([0.5, 1.5], dtype="float32")
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


def test_operations_take_plain_lists_as_numpy_does():
    np.testing.assert_array_equal(ops.add([1.0, 2.0], [3.0, 4.0]), [4.0, 6.0])
    np.testing.assert_array_equal(ops.matmul([[1.0, 2.0]], [[3.0], [4.0]]), [[11.0]])
