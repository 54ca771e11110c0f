"""An array that behaves as CuPy's does where that is stricter than NumPy's, on memory of the host.

It is a wrapper, not a subclass: nothing reaches the numbers inside but what is written here. What CuPy 14.2 does was
read from its sources and tried on its own arrays without a driver (``tests/contract/compare.py``). Some of it may
surprise: NumPy's ``np.add.at(x, …)`` and ``np.add.reduce(x)`` do reach CuPy, ``x[1, 2]`` is a view, ``x += traced`` is
refused where ``x + traced`` is not, and a view made by ``as_strided`` does not know its owner.

The strict array is stricter still where CuPy is silent. Errors are: indices in host memory (CuPy copies them), integer
indices out of range (they wrap around), assignments in which one entry is named twice (any of the values may win), and
0-d arrays of the host as operands (in comparisons taken for numbers). Assigning a number under a boolean mask counts as
a synchronization, as other uses of a mask are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from minibng.backend.manifest import METHOD_KEYWORDS, load
from minibng.backend.waiting import note_sync

Host: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CUPY = load()
_POISON = 0x5A
_NUMBERS = frozenset({int, float, bool, complex})
_PLAIN = _NUMBERS | {str, type(None), slice, type(Ellipsis), type}

_IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed: a device array does not leave the device by itself; "
    "bng.to_host(x) brings it down"
)


class StrictArray:
    """An array on the strict device; made by ``bng.asarray(x, device="strict")``.

    ``StrictArray(shape, dtype)`` is uninitialized memory, as ``cupy.ndarray(shape, dtype)`` is. It is filled with NaN
    (integers with bytes 0x5A, so that they are far out of range), for whoever reads what was never written.

    Examples
    --------
    >>> import minibng as bng
    >>> x = bng.asarray([3.0, 4.0], device="strict")
    >>> x * 2
    StrictArray([6., 8.])
    >>> np.asarray(x)
    Traceback (most recent call last):
        ...
    TypeError: Implicit conversion to a NumPy array is not allowed: ...
    """

    __slots__ = ("__weakref__", "_host", "_owner")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C") -> None:
        self._host = poisoned(np.empty(shape, dtype, order))  # type: ignore[call-overload]
        self._owner: StrictArray | None = None

    # What the host knows without waiting

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host))
    device = "strict"
    T = property(lambda self: wrap(self._host.T, self))
    mT = property(lambda self: wrap(self._host.mT, self))
    real = property(lambda self: wrap(self._host.real, self))
    imag = property(lambda self: wrap(self._host.imag, self))

    @property
    def base(self) -> StrictArray | None:
        """The array that owns the memory of a view; None for an owner."""
        return self._owner

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[StrictArray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # What makes the host wait

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Host:
        """Return a copy in host memory."""
        note_sync(".get()")
        if out is None:
            return np.array(self._host, order=order)  # type: ignore[call-overload,no-any-return]
        np.copyto(out, self._host, casting="no")
        return out  # type: ignore[no-any-return]

    def set(self, arr: Host, stream: Any = None) -> None:
        """Copy an array of the host, of the same shape and dtype, into this one."""
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype:
            raise TypeError(f"set takes a NumPy array of {self.dtype}, got {getattr(arr, 'dtype', type(arr).__name__)}")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        np.copyto(self._host, arr)

    def item(self) -> Any:
        """Return the only entry as a Python number."""
        note_sync(".item()")
        return self._host.item()

    def tolist(self) -> Any:
        """Return the entries as a list of lists."""
        note_sync(".tolist()")
        return self._host.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        """Return the bytes of the entries."""
        note_sync(".tobytes()")
        return self._host.tobytes(order)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous")
        note_sync("bool(), if or while")
        return bool(self._host)

    def __float__(self) -> float:
        note_sync("float()")
        return float(self._host)

    def __int__(self) -> int:
        note_sync("int()")
        return int(self._host)

    def __complex__(self) -> complex:
        note_sync("complex()")
        return complex(self._host)

    def __repr__(self) -> str:
        note_sync("repr()")
        return repr(self._host).replace("array", "StrictArray", 1).replace("\n     ", "\n           ")

    def __str__(self) -> str:
        note_sync("str()")
        return str(self._host)

    def __format__(self, spec: str) -> str:
        note_sync("format()")
        return format(self._host[()], spec)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through host memory, as CuPy does: worker processes get copies."""
        note_sync("pickle")
        return _restore, (self._host,)

    def __copy__(self) -> StrictArray:
        return _restore(self._host.copy())

    def __deepcopy__(self, memo: Any) -> StrictArray:
        return _restore(self._host.copy())

    # What the host must not do

    def __array__(self, dtype: Any = None, copy: Any = None) -> Host:
        raise TypeError(_IMPLICIT)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return (2, 0): memory of a CUDA device."""
        return 2, 0

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """Hand out a copy in host memory, where that is asked for by ``dl_device=(1, 0)``."""
        if dl_device is None or tuple(dl_device) != (1, 0) or copy is False:
            raise BufferError("the memory of a device array cannot be read here: ask for a copy by dl_device=(1, 0)")
        note_sync("DLPack to the host")
        return self._host.copy().__dlpack__()

    # Entries

    def __getitem__(self, key: Any) -> StrictArray:
        lowered = lower_index(key)
        made = self._host[lowered]
        if type(made) is not np.ndarray:  # all axes by numbers: on a device a 0-d view
            made = self._host[(*lowered, ...) if type(lowered) is tuple else (lowered, ...)]
        return wrap(made, self)  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        lowered = lower_index(key)
        if type(value) is StrictArray:
            value = value._host
        elif isinstance(value, (np.ndarray, list, tuple)):
            raise ValueError(
                f"a {type(value).__name__} of the host cannot be written to a device array: use bng.asarray"
            )
        elif type(value) not in _NUMBERS and not isinstance(value, np.generic):
            value = float(value)  # as CuPy does
        if _names_integers(lowered):
            named = np.arange(self.size).reshape(self.shape)[lowered]
            if np.unique(named).size != named.size:
                raise IndexError("an entry is assigned to twice, on a device any value may win: use scatter_add")
        self._host[lowered] = value

    # NumPy's protocols: that of its other functions is in namespace.py

    @np.errstate(all="ignore")
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not kwargs and method == "__call__" and ufunc.__name__ in _ELEMENTWISE:  # almost every call
            lowered = [x._host if type(x) is StrictArray else x for x in inputs if type(x) in _OPERANDS]
            if len(lowered) == len(inputs):
                return wrap(ufunc(*lowered))
        if any(_answers_itself(x) for x in (*inputs, *kwargs.get("out", ()))):
            return NotImplemented
        if ufunc.__name__ not in CUPY:
            raise TypeError(f"CuPy {CUPY.version} has no function {ufunc.__name__!r}")
        if method == "__call__":
            return call_ufunc(ufunc, inputs, kwargs)
        return call_ufunc_method(ufunc, method, inputs, kwargs)


class Flags:
    """How an array lies in memory. CuPy's arrays have no ``writeable``: all are."""

    __slots__ = ("c_contiguous", "f_contiguous", "owndata")

    def __init__(self, array: Host) -> None:
        self.c_contiguous, self.f_contiguous = array.flags.c_contiguous, array.flags.f_contiguous
        self.owndata = array.flags.owndata

    forc = property(lambda self: self.c_contiguous or self.f_contiguous)
    fnc = property(lambda self: self.f_contiguous and not self.c_contiguous)

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return "\n".join(f"  {name.upper()} : {getattr(self, name)}" for name in self.__slots__)


