"""Device names, and whether what they name works here: "cpu", "strict", "cuda", "cuda:1", "auto"."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from minibng.names import UnknownNameError, choose

DEVICES = {
    "cpu": "NumPy on the host",
    "strict": "NumPy behind CuPy's rules: fails on what would fail, or wait, on a GPU; for tests",
    "cuda": "CuPy on the first GPU; CUDA_VISIBLE_DEVICES says which that is",
    "cuda:1": "CuPy on another GPU, by its number",
    "auto": "cuda where it works, else cpu",
}
"""What a device may be called."""

LOG = logging.getLogger("minibng")

CUDA13, CUDA12 = "pip install 'minibng[cuda13x]'", "pip install 'minibng[cuda12x]'"
INSTALL = f"{CUDA13} (NVIDIA driver 580 or newer: nvidia-smi shows it) or {CUDA12} (older drivers)"
WHEELS = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
DRIVERS = {13: 580, 12: 525}
"""The first NVIDIA driver of each CUDA version."""


class DeviceError(RuntimeError):
    """A device that cannot be used here; the message says why, and what to do."""


def device_name(device: str) -> str:
    """Return the full name of a device: "cuda" is "cuda:0", and "auto" is decided.

    Raises
    ------
    UnknownNameError
        For a name that is none, with the nearest one that is.

    Examples
    --------
    >>> device_name("cuda")
    'cuda:0'
    >>> device_name("gpu")
    Traceback (most recent call last):
        ...
    minibng.names.UnknownNameError: unknown device 'gpu'; did you mean 'cuda'? Known: cpu, strict, cuda, cuda:1, auto
    """
    if not isinstance(device, str):
        raise TypeError(f"a device is named by a string, such as 'cpu' or 'cuda', got {device!r}")
    if found := re.fullmatch(r"(cuda|gpu)(?::([0-9]+))?", device):
        if found[1] == "gpu":  # in letters "cpu" would be nearer
            meant = device.replace("gpu", "cuda")
            raise UnknownNameError(f"unknown device {device!r}; did you mean {meant!r}? Known: {', '.join(DEVICES)}")
        return f"cuda:{int(found[2] or 0)}"
    choose(DEVICES, device, "device")
    return _automatic() if device == "auto" else device


@functools.cache
def _automatic() -> str:
    """Decide once which device "auto" is, and say why."""
    try:
        *_, told = cuda_checks()
    except DeviceError as error:
        LOG.warning("device 'auto' is cpu: %s", error)
        return "cpu"
    LOG.info("device 'auto' is cuda:0: %s", told)
    return "cuda:0"


def require_cuda(index: int) -> None:
    """Prove that a GPU works; there is no way back to the host from an explicit "cuda".

    Raises
    ------
    DeviceError
        With the first thing that is wrong, and what to do.
    """
    try:
        for _ in cuda_checks(index):
            pass
    except DeviceError as error:
        raise DeviceError(f"device 'cuda:{index}' cannot be used: {error}") from error.__cause__


def gpu_name(device: str) -> str:
    """Return what the GPU of a device such as "cuda:0" is called."""
    cupy, _ = _import_cupy()
    return str(cupy.cuda.runtime.getDeviceProperties(int(device.removeprefix("cuda:")))["name"].decode())


def cuda_checks(index: int = 0) -> Iterator[str]:
    """Go from CuPy to a matrix product on the GPU; yield what is in order, step by step.

    Raises
    ------
    DeviceError
        At the first step that fails, with what to do.
    """
    cupy, wheel = _import_cupy()
    runtime = cupy.cuda.runtime
    built, driver = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    yield f"CuPy {cupy.__version__} ({wheel}, CUDA {_version(built)})"
    if driver == 0:
        least = DRIVERS.get(built // 1000, max(DRIVERS.values()))
        raise DeviceError(
            f"no NVIDIA driver was found: install {least} or newer (on Ubuntu: sudo apt install nvidia-driver-{least}; "
            "elsewhere from nvidia.com/drivers), or use device='cpu'"
        )
    if driver // 1000 < built // 1000:
        needed = f"update it to {DRIVERS.get(built // 1000, 'a newer one')}"
        other = f", or pip uninstall {wheel} and {CUDA12}" if built // 1000 == 13 and driver >= 12000 else ""
        told = f"the NVIDIA driver knows CUDA {_version(driver)}, too old for CuPy built for {_version(built)}"
        raise DeviceError(f"{told}: {needed}{other}")
    yield f"NVIDIA driver for CUDA {_version(driver)}"
    yield _find(cupy, index, built)
    _probe(cupy, index, wheel)
    yield "kernels are compiled and run, matrix products are right"


def _import_cupy() -> tuple[Any, str]:
    """Return CuPy and the name of the package that it came in."""
    wheels = [name for name in WHEELS if _installed(name)]
    if len(wheels) > 1:
        raise DeviceError(
            f"{' and '.join(wheels)} are both installed, and break each other: pip uninstall {' '.join(wheels)}, "
            f"then one of {INSTALL}"
        )
    try:
        cupy: Any = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise DeviceError(f"CuPy is installed but cannot be imported ({error}): reinstall it, {INSTALL}") from error
        raise DeviceError(f"CuPy is not installed; with an NVIDIA GPU: {INSTALL}") from None
    except Exception as error:  # a library that cannot be loaded, or NumPy of another age
        told = _first_line(error)
        raise DeviceError(f"CuPy is installed but cannot be imported ({told}): reinstall it, {INSTALL}") from error
    if int(cupy.__version__.partition(".")[0]) < 14:
        raise DeviceError(f"CuPy {cupy.__version__} is too old, 14 is needed: {INSTALL}")
    return cupy, wheels[0] if wheels else "cupy"


def _find(cupy: Any, index: int, built: int) -> str:
    """Return what a GPU is called."""
    runtime = cupy.cuda.runtime
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    told = "CUDA_VISIBLE_DEVICES is not set" if visible is None else f"CUDA_VISIBLE_DEVICES is {visible!r}"
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if error.status != 100:  # no device
            why = f"the NVIDIA driver does not answer ({_first_line(error)})"
            raise DeviceError(
                f"{why}: does nvidia-smi work? The driver may be new and the machine not restarted"
            ) from error
        count = 0
    if count == 0:
        raise DeviceError(f"the driver shows no GPU ({told}): does nvidia-smi list one?")
    if index >= count:
        names = "cuda:0" if count == 1 else f"cuda:0 … cuda:{count - 1}"
        raise DeviceError(f"there is no such GPU: {names} can be seen here ({told})")
    properties, name = runtime.getDeviceProperties(index), gpu_name(f"cuda:{index}")
    capability = properties["major"], properties["minor"]
    if built >= 13000 and capability < (7, 5):
        raise DeviceError(f"{name} is too old for CUDA 13: pip uninstall cupy-cuda13x, then {CUDA12}")
    memory = f"{properties['totalGlobalMem'] / 2**30:.0f} GiB"
    return f"cuda:{index} of {count}: {name}, {memory}, compute capability {capability[0]}.{capability[1]}"


def _probe(cupy: Any, index: int, wheel: str) -> None:
    """Run a kernel and a matrix product, which need compiler, headers and cuBLAS."""
    what = "compile and run a kernel"
    try:
        with cupy.cuda.Device(index):
            a = cupy.arange(4, dtype="float32").reshape(2, 2)
            total = float((a + a).sum())
            what = "multiply matrices"
            product = float((a @ a).sum())
    except Exception as error:
        raise DeviceError(
            f"CuPy finds the GPU but cannot {what} ({_first_line(error)}): pip install '{wheel}[ctk]' brings the CUDA "
            "libraries and headers; python -c 'import cupy; cupy.show_config()' shows what it finds"
        ) from error
    if (total, product) != (12.0, 22.0):
        raise DeviceError(f"the GPU computes wrong numbers: {total:g} and {product:g} in place of 12 and 22")


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
