"""What is called on a traced value: Python's operators, an array's methods, and NumPy's functions by name.

Functions whose derivative is 0 wherever it exists (comparisons, rounding, counting, positions) see and return plain
values. What would lose a derivative raises `TraceError`, with what to use instead.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

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
from minibng.autodiff.tracer import (
    COMPLEX,
    NUMPY_HINTS,
    NUMPY_NAMES,
    Traced,
    TraceError,
    add,
    cast,
    check_real,
    raw,
)

# NumPy's dispatch protocols: an operation is found by NumPy's function, an error says what to use instead


def _numpy_call(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Answer NumPy's dispatch protocols: find our operation for ``func`` and call it."""
    ours: Any = NUMPY_NAMES.get(func)
    if ours is None or kwargs:
        _check_call(func, ours, kwargs)
    try:
        return ours(*args, **kwargs)
    except TypeError as error:
        _explain(error, _name(func), func, ours, args, kwargs)


def _check_call(func: Any, ours: Any, kwargs: dict[str, Any]) -> None:
    """Refuse a function of NumPy that we lack, or one of its keywords, and tell what to use instead."""
    if kwargs.pop("out", None) is not None:
        raise TraceError(f"{_name(func)} cannot write to an array (out=, array += traced): use array = array + traced")
    if ours is None:
        hint = NUMPY_HINTS.get(func.__name__, "compose it from bng.ops, or define it with bng.primitive")
        raise TraceError(f"no derivative is known for {_name(func)}: {hint}")
    _check_names(_name(func), ours, kwargs)


def _check_names(name: str, ours: Any, given: Any) -> None:
    for key in given:
        if f"{key}=" in NUMPY_HINTS and not _takes(ours, key):
            raise TraceError(f"{name} of a traced value takes no {key}=: {NUMPY_HINTS[f'{key}=']}")


def _name(func: Any) -> str:
    """Return the name by which a user knows a function: np.linalg.svd, scipy.special.expit."""
    name = func.__name__
    if isinstance(func, np.ufunc) and getattr(np, name, None) is not func:
        return f"scipy.special.{name}" if hasattr(sys.modules.get("scipy.special"), name) else name
    return f"{getattr(func, '__module__', 'numpy')}.{name}".replace("numpy", "np", 1)


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == keyword or p.kind is p.VAR_KEYWORD for p in parameters)