# In and out of the wrapper ---------------------------------------------------------------------------------

_new = object.__new__
_OPERANDS = _NUMBERS | {StrictArray}
_ELEMENTWISE = frozenset(CUPY.ufuncs)


def wrap(made: Any, *sources: StrictArray) -> Any:
    """Return what NumPy made as CuPy would: arrays on the device, scalars as 0-d arrays, views with their owner."""
    if type(made) is not np.ndarray:
        if isinstance(made, np.generic):
            made = np.asarray(made)
        elif isinstance(made, tuple) and hasattr(made, "_fields"):  # slogdet and its like
            return type(made)(*[wrap(m, *sources) for m in made])
        else:
            return type(made)(wrap(m, *sources) for m in made) if isinstance(made, (tuple, list)) else made
    owner = None
    if sources:
        root = made.base
        for source in sources:
            if made is source._host:
                return source
            if root is not None and (root is source._host or root is source._host.base):
                owner = source if source._owner is None else source._owner
    new = _new(StrictArray)
    new._host, new._owner = made, owner
    return new


def _restore(host: Host) -> StrictArray:
    made: StrictArray = wrap(host)
    return made


def memory_of(x: Any) -> Host:
    """Return the memory inside a strict array: what a kernel on the device sees."""
    if type(x) is not StrictArray:
        raise TypeError(f"a kernel of the strict device takes its arrays only, got {type(x).__name__}: use bng.asarray")
    return x._host


