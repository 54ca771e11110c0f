"""The only place that knows which array library is in use.

>>> from minibng import backend
>>> backend.get_backend("cpu").device
'cpu'
"""

from typing import Any

import numpy as np

from minibng.backend.base import Array, Backend, BlockNorms, Group, HostArray, Stepper
from minibng.backend.numpy import NumpyBackend
from minibng.names import choose

__all__ = [
    "Array",
    "Backend",
    "BlockNorms",
    "Group",
    "HostArray",
    "Stepper",
    "asarray",
    "backend_of",
    "get_backend",
    "is_array",
    "to_host",
]

_CPU = NumpyBackend()
_BY_DEVICE: dict[str, Backend] = {"cpu": _CPU}
_BY_TYPE: dict[type, Backend] = {b.array_type: b for b in _BY_DEVICE.values()}
_HOST_TYPES = (np.memmap, np.generic)


def get_backend(device: str = "cpu") -> Backend:
    """Return the backend of a device string.

    Raises
    ------
    UnknownNameError
        For a device that does not exist here, with the nearest name.
    """
    return choose(_BY_DEVICE, device, "device")


def backend_of(*arrays: Any) -> Backend:
    """Return the backend that owns the first array among the arguments; numbers and lists belong to the host."""
    for a in arrays:
        found = _BY_TYPE.get(type(a))
        if found is not None:
            return found
    return _CPU


def is_array(x: Any) -> bool:
    """Tell whether x is an array of some backend, or a NumPy scalar; NumPy's matrices and masked arrays are none."""
    return type(x) in _BY_TYPE or isinstance(x, _HOST_TYPES)


def asarray(x: Any, dtype: Any = None, device: str = "cpu") -> Array:
    """Return x as an array on ``device``; the dtype is kept unless another is named.

    Examples
    --------
    >>> asarray([1.0, 2.0], dtype="float32")
    array([1., 2.], dtype=float32)
    """
    backend = get_backend(device)
    return backend.asarray(x if backend_of(x) is backend else to_host(x), dtype)


def to_host(x: Any) -> HostArray:
    """Return x as a NumPy array, wherever it is.

    Examples
    --------
    >>> to_host(asarray([1.0]))
    array([1.])
    """
    return backend_of(x).to_host(x)