def _explain(
    error: TypeError, name: str, theirs: Any, ours: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> NoReturn:
    """Say what to write where a call fits NumPy's function ``theirs`` but not ours; else raise the error itself."""
    signature = inspect.signature(ours)
    if isinstance(error, TraceError) or _bound(signature, args, kwargs) is not None:
        raise error
    if theirs is np.where:
        raise TraceError("np.where of a traced value takes (condition, a, b): write np.nonzero(x) for np.where(x)")
    try:
        given = _bound(inspect.signature(theirs), args, kwargs)
    except ValueError:  # some of NumPy's functions, written in C, tell no signature
        given = None
    _check_names(name, ours, kwargs if given is None else given)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    raise TraceError(f"{name} of a traced value x takes {inspect.Signature(bare)}: {error}") from error


def _bound(signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a call by name, None where they do not fit."""
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError:
        return None


_UFUNC_METHODS = {
    "add.reduce": "np.sum(x, axis=0)",
    "multiply.reduce": "np.prod(x, axis=0)",
    "maximum.reduce": "np.max(x, axis=0)",
    "minimum.reduce": "np.min(x, axis=0)",
    "logaddexp.reduce": "bng.ops.logsumexp(x, axis=0)",
    "add.accumulate": "np.cumsum(x, axis=0)",
    "multiply.accumulate": "np.cumprod(x, axis=0)",
    "add.at": "a = bng.ops.scatter_add(a, index, values)",
    "subtract.at": "a = bng.ops.scatter_add(a, index, -values)",
}
"""What a ufunc's method is on a traced value; its reductions go over axis 0 unless they are told otherwise."""


def _array_ufunc(self: Traced, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    if method != "__call__":
        name = _name(ufunc)
        instead = f"{name}(a[:, None], b)" if method == "outer" else "a loop, and np.stack of its results"
        instead = _UFUNC_METHODS.get(f"{ufunc.__name__}.{method}", instead)
        raise TraceError(f"{name}.{method} has no derivative here; use {instead}")
    return _numpy_call(ufunc, inputs, kwargs)


def _array_function(self: Traced, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    return _numpy_call(func, args, kwargs)


Traced.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Traced.__array_function__ = _array_function  # type: ignore[attr-defined]


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


def _method(name: str, ours: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of an operation; a call that does not fit it says what to write."""
    theirs = getattr(np, {"flatten": "ravel"}.get(name, name))

    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            return ours(*args, **kwargs)
        except TypeError as error:
            _explain(error, f"x.{name}()", theirs, ours, args, kwargs)

    return method


def _refused(message: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        raise TraceError(message if self.within.alive else _STORED)

    return method


def _real(x: Any) -> Any:
    check_real(raw(x))
    return x


def _missing(name: str) -> property:
    """Make the answer for an attribute that other arrays have: a ``__getattr__`` would slow down every access."""

    def look(self: Traced) -> NoReturn:
        advice = NUMPY_HINTS.get(name) or _ELSEWHERE.get(name) or f"traced values have NumPy's methods: np.{name}(x)"
        raise AttributeError(f"a traced value has no .{name}: {advice}")

    return property(look)


# Operators and methods

_ARITHMETIC = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "mod": remainder, "matmul": matmul}
_COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
_OPERATORS: dict[str, Callable[..., Any]] = {
    **_ARITHMETIC,
    **{f"r{name}": _swapped(f) for name, f in _ARITHMETIC.items()},
    **{name: _compare(f) for name, f in (_COMPARISONS | {"eq": np.equal, "ne": np.not_equal}).items()},
    **{"pow": _power_of, "rpow": _swapped(power), "neg": negative, "abs": abs, "getitem": getitem},
    **{"floordiv": _plain(np.floor_divide), "rfloordiv": _swapped(_plain(np.floor_divide))},
    **dict.fromkeys(("pos", "copy"), lambda x: x),
    "deepcopy": lambda x, memo: x,  # a copy has the same history: a new one would lose it
    "format": lambda x, spec: format(raw(x), spec) if spec else repr(x),
    "iter": lambda x: iter([getitem(x, i) for i in range(len(x))]),
}
_METHODS: dict[str, Callable[..., Any]] = {
    **{"sum": sum, "mean": mean, "var": var, "std": std, "max": max, "min": min, "prod": prod},
    **{"cumsum": cumsum, "cumprod": cumprod, "clip": clip, "dot": dot, "trace": trace, "diagonal": diagonal},
    **{"ravel": ravel, "flatten": ravel, "squeeze": squeeze, "swapaxes": swapaxes, "take": take, "repeat": repeat},
    "reshape": _varargs(reshape),
    "transpose": lambda x, *axes: _varargs(transpose)(x, *axes) if axes else transpose(x),
}
_ATTRIBUTES: dict[str, Any] = {
    "astype": lambda x, dtype, copy=True: cast(x, dtype),
    "copy": lambda x, order="C": x,
    "conj": _real,
    "conjugate": _real,
    "real": property(_real),
    "flat": property(lambda x: iter(ravel(x))),
    "T": property(transpose),
    "mT": property(matrix_transpose),
}
_PLAIN_METHODS = "all any argmax argmin argpartition argsort nonzero round searchsorted"

_LOOK = "look at it with has_aux=True, or print it"
_STORED = "a stored traced value: append the value that value_and_grad returns, not the one inside the loss"
_IN_PLACE = "traced values cannot be written to in place; build a new one with np.where or np.concatenate"
_REFUSED = {
    "__array__": "a traced value cannot become a plain NumPy array, its derivative would be lost: build arrays from "
    "traced values with np.stack or np.concatenate; look at them with has_aux=True; SciPy's logsumexp and softmax are "
    "bng.ops.logsumexp and bng.nn.softmax",
    "__float__": "a traced value cannot become a plain number (float(), math.exp, array[i] = traced): use np.exp for "
    "math.exp; collect values in a list and np.stack them; look at one with has_aux=True",
    "__int__": "int() of a traced value would lose its derivative: np.floor(x) gives a plain value, int() takes that",
    "__round__": "round() of a traced value would lose its derivative: np.round(x) gives the plain value",
    "__complex__": COMPLEX,
    **dict.fromkeys(("__divmod__", "__rdivmod__"), "divmod of a traced value: use a // b and a % b"),
    "__hash__": "a traced value is not hashable, as arrays are not: keep it in a list, or under a name in a dict",
    "__reduce_ex__": f"a traced value cannot be pickled, its derivative would be lost: {_LOOK}",
    **{name: f"x.{name}() would lose its derivative: {_LOOK}" for name in ("item", "tolist")},
    **dict.fromkeys(("tobytes", "tofile", "dump", "dumps"), f"a traced value has no bytes: {_LOOK}"),
    **dict.fromkeys(("__setitem__", "fill", "put", "itemset", "setfield", "setflags"), _IN_PLACE),
    **dict.fromkeys(("sort", "partition"), f"x.sort() works in place: use np.sort(x). {_IN_PLACE}"),
    "resize": f"x.resize() works in place: use np.reshape, np.pad or np.tile. {_IN_PLACE}",
    "compress": "use x[mask]",
    "choose": "use np.where",
    **dict.fromkeys(("view", "getfield", "byteswap", "to_device"), "a traced value has no bytes to look at otherwise"),
}
_ELSEWHERE = {
    "imag": COMPLEX,
    **dict.fromkeys(("detach", "data", "numpy", "cpu"), "bng.autodiff.raw(x) is the plain value, for looking at it"),
    **dict.fromkeys(("backward", "grad"), "the gradient is made of the whole function: bng.grad(f)(x)"),
}
"""Attributes of other libraries' arrays."""

for _key, _function in _OPERATORS.items():
    setattr(Traced, f"__{_key}__", _function)
for _key, _function in _METHODS.items():
    setattr(Traced, _key, _method(_key, _function))
for _key, _function in _ATTRIBUTES.items():
    setattr(Traced, _key, _function)
for _key in _PLAIN_METHODS.split():
    setattr(Traced, _key, _plain(getattr(np, _key)))
for _key, _message in _REFUSED.items():
    setattr(Traced, _key, _refused(_message))
for _key in [*_ELSEWHERE, *(n for n, f in vars(np).items() if callable(f) and not isinstance(f, type))]:
    if not hasattr(Traced, _key) and not _key.startswith("_"):
        setattr(Traced, _key, _missing(_key))

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
NUMPY_NAMES.update(dict.fromkeys((np.real, np.conjugate), _real))
NUMPY_NAMES[np.copy] = lambda x, order="K", subok=False: x
NUMPY_NAMES[np.astype] = lambda x, dtype, *, copy=True, device=None: cast(x, dtype)
NUMPY_NAMES[np.full_like] = lambda x, fill_value: np.zeros_like(raw(x)) + fill_value