def poisoned(array: Host) -> Host:
    """Fill uninitialized memory with what cannot be taken for a result."""
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.dtype.kind in "iu" and array.size:
        array.fill(np.frombuffer(bytes([_POISON]) * array.itemsize, array.dtype)[0])
    return array


def lower(x: Any, name: str, found: list[StrictArray]) -> Any:
    """Return an argument as NumPy takes it, noting the device arrays in it; arrays of the host are refused."""
    kind = type(x)
    if kind is StrictArray:
        found.append(x)
        return x._host
    if kind in _PLAIN or isinstance(x, np.generic):
        return x
    if isinstance(x, (list, tuple)):
        return kind([lower(i, name, found) for i in x])
    if hasattr(x, "__array__") or hasattr(x, "__array_ufunc__"):
        raise TypeError(f"{name}: Unsupported type {kind}: it is not on the device, use bng.asarray")
    return x


def lower_index(key: Any) -> Any:
    """Return an index as NumPy takes it. Arrays in it must be on the device; masks make the host wait."""
    kind = type(key)
    if kind is int or kind is slice:
        return key if kind is int else _check_slice(key)
    if kind is tuple:
        return tuple([lower_index(k) for k in key])
    if kind is StrictArray:
        if key._host.dtype.kind == "b":
            note_sync("a boolean mask as index")
        return key._host
    if isinstance(key, (np.ndarray, list)):
        raise TypeError(f"an index of type {kind.__name__} is not on the device (CuPy would copy it): use bng.asarray")
    if kind is bool or kind is np.bool_:
        note_sync("a boolean as index")
    return key


def _check_slice(key: slice) -> slice:
    for bound in (key.start, key.stop, key.step):
        if bound is not None and type(bound) is not int:
            operator.index(bound)
    return key


def _names_integers(lowered: Any) -> bool:
    """Tell whether a lowered index holds arrays of integers, which may name an entry twice."""
    parts = lowered if type(lowered) is tuple else (lowered,)
    return any(type(p) is np.ndarray and p.dtype.kind in "iu" for p in parts)


# Elementwise functions -------------------------------------------------------------------------------------


def _answers_itself(x: Any) -> bool:
    """Tell whether an operand has its own answer to NumPy's protocol, as traced values do."""
    kind = type(x)
    return not (kind is StrictArray or kind in _PLAIN or isinstance(x, (np.ndarray, np.generic, list, tuple))) and (
        hasattr(kind, "__array_ufunc__")
    )


def _operand(x: Any, name: str) -> Any:
    if type(x) is StrictArray:
        return x._host
    if type(x) in _NUMBERS or isinstance(x, np.generic):
        return x
    raise TypeError(f"{name}: Unsupported type {type(x)}: arrays of the host and lists go up by bng.asarray")


