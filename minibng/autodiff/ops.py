"""The operation table: every function that can be differentiated, under NumPy's name, with its rule beside it.

A rule reads ``lambda g, y, *args``: g is the cotangent of the result y. Rules are written in ordinary array operations,
which are these very operations when their operands are traced, and need not undo broadcasting (the tracer does, once).

Kinks: relu'(0) = abs'(0) = 0; ties in max, min, maximum and minimum share the gradient equally.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibng.autodiff.tracer import (
    NUMPY_HINTS,
    NUMPY_NAMES,
    Rule,
    Traced,
    add,
    broadcast_to,
    cast,
    primitive,
    raw,
    shape_of,
    sum_to,
)
from minibng.backend import Array, backend_of

__all__ = [
    "abs",
    "add",
    "broadcast_to",
    "cast",
    "clip",
    "concatenate",
    "divide",
    "dot",
    "exp",
    "expand_dims",
    "getitem",
    "log",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "power",
    "ravel",
    "relu",
    "reshape",
    "sign",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "sum_to",
    "swapaxes",
    "tanh",
    "transpose",
    "var",
    "where",
]


def _ufunc(function: Any, *rules: Rule, name: str = "") -> Callable[..., Any]:
    """Make an operation of one of NumPy's elementwise functions."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__name__ = name or function.__name__
    call.__doc__ = f"Return np.{call.__name__}, elementwise."
    return primitive(*map(_of_arrays, rules), numpy=function)(call)


def _of_arrays(rule: Rule) -> Rule:
    """Let a rule see arrays where the function was called with lists."""
    return lambda g, y, *args: rule(g, y, *[np.asarray(a) if isinstance(a, list) else a for a in args])


