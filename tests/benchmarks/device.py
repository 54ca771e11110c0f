"""What is measured on a device: steps against PyTorch's on the same GPU, and as shares of the bandwidth of a copy.

On the strict device, and on the CPU, the same functions run on our side alone: the numbers say nothing of a GPU, but
what would fail there fails here.
"""

import importlib.util
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

import minibng as bng
from minibng.backend import get_backend
from minibng.params import Layout
from tests.benchmarks.timing import Call, compare_queued, queued_seconds, repetitions
from tests.benchmarks.works import BLOCKS, ENTRIES, ON_DEVICE, Maker, Work, our_arrays, our_step

Row = dict[str, Any]

LARGE = 10 * ENTRIES
"""Entries that fit in no cache. Of 10 M some of the gradient is still there when the step reads it again."""


def our_norms(entries: int = ENTRIES) -> Maker:
    """The norms of 60 blocks alone, as every step takes them."""

    def make(device: str = "cpu") -> Call:
        _, g = our_arrays(device, entries)
        backend = get_backend(device)
        groups = Layout({str(i): a.shape for i, a in enumerate(g)}, "tensor").groups
        return lambda: backend.block_norms(g, groups)

    return make


class Traffic(NamedTuple):
    """A work whose time is that of its bytes: those that must move for each of its entries, and the share aimed at."""

    make: Maker
    entries: int
    bytes: int
    target: float | None


TRAFFIC = {
    "block norms 10M": Traffic(our_norms(), ENTRIES, 4, None),
    "momentum-ng 10M": Traffic(our_step("momentum-ng"), ENTRIES, 24, 0.8),
    "adam-ng 10M": Traffic(our_step("adam-ng"), ENTRIES, 32, 0.8),
    "block norms 100M": Traffic(our_norms(LARGE), LARGE, 4, None),
    "adam-ng 100M": Traffic(our_step("adam-ng", LARGE), LARGE, 32, 0.8),
}
"""Float32: the norms read g; the step reads g, x and the state, and writes x and the state. The 100 M need a GPU."""

NAMES = [*ON_DEVICE, *TRAFFIC]


class Device:
    """The device of one run: how to wait for it, how to time what it does, and whether PyTorch uses it too."""

    def __init__(self, name: str) -> None:
        self.backend = get_backend(name)
        self.name = self.backend.device
        self.is_gpu = self.name.startswith("cuda")
        self.torch = self._torch() if self.is_gpu else None
        size = 1 << (26 if self.is_gpu else 23)
        self._copied = [bng.asarray(np.zeros(size, dtype="float32"), device=name) for _ in range(2)]

    def _torch(self) -> Any:
        """Return PyTorch if it can use this GPU."""
        if importlib.util.find_spec("torch") is None:
            return None
        import torch

        if not torch.cuda.is_available():
            return None
        torch.cuda.set_device(self.name)
        return torch

    def current(self) -> AbstractContextManager[Any]:
        """Return the context in which CuPy's events and streams are this GPU's."""
        if not self.is_gpu:
            return nullcontext()
        import cupy

        return cupy.cuda.Device(int(self.name.removeprefix("cuda:")))

    def synchronize(self) -> None:
        """Wait for whatever either library has queued."""
        self.backend.synchronize()
        if self.torch is not None:
            self.torch.cuda.synchronize()

    def copy(self) -> None:
        """Copy an array from the device to the device."""
        source, target = self._copied
        self.backend.xp.copyto(target, source)

    def bandwidth(self, rounds: int) -> float:
        """Return the bytes a second that a copy reads and writes."""
        return 2 * self._copied[0].nbytes / self.busy_seconds(self.copy, rounds)

    def busy_seconds(self, f: Call, rounds: int) -> float:
        """Return how long the device works on one call: the median of some rounds of 20.

        The host's time is hidden: the calls are queued while the device is busy with copies, between two events.
        """
        if not self.is_gpu:
            count = repetitions(f, self.synchronize)
            return float(np.median([queued_seconds(f, count, self.synchronize) for _ in range(rounds)]))
        import cupy

        count, measured = 20, []
        repetitions(f, self.synchronize)
        copying = queued_seconds(self.copy, count, self.synchronize)
        queueing = queued_seconds(f, count, self.synchronize)
        ahead = math.ceil(1.5 * count * queueing / copying) + 1
        for _ in range(rounds):
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            self.synchronize()
            for _ in range(ahead):
                self.copy()
            start.record()
            for _ in range(count):
                f()
            stop.record()
            stop.synchronize()
            measured.append(cupy.cuda.get_elapsed_time(start, stop) / 1e3 / count)
        return float(np.median(measured))

    def launches(self, f: Call) -> int | None:
        """Return how many kernels one call launches, CuPy's or PyTorch's; None where PyTorch's profiler sees none."""
        if self.torch is None:
            return None
        profiler = self.torch.profiler
        f()
        self.synchronize()
        try:
            with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as seen:
                f()
                self.synchronize()
        except (AssertionError, RuntimeError):  # a machine that does not let programs be profiled
            return None
        on_gpu = self.torch.autograd.DeviceType.CUDA
        return count_kernels(event.name for event in seen.events() if event.device_type == on_gpu) or None


def count_kernels(names: Iterable[str]) -> int:
    """Count what a profiler saw on the GPU, but for copies and fills of memory."""
    return sum(not name.startswith(("Memcpy", "Memset")) for name in names)


def measure(device: Device, names: list[str], pairs: int) -> Iterator[Row]:
    """Measure what is named, one work after another, and yield a row of each: "step" or "traffic"."""
    with device.current():
        yield from (_compared(device, name, work, pairs) for name, work in ON_DEVICE.items() if name in names)
        wanted = {
            name: work for name, work in TRAFFIC.items() if name in names and (device.is_gpu or work.entries < LARGE)
        }
        if wanted:
            bandwidth = device.bandwidth(pairs)
            yield from (_moved(device, name, work, pairs, bandwidth) for name, work in wanted.items())


def _compared(device: Device, name: str, work: Work, pairs: int) -> Row:
    """Compare a step with PyTorch's on the same GPU, or with another of ours; without PyTorch, time ours."""
    ours = work.ours(device.name)
    theirs = work.theirs(device.name) if not work.peer or device.torch is not None else None
    pair = compare_queued(ours, theirs, device.synchronize, pairs)
    return {
        "kind": "step",
        "work": name,
        "peer": work.peer or "ours",
        "unit": "ms",
        "target": work.target,
        **pair._asdict(),
        "launches": device.launches(ours),
        "their_launches": None if theirs is None else device.launches(theirs),
    }


def _moved(device: Device, name: str, work: Traffic, pairs: int, bandwidth: float) -> Row:
    """Compare the bytes that a step must move, a second, with those that a copy reads and writes."""
    f = work.make(device.name)
    total, busy = work.bytes * (work.entries // BLOCKS * BLOCKS), device.busy_seconds(f, pairs)
    return {
        "kind": "traffic",
        "work": name,
        "unit": "ms",
        "bytes": total,
        "busy": 1e3 * busy,
        "ours": compare_queued(f, None, device.synchronize, pairs).ours,
        "copy_bytes_per_second": bandwidth,
        "share": total / busy / bandwidth,
        "target": work.target,
        "launches": device.launches(f),
    }
