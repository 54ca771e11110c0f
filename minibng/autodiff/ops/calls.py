"""What is called on a traced value: Python's operators, an array's methods, and NumPy's functions by name.

Functions whose derivative is 0 wherever it exists (comparisons, rounding, counting, positions) see and return plain
values. What would lose a derivative raises `TraceError`, with what to use instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibng.autodiff.ops.elementwise import (
    abs,
    clip,
    divide,
    multiply,
    negative,
    power,
    remainder,
    square,
    subtract,
)
from minibng.autodiff.ops.indexing import getitem, take
from minibng.autodiff.ops.products import dot, matmul, trace
from minibng.autodiff.ops.reductions import cumprod, cumsum, max, mean, min, prod, std, sum, var
from minibng.autodiff.ops.shapes import (
    diagonal,
    matrix_transpose,
    ravel,
    repeat,
    reshape,
    squeeze,
    swapaxes,
    transpose,
)
from minibng.autodiff.tracer import NUMPY_NAMES, Traced, TraceError, add, cast, raw


def _plain(function: Any) -> Callable[..., Any]:
    """Let a function without a derivative be called on traced values: it sees, and returns, plain ones."""

    def values(x: Any) -> Any:
        return type(x)(map(values, x)) if type(x) in (list, tuple) else raw(x)

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(values, args), **{key: values(x) for key, x in kwargs.items()})

    return call


def _compare(function: Any) -> Callable[..., Any]:
    return lambda *args: function(*map(raw, args))


def _swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: function(b, a)


def _power_of(x: Any, p: Any) -> Any:
    return square(x) if type(p) is int and p == 2 else power(x, p)


def _varargs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method take its shape or axes as one tuple or as several integers."""
    return lambda x, *args: function(x, args[0] if len(args) == 1 and not isinstance(args[0], int) else args)


def _refused(message: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        raise TraceError(message)

    return method


# Operators and methods

_ARITHMETIC = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "mod": remainder, "matmul": matmul}
_COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
_OPERATORS: dict[str, Callable[..., Any]] = {
    **_ARITHMETIC,
    **{f"r{name}": _swapped(f) for name, f in _ARITHMETIC.items()},
    **{name: _compare(f) for name, f in (_COMPARISONS | {"eq": np.equal, "ne": np.not_equal}).items()},
    **{"pow": _power_of, "rpow": _swapped(power), "neg": negative, "abs": abs, "getitem": getitem},
    **{"floordiv": _plain(np.floor_divide), "rfloordiv": _swapped(_plain(np.floor_divide))},
    "pos": lambda x: x,
    "iter": lambda x: iter([getitem(x, i) for i in range(len(x))]),
}
_METHODS: dict[str, Any] = {
    **{"sum": sum, "mean": mean, "var": var, "std": std, "max": max, "min": min, "prod": prod},
    **{"cumsum": cumsum, "cumprod": cumprod, "clip": clip, "dot": dot, "trace": trace, "diagonal": diagonal},
    **{"ravel": ravel, "flatten": ravel, "squeeze": squeeze, "swapaxes": swapaxes, "take": take, "repeat": repeat},
    "reshape": _varargs(reshape),
    "transpose": lambda x, *axes: _varargs(transpose)(x, *axes) if axes else transpose(x),
    "astype": lambda x, dtype, copy=True: cast(x, dtype),
    "copy": lambda x, order="C": x,
    "conj": lambda x: x,
    "conjugate": lambda x: x,
    "real": property(lambda x: x),
    "flat": property(lambda x: iter(ravel(x))),
    "T": property(transpose),
    "mT": property(matrix_transpose),
}
_PLAIN_METHODS = "all any argmax argmin argpartition argsort nonzero round searchsorted"

_LOOK = "look at it with has_aux=True, or print it"
_IN_PLACE = "traced values cannot be written to in place; build a new one with np.where or np.concatenate"
_REFUSED = {
    "__array__": "a traced value cannot become a plain NumPy array, its derivative would be lost: build arrays from "
    "traced values with np.stack or np.concatenate; look at them with has_aux=True",
    "__float__": "float() of a traced value would lose its derivative; use NumPy: np.exp, not math.exp",
    **dict.fromkeys(("item", "tolist", "tobytes", "tofile", "dump", "dumps"), f"a traced value has no bytes: {_LOOK}"),
    **dict.fromkeys(("__setitem__", "fill", "put", "itemset", "setfield", "setflags"), _IN_PLACE),
    **dict.fromkeys(("sort", "partition"), f"x.sort() works in place: use np.sort(x). {_IN_PLACE}"),
    "resize": f"x.resize() works in place: use np.reshape, np.pad or np.tile. {_IN_PLACE}",
    "compress": "use x[mask]",
    "choose": "use np.where",
    **dict.fromkeys(("view", "getfield", "byteswap", "to_device"), "a traced value has no bytes to look at otherwise"),
}
for _name, _function in _OPERATORS.items():
    setattr(Traced, f"__{_name}__", _function)
for _name, _function in _METHODS.items():
    setattr(Traced, _name, _function)
for _name in _PLAIN_METHODS.split():
    setattr(Traced, _name, _plain(getattr(np, _name)))
for _name, _message in _REFUSED.items():
    setattr(Traced, _name, _refused(_message))

# NumPy's functions that give plain values, or the value itself

_PLAIN = """
less less_equal greater greater_equal equal not_equal isclose allclose array_equal array_equiv isin
isfinite isnan isinf isneginf isposinf isreal iscomplex isrealobj iscomplexobj signbit
logical_and logical_or logical_not logical_xor all any count_nonzero nonzero flatnonzero argwhere
argmax argmin argsort argpartition nanargmax nanargmin lexsort searchsorted digitize
floor ceil rint trunc fix round around floor_divide heaviside
shape ndim size result_type can_cast common_type min_scalar_type may_share_memory shares_memory
zeros_like ones_like empty_like tril_indices_from triu_indices_from diag_indices_from einsum_path
array_repr array_str array2string
"""
NUMPY_NAMES.update({getattr(np, n): _plain(getattr(np, n)) for n in _PLAIN.split()})
NUMPY_NAMES[np.linalg.matrix_rank] = _plain(np.linalg.matrix_rank)
NUMPY_NAMES.update(dict.fromkeys((np.real, np.conjugate), lambda x: x))
NUMPY_NAMES[np.copy] = lambda x, order="K", subok=False: x
NUMPY_NAMES[np.astype] = lambda x, dtype, *, copy=True, device=None: cast(x, dtype)
NUMPY_NAMES[np.full_like] = lambda x, fill_value: np.zeros_like(raw(x)) + fill_value