@np.errstate(all="ignore")
def call_ufunc(ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a ufunc as CuPy does: device arrays and scalars only, no ``where``."""
    name = ufunc.__name__
    if kwargs and (unknown := CUPY.unknown_keywords(name, kwargs)):
        raise TypeError(f"{name}: Wrong arguments {unknown}: CuPy's function has no such keyword")
    out = kwargs.pop("out", None) if kwargs else inputs[ufunc.nin :] or None
    if ufunc in _COMPARING:  # NumPy hands over its scalars as 0-d arrays, which CuPy takes for numbers here
        inputs = tuple([x.item() if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs])
    arguments = [_operand(x, name) for x in inputs[: ufunc.nin]]
    if out is None:
        return wrap(ufunc(*arguments, **kwargs))
    outs = out if isinstance(out, tuple) else (out,)
    for o in outs:
        if o is not None and type(o) is not StrictArray:
            raise TypeError(f"{name}: output arguments must be device arrays, got {type(o).__name__}")
    made = ufunc(*arguments, out=tuple(o if o is None else o._host for o in outs), **kwargs)
    if len(outs) == 1:
        return outs[0]
    return tuple(wrap(m) if o is None else o for m, o in zip(made, outs, strict=True))


_ADDED_AT = {"add": "ilIqLQefd", "subtract": "iI"}
"""Dtypes, by their letters, for which CuPy's ``at`` has atomic operations; the others' are those of add."""


@np.errstate(all="ignore")
def call_ufunc_method(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call add.at, add.reduce and the few others that CuPy has; NumPy's protocol reaches them as well."""
    name = ufunc.__name__
    if method not in CUPY.ufuncs.get(name, ()):
        why = " in a way that can be used (it is a difference of running sums)" if method == "reduceat" else ""
        raise NotImplementedError(f"CuPy has no {name}.{method}{why}")
    if unknown := set(kwargs) - METHOD_KEYWORDS[method]:
        raise TypeError(f"{name}.{method}: CuPy's has no keywords {sorted(unknown)}")
    if method == "at":
        target, index, *values = inputs
        if type(target) is not StrictArray:
            raise TypeError(f"{name}.at changes a device array, got {type(target).__name__}")
        if target.dtype.char not in _ADDED_AT.get(name, _ADDED_AT["add"]):
            raise TypeError(f"CuPy's {name}.at has no {target.dtype}")
        ufunc.at(target._host, lower_index(index), *[_operand(v, name) for v in values])
        return None
    if type(inputs[0]) is not StrictArray:
        raise TypeError(f"{name}.{method} takes a device array, got {type(inputs[0]).__name__}")
    arguments = [_operand(inputs[0], name), *[_operand(x, name) if method == "outer" else x for x in inputs[1:]]]
    outs = kwargs.pop("out", None)
    if outs is None:
        return wrap(getattr(ufunc, method)(*arguments, **kwargs))
    out = outs[0] if isinstance(outs, tuple) else outs
    getattr(ufunc, method)(*arguments, out=memory_of(out), **kwargs)
    return out


# Operators -------------------------------------------------------------------------------------------------


def _binary(ufunc: Any, python: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Make an operator; what is neither a device array nor a number goes through NumPy's protocol."""

    @np.errstate(all="ignore")
    def operate(self: Any, other: Any) -> Any:
        kind = type(other)
        if kind is StrictArray:
            return wrap(python(self._host, other._host))
        return wrap(python(self._host, other)) if kind in _NUMBERS else ufunc(self, other)

    return operate


def _unary(python: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: wrap(python(self._host))


def _reflected(ufunc: Any, python: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @np.errstate(all="ignore")
    def operate(self: Any, other: Any) -> Any:
        return wrap(python(other, self._host)) if type(other) in _NUMBERS else ufunc(other, self)

    return operate


def _in_place(ufunc: Any) -> Callable[[Any, Any], Any]:
    """Make an operator in place; in CuPy traced values are not asked for their own answer here, but refused."""

    @np.errstate(all="ignore")
    def operate(self: Any, other: Any) -> Any:
        kind = type(other)
        if kind is StrictArray:
            ufunc(self._host, other._host, out=self._host)
        elif kind in _NUMBERS:
            ufunc(self._host, other, out=self._host)
        else:
            return call_ufunc(ufunc, (self, other), {"out": self})
        return self

    return operate


_ARITHMETIC = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "mod": np.remainder},
    **{"floordiv": np.floor_divide, "pow": np.power, "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or},
    **{"xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift},
}
_COMPARISONS = {
    **{"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal},
    **{"eq": np.equal, "ne": np.not_equal},
}
_COMPARING = frozenset(_COMPARISONS.values())
for _name, _ufunc in _ARITHMETIC.items():
    _python = getattr(operator, f"__{_name}__")
    setattr(StrictArray, f"__{_name}__", _binary(_ufunc, _python))
    setattr(StrictArray, f"__r{_name}__", _reflected(_ufunc, _python))
    setattr(StrictArray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in _COMPARISONS.items():
    setattr(StrictArray, f"__{_name}__", _binary(_ufunc, getattr(operator, f"__{_name}__")))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(StrictArray, f"__{_name}__", _unary(getattr(operator, f"__{_name}__")))
setattr(StrictArray, "__divmod__", _binary(np.divmod, divmod))  # noqa: B010 (as above: mypy has no operators to check)
