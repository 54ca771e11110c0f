"""The strict device's `xp`: CuPy's functions under CuPy's names, with CuPy's keywords, and no others."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minibng.backend.manifest import METHOD_KEYWORDS, UFUNC_KEYWORDS
from minibng.backend.strict.array import (
    CUPY,
    StrictArray,
    call_ufunc,
    call_ufunc_method,
    lower,
    memory_of,
    poisoned,
    wrap,
)
from minibng.backend.waiting import note_sync

_SYNCHRONIZE = {
    *("nonzero", "flatnonzero", "argwhere", "extract", "compress", "delete", "trim_zeros", "unique", "unique_all"),
    *("unique_counts", "unique_inverse", "unique_values", "union1d", "intersect1d", "setdiff1d", "setxor1d"),
    *("bincount", "histogram", "histogram2d", "histogramdd", "average", "nanmax", "nanmin", "linalg.cond"),
    *("ravel_multi_index", "unravel_index", "asarray_chkfinite", "real_if_close", "array_repr", "array_str"),
    *("array2string", "save", "savez", "savez_compressed", "savetxt", "lib.stride_tricks.sliding_window_view"),
}
"""Functions of CuPy that look at values: their shapes depend on them, or they check them."""

_UPWARD = ("array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray")

_BY_VALUES = {"full", "linspace", "logspace", "meshgrid", "result_type", "can_cast", "shape", "ndim", "size"}
_FROM_HOST = _BY_VALUES | {
    *("zeros", "ones", "empty", "eye", "identity", "tri", "arange", "indices", "diag_indices", "tril_indices"),
    *("triu_indices", "broadcast_shapes", "promote_types"),
}
"""Functions that need no device array among their arguments; but for the first of them, nor do they take one."""

_PLAIN_ARGUMENTS = {
    *("reshape", "transpose", "swapaxes", "moveaxis", "rollaxis", "expand_dims", "squeeze", "broadcast_to", "split"),
    *("array_split", "hsplit", "vsplit", "dsplit", "tile", "roll", "flip", "rot90", "diag", "diagonal", "tril", "triu"),
    "trace",
}
"""Functions whose arguments after the first are numbers of the host: ``__index__`` of a device array is refused."""

_ANSWERS = {"array_equal", "array_equiv", "allclose", "count_nonzero"}
"""Functions whose answer is a 0-d array on a device, a Python object on the host."""

_NO_LISTS = {
    *("where", "dot", "outer", "inner", "vdot", "kron", "cross", "clip", "take", "take_along_axis", "searchsorted"),
    *("digitize", "put", "put_along_axis"),
}
"""Functions that would take a list for an array, which is a copy to the device."""


class StrictFunction:
    """One of NumPy's functions, ``name`` in CuPy, that answers as CuPy's would; a method's name starts with a dot.

    Raises
    ------
    TypeError
        When called with keywords that CuPy's lacks, or with arrays or lists of the host where arrays are expected.
    SyncError
        Inside `forbid_sync`, where CuPy's looks at values.
    """

    def __init__(self, name: str, numpy: Callable[..., Any]) -> None:
        self._name, self._numpy = name, numpy
        self.__name__ = bare = name.removeprefix(".")
        self.__doc__ = f"As cupy.{bare}." if bare is name else f"As cupy.ndarray.{bare}."
        parameters = CUPY.methods[bare] if bare is not name else CUPY.functions.get(name, UFUNC_KEYWORDS)
        self._any = any(p.startswith("**") for p in parameters)
        self._taken = frozenset(parameters)
        self._waits, self._refuses_lists = bare in _SYNCHRONIZE, bare in _NO_LISTS
        self._needs_array, self._takes_array = bare not in _FROM_HOST, bare not in _FROM_HOST - _BY_VALUES
        self._plain = bare in _PLAIN_ARGUMENTS

    @np.errstate(all="ignore")
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it as CuPy's is called."""
        name = self.__name__
        if kwargs and not (self._any or kwargs.keys() <= self._taken):
            unknown = sorted(kwargs.keys() - self._taken)
            raise TypeError(f"{name}() got an unexpected keyword argument {unknown[0]!r}: CuPy's has none of that name")
        if self._waits or (name == "where" and len(args) + len(kwargs) == 1):
            note_sync(f"{name}()")
        if self._refuses_lists and any(isinstance(a, list) for a in args):
            raise TypeError(f"{name}: a list of the host is no array on the device: use bng.asarray")
        found: list[StrictArray] = []
        lowered = [lower(a, name, found) for a in args]
        named = {key: lower(value, name, found) for key, value in kwargs.items()}
        if not (self._takes_array if found else not self._needs_array):
            what = "numbers of the host" if found else "device arrays: use bng.asarray"
            raise TypeError(f"{name} of the device library takes {what}")
        if self._plain and len(found) > 1:
            raise TypeError(f"{name}: a device array cannot be interpreted as an integer")
        if name == "repeat" and len(found) > 1:
            note_sync("repeat() with an array of counts")
        made = self._numpy(*lowered, **named)
        if (out := kwargs.get("out")) is not None:
            return out
        if name == "empty_like":
            poisoned(made)
        elif name in _ANSWERS:
            made = np.asarray(made)
        return wrap(made, *found)

    def __repr__(self) -> str:
        return f"<strict function {self._name!r}>"


def _has(name: str) -> bool:
    """Tell whether CuPy has a function; some, such as fix, are ufuncs there and none in NumPy."""
    return name in CUPY.functions or name in CUPY.ufuncs


