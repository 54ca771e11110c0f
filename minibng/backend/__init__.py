"""The only place that knows which array library is in use.

>>> from minibng import backend
>>> backend.get_backend("cpu").device
'cpu'
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibng.backend.base import Array, Backend, BlockNorms, Group, HostArray, Stepper
from minibng.backend.devices import DEVICES, DeviceError, cuda_checks, device_name, gpu_name, require_cuda
from minibng.backend.numpy import NumpyBackend
from minibng.backend.waiting import SyncError, debug, forbid_sync, synchronizations

__all__ = [
    "DEVICES",
    "Array",
    "Backend",
    "BlockNorms",
    "DeviceError",
    "Group",
    "HostArray",
    "Stepper",
    "SyncError",
    "asarray",
    "backend_of",
    "cuda_checks",
    "debug",
    "device_name",
    "forbid_sync",
    "get_backend",
    "gpu_name",
    "is_array",
    "synchronizations",
    "to_host",
]

_CPU = NumpyBackend()
_MADE: dict[str, Backend] = {"cpu": _CPU}
_BY_NUMBER: dict[int, Backend] = {}
_ON_A_GPU: Any = object()
_CUDA_KINDS = (2, 13)
"""What DLPack calls memory of a GPU, and memory that host and GPU share."""


class _Owners(dict[type, Any]):
    """Type → its backend, `_ON_A_GPU` for CuPy's arrays, None for what is no array; found out once a type."""

    def __missing__(self, kind: type) -> Any:
        owner: Any = None
        if issubclass(kind, np.memmap):
            owner = _CPU
        elif kind.__module__ == "cupy" and kind.__name__ == "ndarray":
            owner = _ON_A_GPU
        elif str(kind.__module__).startswith("minibng.backend.strict"):
            strict = get_backend("strict")
            owner = strict if kind is strict.array_type else None
        self[kind] = owner
        return owner


_OWNERS = _Owners({np.ndarray: _CPU})


def get_backend(device: str = "cpu") -> Backend:
    """Return the backend of a device, one a device: "cpu", "strict", "cuda", "cuda:1" or "auto" (see `DEVICES`).

    Raises
    ------
    UnknownNameError
        For a device that does not exist, with the nearest name.
    DeviceError
        For a GPU that cannot be used here: the first thing that is wrong, and what to do.
    """
    found = _MADE.get(device) if isinstance(device, str) else None
    return _make(device_name(device)) if found is None else found


def _make(name: str) -> Backend:
    """Return the backend of a device's full name; it is made when it is first asked for."""
    if name == "strict" and name not in _MADE:
        from minibng.backend.strict import StrictBackend

        _MADE.setdefault(name, StrictBackend())
    elif name not in _MADE:
        number = int(name.removeprefix("cuda:"))
        require_cuda(number)
        from minibng.backend.cupy import CupyBackend

        _BY_NUMBER[number] = _MADE.setdefault(name, CupyBackend(number))
    return _MADE[name]


def backend_of(*arrays: Any) -> Backend:
    """Return the backend that owns the first array among the arguments; numbers and lists belong to the host."""
    for a in arrays:
        found = _OWNERS[type(a)]
        if found is not None:
            return found if found is not _ON_A_GPU else _gpu_of(a)
    return _CPU


def _gpu_of(a: Any) -> Backend:
    number = a.device.id
    return _BY_NUMBER.get(number) or get_backend(f"cuda:{number}")


def is_array(x: Any) -> bool:
    """Tell whether x is an array of some backend, or a NumPy scalar; NumPy's matrices and masked arrays are none."""
    return _OWNERS[type(x)] is not None or isinstance(x, np.generic)


def asarray(x: Any, dtype: Any = None, device: str | None = None) -> Array:
    """Return x as an array on ``device``; the dtype is kept unless another is named.

    Parameters
    ----------
    x
        A number, a list of numbers, an array on any device, or an array of another library that speaks DLPack, such as
        a PyTorch tensor. What is on the right device already is not copied, but shared.
    dtype
        Of the result; default that of x.
    device
        "cpu", "cuda", …; default: an array stays where it is, and all else goes to the host. From one device to another
        the way leads through the host.

    Raises
    ------
    TypeError
        For a list that holds arrays of a device, which would be fetched one by one.

    Examples
    --------
    >>> asarray([1.0, 2.0], dtype="float32")
    array([1., 2.], dtype=float32)
    """
    x = _known(x, dtype)
    owner = backend_of(x)
    backend = owner if device is None else get_backend(device)
    return backend.asarray(x if owner is backend else owner.to_host(x), dtype)


def to_host(x: Any) -> HostArray:
    """Return x as a NumPy array, wherever it is; on a device this waits for the device.

    Examples
    --------
    >>> to_host(asarray([1.0]))
    array([1.])
    """
    x = _known(x)
    return backend_of(x).to_host(x)


def _known(x: Any, dtype: Any = None) -> Any:
    """Return an array of another library, or a list, as an array of ours that shares its memory where that can be."""
    if is_array(x):
        return x
    if hasattr(type(x), "__dlpack__"):
        kind, number = x.__dlpack_device__()
        if kind in _CUDA_KINDS:
            return get_backend(f"cuda:{number}").xp.from_dlpack(x)
        if not hasattr(x, "__array__"):
            return np.from_dlpack(x)
    try:
        return np.asarray(x, dtype=dtype)
    except TypeError as error:
        if (a := _first_on_a_device(x)) is None:
            raise
        raise TypeError(
            f"a {type(x).__name__} that holds an array on {backend_of(a).device!r} is no array: "
            "join its arrays with np.stack(list), which stays on the device"
        ) from error


def _first_on_a_device(x: Any) -> Any:
    """Return the first array in nested lists that is not on the host, or None."""
    if isinstance(x, (list, tuple)):
        return next((found for part in x if (found := _first_on_a_device(part)) is not None), None)
    return x if is_array(x) and backend_of(x) is not _CPU else None