def _named(*names: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let NumPy's functions find a function that is composed of operations and so needs no rule."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        NUMPY_NAMES.update(dict.fromkeys(names, function))
        return function

    return register


# Elementwise -----------------------------------------------------------------------------------------------

subtract = _ufunc(np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g)
multiply = _ufunc(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
divide = _ufunc(np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
negative = _ufunc(np.negative, lambda g, y, x: -g)
exp = _ufunc(np.exp, lambda g, y, x: g * y)
log = _ufunc(np.log, lambda g, y, x: g / x)
sqrt = _ufunc(np.sqrt, lambda g, y, x: g * 0.5 / y)
square = _ufunc(np.square, lambda g, y, x: g * 2 * x)
tanh = _ufunc(np.tanh, lambda g, y, x: g * (1 - y * y))
abs = _ufunc(np.absolute, lambda g, y, x: g * sign(x), name="abs")
power = _ufunc(np.power, lambda g, y, x, p: g * _power_slope(x, p), lambda g, y, x, p: g * y * _safe_log(x))
maximum = _ufunc(np.maximum, lambda g, y, a, b: g * _share(a, b), lambda g, y, a, b: g * _share(b, a))
minimum = _ufunc(np.minimum, lambda g, y, a, b: g * _share(b, a), lambda g, y, a, b: g * _share(a, b))


def _power_slope(x: Array, p: Any) -> Array:
    """Return p·x^(p−1), which is 0 for p = 0 even where x is 0."""
    if isinstance(p, (int, float)):
        return p * power(x, p - 1) if p else 0.0
    return p * power(x, where((raw(p) == 0) & (raw(x) == 0), 1, p - 1))


def _safe_log(x: Any) -> Any:
    """Return log x, and 0 where x ≤ 0: there the power's derivative in its exponent is 0 or undefined."""
    if isinstance(x, (int, float)):
        return math.log(x) if x > 0 else 0.0
    return log(where(raw(x) > 0, x, 1))


def _share(winner: Array, loser: Array) -> Array:
    """Return 1 where the first is greater, ½ where they are equal, else 0, in the dtype of the two."""
    a, b = raw(winner), raw(loser)
    dtype = np.result_type(a, b)
    return (np.greater(a, b).astype(dtype) + np.greater_equal(a, b).astype(dtype)) * 0.5


@primitive(lambda g, y, x: g * (raw(x) > 0))
def relu(x: Array) -> Array:
    """Return max(x, 0), elementwise; its derivative at 0 is 0."""
    return np.maximum(x, 0)


@primitive(lambda g, y, x: _zeros(x), numpy=np.sign)
def sign(x: Array) -> Array:
    """Return −1, 0 or 1, elementwise; its derivative is 0."""
    return np.sign(x)


@primitive(
    None,
    lambda g, y, c, a, b: where(c, g, 0),
    lambda g, y, c, a, b: where(c, 0, g),
    numpy=np.where,
)
def where(condition: Array, a: Array, b: Array) -> Array:
    """Return a where the condition (not differentiated) holds, else b."""
    return np.where(condition, a, b)


def clip(x: Array, a_min: Any, a_max: Any) -> Array:
    """Return x limited to [a_min, a_max]; None leaves a side open."""
    x = x if a_min is None else maximum(x, a_min)
    return x if a_max is None else minimum(x, a_max)


_named(np.clip)(clip)


def _zeros(x: Array) -> Any:
    """Return the zero cotangent of x."""
    return np.zeros_like(raw(x))


# Reductions ------------------------------------------------------------------------------------------------


def _keep(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Give a reduced array its lost axes back, as axes of length 1."""
    if keepdims:
        return g
    shape = list(shape_of(x))
    for a in _axes(x, axis):
        shape[a] = 1
    return reshape(g, tuple(shape))


def _axes(x: Array, axis: Any) -> Sequence[int]:
    """Return the axes that are reduced over: None means all."""
    if axis is None:
        return range(len(shape_of(x)))
    return tuple(axis) if isinstance(axis, (tuple, list)) else (operator.index(axis),)


def _spread(g: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    return broadcast_to(_keep(g, x, axis, keepdims), shape_of(x))


def _to_extremes(g: Array, y: Array, x: Array, axis: Any, keepdims: bool) -> Array:
    """Send the cotangent of a maximum or minimum to the entries that attain it, in equal shares."""
    value = raw(x)
    hit = np.equal(value, _keep(raw(y), value, axis, keepdims)).astype(np.result_type(value))
    return _keep(g, x, axis, keepdims) * (hit / np.sum(hit, axis=axis, keepdims=True))


@primitive(lambda g, y, x, axis=None, keepdims=False: _spread(g, x, axis, keepdims), numpy=np.sum)
def sum(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the sum over ``axis`` (None: all)."""
    return np.sum(x, axis=axis, keepdims=keepdims)


@primitive(lambda g, y, x, axis=None, keepdims=False: _to_extremes(g, y, x, axis, keepdims), numpy=(np.max, np.amax))
def max(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the largest entry over ``axis``; ties share the gradient equally."""
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(lambda g, y, x, axis=None, keepdims=False: _to_extremes(g, y, x, axis, keepdims), numpy=(np.min, np.amin))
def min(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the smallest entry over ``axis``; ties share the gradient equally."""
    return np.min(x, axis=axis, keepdims=keepdims)


def _count(x: Array, axis: Any) -> int:
    return math.prod(shape_of(x)[a] for a in _axes(x, axis))


@_named(np.mean)
def mean(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return the mean over ``axis`` (None: all)."""
    return sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


@_named(np.var)
def var(x: Array, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Array:
    """Return the mean squared deviation over ``axis``, its sum divided by (count − ddof)."""
    centred = x - mean(x, axis=axis, keepdims=True)
    return sum(centred * centred, axis=axis, keepdims=keepdims) / (_count(x, axis) - ddof)


def logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Return log Σ exp(x) over ``axis``, without overflow: the largest entry is taken out first."""
    top = np.max(raw(x), axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", over="ignore"):
        total = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else squeeze(total, axis=axis)


# Products --------------------------------------------------------------------------------------------------


def _matmul_left(g: Array, y: Array, a: Array, b: Array) -> Array:
    if len(shape_of(b)) == 1:
        return g * b if len(shape_of(a)) == 1 else expand_dims(g, -1) * b
    if len(shape_of(a)) == 1:
        return squeeze(matmul(expand_dims(g, -2), swapaxes(b, -1, -2)), axis=-2)
    return matmul(g, swapaxes(b, -1, -2))


def _matmul_right(g: Array, y: Array, a: Array, b: Array) -> Array:
    if len(shape_of(a)) == 1:
        return g * a if len(shape_of(b)) == 1 else expand_dims(a, -1) * expand_dims(g, -2)
    if len(shape_of(b)) == 1:
        return squeeze(matmul(swapaxes(a, -1, -2), expand_dims(g, -1)), axis=-1)
    return matmul(swapaxes(a, -1, -2), g)


@primitive(_matmul_left, _matmul_right, numpy=np.matmul)
def matmul(a: Array, b: Array) -> Array:
    """Return the matrix product a @ b; leading axes are a batch and broadcast, 1-D operands are vectors."""
    return np.matmul(a, b)


@_named(np.dot)
def dot(a: Array, b: Array) -> Array:
    """Return np.dot for operands of at most two axes."""
    if len(shape_of(a)) > 2 or len(shape_of(b)) > 2:
        raise ValueError(f"dot takes up to two axes, got {shape_of(a)} and {shape_of(b)}: use matmul")
    return matmul(a, b) if len(shape_of(a)) and len(shape_of(b)) else multiply(a, b)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that put a transposed array back."""
    return tuple(int(i) for i in np.argsort([a % len(axes) for a in axes]))


# Shapes ----------------------------------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: reshape(g, shape_of(x)), numpy=np.reshape)
def reshape(x: Array, shape: Any) -> Array:
    """Return x in another shape with the same entries in the same order."""
    return np.reshape(x, shape)


@primitive(
    lambda g, y, x, axes=None: transpose(g, None if axes is None else _inverse(axes)),
    numpy=np.transpose,
)
def transpose(x: Array, axes: Any = None) -> Array:
    """Return x with its axes in another order (None: reversed)."""
    return np.transpose(x, axes)


@primitive(lambda g, y, x, axis1, axis2: swapaxes(g, axis1, axis2), numpy=np.swapaxes)
def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """Return x with two axes exchanged."""
    return np.swapaxes(x, axis1, axis2)


@primitive(lambda g, y, x, source, destination: moveaxis(g, destination, source), numpy=np.moveaxis)
def moveaxis(x: Array, source: Any, destination: Any) -> Array:
    """Return x with one or several axes moved."""
    return np.moveaxis(x, source, destination)


@primitive(lambda g, y, x, axis: reshape(g, shape_of(x)), numpy=np.expand_dims)
def expand_dims(x: Array, axis: Any) -> Array:
    """Return x with axes of length 1 put in."""
    return np.expand_dims(x, axis)


@primitive(lambda g, y, x, axis=None: reshape(g, shape_of(x)), numpy=np.squeeze)
def squeeze(x: Array, axis: Any = None) -> Array:
    """Return x without (the named) axes of length 1."""
    return np.squeeze(x, axis)


@_named(np.ravel)
def ravel(x: Array) -> Array:
    """Return x as one axis."""
    return reshape(x, (-1,))


def _split_like(g: Array, y: Array, argnums: Sequence[int], *arrays: Array, axis: int) -> list[Array]:
    """Cut the cotangent of a concatenation where its parts were joined."""
    ends = np.cumsum([shape_of(a)[axis] for a in arrays])
    lead = (slice(None),) * (axis % len(shape_of(g)))
    return [getitem(g, (*lead, slice(int(ends[i]) - shape_of(arrays[i])[axis], int(ends[i])))) for i in argnums]


@primitive(every=_split_like)
def _join(*arrays: Array, axis: int) -> Array:
    return np.concatenate(arrays, axis=axis)


@_named(np.concatenate)
def concatenate(arrays: Sequence[Array], axis: int | None = 0) -> Array:
    """Return the arrays joined along an existing axis (None: each is flattened first)."""
    if axis is None:
        return _join(*[ravel(a) for a in arrays], axis=0)
    return _join(*arrays, axis=axis)


@_named(np.stack)
def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Return the arrays joined along a new axis."""
    return _join(*[expand_dims(a, axis) for a in arrays], axis=axis)


# Indexing --------------------------------------------------------------------------------------------------


@primitive(lambda g, y, x, index: scatter(g, index, shape_of(x)))
def getitem(x: Array, index: Any) -> Array:
    """Return x[index], for slices, integers, integer arrays and boolean masks."""
    return x[index]


@primitive(lambda g, y, x, index, shape: getitem(g, index))
def scatter(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Return zeros of ``shape`` with x added at ``index``: the adjoint of getitem."""
    backend = backend_of(x)
    out = backend.xp.zeros(shape, dtype=x.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) for p in parts):
        out[index] = x
    else:
        backend.scatter_add(out, index, x)
    return out


# Python's operators, methods and NumPy's names on traced values --------------------------------------------


def _power_of(x: Array, p: Any) -> Array:
    return square(x) if type(p) is int and p == 2 else power(x, p)


def _compare(function: Any) -> Callable[..., Any]:
    return lambda *args: function(*map(raw, args))


def _swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: function(b, a)


def _varargs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method take its shape or axes as one tuple or as several integers."""
    return lambda x, *args: function(x, args[0] if len(args) == 1 and not isinstance(args[0], int) else args)


_OPERATORS: dict[str, Callable[..., Any]] = {
    **{"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": _power_of, "matmul": matmul},
    **{"r" + n: _swapped(f) for n, f in {"add": add, "sub": subtract, "mul": multiply, "truediv": divide}.items()},
    **{"rpow": _swapped(power), "rmatmul": _swapped(matmul), "neg": negative, "abs": abs, "getitem": getitem},
    **{n: _compare(getattr(np, f)) for n, f in {"lt": "less", "le": "less_equal", "gt": "greater"}.items()},
    **{n: _compare(getattr(np, f)) for n, f in {"ge": "greater_equal", "eq": "equal", "ne": "not_equal"}.items()},
    "pos": lambda x: x,
    "iter": lambda x: iter([getitem(x, i) for i in range(len(x))]),
}
_METHODS: dict[str, Any] = {
    "sum": sum,
    "mean": mean,
    "var": var,
    "max": max,
    "min": min,
    "dot": dot,
    "ravel": ravel,
    "flatten": ravel,
    "squeeze": squeeze,
    "swapaxes": swapaxes,
    "reshape": _varargs(reshape),
    "transpose": lambda x, *axes: _varargs(transpose)(x, *axes) if axes else transpose(x),
    "astype": cast,
    "T": property(transpose),
}
for _name, _function in _OPERATORS.items():
    setattr(Traced, f"__{_name}__", _function)
for _name, _function in _METHODS.items():
    setattr(Traced, _name, _function)

_PLAIN = (
    "less less_equal greater greater_equal equal not_equal isfinite isnan isinf shape ndim size zeros_like ones_like "
    "argmax argmin argsort floor ceil rint array_equal allclose"
)


def _on_plain(function: Any) -> Callable[..., Any]:
    """Let a function without a derivative be called on traced values: it sees, and returns, plain ones."""
    return lambda *args, **kwargs: function(*map(raw, args), **kwargs)


NUMPY_NAMES.update({getattr(np, n): _on_plain(getattr(np, n)) for n in _PLAIN.split()})

NUMPY_HINTS.update(
    median="sort the plain values and index: x[np.argsort(…)[n // 2]]",
    array="use np.stack",
    norm="np.sqrt(np.sum(x**2)), away from x = 0",
    std="np.sqrt(np.var(x))",
)