class _Functions(dict[Any, "StrictFunction | None"]):
    """NumPy's function → the strict device's, found by module and name as CuPy does; None where CuPy has none."""

    def __missing__(self, function: Any) -> StrictFunction | None:
        name = f"{function.__module__}.{function.__name__}".partition(".")[2]
        self[function] = _OWN.get(name) or (StrictFunction(name, function) if _has(name) else None)
        return self[function]


_FUNCTIONS = _Functions()


def _array_function(self: StrictArray, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Answer NumPy's protocol, unless there is no such function in CuPy, or types take part that CuPy does not know."""
    ours = _FUNCTIONS[func]
    if ours is None or any(t is not StrictArray and t is not np.ndarray for t in types):
        return NotImplemented
    return ours(*args, **kwargs)


StrictArray.__array_function__ = _array_function  # type: ignore[attr-defined]


class StrictUfunc:
    """An elementwise function of the device library: of device arrays and numbers."""

    def __init__(self, ufunc: Any) -> None:
        self._ufunc = ufunc
        self.__name__, self.nin, self.nout, self.nargs = ufunc.__name__, ufunc.nin, ufunc.nout, ufunc.nargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it as CuPy's is called."""
        return call_ufunc(self._ufunc, args, kwargs)

    def __repr__(self) -> str:
        return f"<strict ufunc {self.__name__!r}>"


def _ufunc_method(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: call_ufunc_method(self._ufunc, name, args, kwargs)


for _name in (*METHOD_KEYWORDS, "reduceat"):
    setattr(StrictUfunc, _name, _ufunc_method(_name))


class Library(ModuleType):
    """CuPy's namespace, or one of its submodules, as far as NumPy can stand in for it. Names are made when used."""

    def __init__(self, prefix: str = "", numpy: Any = np) -> None:
        super().__init__(f"strict.{prefix}".rstrip("."))
        self._prefix, self._numpy = prefix, numpy

    def __getattr__(self, name: str) -> Any:
        made = self._make(name)
        setattr(self, name, made)
        return made

    def _make(self, name: str) -> Any:
        full = self._prefix + name
        theirs = getattr(self._numpy, name, None)
        if any(n.startswith(f"{full}.") for n in CUPY.functions):
            return Library(f"{full}.", theirs)
        if full not in CUPY:
            raise AttributeError(f"module 'cupy' has no attribute {full!r} (CuPy {CUPY.version})")
        if full in _OWN:
            return _OWN[full]
        if theirs is None or isinstance(theirs, ModuleType):
            raise AttributeError(f"the strict device does not stand in for cupy.{full}")
        if isinstance(theirs, np.ufunc):
            return StrictUfunc(theirs)
        if _has(full):
            return StrictFunction(full, theirs)
        return theirs

    def __dir__(self) -> list[str]:
        every = [*CUPY.functions, *CUPY.ufuncs, *CUPY.others]
        return sorted({n.removeprefix(self._prefix).partition(".")[0] for n in every if n.startswith(self._prefix)})


# What NumPy has not, or does otherwise ----------------------------------------------------------------------


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    """Return a copy in host memory."""
    return a.get(order=order, out=out) if type(a) is StrictArray else np.asarray(a, order=order)  # type: ignore[call-overload]


def _upward(name: str) -> Callable[..., StrictArray]:
    """Make one of the functions that bring an array, or lists of numbers, up."""
    theirs = getattr(np, name)

    def up(a: Any, *args: Any, **kwargs: Any) -> StrictArray:
        if unknown := CUPY.unknown_keywords(name, kwargs):
            raise TypeError(f"{name}() got an unexpected keyword argument {unknown[0]!r}")
        if type(a) is StrictArray:
            return wrap(theirs(a._host, *args, **kwargs), a)  # type: ignore[no-any-return]
        return wrap(np.array(theirs(_gathered(a), *args, **kwargs)))  # type: ignore[no-any-return]

    return up


def _gathered(x: Any) -> Any:
    """Lower nested lists of device arrays; numbers beside them would be brought up one by one."""
    if type(x) is StrictArray:
        return x._host
    if not isinstance(x, (list, tuple)):
        return x
    if len({type(i) is StrictArray for i in x}) > 1:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: a list of device arrays and others")
    return [_gathered(i) for i in x]


def _as_strided(x: StrictArray, shape: Any = None, strides: Any = None) -> StrictArray:
    """Return a view of other shape and strides; as CuPy's, it does not know its owner."""
    return wrap(np.lib.stride_tricks.as_strided(memory_of(x), shape, strides))  # type: ignore[no-any-return]


def _may_share_memory(a: StrictArray, b: StrictArray, max_work: Any = None) -> bool:
    return np.may_share_memory(memory_of(a), memory_of(b))


_OWN: dict[str, Any] = {
    "ndarray": StrictArray,
    "asnumpy": _asnumpy,
    "may_share_memory": _may_share_memory,
    "lib.stride_tricks.as_strided": _as_strided,
    "dtype": np.dtype,
    "empty": lambda shape, dtype=float, order="C": StrictArray(shape, dtype, order),
    **{name: _upward(name) for name in _UPWARD},
}

LIBRARY = Library()


# The methods of an array: the functions of the same names ----------------------------------------------------


def _method(name: str) -> Callable[..., Any]:
    function = StrictFunction(f".{name}", getattr(np.ndarray, name))

    def method(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, function.__doc__
    return method


for _name in CUPY.methods:
    if not hasattr(StrictArray, _name) and hasattr(np.ndarray, _name):
        setattr(StrictArray, _name, _method(_name))
